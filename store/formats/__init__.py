"""Files that others may have written, read with bounds and without running anything: JSON, npz, CSV and Parquet; text for
people."""
