"""What answers for single videos are calibrated on beside a student: a fit by its name, or one person's own videos."""
