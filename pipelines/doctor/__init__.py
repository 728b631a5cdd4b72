"""`python -m pipelines.doctor`: whether this machine, and a cluster, can do the work."""
