"""Feature extraction from videos: preprocessing, frozen encoders, workers, check and packing."""
