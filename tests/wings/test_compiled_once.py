"""What is compiled once: a second call of a verb with other values, and what must not be reused."""

import gc
import weakref
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

Y = np.random.default_rng(5).normal(1.0, 1.0, 24).astype(np.float32)
SHORT = {"num_steps": 40, "batch_size": 8, "progress": False}


@pytest.fixture(autouse=True)
def only_numpyro(wing: str) -> None:
    if wing != "numpyro":
        pytest.skip("the Pyro wing keeps no compiled programs")


@pytest.fixture
def compilations(only_numpyro: None) -> Iterator[list[str]]:
    import jax

    seen: list[str] = []

    def note(event: str, duration_secs: float, **about: object) -> None:
        if "backend_compile" in event:
            seen.append(str(about.get("fun_name", event)))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.unregister_event_duration_listener(note)


def pair(prior: float = 3.0):
    """Return a new model and guide, functions of their own; the prior's scale is in a closure."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    settings = {"scale": prior}

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, settings["scale"]))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def guide(y):
        loc = numpyro.param("loc", jnp.array(0.5))
        numpyro.sample("mean", dist.Normal(loc, numpyro.param("scale", jnp.array(0.2))))

    return model, guide, settings


def test_a_second_svi_compiles_nothing(dg: ModuleType, zoo: ModuleType, compilations) -> None:
    model, guide, _ = pair()
    options = {**SHORT, "validation_data": Y[:8], "clip_norm": 1.0}
    first = dg.svi(model, guide, Y, optim=zoo.adam(0.02), **options)
    assert compilations
    compilations.clear()
    again = dg.svi(model, guide, Y + 1.0, optim=zoo.adam(0.02), seed=3, **options)
    assert not compilations
    assert again.losses.mean() > first.losses.mean()
    same = dg.svi(model, guide, Y, optim=zoo.adam(0.02), **options)
    np.testing.assert_array_equal(same.losses, first.losses)
    assert not compilations


def test_a_second_importance_compiles_nothing(dg: ModuleType, compilations) -> None:
    model, guide, _ = pair()
    params = {"loc": np.float32(0.9), "scale": np.float32(0.3)}
    first = dg.importance(model, guide, Y, params=params, num_particles=500)
    compilations.clear()
    moved = {**params, "loc": np.float32(1.9)}
    again = dg.importance(model, guide, Y + 1.0, params=moved, num_particles=500, seed=2)
    assert not compilations
    assert again.draws["mean"].mean() > first.draws["mean"].mean() + 0.8


def test_what_the_code_depends_on_is_never_shared(dg: ModuleType, zoo: ModuleType) -> None:
    model, guide, _ = pair()
    for change in (
        {"optim": zoo.sgd(0.0)},
        {"optim": zoo.sgd(1e-3)},
        {"optim": zoo.sgd(1e-2)},
        {"optim": zoo.sgd(1e-2), "clip_norm": 1e-3},
        {"optim": zoo.sgd(1e-2), "loss": dg.ELBO(num_particles=3)},
    ):
        kept = dg.svi(model, guide, Y, **SHORT, **change)
        fresh = dg.svi(*pair()[:2], Y, **SHORT, **change)
        np.testing.assert_array_equal(kept.losses, fresh.losses)
        np.testing.assert_array_equal(kept.params["loc"], fresh.params["loc"])


def test_a_closure_that_changed_is_compiled_again(dg: ModuleType, zoo: ModuleType) -> None:
    model, guide, settings = pair(3.0)
    options = {**SHORT, "optim": zoo.adam(0.02)}
    before = dg.svi(model, guide, Y, **options)
    settings["scale"] = 0.1
    after = dg.svi(model, guide, Y, **options)
    assert not np.array_equal(before.losses, after.losses)
    np.testing.assert_array_equal(after.losses, dg.svi(*pair(0.1)[:2], Y, **options).losses)


def test_compiled_functions_die_with_model_and_guide(dg: ModuleType, zoo: ModuleType) -> None:
    model, guide, _ = pair()
    alive = [weakref.ref(model), weakref.ref(guide)]
    fit = dg.svi(model, guide, Y, optim=zoo.adam(0.02), **SHORT)
    fit.importance(num_particles=50)
    del model, guide, fit
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_a_second_contrastive_of_another_machine_compiles_nothing(
    dg: ModuleType, zoo: ModuleType, compilations: list[str]
) -> None:
    """Weights are inputs: machines of one kind and size share what was compiled."""
    x = (np.random.default_rng(0).random((64, 6)) < 0.3).astype(np.float32)
    options = {"batch_size": 16, "num_chains": 8, "num_steps": 20, "progress": False}
    first = dg.RBM(6, 3, seed=0)
    fit = dg.contrastive(first, x, optim=zoo.sgd(1e-5), **options)
    assert compilations
    compilations.clear()
    trained = dg.flows.fitted(first, fit, "energy").with_log_z(1.0)
    for machine in (dg.RBM(6, 3, seed=1), trained):
        again = dg.contrastive(machine, 1.0 - x, optim=zoo.sgd(1e-5), **options)
        assert not compilations
        begun = np.asarray(machine.weight)
        moved = np.abs(np.asarray(again.params["energy$params"].weight) - begun)
        assert 0.0 < moved.max() < 0.5 * np.abs(begun).max()
    dg.contrastive(dg.RBM(6, 4), x, optim=zoo.sgd(1e-5), **options)
    assert compilations


def a_field(dg: ModuleType, seed: int):
    """Return a field of labels with two rows, and the name of what is learned of it."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(2, 5, 1)).astype(np.float32), rng.integers(0, 2, (2, 5))
    return dg.CRF(1, 2, seed=seed), data, "crf$params"


def a_mixture(dg: ModuleType, seed: int):
    """Return a mixture of two networks' densities with some rows."""
    x = np.random.default_rng(seed).integers(0, 2, (8, 2)).astype(np.float32)
    parts = [dg.autoregressive.FVSBN(2, seed=seed + number) for number in (0, 5)]
    return dg.MixtureOfExperts(parts), (x,), "mixture$params"


@pytest.mark.parametrize("make", [a_field, a_mixture])
def test_a_second_svi_of_another_ready_program_compiles_nothing(
    dg: ModuleType, zoo: ModuleType, compilations: list[str], make
) -> None:
    """The program is one function of the object, whose weights are inputs."""
    import jax

    learned = []
    for seed in (0, 1):
        ready, data, name = make(dg, seed)
        fit = dg.svi(ready.model, None, *data, optim=zoo.sgd(1e-3), num_steps=5, progress=False)
        learned.append([np.asarray(leaf) for leaf in jax.tree.leaves(fit.params[name])])
        assert bool(compilations) == (seed == 0)
        compilations.clear()
    assert any(np.abs(a - b).max() > 1e-5 for a, b in zip(*learned, strict=True))


def test_annealing_compiles_one_block_of_temperatures(
    dg: ModuleType, compilations: list[str]
) -> None:
    """However many blocks there are, and whatever the weights."""
    options = {"method": "ais", "num_chains": 8, "progress": False}
    dg.log_z(dg.RBM(5, 3, seed=0), num_temperatures=500, **options)
    assert compilations
    compilations.clear()
    dg.log_z(dg.RBM(5, 3, seed=1), num_temperatures=1700, **options)
    assert not compilations


def test_energies_that_differ_in_what_is_no_weight_share_nothing(
    dg: ModuleType, zoo: ModuleType
) -> None:
    """Two graphs of equal shapes: each learns its own ties, whichever came first."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.choice([0.0, 1.0], (200, 2)), 2, axis=1).astype(np.float32)  # pairs 01, 23
    options = {"num_steps": 60, "num_chains": 64, "progress": False, "optim": zoo.sgd(2e-3)}
    ties = []
    for edges in ([[0, 1], [2, 3]], [[0, 2], [1, 3]]):
        field = dg.Ising(4, np.array(edges))
        fit = dg.contrastive(field, x, **options)
        ties.append(np.asarray(dg.flows.fitted(field, fit, "energy").coupling))
    assert (ties[0] > 0.3).all()
    assert (np.abs(ties[1]) < 0.2).all()
