"""The NumPyro wing's own generator of uniform numbers, on which the chains of machines stand.

A weak one biases chains without a sign of it, so that its numbers, numbers of neighbouring places,
of both words of a block, of neighbouring streams and of neighbouring keys are tried apart.
"""

import numpy as np
import pytest

SHAPE, STREAMS = (128, 50), 64
NUMBER = SHAPE[0] * SHAPE[1]


@pytest.fixture(scope="module")
def drawn(wing: str) -> dict[str, np.ndarray]:
    """Streams of one key and of the next one: (stream, chain, unit)."""
    if wing != "numpyro":
        pytest.skip("the Pyro wing draws by torch's generator")
    import jax

    from deepgen_ppl.numpyro.programs.energy.bits import uniform

    draw = jax.jit(jax.vmap(lambda key, stream: uniform(key, SHAPE, stream), (None, 0)))
    streams = np.arange(STREAMS, dtype=np.uint32)
    return {
        name: np.asarray(draw(jax.random.key(seed), streams), np.float64)
        for name, seed in (("one", 0), ("next", 1))
    }


def test_words_are_those_of_the_published_cipher(wing: str) -> None:
    """Answers known from Random123 for threefry2x32 of 20 rounds."""
    if wing != "numpyro":
        pytest.skip("the Pyro wing draws by torch's generator")
    import jax.numpy as jnp

    from deepgen_ppl.numpyro.programs.energy.bits import threefry

    full = 0xFFFFFFFF
    known = {
        (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
        (full, full, full, full): (0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
    }
    for (first, second, counter, stream), words in known.items():
        args = [jnp.uint32(value) for value in (first, second, counter, stream)]
        found = threefry(args[0], args[1], args[2][None], args[3])
        assert tuple(int(word[0]) for word in found) == words


def test_numbers_are_uniform(drawn: dict[str, np.ndarray]) -> None:
    """Counts of 256 bins, each of the first bits, and small probabilities."""
    u = drawn["one"].ravel()
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.bincount((u * 256).astype(int), minlength=256)
    square = ((counts - len(u) / 256) ** 2).sum() / (len(u) / 256)
    assert abs(square - 255) < 5 * np.sqrt(2 * 255)
    bits = (u * 2**23).astype(np.int64)[:, None] >> np.arange(23) & 1
    assert (np.abs(bits.mean(0) - 0.5) < 5 * 0.5 / np.sqrt(len(u))).all()
    for p in (1e-2, 1e-3, 1e-4):
        assert abs((u < p).mean() - p) < 5 * np.sqrt(p / len(u))


@pytest.mark.parametrize(
    "which", ["units", "chains", "words", "streams", "far streams", "keys", "key and stream"]
)
def test_numbers_do_not_touch_each_other(drawn: dict[str, np.ndarray], which: str) -> None:
    """Correlations of numbers, and of the events by which rare units are drawn."""
    u, other = drawn["one"], drawn["next"]
    flat = u.reshape(STREAMS, NUMBER)
    pairs = {
        "units": (u[..., :-1], u[..., 1:]),
        "chains": (u[:, :-1], u[:, 1:]),
        "words": (flat[:, : NUMBER // 2], flat[:, NUMBER // 2 :]),
        "streams": (u[:-1], u[1:]),
        "far streams": (u[: STREAMS // 2], u[STREAMS // 2 :]),
        "keys": (u, other),
        "key and stream": (u[1:], other[:-1]),
    }
    a, b = (part.ravel() for part in pairs[which])
    for cut in (None, 0.5, 0.1, 0.01):
        x, y = (a - 0.5, b - 0.5) if cut is None else ((a < cut) - cut, (b < cut) - cut)
        error = x.std() * y.std() / np.sqrt(len(a))
        assert abs((x * y).mean()) < 5 * error


def test_the_number_of_a_place_does_not_hang_on_the_stream_alone(
    drawn: dict[str, np.ndarray],
) -> None:
    """Means over streams of each place, and over places of each stream, scatter as they should."""
    u = drawn["one"].reshape(STREAMS, NUMBER)
    for means, size in ((u.mean(0), STREAMS), (u.mean(1), NUMBER)):
        z = (means - 0.5) * np.sqrt(12.0 * size)
        assert np.abs(z).max() < 6.0
        assert abs((z**2).mean() - 1.0) < 5 * np.sqrt(2.0 / len(z))


def test_a_number_does_not_depend_on_what_is_drawn_beside_it(wing: str) -> None:
    """Odd numbers of draws, and any shape, are cut from the same blocks."""
    if wing != "numpyro":
        pytest.skip("the Pyro wing draws by torch's generator")
    import jax

    from deepgen_ppl.numpyro.programs.energy.bits import uniform

    key = jax.random.key(4)
    whole = np.asarray(uniform(key, (7,), 3))
    np.testing.assert_array_equal(whole, np.asarray(uniform(key, (7, 1), 3))[:, 0])
    np.testing.assert_array_equal(whole[:4], np.asarray(uniform(key, (8,), 3))[:4])
    assert len(np.unique(whole)) == 7
