"""`python -m pipelines.manifest`: build, validate, edit, split, match and summarise manifests."""
