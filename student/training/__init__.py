"""The training run: steps, losses, checkpoints' surroundings, signals and what is left beside the weights."""
