"""Data of the benchmarks: scikit-learn's digits, MNIST and Old Faithful if present, synthetic."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.case import Skip

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def small_digits(rows: int | None = None) -> np.ndarray:
    """Return scikit-learn's digits as `(rows, 64)` zeros and ones, tiled where rows > 1,797."""
    pixels = (load_digits().data > 7).astype(np.float32)
    return pixels if rows is None else np.resize(pixels, (rows, 64))


def big_digits(rows: int, split: str = "train") -> tuple[np.ndarray, str]:
    """Return `(rows, 784)` zeros and ones and a phrase naming their source.

    MNIST where it lies beside the repository; otherwise scikit-learn's digits, each pixel enlarged
    to 3 x 3 and framed to 28 x 28, which cost the same to compute with.
    """
    path = SHARED / "mnist" / f"{'t10k' if split == 'test' else 'train'}-images-idx3-ubyte.gz"
    if path.exists():
        with gzip.open(path) as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
        return (np.resize(pixels, (rows, 784)) > 127).astype(np.float32), f"MNIST, {split} split"
    squares = np.kron(small_digits().reshape(-1, 8, 8), np.ones((1, 3, 3)))
    pixels = np.pad(squares, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    return np.resize(pixels, (rows, 784)).astype(np.float32), "enlarged digits, for want of MNIST"


def eight_schools() -> tuple[np.ndarray, np.ndarray]:
    """Return effects and standard errors of the eight schools (Rubin, 1981)."""
    effects = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
    return effects, np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)


def logistic(rows: int = 1000, columns: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return covariates `(rows, columns)` and labels `(rows,)` of a logistic regression."""
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(rows, columns))
    logits = covariates @ rng.normal(size=columns)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    return covariates.astype(np.float32), labels.astype(np.float32)


def correlated(size: int = 100, condition: float = 1000.0) -> np.ndarray:
    """Return a root `(size, size)` of a rotated covariance of this condition number."""
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
    variances = np.geomspace(1.0, condition, size)
    return np.linalg.cholesky((turned * variances) @ turned.T).astype(np.float32)


def old_faithful() -> np.ndarray:
    """Return the 272 eruptions of Old Faithful, `(272, 2)`, each column standardised.

    Raises:
        Skip: where the file does not lie beside the repository.
    """
    path = SHARED / "old_faithful" / "faithful.csv"
    if not path.exists():
        raise Skip("Old Faithful is not here: expected ../shared/data/old_faithful/faithful.csv")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return ((table - table.mean(0)) / table.std(0)).astype(np.float32)


def published_rbm() -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the published RBM's weights and biases, and the test rows, zeros and ones.

    Its log Z is 451.28, the mean test log probability -86.34 (Salakhutdinov and Murray, 2008).

    Raises:
        Skip: where the file does not lie beside the repository.
    """
    path = SHARED / "rbm_cd25_500" / "rbm_cd25_500.npz"
    if not path.exists():
        raise Skip("the published RBM is not here: ../shared/data/rbm_cd25_500/rbm_cd25_500.npz")
    stored = np.load(path)
    weights = tuple(stored[name] for name in ("weights", "visible_bias", "hidden_bias"))
    return weights, np.unpackbits(stored["test"], axis=1).astype(np.float32)
