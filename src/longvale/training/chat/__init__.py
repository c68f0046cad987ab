"""Training of video models of transformers with a chat template, on raw video: arguments, data, collator, trainer."""
