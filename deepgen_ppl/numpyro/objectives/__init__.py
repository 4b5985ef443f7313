"""Training objectives, one a file: each reduces log weights to a loss."""
