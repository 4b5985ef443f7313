"""The verbs of the NumPyro wing, one a file."""
