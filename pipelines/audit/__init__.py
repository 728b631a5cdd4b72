"""`python -m pipelines.audit`: leaks between splits, shortcuts and faults of a corpus or a store."""
