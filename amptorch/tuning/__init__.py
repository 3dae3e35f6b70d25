"""Tuning of symmetry functions, network and training together."""
