"""Presets of `longvale annotate`: a model per role, in YAML files; how they are read, listed and downloaded."""
