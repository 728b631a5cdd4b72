"""What soft labels and trained detectors are worth on held-out, degraded and foreign clips."""
