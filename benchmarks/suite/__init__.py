"""All speeds in one run, each beside what it is held against: `python -m benchmarks --quick`, `python -m benchmarks --all`."""
