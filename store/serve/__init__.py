"""A local page for looking at a store: `python -m store.serve STORE`."""
