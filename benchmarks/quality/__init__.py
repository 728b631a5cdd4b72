"""Quality of soft labels and trained detectors on held-out, degraded and foreign clips."""
