"""What the NumPyro language alone has: its ELBO objects, autoguides and network libraries."""

import itertools
import warnings
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

RNG = np.random.default_rng(3)
X = RNG.normal(1.0, 1.0, 24).astype(np.float32)
PIXELS = RNG.normal(0.0, 1.0, (48, 6)).astype(np.float32)
ELBOS = ["Trace_ELBO", "TraceMeanField_ELBO", "TraceGraph_ELBO"]
NETWORKS = ["equinox", "nnx", "nnx_batch_norm", "flax", "flax_batch_norm"]


@pytest.fixture(autouse=True)
def only_numpyro(wing: str) -> None:
    if wing != "numpyro":
        pytest.skip("NumPyro's own objects")


def losses(dg: ModuleType, zoo: ModuleType, loss, **options) -> np.ndarray:
    settings = {"num_steps": 1200, "optim": zoo.sgd(0.0), "progress": False, **options}
    return dg.svi(zoo.hierarchical, zoo.hierarchical_guide, X, loss=loss, **settings).losses


@pytest.mark.parametrize("name", ELBOS)
def test_numpyros_own_elbos_in_minibatches(dg: ModuleType, zoo: ModuleType, name: str) -> None:
    from numpyro import infer

    ours = losses(dg, zoo, None)
    theirs = losses(dg, zoo, getattr(infer, name)(), batch_size=8).reshape(-1, 3).mean(1)
    errors = [values.std() / len(values) ** 0.5 for values in (ours, theirs)]
    assert abs(ours.mean() - theirs.mean()) < 5 * np.hypot(*errors)


def test_enumeration_in_minibatches(dg: ModuleType, zoo: ModuleType) -> None:
    from numpyro.infer import TraceEnum_ELBO

    options = {"num_steps": 1200, "optim": zoo.sgd(0.0), "progress": False}
    summed = dg.svi(zoo.marginal_coins, zoo.mean_guide, X, **options).losses
    loss = TraceEnum_ELBO(max_plate_nesting=1)
    enumerated = dg.svi(zoo.coins, zoo.mean_guide, X, loss=loss, batch_size=8, **options).losses
    pairs = summed, enumerated.reshape(-1, 3).mean(1)
    errors = [values.std() / len(values) ** 0.5 for values in pairs]
    assert abs(pairs[0].mean() - pairs[1].mean()) < 5 * np.hypot(*errors)


def test_a_bound_over_whole_batches_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    from numpyro.infer import RenyiELBO

    with pytest.raises(ValueError, match=r"Use dg\.IWAE\(\) or dg\.Renyi\(\)"):
        losses(dg, zoo, RenyiELBO(num_particles=2), batch_size=8)


@pytest.mark.parametrize("name", ["AutoDelta", "AutoDiagonalNormal", "AutoNormal"])
def test_autoguides_come_back_from_disk(
    dg: ModuleType, zoo: ModuleType, name: str, tmp_path
) -> None:
    from numpyro.infer import autoguide

    make = getattr(autoguide, name)
    fit = dg.svi(zoo.hierarchical, make(zoo.hierarchical), X, num_steps=20, progress=False)
    path = fit.save(tmp_path / "fit.dgp")
    loaded = dg.load_fit(path, zoo.hierarchical, make(zoo.hierarchical))
    draws = [f.posterior(X, num_samples=20).draws["z"] for f in (fit, loaded)]
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("library", NETWORKS)
def test_networks_train_and_come_back_from_disk(
    dg: ModuleType, zoo: ModuleType, library: str, tmp_path
) -> None:
    model, guide = zoo.networks(library)
    options = {"batch_size": 16, "num_steps": 200, "optim": zoo.adam(1e-2), "progress": False}
    fit = dg.svi(model, guide, PIXELS, **options)
    assert fit.losses[-20:].mean() < fit.losses[:20].mean()
    assert any(name.endswith("$state") for name in fit.params) == ("batch_norm" in library)
    loaded = dg.load_fit(fit.save(tmp_path / "fit.dgp"), model, guide)
    weights = [f.importance(PIXELS, num_particles=30).log_weights for f in (fit, loaded)]
    np.testing.assert_array_equal(*weights)
    # Batch norm looks at all rows at once: weights per row would be wrong.
    assert (weights[0].ndim == 2) == ("batch_norm" in library)


def test_an_optimizer_that_searches_along_a_line_is_refused(
    dg: ModuleType, zoo: ModuleType
) -> None:
    import optax

    with pytest.raises(TypeError, match="searches along a line"):
        dg.svi(zoo.hierarchical, zoo.hierarchical_table, X, optim=optax.lbfgs(), progress=False)


def test_enumerated_sites_take_the_values_of_their_support(dg: ModuleType) -> None:
    import numpyro
    import numpyro.distributions as dist

    x = np.array([0.4, 2.2, 3.1], np.float32)

    def model(x):
        with numpyro.plate("data", len(x)):
            face = numpyro.sample("face", dist.DiscreteUniform(1, 3))
            value = numpyro.sample("value", dist.Normal(face, 1.0))
            numpyro.sample("x", dist.Normal(value, 0.5), obs=x)

    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("value", dist.Normal(0.8 * x, 0.9))

    found = dg.importance(model, guide, x, num_particles=4000).evidence
    faces = np.array([1.0, 2.0, 3.0])
    parts = np.exp(-0.5 * (x[:, None] - faces) ** 2 / 1.25) / np.sqrt(2 * np.pi * 1.25)
    gap = np.abs(found.per_row - np.log(parts.mean(1)))
    assert (gap < 4.5 * found.per_row_standard_error).all()


CONVOLUTIONS = {  # shapes of image and kernel, strides, options
    "channels last": ((2, 6, 6, 3), (3, 3, 3, 4), 1, {}),
    "strides": ((2, 6, 6, 3), (3, 3, 3, 4), 2, {}),
    "channels first": ((2, 3, 6, 6), (4, 3, 3, 3), 2, {}),
    "transposed": ((2, 4, 4, 3), (4, 4, 3, 2), 1, {"lhs_dilation": (2, 2)}),
    "one axis": ((2, 9, 3), (5, 3, 4), 1, {}),
    "groups": ((2, 6, 6, 4), (3, 3, 2, 6), 1, {"feature_group_count": 2}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_convolutions_in_loops_are_laid_out_for_the_compiler(name: str) -> None:
    """A loop of gradient steps equals the steps by themselves, and has no slow convolution."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from deepgen_ppl.numpyro.convolutions import trace

    image, kernel, stride, options = CONVOLUTIONS[name]
    letters = "HW" if len(image) == 4 else "W"
    dims = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    if name == "channels first":
        dims = ("NCHW", "OIHW", "NCHW")
    rng = np.random.default_rng(0)
    start = tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in (image, kernel))

    def loss(x, w):
        strides = (stride,) * len(letters)
        pads = [(1, 1)] * len(letters)
        y = lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=dims, **options)
        return (y**2).sum()

    def step(values, _=None):
        moves = jax.grad(loss, (0, 1))(*values)
        return jax.tree.map(lambda value, move: value - 1e-4 * move, values, moves), None

    def looped(values):
        return lax.scan(step, values, None, length=2)[0]

    compiled = trace(looped, start).lower().compile()
    found, expected = compiled(start), step(step(start)[0])[0]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    labels = {part.split()[0].rstrip(",") for part in compiled.as_text().split("dim_labels=")[1:]}
    # Gradients of groups count groups over the rows; where the image grows XLA swaps the operands.
    if name not in ("groups", "transposed"):
        assert labels == {"b01f_01io->b01f" if len(letters) == 2 else "b0f_0io->b0f"}


@pytest.mark.parametrize("kernel", ["meads", pytest.param("mclmc", marks=pytest.mark.slow)])
def test_kernels_of_blackjax_have_the_moments(dg: ModuleType, kernel: str) -> None:
    pytest.importorskip("blackjax", reason="BlackJAX is not installed")
    import numpyro
    import numpyro.distributions as dist
    from arviz_stats.base import array_stats

    covariance = np.array([[1.0, 0.8], [0.8, 2.0]], "float32")

    def model():
        numpyro.sample("z", dist.MultivariateNormal(np.zeros(2, "float32"), covariance))
        numpyro.sample("s", dist.LogNormal(0.0, 0.5))

    options = {"num_warmup": 300, "num_samples": 500, "progress": False, "kernel": kernel}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if kernel == "mclmc" else "error", UserWarning)
        found = dg.mcmc(model, **options)
    assert found.draws["z"].shape == (64, 500, 2) and found.attrs["mixed"]
    assert set(found.stats) >= {"lp", "acceptance_rate", "diverging"}
    log_s = np.log(found.draws["s"])
    for value, mean in (
        (found.draws["z"][..., 0], 0.0), (found.draws["z"][..., 0] ** 2, 1.0),
        (found.draws["z"][..., 1] ** 2, 2.0), (found.draws["z"].prod(-1), 0.8),
        (log_s, 0.0), (log_s**2, 0.25),
    ):  # fmt: skip
        stats = cast(Any, array_stats)
        error = value.std() / np.sqrt(float(stats.ess(np.asarray(value, float), method="mean")))
        bias = 0.02 * value.std() if kernel == "mclmc" else 0.0  # nothing is rejected
        assert abs(value.mean() - mean) < 5 * error + bias


def test_mistakes_with_kernels_of_blackjax(dg: ModuleType, zoo: ModuleType) -> None:
    pytest.importorskip("blackjax", reason="BlackJAX is not installed")
    from deepgen_ppl.numpyro.kernels.blackjax import MEADS

    with pytest.raises(ValueError, match=r"4 folds of 2 or more: num_chains=6 does not do"):
        dg.mcmc(zoo.normal_mean, X, kernel="meads", num_chains=6, progress=False)
    with pytest.raises(ValueError, match="num_folds"):
        MEADS(num_folds=0)
    with pytest.raises(ValueError, match="MEADS, which adapts anew"):
        dg.mcmc(zoo.normal_mean, X, kernel="meads", adaptation={}, progress=False)


def chain_law(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Log evidence and marginals of `chain_of_sites`, from all states together."""
    z = np.array(list(itertools.product((0, 1), repeat=len(x))))
    prior = 0.2 + 0.5 * np.concatenate([np.zeros((len(z), 1)), z[:, :-1]], 1)
    log = np.where(z == 1, np.log(prior), np.log(1 - prior)) - (x - 2.0 * z) ** 2 / 2
    joint = np.exp(log.sum(1) - len(x) * np.log(2 * np.pi) / 2)
    return np.log(joint.sum()), joint @ z / joint.sum()


def chain_of_sites(size: int):
    """A chain written site by site, as a program of many sites is."""
    import numpyro
    import numpyro.distributions as dist

    def model(x):
        z = 0.0
        for i in range(size):
            z = numpyro.sample(f"z{i}", dist.Bernoulli(0.2 + 0.5 * z))
            numpyro.sample(f"x{i}", dist.Normal(2.0 * z, 1.0), obs=x[i])

    return model


def test_programs_of_many_sites_are_compiled_late(
    dg: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the first runs, which cost less than compiling; with the same answers after as before.

    One run for each question: what is asked again is not run again. Other shapes count from zero.
    """
    from deepgen_ppl.numpyro import tables

    monkeypatch.setattr(tables, "_MANY_SITES", 3)
    monkeypatch.setattr(tables, "_MOST_PLAIN", 3)
    compiled, questions, compiled_for = tables.compiled, [0], list[int]()

    def counted(owner: Any, name: str, *args: Any, **options: Any) -> Any:
        if name == "tables":
            compiled_for.append(questions[-1])
        return compiled(owner, name, *args, **options)

    monkeypatch.setattr(tables, "compiled", counted)
    size, model = 5, chain_of_sites(5)
    for number in range(1, 7):
        questions.append(number)
        x = RNG.normal(1.0, 1.0, size).astype(np.float32)
        log_evidence, law = chain_law(x)
        for _ in range(2):
            answer = dg.exact(model, x)
            np.testing.assert_allclose(answer.log_evidence, log_evidence, rtol=1e-5)
            found = [answer.marginals[f"z{i}"][1] for i in range(size)]
            np.testing.assert_allclose(found, law, atol=1e-6)
    assert compiled_for == [4, 5, 6]


@pytest.mark.slow
def test_a_program_of_two_hundred_sites_is_compiled_at_its_17th_run(dg: ModuleType) -> None:
    from deepgen_ppl.numpyro.compilation import _KEPT

    size, model = 100, chain_of_sites(100)
    x = RNG.normal(1.0, 1.0, (18, size)).astype(np.float32)
    for number, row in enumerate(x):
        answer = dg.exact(model, row)
        done = [k for k in _KEPT.of(model) if isinstance(k, tuple) and k[0] == "tables"]
        assert len(done) == (1 if number >= 16 else 0)
        again = dg.exact(chain_of_sites(size), row) if number in (0, 15, 16, 17) else answer
        np.testing.assert_allclose(answer.log_evidence, again.log_evidence, rtol=1e-5)
        np.testing.assert_allclose(answer.marginals["z50"], again.marginals["z50"], atol=1e-5)
