"""How fast parts of the project are, and how much memory they take: ratios to a baseline, measured in one run."""
