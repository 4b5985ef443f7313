"""Vectorised MCMC kernels, one a file: pure functions `init` and `step` over a batch of chains."""
