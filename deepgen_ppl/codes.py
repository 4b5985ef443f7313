"""Arrays of the verbs of autoencoders: blocks of rows, ways between codes, code lengths."""

from __future__ import annotations

import numpy as np

from deepgen_ppl import flow_checks


def blocks(rows: int, size: int) -> list[tuple[int, int]]:
    """Return where blocks of equal size begin, the last overlapping, and their first new row.

    Example:
        >>> blocks(10, 4)
        [(0, 0), (4, 0), (6, 2)]
    """
    if rows <= size:
        return [(0, 0)]
    starts = list(range(0, rows - size + 1, size))
    found = [(start, 0) for start in starts]
    left = rows - starts[-1] - size
    return found + ([(rows - size, size - left)] if left else [])


def path(first: np.ndarray, second: np.ndarray, num_steps: int, spherical: bool) -> np.ndarray:
    r"""Return the latents on the way from some to others, shape (num_steps, N, latents).

    Args:
        first: where the ways begin.
        second: where they end.
        num_steps: number of points, both ends included.
        spherical: along great circles, whose length does not sink on the way, as a straight line's
            does; lengths are interpolated too.

    References:
        White: Sampling generative networks. 2016. https://arxiv.org/abs/1609.04468

    Example:
        >>> path(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 3, True)[1].round(3).tolist()
        [[0.707, 0.707]]
    """
    t = np.linspace(0.0, 1.0, flow_checks.whole("num_steps", num_steps, 2))[:, None, None]
    straight = (1.0 - t) * first + t * second
    if not spherical:
        return straight
    lengths = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (first, second)]
    units = [z / np.maximum(size, 1e-12) for z, size in zip((first, second), lengths, strict=True)]
    angle = np.arccos(np.clip(np.sum(units[0] * units[1], -1, keepdims=True), -1.0, 1.0))
    sine = np.maximum(np.sin(angle), 1e-12)
    round_ = (np.sin((1.0 - t) * angle) * units[0] + np.sin(t * angle) * units[1]) / sine
    length = (1.0 - t) * lengths[0] + t * lengths[1]
    return np.where(np.sin(angle) > 1e-6, length * round_, straight)


def code_lengths(x: np.ndarray) -> np.ndarray:
    """Return how many nats a general compressor takes for each datum, as a measure of complexity.

    Args:
        x: data, shape (N, *features); numbers in [0, 1] are taken at 256 levels.

    References:
        Serrà et al.: Input complexity and out-of-distribution detection with likelihood-based
        generative models. ICLR 2020. https://arxiv.org/abs/1909.11480

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 2, (1, 1000))
        >>> bool(code_lengths(noise)[0] > code_lengths(np.zeros((1, 1000)))[0])
        True
    """
    import bz2
    import zlib

    found = np.asarray(x)
    if found.dtype.kind == "f" and not (found == np.round(found)).all():
        found = np.round(255.0 * (found - found.min()) / max(np.ptp(found), 1e-12))
    rows = found.astype(np.uint8 if found.max() < 256 and found.min() >= 0 else np.int64)
    binary = rows.dtype == np.uint8 and rows.max() <= 1
    packed = np.packbits(rows.reshape(len(rows), -1), axis=1) if binary else rows
    lengths = [min(len(zlib.compress(row.tobytes(), 9)), len(bz2.compress(row.tobytes())))
               for row in packed]  # fmt: skip
    return np.asarray(lengths) * 8.0 * np.log(2.0)
