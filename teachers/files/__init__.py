"""Weights: where they are found, how checkpoints and pickles are read without running what is in them."""
