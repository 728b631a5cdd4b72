"""A run's folder: who writes to it, how far the run is, its detector, figures, log and model card."""
