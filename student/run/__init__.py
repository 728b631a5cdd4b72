"""A run's folder: its lock, the state of the run, its detector, figures, log and model card."""
