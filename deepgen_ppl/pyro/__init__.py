"""The Pyro wing: fit, sample, check and predict with native Pyro programs."""
