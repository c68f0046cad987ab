"""Features out of videos: preprocessing, frozen encoders, workers, manifest, check and packing."""
