"""Posteriors with published reference draws."""
