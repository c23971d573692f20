"""Prompts: read from a file, owned by one tile each, kept in prompts.parquet."""
