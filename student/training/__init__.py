"""The training run: what it trains on, its steps and losses, validation, saving and going on, and signals."""
