"""Weights and data that the programs of both languages share (NumPy only)."""

import numpy as np

NUM_ROWS, DIM, HIDDEN, LATENT = 12, 6, 5, 2


def _network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "encoder_1": (DIM + 1, HIDDEN),
        "encoder_loc": (HIDDEN + 1, LATENT),
        "encoder_scale": (HIDDEN + 1, LATENT),
        "decoder_1": (LATENT + 1, HIDDEN),
        "decoder_2": (HIDDEN + 1, DIM),
    }
    return {name: rng.normal(size=shape) / shape[0] ** 0.5 for name, shape in shapes.items()}


WEIGHTS = _network()

BITS = (np.random.default_rng(1).random((NUM_ROWS, DIM)) < 0.4).astype(float)
REALS = np.random.default_rng(2).normal(0.5, 1.0, NUM_ROWS)
