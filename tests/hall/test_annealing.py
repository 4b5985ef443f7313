"""Temperatures and moves of a climb, in NumPy."""

import numpy as np
import pytest

from deepgen_ppl.annealing import (
    Schedule,
    cut,
    downwards,
    join,
    next_step_size,
    next_temperature,
    of_islands,
    padded,
    staying,
    systematic,
    upwards,
)


def schedule(length: int, rows: tuple[int, ...] = ()) -> Schedule:
    betas = np.linspace(0.0, 1.0, length + 1) ** 3
    betas = np.broadcast_to(betas.reshape(-1, *(1,) * len(rows)), (length + 1, *rows)).copy()
    return Schedule(betas, np.full(betas.shape, 0.3), np.ones((*betas.shape, 2)))


def fraction(delta: np.ndarray, step: float) -> float:
    weights = np.exp(step * (delta - delta.max()))
    return weights.mean() ** 2 / (weights**2).mean()


def test_steps_keep_the_effective_fraction_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    delta = np.stack([rng.normal(size=500) * 100.0, rng.normal(size=500) * 3.0], axis=1)
    beta = np.array([0.1, 0.2])
    above = next_temperature(delta, beta, 0.8)
    for row in range(2):
        assert fraction(delta[:, row], above[row] - beta[row]) == pytest.approx(0.8, abs=1e-6)
    assert (next_temperature(delta / 1e6, beta, 0.8) == 1.0).all()


def test_particles_of_weight_zero_are_left_behind() -> None:
    delta = np.concatenate([np.full(50, -np.inf), np.random.default_rng(1).normal(size=50) * 30])
    above = float(next_temperature(delta, np.zeros(()), 0.8))
    assert fraction(delta[50:], above) == pytest.approx(0.8, abs=1e-6)
    assert float(next_temperature(np.full(10, -np.inf), np.zeros(()), 0.8)) == 1.0


def test_a_schedule_is_refined_between_its_temperatures() -> None:
    coarse = schedule(5, (3,))
    coarse.temperatures[4:, 1] = 1.0  # a row that is done early
    fine = coarse.refine(40)
    assert fine.temperatures.shape == (41, 3) and fine.scales.shape == (41, 3, 2)
    assert (np.diff(fine.temperatures, axis=0) > 0.0).all()
    np.testing.assert_allclose(fine.temperatures[::8, 0], coarse.temperatures[:, 0])
    np.testing.assert_allclose(fine.temperatures[::10, 1], coarse.temperatures[:5, 1])
    np.testing.assert_array_equal(fine.temperatures[-1], 1.0)
    assert coarse.rows(slice(0, 2)).temperatures.shape == (6, 2)


@pytest.mark.parametrize("num_moves", [1, 3])
def test_moves_weigh_every_step_once_both_ways(num_moves: int) -> None:
    climb = schedule(7, (2,))
    up, down = upwards(climb, num_moves), downwards(climb)
    for moves in (up, down):
        np.testing.assert_allclose(moves.increments.sum(axis=0), 1.0)
        assert len({len(part) for part in moves}) == 1
    assert len(up.temperatures) == 7 * num_moves and len(down.temperatures) == 8
    # Up: weighed before the move at the temperature reached. Down: after the move of the same.
    np.testing.assert_allclose(up.temperatures[::num_moves], climb.temperatures[1:])
    np.testing.assert_allclose(down.increments[1:], np.diff(climb.temperatures, axis=0)[::-1])
    np.testing.assert_allclose(down.temperatures[:7], climb.temperatures[:0:-1])
    assert (down.step_sizes[-1] == 0.0).all() and (down.increments[0] == 0.0).all()
    assert (staying(climb, 4).increments == 0.0).all() and len(staying(climb, 4).scales) == 4
    assert len(padded(up, 5, 50).temperatures) == 50


def test_systematic_resampling_draws_in_proportion() -> None:
    weights = np.random.default_rng(2).dirichlet(np.ones(20), size=3).T
    drawn = systematic(weights, np.array([0.1, 0.5, 0.9]))
    for row in range(3):
        counts = np.bincount(drawn[:, row], minlength=20)
        assert (np.abs(counts - 20 * weights[:, row]) < 1.0).all()


def test_step_sizes_move_towards_their_acceptance() -> None:
    sizes = np.full(3, 0.1)
    found = next_step_size(sizes, np.array([0.2, 0.8, 1.0]), 4)
    assert found[0] < found[1] < found[2]
    assert found[1] == pytest.approx(0.1)
    assert next_step_size(np.array(0.5), np.array(1.0), 4) == 0.5  # two widths in four steps


# ---------------------------------------------------------------------------------- rows, islands


def test_chunks_of_rows_are_joined_as_they_were_cut() -> None:
    whole = {"z": np.arange(24.0).reshape(2, 4, 3), "w": np.arange(8.0).reshape(2, 4)}
    axes = {"z": 0, "w": 0}
    rows = [np.array([0, 1, 2]), np.array([3, 3, 3])]  # the last one repeats its last row
    pieces = [{name: value[:, chosen] for name, value in whole.items()} for chosen in rows]
    cuts = [cut(piece, axes, used) for piece, used in zip(pieces, (3, 1), strict=True)]
    for name, value in join(cuts, axes).items():
        np.testing.assert_array_equal(value, whole[name])
    across = {"z": 1}  # rows on the second axis of a site
    parts = [
        cut({"z": whole["z"][:, :, :2]}, across, 2),
        cut({"z": whole["z"][:, :, 2:]}, across, 1),
    ]
    np.testing.assert_array_equal(join(parts, across)["z"], whole["z"])
    np.testing.assert_array_equal(join([whole], {})["z"], whole["z"])


def test_evidence_of_islands_is_the_mean_of_their_estimates() -> None:
    log_z = np.log([1.0, 2.0, 3.0, 2.0])
    found = of_islands(log_z, 400, None)
    assert found.log_evidence == pytest.approx(np.log(2.0))
    assert found.standard_error == pytest.approx(np.std([1, 2, 3, 2], ddof=1) / 2.0 / 4**0.5)
    assert found.num_particles == 400 and found.ess == pytest.approx(400 * 8.0**2 / 18.0 / 4)
    assert "4 islands" in found.method
