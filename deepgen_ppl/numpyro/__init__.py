"""The NumPyro wing: native NumPyro programs fitted, weighed, sampled and checked."""
