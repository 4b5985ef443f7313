"""Log evidence of programs whose discrete latents are drawn: against enumeration and quadrature."""

import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import gamma, multivariate_normal, norm

RNG = np.random.default_rng(3)
COUPLING = np.triu(RNG.normal(size=(12, 12)) * 0.25, 1).astype("float32")
FIELD = (RNG.normal(size=12) * 0.4).astype("float32")
SPINS = np.array(list(itertools.product((0, 1), repeat=12)))
SIGNS = 2.0 * SPINS - 1.0
ENERGY = np.einsum("ni,ij,nj->n", SIGNS, COUPLING, SIGNS) + SIGNS @ FIELD
LOG_Z = float(logsumexp(ENERGY) - 12 * np.log(2.0))  # the prior is uniform
Y = np.concatenate([RNG.normal(-2.5, 1.0, 4), RNG.normal(2.5, 1.0, 8)]).astype("float32")
WEIGHTS = np.array([0.4, 0.6], "float32")
EFFECTS = np.array(  # of `belief`
    [[2.5, -1.0, 0.3], [-0.7, 1.8, 1.1], [1.2, 0.6, -2.2], [-1.6, -0.9, -0.4], [0.4, 2.1, -1.3]]
)
CAUSES = np.array(list(itertools.product((0, 1), repeat=5)))
X = (RNG.binomial(1, 0.3, (7, 5)) @ EFFECTS + RNG.normal(size=(7, 3))).astype("float32")
SLOW = pytest.mark.slow
QUICK: dict[str, Any] = {"progress": False, "seed": 1}


@pytest.fixture(scope="module")
def programs(wing: str) -> ModuleType:
    """The programs in the wing's language."""
    return importlib.import_module(f"{__package__}.discrete_{wing}")


def mixture_evidence() -> float:
    """Log evidence of `mixture` by quadrature over its two continuous latents."""
    low, gap = np.linspace(-8.0, 6.0, 561), np.linspace(0.01, 18.0, 721)
    first = np.log(WEIGHTS[0]) + norm.logpdf(Y[:, None, None], low[:, None])
    second = np.log(WEIGHTS[1]) + norm.logpdf(Y[:, None, None], low[:, None] + gap)
    log_joint = np.logaddexp(first, second).sum(0)
    log_joint = log_joint + norm.logpdf(low, -1.0, 2.0)[:, None] + gamma.logpdf(gap, 4.0)
    most = log_joint.max()
    area = np.trapezoid(np.trapezoid(np.exp(log_joint - most), gap, axis=1), low)
    return float(most + np.log(area))


def belief_log_prob(x: np.ndarray) -> np.ndarray:
    """Log density of each row under `belief`, all 32 sets of causes enumerated."""
    prior = CAUSES.sum(1) * np.log(0.3) + (5 - CAUSES.sum(1)) * np.log(0.7)
    law = multivariate_normal(np.zeros(3), np.eye(3) + 1.0)
    log_prob = law.logpdf(x[:, None] - CAUSES @ EFFECTS).reshape(len(x), -1)
    return logsumexp(prior + log_prob, axis=1)


def ratios(log_weights: np.ndarray, truth: float) -> np.ndarray:
    """Weights in units of the evidence."""
    return np.exp(np.asarray(log_weights, float) - truth)


# ------------------------------------------------------------------------------------- the numbers


def test_spins_that_all_meet(dg: ModuleType, programs: ModuleType) -> None:
    found = dg.ais(programs.ising, COUPLING, FIELD, num_temperatures=60, **QUICK)
    assert found.attrs["discrete"] == "gibbs"
    assert found.attrs["discrete_reason"] == "no continuous latent"
    assert found.attrs["num_blocks"] == 12
    assert abs(found.evidence.log_evidence - LOG_Z) < 4.0 * found.evidence.standard_error < 1.0
    moved = dg.smc(programs.ising, COUPLING, FIELD, num_islands=16, **QUICK)
    assert abs(moved.evidence.log_evidence - LOG_Z) < 5.0 * moved.evidence.standard_error < 1.0
    draws, law = moved.draws["x"][0], np.exp(ENERGY - logsumexp(ENERGY))
    assert draws.shape == (1024, 12) and draws.dtype.kind == "i"
    # Resampled particles are correlated: as many draws count as a third of them.
    error = np.sqrt(3.0 * 0.25 / len(draws))
    assert (np.abs(draws.mean(0) - law @ SPINS) < 5.0 * error).all()


def test_annealing_spins_is_unbiased(dg: ModuleType, programs: ModuleType) -> None:
    options = {"num_chains": 8000, "num_temperatures": 3, **QUICK}
    ratio = ratios(dg.ais(programs.ising, COUPLING, FIELD, **options).log_weights[0], LOG_Z)
    assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / len(ratio) ** 0.5
    assert ratio.std() > 0.2  # short climbs: their weights do vary


def test_reverse_annealing_of_spins_is_unbiased(dg: ModuleType, programs: ModuleType) -> None:
    law = np.exp(ENERGY - logsumexp(ENERGY))
    drawn = np.random.default_rng(5).choice(len(SPINS), 4000, p=law)
    exact = dg.Posterior({"x": SPINS[drawn].reshape(4, 1000, 12)})
    found = dg.evidence_bounds(
        programs.ising, None, COUPLING, FIELD, posterior=exact, num_chains=4000,
        num_temperatures=4, num_particles=1000, **QUICK,
    )  # fmt: skip
    below, above = found.bounds[-2:]
    assert abs(np.exp(LOG_Z - above.value) - 1.0) < 5.0 * above.standard_error
    assert above.standard_error > 0.003
    assert abs(np.exp(below.value - LOG_Z) - 1.0) < 5.0 * below.standard_error
    assert found.lower.limit < LOG_Z < found.upper.limit


def test_mixed_program(dg: ModuleType, programs: ModuleType) -> None:
    truth = mixture_evidence()
    options = {"discrete": "gibbs", "num_chains": 128, "num_temperatures": 300, **QUICK}
    found = dg.ais(programs.mixture, Y, WEIGHTS, **options)
    assert found.attrs["discrete_reason"] == "asked for"
    assert abs(found.evidence.log_evidence - truth) < 4.0 * found.evidence.standard_error < 1.0
    assert found.attrs["num_blocks"] == 1  # data do not touch each other
    assert found.draws["z"].shape == (1, 128, 12) and found.draws["means"].shape == (1, 128, 2)
    assert found.evaluate("posterior_predictive")["y"].shape == (1, 128, 12)
    assert found.to_datatree(groups=()).posterior["z"].dims == ("chain", "draw", "data")


def test_mixed_climbs_are_unbiased(dg: ModuleType, programs: ModuleType) -> None:
    y, truth = X[:1], belief_log_prob(X[:1])[0]
    options = {"num_chains": 8000, "num_temperatures": 4, **QUICK}
    found = dg.ais(programs.belief, y, **options)
    ratio = ratios(found.log_weights.reshape(-1), truth)
    assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / len(ratio) ** 0.5
    assert ratio.std() > 0.2


# -------------------------------------------------------------------------------- rows and starts


@pytest.mark.parametrize("batch_size", [pytest.param(None, marks=pytest.mark.slow), 3])
def test_each_row_has_its_own_climb(
    dg: ModuleType, programs: ModuleType, batch_size: int | None
) -> None:
    truth = belief_log_prob(X)
    options = {"num_temperatures": 150, "batch_size": batch_size, **QUICK}
    found = dg.ais(programs.belief, X, **options)
    assert "cannot list all values of 'b'" in found.attrs["discrete_reason"]
    assert found.attrs["num_blocks"] == 5  # of one row: rows move together
    assert found.draws["b"].shape == (1, 64, 7, 5) and found.draws["s"].shape == (1, 64, 7)
    away = np.abs(found.evidence.per_row - truth)
    assert (away < 5.0 * found.evidence.per_row_standard_error).all()
    assert found.evidence.standard_error < 0.5


@pytest.mark.parametrize(
    ("guide", "verb"), [("shift_guide", "ais"), pytest.param("belief_guide", "smc", marks=SLOW)]
)
def test_the_climb_starts_at_a_guide(
    dg: ModuleType, programs: ModuleType, guide: str, verb: str
) -> None:
    sizes = {"ais": {"num_temperatures": 100}, "smc": {"num_particles": 512, "num_islands": 16}}
    own: Any = {"guide": getattr(programs, guide), **sizes[verb], **QUICK}
    found = getattr(dg, verb)(programs.belief, X, **own).evidence
    away = np.abs(found.per_row - belief_log_prob(X))
    assert (away < 5.0 * found.per_row_standard_error).all()
    assert found.standard_error < 0.5


@SLOW
def test_bounds_of_simulated_rows(dg: ModuleType, programs: ModuleType) -> None:
    x = np.zeros((60, 3), "float32")
    found = dg.evidence_bounds(
        programs.belief, programs.belief_guide, x, simulate=True, start="guide",
        num_particles=200, num_chains=16, num_temperatures=20, **QUICK,
    )  # fmt: skip
    truth = belief_log_prob(np.asarray(found.data[0], float))
    assert [b.direction for b in found.bounds] == ["lower"] * 4 + ["upper"]
    assert found.bounds[-1].name == "reverse AIS from the guide, 16 chains x 20"
    for bound in found.bounds:
        assert np.sign(bound.limit - truth.sum()) == (1 if bound.direction == "upper" else -1)
        held = (bound.per_row_limit - truth) * (1 if bound.direction == "upper" else -1) >= 0
        assert held.sum() >= 52, bound.name
    below, above = found.bounds[-2:]
    error = np.hypot(below.standard_error, above.standard_error)
    assert above.value - below.value > -5.0 * error


@SLOW
def test_mixed_program_by_particles(dg: ModuleType, programs: ModuleType) -> None:
    options = {"discrete": "gibbs", "num_islands": 16, **QUICK}
    found = dg.smc(programs.mixture, Y, WEIGHTS, **options).evidence
    assert abs(found.log_evidence - mixture_evidence()) < 5.0 * found.standard_error < 1.0


# ------------------------------------------------------------------------------------------ the way


def test_what_is_too_wide_is_drawn(wing: str, programs: ModuleType) -> None:
    paths = importlib.import_module(f"deepgen_ppl.{wing}.paths")
    wide = "dimensions" if wing == "numpyro" else "an array of"
    for program, told in (("crowd", wide), ("mixture", "fit in memory")):
        data = (Y[:3], WEIGHTS)[: 2 if program == "mixture" else 1]
        about = paths.read_any(getattr(programs, program), *data)[1]
        assert told in about["discrete_reason"]
        assert about["discrete"] == ("sum" if program == "mixture" else "gibbs")


def test_coupling_that_the_probes_miss_is_noticed(dg: ModuleType, programs: ModuleType) -> None:
    from deepgen_ppl import blocks

    y = np.float32(7.0)
    values = np.array(list(itertools.product(range(10), (0, 1), (0, 1), (0, 1))))
    switch, x = values[:, 0], values[:, 1:]
    meet = np.where(switch == 7, 3.0 * (x[:, 1:] * x[:, :-1]).sum(1), 0.0)
    truth = logsumexp(meet + norm.logpdf(y, switch)) - np.log(80.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_POINTS", 1)
        found = dg.ais(programs.hidden, y, num_temperatures=100, **QUICK)
    assert found.attrs["num_blocks"] == 4  # one by one, whatever the first look said
    assert abs(found.evidence.log_evidence - truth) < 5.0 * found.evidence.standard_error


def test_bad_input(dg: ModuleType, programs: ModuleType) -> None:
    with pytest.raises(ValueError, match="discrete must be 'auto', 'sum' or 'gibbs', not 'draw'"):
        dg.ais(programs.mixture, Y, WEIGHTS, discrete="draw", **QUICK)
    with pytest.raises(ValueError, match=r"'count'.*finite support.*Categorical"):
        dg.smc(programs.shots, Y[:1], discrete="gibbs", **QUICK)
    with pytest.raises(ValueError, match=r"'x' have no finite support .*discrete='gibbs'"):
        dg.ais(programs.ising, COUPLING, FIELD, discrete="sum", **QUICK)
    with pytest.raises(ValueError, match="guide lacks the continuous sites 's'"):
        dg.ais(programs.belief, X, guide=programs.causes_guide, **QUICK)
    with pytest.raises(ValueError, match="site 'wall' is -inf at all draws"):
        dg.ais(programs.impossible, Y, **QUICK)
    with pytest.raises(ValueError, match="start='guide' needs a guide"):
        dg.evidence_bounds(programs.belief, None, X, start="guide", **QUICK)
    with pytest.raises(ValueError, match="start must be 'prior' or 'guide', not 'fit'"):
        dg.evidence_bounds(programs.belief, None, X, start="fit", **QUICK)
