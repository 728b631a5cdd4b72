"""Measurements of speed, of quality and of what runs survive; `python -m benchmarks` lists them and runs one by its name."""
