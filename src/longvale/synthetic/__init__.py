"""Synthetic videos with exact events: planning, rendering, sound, voice and corpora."""
