"""The driver of precompute.py: the request, the store, the outcome of every input, and the report."""
