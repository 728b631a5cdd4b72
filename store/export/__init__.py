"""A store as files that other libraries read: shards for WebDataset, Parquet for Hugging Face datasets."""
