"""An OpenAI-compatible server for LongVALE's model."""
