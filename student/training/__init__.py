"""The training run: its data, steps and losses, validation, saving and resuming, and signals."""
