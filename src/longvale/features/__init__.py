"""Feature store: folders, archives and Parquet, without torch."""
