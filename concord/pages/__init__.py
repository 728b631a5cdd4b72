"""Pages: the environment of all templates, the look that they share, and the words for counts and times in them."""
