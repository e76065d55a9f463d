"""Races of our parts against what they compete with: ``dmc bench``."""
