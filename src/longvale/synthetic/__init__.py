"""Synthetic videos with exact events: plans, rendering, sounds, voice and corpora."""
