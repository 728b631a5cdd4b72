"""Speed and memory of parts of the project: ratios to a baseline, measured in one run."""
