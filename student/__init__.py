"""Training from a store: models, losses, streaming data, the trainer, and what a detector is worth."""
