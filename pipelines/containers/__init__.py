"""What containers say of time: clocks, indexes and edit lists, and whether a file is whole."""
