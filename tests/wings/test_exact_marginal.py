"""Discrete latents summed out exactly while parameters or continuous latents are learned."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

PROGRAMS = "exact"
RNG = np.random.default_rng(5)
X = np.where(RNG.random(60) < 0.3, RNG.normal(-2, 1, 60), RNG.normal(2, 1, 60)).astype("float32")
Y = RNG.normal(np.repeat(RNG.normal(size=8) * 2, 5)).astype("float32")
QUIET: dict[str, Any] = {"progress": False}


def evidence(dg: ModuleType, model: Any, data: np.ndarray, fit: Any) -> float:
    """Log evidence by `exact` at the fitted values."""
    return float(np.sum(dg.exact(model, data, params=fit, query=()).log_evidence))


def still(
    dg: ModuleType, programs: ModuleType, model: Any, data: np.ndarray, **options: Any
) -> Any:
    """A run that stays where it starts: its losses are those of the first values."""
    optim = programs.adam(0.0)
    return dg.svi(model, None, data, loss=dg.ExactMarginal(), optim=optim, **options, **QUIET)


@pytest.mark.parametrize(("name", "data"), [("learned", X), ("learned_chain", Y), ("joined", X)])
def test_the_loss_is_the_log_evidence(
    name: str, data: np.ndarray, dg: ModuleType, programs: ModuleType
) -> None:
    """Of each datum, at values that `exact` gets too; for rows, chains and shared states."""
    model = getattr(programs, name)
    fit = still(dg, programs, model, data, num_steps=2)
    total = fit.losses * (1 if name == "learned_chain" else len(data))
    np.testing.assert_allclose(total, -evidence(dg, model, data, fit), rtol=1e-5)


def test_minibatches_add_up_to_the_whole(dg: ModuleType, programs: ModuleType) -> None:
    """The mean loss of an epoch's batches is the loss of all rows."""
    whole = still(dg, programs, programs.learned, X, num_steps=1).losses[0]
    parts = still(dg, programs, programs.learned, X, num_steps=5, batch_size=12).losses
    assert np.std(parts) > 0
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)


def test_maximum_likelihood_is_a_fixed_point_of_em(dg: ModuleType, programs: ModuleType) -> None:
    """After training, a step of expectation and maximisation leaves the parameters as they are."""
    fit = dg.svi(
        programs.learned, None, X, num_steps=1500, loss=dg.ExactMarginal(),
        optim=programs.adam(0.02), **QUIET,
    )  # fmt: skip
    answer = dg.exact(programs.learned, X, params=fit)
    np.testing.assert_allclose(fit.losses[-1], -np.mean(np.asarray(answer.log_evidence)), rtol=1e-4)
    share = answer.marginals["z"]
    weights, means = (np.asarray(fit.params[name]) for name in ("weights", "means"))
    np.testing.assert_allclose(share.mean(0), weights, atol=2e-3)
    np.testing.assert_allclose((share * X[:, None]).sum(0) / share.sum(0), means, atol=1e-2)


def test_a_chain_is_learned(dg: ModuleType, programs: ModuleType) -> None:
    """Twenty hidden states, in a loop of the engine: the evidence rises to a stationary point."""
    fit = dg.svi(
        programs.learned_chain, None, Y[:20], num_steps=250, loss=dg.ExactMarginal(),
        optim=programs.adam(0.05), **QUIET,
    )  # fmt: skip
    start = -fit.losses[0]
    reached = evidence(dg, programs.learned_chain, Y[:20], fit)
    assert reached > start + 1.0
    np.testing.assert_allclose(reached, -fit.losses[-1], rtol=1e-4)
    answer = dg.exact(programs.learned_chain, Y[:20], params=fit)
    share = [answer.marginals[name] for name in programs.chain_names(20)]
    share = share[0] if len(share) == 1 else np.stack(share)
    means = (share * Y[:20, None]).sum(0) / share.sum(0)
    np.testing.assert_allclose(np.asarray(fit.params["means"]), means, atol=2e-2)


def test_continuous_latents_are_left_to_the_guide(dg: ModuleType, programs: ModuleType) -> None:
    """The bound of a normal guide is below the evidence by quadrature, and near it."""
    grids = [np.linspace(-4, 0, 81), np.linspace(0, 4, 81)]
    a, b = np.meshgrid(*grids, indexing="ij")
    parts = np.stack([a, b], -1)[..., None, :]  # a, b, row, component
    log_x = np.log([0.3, 0.7]) - (X[:, None] - parts) ** 2 / 2 - np.log(2 * np.pi) / 2
    log_joint = logsumexp(log_x, axis=-1).sum(-1)
    log_joint += -((a + 2) ** 2) / 2 - (b - 2) ** 2 / 2 - np.log(2 * np.pi)
    total = logsumexp(log_joint) + 2 * np.log(grids[0][1] - grids[0][0])
    law = np.exp(log_joint - logsumexp(log_joint))
    options: dict[str, Any] = {"loss": dg.ExactMarginal(num_particles=4), **QUIET}
    fit = dg.svi(programs.unknown_means, programs.normal_guide, X, num_steps=1200,
                 optim=programs.adam(0.02), **options)  # fmt: skip
    bounds = -fit.losses[-400:] * len(X)
    error = bounds.std() / np.sqrt(len(bounds) / 10)  # steps in a row are alike
    assert bounds.mean() < total + 5 * error
    assert bounds.mean() > total - 0.1 - 5 * error
    mean = np.array([(law * a).sum(), (law * b).sum()])
    np.testing.assert_allclose(np.asarray(fit.params["loc"]), mean, atol=0.1)
    batches = dg.svi(programs.unknown_means, programs.normal_guide, X, num_steps=500,
                     batch_size=20, params=fit, optim=programs.adam(0.0), **options)  # fmt: skip
    error = batches.losses.std() * len(X) / np.sqrt(500)
    assert abs(-batches.losses.mean() * len(X) - bounds.mean()) < 5 * error


def test_validation_data_of_another_size(dg: ModuleType, programs: ModuleType) -> None:
    fit = still(dg, programs, programs.learned, X, num_steps=10, batch_size=12,
                validation_data=X[:30])  # fmt: skip
    other = still(dg, programs, programs.learned, X[:30], num_steps=1)
    losses = np.asarray(fit.history["validation_loss"])
    # The last block overlaps the one before: the mean is that of three blocks of twelve rows.
    blocks = np.concatenate([X[:12], X[12:24], X[18:30]])
    blocks = still(dg, programs, programs.learned, blocks, num_steps=1)
    np.testing.assert_allclose(losses, blocks.losses[0], rtol=1e-5)
    assert abs(other.losses[0] - blocks.losses[0]) > 1e-4


def test_what_cannot_be_summed_out_is_refused(dg: ModuleType, programs: ModuleType) -> None:
    options: dict[str, Any] = {"loss": dg.ExactMarginal(), "num_steps": 2, **QUIET}
    with pytest.raises(ValueError, match="the guide draws 'z'"):
        dg.svi(programs.unknown_means, programs.greedy_guide, X, **options)
    with pytest.raises(ValueError, match="'means'"):
        dg.svi(programs.unknown_means, None, X, **options)
    with pytest.raises(ValueError, match="needs a discrete latent"):
        dg.svi(programs.plain, None, X, **options)
    with pytest.raises(ValueError, match=r"batch_size=12: site '.*' joins"):
        dg.svi(programs.joined, None, X, batch_size=12, **options)
    with pytest.raises(ValueError, match="num_particles must be positive"):
        dg.ExactMarginal(num_particles=0)


# ------------------------------------------------------------------------- estimators and chains


def level_law(y: np.ndarray) -> tuple[float, float, float]:
    """Log evidence of `many`, and mean and spread of its level, by quadrature over the level."""
    level = np.linspace(-3, 3, 601)
    local = -((y[:, None, None] - level - 2.0 * np.arange(2)[:, None]) ** 2) / 2
    local = local - np.log(2 * np.pi) / 2  # step, state, level
    moves = np.log([[0.8, 0.2], [0.3, 0.7]])
    state = moves[0][:, None] + local[0]
    for own in local[1:]:
        state = own + logsumexp(state[:, None] + moves[..., None], axis=0)
    log_joint = logsumexp(state, axis=0) - level**2 / 2 - np.log(2 * np.pi) / 2
    law = np.exp(log_joint - logsumexp(log_joint))
    mean = (law * level).sum()
    spread = np.sqrt((law * (level - mean) ** 2).sum())
    return logsumexp(log_joint) + np.log(level[1] - level[0]), mean, spread


def test_importance_past_the_limit_of_enumeration(dg: ModuleType, programs: ModuleType) -> None:
    y = Y[:30]
    total, mean, spread = level_law(y)
    found = dg.importance(programs.many, programs.level_guide, y, num_particles=2000)
    assert abs(found.evidence.log_evidence - total) < 5 * found.evidence.standard_error
    assert found.evidence.pareto_k < 0.7
    draws = np.asarray(found.resample(seed=0).draws["level"])
    assert abs(draws.mean() - mean) < 5 * spread / np.sqrt(found.evidence.ess)


@pytest.mark.slow
def test_mcmc_past_the_limit_of_enumeration(dg: ModuleType, programs: ModuleType) -> None:
    y = Y[:30]
    _, mean, spread = level_law(y)
    found = dg.mcmc(programs.many, y, kernel="nuts", num_warmup=300, num_samples=400,
                    num_chains=2, **QUIET)  # fmt: skip
    draws = np.asarray(found.draws["level"])
    array_stats: Any = importlib.import_module("arviz_stats.base").array_stats
    ess = float(array_stats.ess(draws, method="mean"))
    assert ess > 100
    assert abs(draws.mean() - mean) < 5 * spread / np.sqrt(ess)
    np.testing.assert_allclose(draws.std(), spread, rtol=0.3)
