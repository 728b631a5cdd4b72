"""Reads files from untrusted sources with limits and without running code: JSON, npz, CSV and Parquet."""
