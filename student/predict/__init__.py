"""`python -m student.predict`: an answer for each video, with a page."""
