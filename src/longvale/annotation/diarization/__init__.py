"""Speaker diarization: who speaks when, overlaps included."""
