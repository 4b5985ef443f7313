"""Ready energies: unnormalised densities that can be trained, sampled and normalised."""
