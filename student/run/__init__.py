"""What a run's folder holds beside its checkpoints: who writes to it, how far the run is, its detector, figures and model card."""
