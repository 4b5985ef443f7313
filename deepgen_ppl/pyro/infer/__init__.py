"""The verbs: fit, sample, weigh and predict."""
