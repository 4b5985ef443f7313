"""Estimators of log evidence against closed forms: annealing, sequential Monte Carlo, bridges."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.special import betaln, gammaln
from scipy.stats import multivariate_normal, norm

LOADING = np.array([[1.0, 0.5, -1.0, 0.3], [0.2, 1.0, 0.6, -0.7]], np.float32)
QUICK: dict[str, Any] = {"progress": False, "seed": 1}


@pytest.fixture(scope="module")
def known(wing: str) -> ModuleType:
    """The wing's programs of known evidence."""
    return importlib.import_module(f"{__package__}.evidence_{wing}")


class Answer(NamedTuple):
    """Data of a program and what is known of it.

    Attributes:
        data: Its data.
        log_evidence: Log density of the data.
        params: Its parameters.
        per_row: Log density of each datum, where they are independent.
    """

    data: tuple[np.ndarray, ...]
    log_evidence: float
    params: dict[str, np.ndarray] | None = None
    per_row: np.ndarray | None = None


def gaussian(dim: int) -> Answer:
    x = np.random.default_rng(dim).normal(1.0, 1.0, (5, dim)).astype(np.float32)
    law = multivariate_normal(np.zeros(5), np.eye(5) + 1.0)
    return Answer((x,), float(sum(law.logpdf(column) for column in x.T.astype(float))))


def beta_binomial() -> Answer:
    k = np.array([3, 5, 2, 4, 1, 4], np.float32)
    choose = gammaln(11.0) - gammaln(k + 1.0) - gammaln(11.0 - k)
    found = betaln(2 + k.sum(), 3 + (10 - k).sum()) - betaln(2, 3) + choose.sum()
    return Answer((k,), float(found))


def regression() -> Answer:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(25, 3)).astype(np.float32) @ np.array(
        [[1, 0.9, 0], [0, 0.4, 0], [0, 0, 2]]
    )
    y = (x @ np.array([0.7, -0.4, 0.3]) + 0.5 * rng.normal(size=25)).astype(np.float32)
    x = x.astype(np.float32)
    law = multivariate_normal(np.zeros(25), x @ x.T.astype(float) + 0.25 * np.eye(25))
    return Answer((x, y), float(law.logpdf(y)))


def ppca(num: int = 12) -> Answer:
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(num, 2)) @ LOADING + 0.5 * rng.normal(size=(num, 4))).astype(np.float32)
    per_row = ppca_log_prob(x)
    return Answer((x,), float(per_row.sum()), {"loading": LOADING}, per_row)


def ppca_log_prob(x: np.ndarray) -> np.ndarray:
    return multivariate_normal(np.zeros(4), LOADING.T @ LOADING + 0.25 * np.eye(4)).logpdf(x)


def coins() -> Answer:
    x = np.array([0.3, 2.4, -0.5, 1.9], np.float32)
    mean = np.linspace(-9.0, 9.0, 20_001)
    each = 0.7 * norm.pdf(x[:, None], mean) + 0.3 * norm.pdf(x[:, None], mean + 2.0)
    return Answer((x,), float(np.log(np.trapezoid(norm.pdf(mean) * each.prod(axis=0), mean))))


def local_coins() -> Answer:
    x = np.array([0.3, 2.4, -0.5, 1.9], np.float32)
    per_row = np.log(0.7 * norm.pdf(x, 0.0, 2**0.5) + 0.3 * norm.pdf(x, 2.0, 2**0.5))
    return Answer((x,), float(per_row.sum()), None, per_row)


ANSWERS: dict[str, tuple[str, Callable[[], Answer]]] = {
    "gaussian in 1": ("gaussian", lambda: gaussian(1)),
    "gaussian in 10": ("gaussian", lambda: gaussian(10)),
    "gaussian in 100": ("gaussian", lambda: gaussian(100)),
    "beta-binomial": ("beta_binomial", beta_binomial),
    "regression": ("regression", regression),
    "probabilistic PCA": ("ppca", ppca),
    "coins summed out": ("coins", coins),
    "coins of each row": ("local_coins", local_coins),
}


def close(evidence: Any, answer: Answer, sigmas: float = 4.0) -> None:
    assert evidence.standard_error < 1.0
    assert abs(evidence.log_evidence - answer.log_evidence) < sigmas * evidence.standard_error
    if answer.per_row is not None:
        away = np.abs(evidence.per_row - answer.per_row)
        assert (away < 5.0 * np.maximum(evidence.per_row_standard_error, 1e-4)).all()


SLOW = ("gaussian in 10", "regression", "coins of each row")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ANSWERS]
)
def test_estimates_agree_with_the_closed_form(dg: ModuleType, known: ModuleType, name: str) -> None:
    program, make = ANSWERS[name]
    model, answer = getattr(known, program), make()
    options = {"params": answer.params, **QUICK}
    found = dg.ais(model, *answer.data, num_chains=128, num_temperatures=200, **options)
    assert found.method == "ais" and found.evidence.method.startswith("annealed")
    close(found.evidence, answer)
    found = dg.smc(model, *answer.data, num_particles=128, num_islands=16, **options)
    assert found.log_weights is None and found.num_draws == 128
    close(found.evidence, answer, 5.0)
    bridged = dg.bridge(found, model, *answer.data, params=answer.params)
    close(bridged.evidence, answer)
    assert bridged.draws.keys() == found.draws.keys()


# ---------------------------------------------------------------------------------------- unbiased


def test_annealing_is_unbiased_over_many_short_climbs(dg: ModuleType, known: ModuleType) -> None:
    answer = gaussian(1)
    found = dg.ais(known.gaussian, *answer.data, num_chains=20_000, num_temperatures=4, **QUICK)
    ratio = np.exp(np.asarray(found.log_weights[0], float) - answer.log_evidence)
    assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / len(ratio) ** 0.5
    assert ratio.std() > 0.05  # short climbs: their weights do vary


def test_islands_are_unbiased_over_many_small_ones(dg: ModuleType, known: ModuleType) -> None:
    answer = gaussian(1)
    found = dg.smc(
        known.gaussian, *answer.data, num_particles=16_000, num_islands=2000, num_moves=1,
        fraction=0.5, **QUICK,
    ).evidence  # fmt: skip
    error = found.standard_error  # of the mean of 2,000 islands, relative to it
    assert abs(np.exp(found.log_evidence - answer.log_evidence) - 1.0) < 5.0 * error
    assert error > 0.005  # islands of 8 particles: their estimates do vary


def test_importance_is_unbiased(dg: ModuleType, known: ModuleType) -> None:
    answer = gaussian(1)
    found = dg.importance(known.gaussian, None, *answer.data, num_particles=20_000, seed=1).evidence
    ratio = np.exp(found.log_evidence - answer.log_evidence)
    assert abs(ratio - 1.0) < 5.0 * found.standard_error


# ------------------------------------------------------------------------------- starts and draws


def exact_guide(x: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters of `ppca_guide` at which its mean is the posterior's."""
    precision = np.eye(2) + LOADING @ LOADING.T / 0.25
    slope = LOADING.T @ np.linalg.inv(precision) / 0.25
    width = 1.2 * np.sqrt(np.diag(np.linalg.inv(precision)))
    return {"slope": slope.astype(np.float32), "width": width.astype(np.float32)}


@pytest.mark.parametrize("verb", ["ais", pytest.param("smc", marks=pytest.mark.slow)])
def test_the_climb_can_start_at_a_guide(dg: ModuleType, known: ModuleType, verb: str) -> None:
    answer = ppca()
    params = {"loading": LOADING, **exact_guide(answer.data[0])}
    sizes = {"ais": {"num_temperatures": 30}, "smc": {"num_particles": 256, "num_islands": 32}}
    options = {"params": params, **sizes[verb], **QUICK}
    found = getattr(dg, verb)(known.ppca, *answer.data, guide=known.ppca_guide, **options)
    close(found.evidence, answer, 5.0)
    above = getattr(dg, verb)(known.ppca, *answer.data, **options).evidence
    # It begins close by, so that little is lost on the way.
    assert found.evidence.standard_error < 0.7 * above.standard_error
    assert found.draws["z"].shape[2:] == (12, 2)


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["auto_full", "auto_normal"])
def test_a_fit_is_a_start_and_a_proposal(
    dg: ModuleType, zoo: ModuleType, known: ModuleType, guide: str
) -> None:
    x = np.array([0.4, -0.2, 0.9], np.float32)
    options = {"num_steps": 500, "optim": zoo.adam(0.03), "progress": False}
    fit = dg.svi(known.rates, getattr(known, guide)(known.rates), x, **options)
    start = dg.ais(known.rates, x, guide=fit, num_temperatures=50, **QUICK)
    prior = dg.ais(known.rates, x, num_chains=512, num_temperatures=100, **QUICK)
    pair = (start.evidence, prior.evidence)
    error = np.hypot(*(found.standard_error for found in pair))
    assert abs(pair[0].log_evidence - pair[1].log_evidence) < 5.0 * error
    np.testing.assert_allclose(start.draws["share"].sum(-1), 1.0, atol=1e-5)
    drawn = prior.resample()
    for bridged in (dg.bridge(drawn, known.rates, x, guide=fit), dg.bridge(drawn, known.rates, x)):
        gap = bridged.evidence.log_evidence - prior.evidence.log_evidence
        assert abs(gap) < 5.0 * np.hypot(bridged.evidence.standard_error, pair[1].standard_error)


def test_smc_draws_are_those_of_the_posterior(dg: ModuleType, known: ModuleType) -> None:
    answer = gaussian(10)
    found = dg.smc(known.gaussian, *answer.data, **QUICK)
    z, mean = found.draws["z"][0], answer.data[0].sum(axis=0) / 6.0
    # Resampled particles are correlated: 5 errors of a third as many independent draws.
    assert (np.abs(z.mean(axis=0) - mean) < 5.0 * (3.0 / 6.0 / len(z)) ** 0.5).all()
    np.testing.assert_allclose(z.std(axis=0), 6.0**-0.5, rtol=0.15)


def test_rows_climb_in_chunks(dg: ModuleType, known: ModuleType) -> None:
    answer = ppca()
    options = {"params": answer.params, "num_temperatures": 100, "batch_size": 5, **QUICK}
    found = dg.ais(known.ppca, *answer.data, **options)
    close(found.evidence, answer)
    assert found.log_weights.shape == (1, 64, 12) and found.draws["z"].shape == (1, 64, 12, 2)
    smooth = found.resample(2000).draws["z"][0].mean(axis=0)
    slope = exact_guide(answer.data[0])["slope"]
    np.testing.assert_allclose(smooth, answer.data[0] @ slope, atol=0.45)


def test_a_seed_gives_the_same_again(dg: ModuleType, known: ModuleType) -> None:
    (x,) = gaussian(1).data
    one, two = (dg.ais(known.gaussian, x, num_temperatures=20, **QUICK) for _ in range(2))
    np.testing.assert_array_equal(one.log_weights, two.log_weights)
    other = dg.ais(known.gaussian, x, num_temperatures=20, progress=False, seed=2)
    assert not np.array_equal(one.log_weights, other.log_weights)


def test_evidence_stands_in_the_tree_and_the_diagnosis(dg: ModuleType, known: ModuleType) -> None:
    answer = gaussian(1)
    found = dg.ais(known.gaussian, *answer.data, num_temperatures=100, **QUICK)
    tree = found.to_datatree(groups=("proposal",))
    assert tree.attrs["log_evidence"] == found.evidence.log_evidence
    assert tree.attrs["inference_method"] == "ais"
    assert tree.proposal["log_weights"].shape == (1, 64)
    assert found.diagnose().checks[0].name == "standard error"
    assert found.diagnose().ok
    rough = dg.ais(known.gaussian, *gaussian(100).data, num_temperatures=5, **QUICK).diagnose()
    assert not rough.ok and "raise num_temperatures" in str(rough)


def test_models_are_ranked_by_their_evidence(dg: ModuleType, known: ModuleType) -> None:
    (x,) = gaussian(1).data
    own = dg.ais(known.gaussian, x, num_temperatures=50, **QUICK)
    far = dg.ais(known.gaussian, x + 3.0, num_temperatures=50, **QUICK)
    table = dg.rank_by_evidence([far, own], ["far", "near"])
    assert [entry.name for entry in table] == ["near", "far"]
    assert table[1].difference < -5.0 and table[0].probability > 0.99
