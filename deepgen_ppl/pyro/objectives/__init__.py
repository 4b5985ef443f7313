"""Training objectives, one a file: reductions of log weights."""
