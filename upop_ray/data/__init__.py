"""Data sets: Parquet shards, their readers, deterministic batches, and the built-in data."""
