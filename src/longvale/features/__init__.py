"""The feature store: folders, archives and Parquet; knows nothing of torch."""
