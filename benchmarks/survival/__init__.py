"""Robustness of runs, stores and readers: kills, faults, damaged and hostile files."""
