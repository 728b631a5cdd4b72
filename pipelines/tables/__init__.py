"""Tables beside a store's zarr.json, for people and for the next run: manifest, ledger, tracebacks."""
