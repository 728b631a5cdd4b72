"""Files of weights: where they are found, and how checkpoints are read without running code in them."""
