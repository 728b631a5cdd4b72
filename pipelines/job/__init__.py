"""The driver of precompute.py: what is asked for, what is there, what became of every input, and the report of it."""
