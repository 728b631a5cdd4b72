"""`python -m student.predict`: an answer on one video, with a page."""
