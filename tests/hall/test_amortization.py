"""Laws of the rule by which rows settle, and verdicts of the report of an inference gap."""

import numpy as np
import pytest

from deepgen_ppl.amortization import gap_report, weighed
from deepgen_ppl.refinement import Settling, joined_losses


def test_a_row_settles_by_itself() -> None:
    """One row gains in every window, one stands still, one gains less than its noise."""
    rng = np.random.default_rng(0)
    rule = Settling(3, 0.1, 0.01)
    for window in range(6):
        noise = rng.normal(size=20)
        rule.heard(np.stack([np.full(20, window), np.zeros(20), 0.02 * window + noise], 1))
    assert rule.settled.tolist()[:2] == [False, True]
    assert rule.rates[0] == 0.1
    assert rule.rates[1] == 0.0
    assert rule.rates[2] < 0.1


def test_steps_get_shorter_before_a_row_settles() -> None:
    rule, rates = Settling(1, 0.64, 0.01), []
    while not rule.settled.all():
        rates.append(rule.rates[0])
        rule.heard(np.zeros((10, 1)))
    np.testing.assert_allclose(rates, [0.64, 0.64, 0.16, 0.04, 0.01])


@pytest.mark.parametrize(
    ("encoder", "family", "failed"),
    [
        (0.0, 0.0, []),
        (1.0, 0.1, ["amortization gap"]),
        (0.1, 1.0, ["approximation gap"]),
    ],
)
def test_the_larger_part_is_named(encoder: float, family: float, failed: list[str]) -> None:
    rng = np.random.default_rng(0)
    evidence = rng.normal(-20, 3, 50)
    refined = np.broadcast_to(evidence - family, (10, 50))
    part = weighed(refined - encoder, refined, True)
    found = gap_report([part], evidence, np.ones(50, bool), 100, 4, 24, 10)
    assert [check.name for check in found.diagnosis.failed] == failed
    assert found.amortization == pytest.approx(encoder, abs=1e-6)
    assert found.approximation == pytest.approx(family, abs=1e-6)
    assert found.inference == pytest.approx(encoder + family, abs=1e-6)
    assert found.amortization_error < 1e-6, "errors are those of paired differences"
    assert "given" in repr(found)


def test_errors_of_a_single_row_are_those_of_its_draws() -> None:
    """Their mean square over many copies is the spread of the gaps over these copies."""
    rng, gaps, errors = np.random.default_rng(0), [], []
    for _ in range(400):
        refined = rng.normal(-3, 0.7, (200, 1))
        encoder = refined - 0.5 + rng.normal(0, 0.3, (200, 1))
        part = weighed(encoder, refined, False)
        found = gap_report([part], None, np.ones(1, bool), 100, 2, 10, 200)
        gaps.append([found.inference, found.approximation, found.amortization])
        told = found.inference_error, found.approximation_error, found.amortization_error
        errors.append(np.square(told))
    ratio = np.mean(errors, 0) / np.var(gaps, 0)
    np.testing.assert_allclose(ratio, 1, atol=5 * (2 / 400) ** 0.5)


def test_rows_that_did_not_settle_are_told() -> None:
    log_w = np.random.default_rng(0).normal(size=(100, 20))
    settled = np.arange(20) >= 5
    found = gap_report([weighed(log_w, log_w, False)], None, settled, 70, 4, 24, 100)
    check = next(check for check in found.diagnosis.failed if check.name == "settled rows")
    assert "5 rows did not settle within 70 steps" in check.advice


def test_losses_of_chunks_are_weighed_by_their_rows() -> None:
    found = joined_losses([(2, np.array([4.0, 2.0, 1.0])), (1, np.array([1.0]))])
    np.testing.assert_allclose(found, [3.0, 5 / 3, 1.0])
