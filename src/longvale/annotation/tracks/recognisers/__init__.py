"""Speech recognisers: models of transformers, and servers."""
