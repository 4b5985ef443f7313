"""Flows as guides, NeuTra, dequantisation, and the change of variables by hand."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats


@pytest.fixture(scope="session")
def on(wing: str) -> ModuleType:
    """Flows of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.flows_{wing}")


def test_a_flow_guide_has_a_tighter_bound_than_independent_normals_and_serves_neutra(
    dg: Any, on: Any
) -> None:
    """The banana's evidence by a grid; the bound of a flow is close, chains find its moments."""
    y = np.array([0.3, -0.3])  # where the two arms meet
    a = np.linspace(-5.0, 5.0, 2001)
    # b | a ~ N(a^2, 0.2), the mean of y | b ~ N(b, 1 / sqrt 2): both integrate to normals
    spread = np.sqrt(0.04 + 0.5)
    rest = stats.norm.logpdf(y[0] - y[1], 0.0, np.sqrt(2.0))
    joint = stats.norm.logpdf(a) + stats.norm.logpdf(y.mean(), a**2, spread) + rest
    log_evidence = np.log(np.exp(joint).sum() * (a[1] - a[0]))
    weights = np.exp(joint - joint.max())
    second_moment = (weights * a**2).sum() / weights.sum()

    guide = dg.flow_guide(
        on.banana, dg.flows.NSF, init_scale=1.0, transforms=3, hidden=(16,), bins=4
    )
    options = {"optim": on.adam(5e-3), "progress": False}
    loss = dg.ELBO(num_particles=16)  # one draw a step may settle in one of the two arms
    fit = dg.svi(on.banana, guide, y, num_steps=800, loss=loss, **options)
    diagonal = dg.svi(on.banana, on.diagonal_guide(on.banana), y, num_steps=1200, **options)
    scale = 2.0  # losses are per datum
    bound = -scale * fit.losses[-200:].mean()
    normal = -scale * diagonal.losses[-300:].mean()
    assert bound > normal + 0.1
    assert log_evidence - 0.3 < bound < log_evidence + 0.1
    chains = dg.mcmc(
        on.banana, y, neutra=fit, num_warmup=150, num_samples=200, num_chains=2, progress=False
    )
    draws = chains.draws["a"] ** 2
    error = draws.std() / np.sqrt(60.0)
    assert abs(draws.mean() - second_moment) < 5.0 * error


def test_an_amortized_flow_guide_packs_the_latents_of_each_datum(dg: Any, on: Any) -> None:
    """A positive latent and a real one; log evidence is that of normals, minibatches train it."""
    x = np.random.default_rng(0).normal(0.0, 1.1, (120, 2))
    guide = dg.flow_guide(
        on.positive_latents, dg.flows.IAF, amortized=True, transforms=2, hidden=(16,)
    )
    fit = dg.svi(on.positive_latents, guide, x, num_steps=1200, batch_size=40, progress=False)
    truth = stats.norm.logpdf(x, 0.0, np.sqrt(1.25)).sum(-1)
    assert abs(-fit.losses[-200:].mean() - truth.mean()) < 0.1
    found = fit.importance(x, num_particles=200)
    np.testing.assert_allclose(found.evidence.log_evidence / len(x), truth.mean(), atol=0.02)
    assert np.all(found.draws["s"] > 0)


def test_flow_guides_refuse_what_they_cannot_draw(dg: Any, on: Any) -> None:
    x = np.ones((5, 1))
    guide = dg.flow_guide(on.shared_and_local, amortized=True)
    with pytest.raises(ValueError, match="but 'mean' has batch shape"):
        dg.svi(on.shared_and_local, guide, x, num_steps=2, progress=False)
    with pytest.raises(TypeError, match="function that makes a flow"):
        dg.flow_guide(on.banana, dg.flows.IAF(2))
    with pytest.raises(ValueError, match="init_scale"):
        dg.flow_guide(on.banana, init_scale=0.0)


def test_dequantised_probabilities_add_up_to_one(dg: Any, on: Any) -> None:
    """Of all 16 data of two levels-of-4 features: importance weights by uniform noise."""
    f = dg.flows
    inner = on.perturbed(f.RealNVP(2, hidden=(8,), transforms=2), 0.3).layer
    flow = f.Flow(f.Chain([inner, f.Logit(2, levels=4.0, alpha=0.0)]))
    model, guide = f.dequantised(flow)
    data = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), -1).reshape(16, 2)
    fit = dg.svi(model, guide, data, num_steps=1, progress=False)
    own = dg.importance(model, guide, data, params=fit, num_particles=4000)
    log_weights = np.asarray(own.log_weights).reshape(-1, 16)
    weights = np.exp(log_weights)
    error = np.sqrt((weights.var(0) / len(weights)).sum())
    assert abs(weights.mean(0).sum() - 1.0) < 5.0 * error + 0.01  # and the one step that it took


@pytest.mark.slow
def test_variational_noise_is_no_worse_than_uniform_and_bounds_the_entropy(
    dg: Any, on: Any
) -> None:
    """Binary pixels: the loss in nats is above the entropy of what made them."""
    rng = np.random.default_rng(0)
    x = (rng.random((400, 2)) < 0.2).astype(float)
    entropy = -2.0 * (0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    f = dg.flows

    def flow() -> Any:
        return f.Flow(f.Chain([f.NSF(2, hidden=(16,), bins=4).layer, f.Logit(2, levels=2.0)]))

    noise = f.NSF(2, 2, transforms=2, hidden=(16,), bins=4, support=on.unit_interval)
    losses = [
        dg.svi(*f.dequantised(flow(), q), x, num_steps=600, progress=False).losses[-150:].mean()
        for q in (None, noise)
    ]
    empirical = -np.mean(stats.bernoulli.logpmf(x, 0.2).sum(-1))
    assert abs(empirical - entropy) < 0.2
    assert losses[0] > losses[1] - 0.02
    assert losses[1] > empirical - 0.05
    assert losses[1] < empirical + 0.35
    assert 0.5 < f.bits_per_dimension(losses[1], 2) < 1.2
    with pytest.raises(ValueError, match="flow of 2 features with context=2"):
        f.dequantised(flow(), f.NSF(2))
    with pytest.raises(ValueError, match="do not end in the event shape"):
        dg.svi(*f.dequantised(flow()), np.ones((5, 3)), num_steps=1, progress=False)


def test_scaling_by_four(on: Any) -> None:
    """Y = 4 u of a uniform u has the density 1/4 on (0, 4)."""
    log_prob, draws = on.by_hand("scaled", np.array([0.1, 2.0, 3.9]))
    np.testing.assert_allclose(log_prob, -np.log(4.0), rtol=1e-6)
    assert draws.min() > 0.0
    assert draws.max() < 4.0
    assert stats.kstest(draws, stats.uniform(0.0, 4.0).cdf).statistic < 5.0 * 0.5 / np.sqrt(1000.0)


def test_exponential_of_a_uniform(on: Any) -> None:
    """Y = exp(u) has the density 1 / y on (1, e)."""
    y = np.array([1.1, 2.0, 2.7])
    log_prob, draws = on.by_hand("exponential", y)
    np.testing.assert_allclose(log_prob, -np.log(y), rtol=1e-6)
    assert abs(draws.mean() - (np.e - 1.0)) < 5.0 * draws.std() / np.sqrt(1000.0)


def test_unit_cube_through_a_matrix(on: Any) -> None:
    """A cube's image is a parallelepiped of volume |det A|, its density 1 / |det A| inside."""
    inside = on.MATRIX @ np.array([0.3, 0.6, 0.9])
    log_prob, draws = on.by_hand("cube", inside)
    np.testing.assert_allclose(log_prob, -np.log(np.linalg.det(on.MATRIX)), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.det(on.MATRIX), 3.0)
    back = np.linalg.solve(on.MATRIX, draws.T)
    assert back.min() > -1e-5
    assert back.max() < 1.0 + 1e-5


def test_a_map_of_the_plane(dg: Any, on: Any) -> None:
    """A coupling by hand, x = (z1, a z2 + t) with a and t from z1: density by its formula."""
    with on.double():
        flow = on.perturbed(dg.flows.Flow(dg.flows.Coupling(2, hidden=())), 0.7)
        named = on.leaves(flow)
        weight, bias = named["layer.net.weights.0"], named["layer.net.biases.0"]
        x = np.random.default_rng(0).normal(size=(10, 2))
        raw = x[:, :1] @ weight + bias
        r, t = raw.T
        scale = np.where(r < 0.0, 0.15 + 0.85 * np.exp(r), 1.0 + r)
        z2 = (x[:, 1] - t) / scale
        truth = stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(z2) - np.log(scale)
        assert np.ptp(np.sign(r)) > 1.0, "both pieces of the scale are tried"
        np.testing.assert_allclose(on.log_prob(flow, x), truth, rtol=1e-9)
