"""The demo: a tiny LongVALE model, built and tuned offline on a CPU in minutes."""
