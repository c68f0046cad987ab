"""Style of all figures, charts of numbers, and timelines of the events of a video."""
