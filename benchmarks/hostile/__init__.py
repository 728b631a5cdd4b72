"""Hostile files made from a seed, and the watched child process that reads them; `survival/hostile.py` runs them."""
