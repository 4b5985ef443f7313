"""Calibration: bands that hold what they say, verdicts that see what is wrong."""

import itertools

import numpy as np
import pytest

from deepgen_ppl.calibration import Calibration, rank
from deepgen_ppl.ecdf import bands, critical_level, false_alarm, tail_level

NUM, DRAWS = 200, 99
POINTS = tuple((np.arange(1, DRAWS + 1) / (DRAWS + 1)).tolist())


def calibration(ranks, num_draws=DRAWS, **fields):
    size = len(next(iter(ranks.values())))
    return Calibration(ranks, np.full(size, num_draws), **fields)


def gaussian_ranks(rng, num, shift=0.0, scale=1.0):
    """Ranks where the posterior N(0, 1) is taken for N(shift, scale^2)."""
    draws = shift + scale * rng.normal(size=(num, DRAWS))
    return (draws < rng.normal(size=(num, 1))).sum(1)


@pytest.mark.parametrize("level", [0.02, 0.2, 0.6])
def test_the_false_alarm_of_a_level_is_that_of_all_outcomes(level):
    points, num = (0.25, 0.5, 0.75), 6
    cells = np.array(list(itertools.product(range(4), repeat=num)))  # which quarter each falls in
    counts = np.stack([(cells < j).sum(1) for j in (1, 2, 3)])
    outside = tail_level(counts, np.array(points), num) <= level * (1 + 1e-9)
    assert false_alarm(level, points, num) == pytest.approx(outside.mean(), abs=1e-12)


@pytest.mark.parametrize("num", [20, 200, 5000])
def test_critical_levels_use_up_what_they_may(num):
    level = critical_level(0.95, POINTS, num)
    assert 0.03 < false_alarm(level, POINTS, num) <= 0.05
    assert false_alarm(level * 1.2, POINTS, num) > 0.05


def test_uniform_ranks_leave_the_bands_as_often_as_promised():
    rng, repetitions = np.random.default_rng(0), 4000
    ranks = rng.integers(0, DRAWS + 1, (repetitions, NUM))
    found = bands(0.95, POINTS, NUM)
    ecdf = np.stack([(ranks < j).mean(1) for j in range(1, DRAWS + 1)], axis=1)
    outside = ((ecdf < found.lower - 1e-12) | (ecdf > found.upper + 1e-12)).any(1)
    wanted = false_alarm(critical_level(0.95, POINTS, NUM), POINTS, NUM)
    assert abs(outside.mean() - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / repetitions)


def test_exact_posteriors_fail_any_check_in_at_most_five_percent():
    rng, repetitions = np.random.default_rng(1), 300
    alarms = 0
    for _ in range(repetitions):
        shared = rng.integers(0, DRAWS + 1, NUM)
        ranks = {  # elements that depend on each other, and one site beside them
            "theta": np.stack([shared, DRAWS - shared, rng.integers(0, DRAWS + 1, NUM)], axis=1),
            "mu": rng.integers(0, DRAWS + 1, NUM),
        }
        alarms += not calibration(ranks).diagnose().ok
    assert alarms / repetitions <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / repetitions)


WRONG = {
    "narrow": ({"scale": 0.7}, "posterior is too narrow"),
    "wide": ({"scale": 1.5}, "posterior is too wide"),
    "low": ({"shift": -0.5}, "draws are too low"),
    "high": ({"shift": 0.5}, "draws are too high"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_posteriors_are_caught_and_named(name):
    options, words = WRONG[name]
    rng, caught = np.random.default_rng(2), 0
    for _ in range(50):
        check = calibration({"z": gaussian_ranks(rng, NUM, **options)}).diagnose().checks[0]
        caught += check.ok is False and words in check.advice
    assert caught >= 45


def test_the_worst_element_is_named():
    rng = np.random.default_rng(3)
    ranks = rng.integers(0, DRAWS + 1, (NUM, 2, 3))
    ranks[:, 1, 2] = gaussian_ranks(rng, NUM, scale=0.5)
    row = calibration({"z": ranks}).diagnose().checks[0]
    assert row.ok is False
    assert "z[1, 2]" in row.advice


def test_ranks_of_discrete_values_are_uniform_when_ties_are_broken():
    rng = np.random.default_rng(4)
    true, draws = rng.integers(0, 2, 4000), rng.integers(0, 2, (DRAWS, 4000))
    ranks = rank((draws < true).sum(0), (draws == true).sum(0), rng)
    assert calibration({"z": ranks}).diagnose().ok
    assert not calibration({"z": (draws < true).sum(0)}).diagnose().ok


def test_simulations_of_different_numbers_of_draws_are_compared_fairly():
    rng = np.random.default_rng(5)
    among = rng.integers(10, 100, 3000)
    ranks = rng.integers(0, among + 1)
    check = Calibration({"z": ranks}, among, wanted_draws=99)
    found = check.diagnose()
    assert found.ok
    assert found.checks[-1].name == "fewest draws"
    u = check.pit("z")
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)


def test_too_few_draws_are_a_finding():
    check = Calibration({"z": np.array([1, 20, 50, 80])}, np.array([3, 99, 99, 99]), 99)
    found = check.diagnose()
    assert [row.name for row in found.failed] == ["fewest draws"]
    assert "raise num_samples" in found.failed[0].advice


def test_the_tree_is_what_arviz_plots_takes():
    azp = pytest.importorskip("arviz_plots")
    rng = np.random.default_rng(6)
    ranks = {"z": rng.integers(0, 100, (50, 2)), "mu": rng.integers(0, 100, 50)}
    tree = calibration(ranks, dims={"z": ("group",)}, infer="mcmc").to_datatree()
    assert dict(tree["prior_sbc"]["z"].sizes) == {"chain": 1, "draw": 50, "group": 2}
    assert tree.attrs["diagnosis_ok"] == 1
    azp.plot_ecdf_pit(tree, backend="none")


def test_pooled_rows_stand_beside_what_has_one_rank_a_simulation():
    rng = np.random.default_rng(7)
    ranks = {"z": rng.integers(0, 10, (60, 2)), "total": rng.integers(0, 10, 20)}
    check = Calibration(ranks, np.full(20, 9), quantities=("total",), rows="data")
    tree = check.to_datatree()
    assert tree["prior_sbc"]["z"].shape == (1, 60, 2)
    assert tree["prior_sbc_whole"]["total"].shape == (1, 20)
    assert [row.name for row in check.diagnose().checks] == ["z", "total (quantity)"]
    assert "each of the rows of 'data' one more" in repr(check)


def test_the_picture_marks_what_leaves_the_bands():
    pytest.importorskip("matplotlib")
    from deepgen_ppl.calibration_figures import rank_ecdf
    from deepgen_ppl.figures import RED

    rng = np.random.default_rng(8)
    ranks = {
        "good": rng.integers(0, 100, NUM),
        "narrow": gaussian_ranks(rng, NUM, scale=0.5),
        "many": rng.integers(0, 100, (NUM, 60)),
        "biased": gaussian_ranks(rng, NUM, shift=1.0),
    }
    axes = rank_ecdf(calibration(ranks)).axes
    red = {a.get_title(loc="left"): RED in {line.get_color() for line in a.lines} for a in axes[:4]}
    assert red == {"good": False, "narrow": True, "many": False, "biased": True}
    assert [a.get_visible() for a in axes] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("ranks", "words"),
    [(np.zeros(3, int), "begin with the 2 simulations"), (np.array([0, 10]), "outside of 0")],
)
def test_ranks_that_cannot_be(ranks, words):
    with pytest.raises(ValueError, match=words):
        Calibration({"z": ranks}, np.array([9, 9]))


def test_a_probability_lies_between_zero_and_one():
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration({"z": np.arange(10)}).diagnose(1.0)
