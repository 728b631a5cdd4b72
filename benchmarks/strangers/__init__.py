"""Parts of `python -m benchmarks.wild`: how an answer holds for faces and voices that nobody fitted."""
