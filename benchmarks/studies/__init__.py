"""Longer runs whose result is a figure of quality, not of speed; each is a script of its own."""
