"""Imputed cells: intervals, coverage, reliability and ranks of the truth among draws."""

import numpy as np
import pytest

from deepgen_ppl.diagnosis import Diagnosis
from deepgen_ppl.imputation import Imputation, check

ROWS, DRAWS = 400, 99
RNG = np.random.default_rng(0)
MASK = RNG.random((ROWS, 2, 3)) < 0.5
MASK[:, 0, 0] = False


def made(draws: np.ndarray) -> Imputation:
    return Imputation(draws, MASK, Diagnosis("made up", ()))


def normals(scale: float) -> tuple[Imputation, np.ndarray]:
    """Cells of a row that share a shift; draws whose spread is off by a factor."""
    rng = np.random.default_rng(1)
    shift = rng.normal(size=(DRAWS + 1, ROWS, 1, 1))
    values = shift + rng.normal(size=(DRAWS + 1, ROWS, 2, 3))
    return made(np.where(MASK, values[0], scale * values[1:])), values[0]


@pytest.mark.parametrize("prob", [0.5, 0.9])
def test_intervals_of_the_right_law_cover(prob: float) -> None:
    found, truth = normals(1.0)
    share, error, _ = found.coverage(truth, prob)
    assert abs(share - prob) < 5 * error
    # Cells of a row hang together, so that the error is greater than that of so many coins.
    assert error > 1.05 * (prob * (1 - prob) / (~MASK).sum()) ** 0.5
    low, high = found.interval(prob)
    np.testing.assert_array_equal(low[MASK], truth[MASK])
    inside = ((low <= truth) & (truth <= high))[~MASK].mean()
    assert abs(inside - prob) < 5 * error + 2 / DRAWS
    assert found.calibration(truth).diagnose(0.999).ok
    np.testing.assert_array_equal(np.asarray(found), found.draws)


def test_draws_that_are_too_narrow_are_found_out() -> None:
    found, truth = normals(0.6)
    share, error, _ = found.coverage(truth, 0.9)
    assert share < 0.9 - 5 * error
    told = found.calibration(truth).diagnose(0.999)
    assert not told.ok and "too often at the ends" in repr(told)


def test_sums_tell_what_cells_do_not() -> None:
    """Cells drawn independently cover one by one; their sum does not."""
    found, truth = normals(1.0)
    draws = found.draws.copy()
    for index in np.ndindex(2, 3):
        draws[(slice(None), slice(None), *index)] = RNG.permuted(
            draws[(slice(None), slice(None), *index)], axis=0
        )
    alone = made(np.where(MASK, truth, draws))
    share, error, _ = alone.coverage(truth, 0.9)
    assert abs(share - 0.9) < 5 * error
    assert not alone.calibration(truth).diagnose(0.999).ok


def test_bits_are_reliable_where_their_probabilities_are() -> None:
    rng = np.random.default_rng(2)
    p = rng.random((ROWS, 2, 3))
    truth = (rng.random(p.shape) < p).astype(float)
    found = made(np.where(MASK, truth, rng.random((DRAWS, *p.shape)) < p))
    told = found.reliability(truth)
    noise = np.sqrt(told.accuracy * (1 - told.accuracy) / told.count)
    slack = 1 / DRAWS**0.5  # probabilities are estimated by draws
    assert (abs(told.accuracy - told.confidence) < 5 * noise + slack).all()
    share, error, _ = found.coverage(truth, 0.9)  # of discrete values too
    assert abs(share - 0.9) < 5 * error
    np.testing.assert_allclose(found.mean[MASK], truth[MASK])
    assert (found.std[MASK] == 0).all()


def test_what_cannot_be_compared_is_refused() -> None:
    found, truth = normals(1.0)
    with pytest.raises(ValueError, match=r"truth has shape \(3,\), but the rows have"):
        found.coverage(truth[0, 0])
    with pytest.raises(ValueError, match="prob must lie between"):
        found.interval(90)
    with pytest.raises(ValueError, match="cells that are 0 or 1"):
        found.reliability(truth)
    with pytest.raises(ValueError, match="quantity 'all' gives shape"):
        found.calibration(truth, {"all": lambda x: x})
    whole = Imputation(found.draws, np.ones_like(MASK), found.diagnosis)
    with pytest.raises(ValueError, match="no cell is missing"):
        whole.coverage(truth)
    for options, words in {
        ("gibbs", 1, 1): "method must be 'importance' or 'smc'",
        ("smc", 0, 8): "num_samples must be a positive",
        ("importance", 1, 0.5): "num_particles must be a positive",
        ("smc", 9, 8): "smc has no more",
    }.items():
        with pytest.raises(ValueError, match=words):
            check(*options)
