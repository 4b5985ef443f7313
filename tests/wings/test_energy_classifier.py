"""Class-conditional energies: what they say of labels and of values, and joint training."""

import importlib
from types import ModuleType

import numpy as np
import pytest

QUIET = {"progress": False}
PLACES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
Y = np.random.default_rng(0).integers(3, size=600)
X = (PLACES[Y] + 0.4 * np.random.default_rng(1).normal(size=(600, 2))).astype("float32")


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """What this wing's side of the tests knows."""
    return importlib.import_module(f"{__package__}.experts_{wing}")


@pytest.fixture(scope="module")
def energy(dg, on, wing):
    """A small classifier."""
    nets = importlib.import_module(f"deepgen_ppl.{wing}.nets")
    return dg.EnergyClassifier(nets.MLP(2, 3, (32,), activation="silu"), on.normal(0.0, 2.0, 2))


def test_labels_summed_out_are_the_values(energy, on) -> None:
    x = on.array(X[:20])
    parts = np.stack([on.numpy(energy.given(c).unnormalised_log_prob(x)) for c in range(3)], -1)
    whole = on.numpy(energy.unnormalised_log_prob(x))
    np.testing.assert_allclose(np.log(np.exp(parts).sum(-1)), whole, rtol=1e-4, atol=1e-4)
    told = on.numpy(energy.classify(x).probs)
    np.testing.assert_allclose(np.exp(parts - whole[:, None]), told, rtol=1e-3, atol=1e-5)


def test_joint_training_classifies_and_draws(dg, energy, on) -> None:
    """Labels are told, chains stay where the data are, and far values are anomalies."""
    fit = dg.contrastive(
        energy, X, Y, num_chains=200, chain_steps=5, num_steps=200, batch_size=200,
        optim=on.adam(0.01), **QUIET,
    )  # fmt: skip
    trained = dg.flows.fitted(energy, fit, "energy")
    told = on.numpy(trained.classify(on.array(X)).probs).argmax(-1)
    assert (told == Y).mean() > 0.97
    x = on.numpy(fit.chains["x"])
    nearest = np.sqrt(((x[:, None] - PLACES) ** 2).sum(-1)).min(-1)
    assert np.median(nearest) < 1.0  # 0.47 of the data, 1.9 of the base
    seen = np.concatenate([X[:50], [[5.0, -5.0]]]).astype("float32")
    assert trained.rank(on.array(seen))[0] == 50


def test_mistakes_are_told_with_their_cure(dg, on) -> None:
    with pytest.raises(TypeError, match="base must be a distribution"):
        dg.EnergyClassifier(lambda x: x, 3.0)
    with pytest.raises(ValueError, match="discrete"):
        dg.EnergyClassifier(lambda x: x, on.bits([0.5, 0.5]))
