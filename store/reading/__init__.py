"""What a reader is made of: the state in which a store was opened, its table of clips, its frames, and a view for xarray."""
