"""User interface: progress on a terminal, pages."""
