"""A store's arrays as files: Zarr's metadata and chunks, read and written with checks, and the inventory of it all."""
