"""A store as training data: which frames of a clip count, windows and their pairs, and how torch reads them."""
