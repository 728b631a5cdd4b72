"""Training from a store: models, losses, streaming data, the trainer, evaluation and prediction."""
