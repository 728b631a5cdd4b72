"""What runs, stores and readers survive: kills, faults, damaged and hostile files."""
