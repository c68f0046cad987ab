"""Answer generation: ask models the questions of a benchmark."""
