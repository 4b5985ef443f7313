"""Both wings in one process, in float64: the same numbers from the same weights and latents."""
