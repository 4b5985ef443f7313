"""Diagnosis: each check finds its fault, names it, and passes what is sound."""

import json
import re

import numpy as np
import pytest

from deepgen_ppl import Check, Diagnosis, Posterior
from deepgen_ppl.diagnostics import diagnose_fit, evidence_checks, k_threshold, loss_check
from deepgen_ppl.evidence import evidence

RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=(4, 500, 3))
SHIFTED = GOOD + np.array([0.0, 0.0, 1.0]) * np.array([0, 0, 0, 1.0])[:, None, None]
STICKY = np.repeat(RNG.normal(size=(4, 10, 3)), 50, axis=1)
CALM = {"diverging": np.zeros((4, 500), bool), "energy": RNG.normal(size=(4, 500))}
DIVERGING = {"diverging": np.arange(2000).reshape(4, 500) >= 1990}
SLOW = {"energy": np.cumsum(RNG.normal(size=(4, 500)), axis=1)}


def by_name(diagnosis):
    return {check.name: check for check in diagnosis.checks}


def test_sound_chains_pass_every_check():
    found = Posterior({"theta": GOOD}, stats=CALM).diagnose()
    assert found.ok and found.failed == ()
    assert found.title == "mcmc, 4 chains x 500 draws"
    assert list(by_name(found)) == ["R-hat", "bulk ESS", "tail ESS", "divergences", "E-BFMI"]
    assert all(check.ok for check in found.checks)


FAULTS = {
    "chains that disagree": (SHIFTED, {}, "R-hat", r"disagree on theta\[2\]"),
    "sticky chains": (STICKY, {}, "bulk ESS", r"means of theta\[\d\]: raise num_samples"),
    "sticky tails": (STICKY, {}, "tail ESS", r"tail quantiles of theta\[\d\]"),
    "divergences": (GOOD, DIVERGING, "divergences", r"10 of 2000 .*\(most in chain 3\).*raise tar"),
    "slow energy": (GOOD, SLOW, "E-BFMI", r"Chain \d moves slowly"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_chains_is_found_and_named(name):
    draws, stats, check, advice = FAULTS[name]
    found = Posterior({"theta": draws, "fine": GOOD}, stats=stats).diagnose()
    row = by_name(found)[check]
    assert row.ok is False and not found.ok
    assert row in found.failed
    assert re.search(advice, row.advice)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_too_few_draws_do_not_pass(num):
    found = Posterior({"z": np.zeros((2, num))}, stats={"energy": np.zeros((2, num))}).diagnose()
    assert [check.ok for check in found.checks] == [False, False, False, None]
    assert f"{num} draws a chain are too few" in found.checks[0].advice
    assert str(found)


def test_without_latents_nothing_is_judged():
    found = Posterior({}).diagnose()
    assert {check.ok for check in found.checks} == {None} and found.ok
    assert "not checked" in str(found)


def test_one_chain_and_four_draws_are_judged():
    found = Posterior({"z": GOOD[:1, :4]}).diagnose()
    assert by_name(found)["bulk ESS"].ok is False


def test_weights_are_judged_by_their_worst_row():
    log_w = RNG.normal(size=(1000, 6)) * 0.5
    log_w[:, 4] = np.log(RNG.pareto(1.0, 1000) + 1e-3) * 3.0
    log_w[7, 2] = 40.0
    posterior = Posterior(
        {"z": RNG.normal(size=(1, 1000, 6))},
        log_weights=log_w[None],
        method="importance",
        row_dim="images",
        row_axis={"z": 0},
        evidence=evidence(log_w, rows="images"),
    )
    rows = by_name(posterior.diagnose())
    assert rows["Pareto k"].ok is False and rows["Pareto k"].value > 2.0
    assert "of 6 rows of 'images' (worst: 4" in rows["Pareto k"].advice
    assert rows["ESS"].ok is False and rows["ESS"].value == pytest.approx(1.0)
    assert "2 of 6 rows of 'images' (worst: 2, 4)" in rows["ESS"].advice
    assert rows["effective fraction"].value == pytest.approx(0.001)
    assert rows["R-hat"].ok is None and "not apply to independent" in rows["R-hat"].advice


def test_good_weights_pass():
    assert [check.ok for check in evidence_checks(evidence(RNG.normal(size=1000) * 0.5))] == [
        True
    ] * 3
    assert [check.ok for check in evidence_checks(evidence(np.zeros((1000, 2))))] == [True] * 3
    few = evidence_checks(evidence(np.zeros(20)))[0]
    assert few.ok is None and "20 particles are too few" in few.advice


def test_draws_of_a_guide_are_judged_by_its_density():
    z = RNG.normal(size=(1, 1000))
    stats = {"lp": -0.5 * z**2 / 9.0, "log_q": -0.5 * z**2}
    narrow = Posterior({"z": z}, method="svi", stats=stats).diagnose()
    assert by_name(narrow)["Pareto k"].ok is False
    same = Posterior({"z": z}, method="svi", stats={"lp": -(z**2), "log_q": -(z**2)}).diagnose()
    assert same.ok and by_name(same)["ESS"].value == pytest.approx(1000)
    local = Posterior({"z": z}, method="svi", stats=stats, row_dim="images").diagnose()
    assert by_name(local)["Pareto k"].ok is None
    assert "local to 'images'" in by_name(local)["Pareto k"].advice
    dims = {"w": ("images",), "x": ("images",)}
    images = {"dims": dims, "observed_data": {"x": np.zeros(3)}, "method": "svi", "stats": stats}
    local = Posterior({"w": np.zeros((1, 1000, 3))}, **images).diagnose()
    assert "local to 'images'" in by_name(local)["Pareto k"].advice
    mixed = Posterior({"w": np.zeros((1, 1000, 3)), "z": z}, **images).diagnose()
    assert by_name(mixed)["Pareto k"].ok is False


def test_draws_resampled_already_are_judged_by_their_evidence():
    log_w = np.log(RNG.pareto(1.0, 1000) + 1e-3) * 3.0
    found = Posterior(
        {"z": RNG.normal(size=(1, 50))}, evidence=evidence(log_w), method="importance"
    )
    assert by_name(found.diagnose())["Pareto k"].ok is False


STEPS = np.arange(4000)
NOISE = RNG.normal(size=4000)
LOSSES = {
    "settled": (1.0 + np.exp(-STEPS / 100), True),
    "settled, noisy": (1.0 + np.exp(-STEPS / 100) + 0.1 * NOISE, True),
    "flat noise": (NOISE, True),
    "constant": (np.ones(4000), True),
    "falling": (10.0 - STEPS / 400, False),
    "falling, noisy": (10.0 - STEPS / 400 + 0.5 * NOISE, False),
    "rising": (1.0 + STEPS / 4000, False),
    "a spike at the start": (np.where(STEPS < 3, 1e6, 5.0 - STEPS / 1000), False),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_still_moves_is_told(name):
    losses, ok = LOSSES[name]
    check = loss_check(losses)
    assert check.ok is ok, check
    word = "settled" if ok else "rose" if name == "rising" else "fell"
    assert word in check.advice


def test_settled_losses_are_rarely_suspected():
    rng = np.random.default_rng(1)
    wrong = [loss_check(rng.normal(size=800)).ok is False for _ in range(300)]
    assert np.mean(wrong) < 0.05


def test_a_fit_is_judged_by_loss_steps_and_weights():
    losses = 1.0 + np.exp(-STEPS / 100)
    assert diagnose_fit(losses, np.zeros(1000)).ok
    assert diagnose_fit(losses).title == "svi, 4000 steps"
    assert diagnose_fit(losses, title="mine").title == "mine"
    short = diagnose_fit(losses[:50])
    assert short.ok and short.checks[0].ok is None
    losses[17] = np.nan
    found = by_name(diagnose_fit(losses, nonfinite_steps=[3, 17]))
    assert found["non-finite steps"].value == 2.0
    assert "at step 3, 17: lower the learning rate" in found["non-finite steps"].advice
    heavy = np.log(RNG.pareto(1.0, (1000, 3)) + 1e-3) * 2.0
    found = by_name(diagnose_fit(np.ones(1000), heavy, rows="data"))
    assert "3 of 3 rows of 'data'" in found["Pareto k"].advice
    assert "arXiv:1802.02538" in found["Pareto k"].source


@pytest.mark.parametrize("num, expected", [(10, 0.0), (100, 0.5), (1000, 2 / 3), (10**6, 0.7)])
def test_the_threshold_of_pareto_k_grows_with_the_draws(num, expected):
    assert k_threshold(num) == pytest.approx(expected)


def test_a_diagnosis_prints_as_a_table_of_fixed_width():
    advice = "A long sentence that will not fit beside the other columns. " * 3
    rows = (
        Check("R-hat", 1.234567, "< 1.01", False, advice, "A 2021"),
        Check("bulk ESS", None, ">= 400", None, "Not applicable.", "B 2020"),
    )
    diagnosis = Diagnosis("mcmc", rows)
    lines = str(diagnosis).splitlines()
    assert lines[0] == "mcmc: NOT OK"
    assert max(map(len, lines)) <= 100
    assert lines[3].startswith("R-hat     1.235  < 1.01     NOT OK   A long sentence")
    assert lines[-2].startswith("bulk ESS  -      >= 400     n/a ")
    assert lines[-1] == "sources: A 2021; B 2020"
    assert str(Diagnosis("nothing", ())).startswith("nothing: not checked")


def test_a_diagnosis_is_plain_data():
    found = Posterior({"theta": STICKY}).diagnose()
    attrs = found.attrs()
    assert attrs["diagnosis_ok"] == 0
    back = json.loads(attrs["diagnosis"])
    assert back == json.loads(json.dumps(found.to_dict()))
    assert [check["name"] for check in back["checks"]] == ["R-hat", "bulk ESS", "tail ESS"]
    exact = Diagnosis("exact", tuple(evidence_checks(evidence(np.zeros(100)))))
    assert json.loads(exact.attrs()["diagnosis"])["checks"][0]["value"] == "-inf"
