"""`python -m pipelines.doctor`: whether this machine, or a cluster, can do the work."""
