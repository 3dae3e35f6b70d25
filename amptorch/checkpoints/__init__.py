"""Checkpoint folders, written and read."""
