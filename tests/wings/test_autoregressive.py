"""The laws of autoregressive distributions: one row of a table for each family and each output."""

import functools
import importlib
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SHAPE = (3, 2)  # of the events, where enumeration is exact
ORDER = (2, 0, 5, 1, 4, 3)

# name: the module of an event shape, an output and a number of context features
FAMILIES: dict[str, Callable[..., Any]] = {
    "FVSBN": lambda a, *args: a.FVSBN(*args, order=ORDER),
    "NADE": lambda a, d, o, c: a.NADE(d, o, 7, c),
    "MADE": lambda a, d, o, c: a.MADE(d, o, (12, 9), c, activation="tanh", order=ORDER),
    "Recurrent": lambda a, d, o, c: a.Recurrent(d, o, 5, 2, c),
    "PixelCNN": lambda a, d, o, c: a.PixelCNN(d, o, 8, 3, 5, 3, c),
    "Transformer": lambda a, d, o, c: a.Transformer(d, o, 8, 2, 2, c),
}
# name: the output, and the values that its features take
OUTPUTS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "bits": (lambda a: a.Bernoulli(), 2),
    "symbols": (lambda a: a.Categorical(3), 3),
    "levels": (lambda a: a.LogisticMixture(3, 2), 3),
    "numbers": (lambda a: a.GaussianMixture(2), 0),
}
CONTEXT = {"bits": 2, "symbols": 0, "levels": 0, "numbers": 2}
ROWS = [  # what a family does with levels and numbers shows at two of them; the others are slow
    pytest.param(family, output, marks=() if quick else pytest.mark.slow)
    for family, output in itertools.product(FAMILIES, OUTPUTS)
    for quick in [output in ("bits", "symbols") or family in ("MADE", "Recurrent")]
]
MORE = ("bits", "symbols")  # one input and one parameter a feature, and several of each
MORE_ROWS = list(itertools.product(FAMILIES, MORE))
DRAWS = 1500


@pytest.fixture(scope="session")
def on(wing: str) -> ModuleType:
    """Autoregressive modules of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.autoregressive_{wing}")


def events(values: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray | None:
    """All events of a few values."""
    if not values:
        return None
    every = itertools.product(range(values), repeat=int(np.prod(shape)))
    return np.array(list(every)).reshape(-1, *shape)


def module(dg: Any, on: Any, family: str, output: str, context: int | None = None) -> Any:
    """A module with noise on its weights."""
    kind = OUTPUTS[output][0](dg.autoregressive)
    context = CONTEXT[output] if context is None else context
    return on.perturbed(FAMILIES[family](dg.autoregressive, SHAPE, kind, context), 0.4)


def contexts(number: int) -> np.ndarray | None:
    return np.random.default_rng(1).normal(size=(3, number)) if number else None


def uniforms(dg: Any, output: str, draws: int = DRAWS) -> np.ndarray:
    size = OUTPUTS[output][0](dg.autoregressive).uniforms
    batch = (3,) if CONTEXT[output] else ()
    return np.random.default_rng(2).uniform(size=(draws, *batch, *SHAPE, size))


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def tried(dg: Any, on: Any) -> Callable[[str, str], dict[str, Any]]:
    """What a module makes of uniform numbers, in double precision."""

    @functools.cache
    def once(family: str, output: str) -> dict[str, Any]:
        with on.double():
            net = module(dg, on, family, output)
            values = events(OUTPUTS[output][1])
            more = output in MORE
            return on.tried(net, uniforms(dg, output), values, contexts(CONTEXT[output]), more)

    return once


@pytest.mark.parametrize(("family", "output"), ROWS)
def test_the_density_sums_to_one(tried: Any, family: str, output: str) -> None:
    if output == "numbers":
        assert "all" not in tried(family, output)  # its conditionals are integrated below
        return
    close(np.exp(tried(family, output)["all"]).sum(0), 1.0)


@pytest.mark.parametrize(("family", "output"), MORE_ROWS)
def test_no_conditional_depends_on_what_comes_later(tried: Any, family: str, output: str) -> None:
    """By automatic differentiation; and each depends on something before it."""
    slope = np.abs(tried(family, output)["slope"]).max((1, 3))  # (feature, of feature)
    close(slope[np.triu_indices(6)], 0.0, 0.0)
    seen = np.mean(slope[np.tril_indices(6, -1)] > 0)
    assert seen > (0.6 if family == "PixelCNN" else 0.999), "each sees what is before it"


@pytest.mark.parametrize(("family", "output"), ROWS)
def test_steps_give_the_conditionals_of_one_pass(tried: Any, family: str, output: str) -> None:
    """The same uniform numbers give the same draws, from what steps keep and from one pass."""
    found = tried(family, output)
    close(found["x"], found["again"], 1e-8)
    assert np.ptp(found["x"]) > 0


@pytest.mark.parametrize(("family", "output"), MORE_ROWS)
def test_every_batch_shape_gives_the_same_density(tried: Any, family: str, output: str) -> None:
    """Of all draws, of rows under vmap, of one event."""
    found = tried(family, output)
    assert found["log_prob"].shape == found["x"].shape[:-2]
    close(found["mapped"], found["log_prob"])
    close(found["single"], found["log_prob"].reshape(-1)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_of_draws_are_those_of_the_density(tried: Any, family: str) -> None:
    """First and second moments, by context, within five standard errors."""
    found, every = tried(family, "bits"), events(2).reshape(-1, 6)  # type: ignore[union-attr]
    weights = np.exp(found["all"])  # (events, contexts)
    x = found["x"].reshape(DRAWS, 3, 6)
    truth = np.einsum("ec,ei,ej->cij", weights, every, every)
    seen = np.einsum("rci,rcj->cij", x, x) / DRAWS
    error = np.sqrt(truth * (1 - truth) / DRAWS)
    assert np.all(np.abs(seen - truth) < 5 * error + 1e-12)
    assert np.ptp(truth, 0).max() > 0.05, "the context matters"


def test_draws_of_the_native_method_have_the_moments_too(dg: Any, on: Any) -> None:
    net = module(dg, on, "FVSBN", "levels")
    x = on.sample(net, (DRAWS,)).reshape(DRAWS, 6)
    every = events(3)
    weights = np.exp(on.density(net, every))
    flat = every.reshape(-1, 6)  # type: ignore[union-attr]
    mean = weights @ flat
    error = np.sqrt((weights @ flat**2 - mean**2) / DRAWS)
    assert np.all(np.abs(x.mean(0) - mean) < 5 * error)
    assert not np.array_equal(x, on.sample(net, (DRAWS,), 1).reshape(DRAWS, 6))


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_has_mass_one_where_its_values_are(dg: Any, on: Any, output: str) -> None:
    """At random parameters, some of them extreme; nothing outside."""
    kind, values = OUTPUTS[output][0](dg.autoregressive), OUTPUTS[output][1]
    params = np.random.default_rng(0).normal(size=(20, kind.size)) * 3.0
    with on.double():
        if values:
            close(on.mass(kind, params, np.arange(values)).sum(-1), 1.0)
            close(on.mass(kind, params, np.array([-1.0, values, 0.5])), 0.0, 0.0)
            return
        grid = np.linspace(-60.0, 60.0, 120001)
        close(on.mass(kind, params, grid).sum(-1) * (grid[1] - grid[0]), 1.0, 1e-5)


def test_far_levels_keep_an_exact_log_probability(dg: Any, on: Any) -> None:
    """A narrow logistic far away: log probabilities are finite and fall in straight lines."""
    kind = dg.autoregressive.LogisticMixture(256, 1)
    with on.double():
        found = np.log(on.mass(kind, np.array([[0.0, 0.0, -3.0]]), np.arange(1.0, 255.0)))[0]
    assert np.all(np.isfinite(found))
    tail = np.diff(found[:60])
    close(tail, tail[0], 1e-6)


def test_draws_of_numbers_carry_the_gradient_of_their_mean(dg: Any, on: Any) -> None:
    """A mixture of three: components are chosen, and still the gradient is that of the integral."""
    kind = dg.autoregressive.GaussianMixture(3)
    rng = np.random.default_rng(0)
    with on.double():
        own, truth = on.mean_slope(kind, rng.normal(size=9), rng.uniform(size=(4000, 2)))
    error = own.std(0) / np.sqrt(len(own))
    assert np.all(np.abs(own.mean(0) - truth) < 5 * error)
    assert np.mean(np.abs(truth) > 5 * error) > 0.7, "most are seen"


def test_draws_without_gradients_are_refused_where_gradients_are_asked_for(
    dg: Any, on: Any
) -> None:
    kinds = dg.autoregressive
    assert on.rsample(kinds.FVSBN(3, kinds.GaussianMixture(2))).shape == (3,)
    with pytest.raises(NotImplementedError, match="carry no gradients: use sample"):
        on.rsample(kinds.FVSBN(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_all_that_is_learned_and_the_context(dg: Any, on: Any, family: str) -> None:
    net = module(dg, on, family, "bits")
    x = np.random.default_rng(0).integers(0, 2, (20, 3, *SHAPE)).astype(on.BITS)
    found = on.gradients(net, x, contexts(2))
    assert found.keys() == {*on.leaves(net), "context"}
    for name, gradient in found.items():
        assert np.all(np.isfinite(gradient)), name
        assert np.any(gradient != 0), name


def test_bits_that_are_always_off_are_learned_from_the_first_step(dg: Any, on: Any) -> None:
    """A new module gives bits that are off log odds of zero, whose gradient is -1/2, not 0."""
    net = dg.autoregressive.FVSBN(SHAPE)
    found = on.gradients(net, np.zeros((10, *SHAPE), on.BITS))
    (bias,) = (gradient for name, gradient in found.items() if name.endswith("bias"))
    close(bias, -0.5, 1e-6)


@pytest.mark.parametrize("family", ["NADE", "MADE", "PixelCNN", "Transformer"])
def test_completion_is_the_posterior_of_what_is_missing(dg: Any, on: Any, family: str) -> None:
    """What comes first observed: exact. Anything observed: evidence unbiased, draws of it."""
    with on.double():
        net = module(dg, on, family, "bits", 0)
        every = events(2)
        flat = every.reshape(-1, 6)  # type: ignore[union-attr]
        weights = np.exp(on.density(net, every))
        order = ORDER if family == "MADE" else range(6)
        first = np.isin(np.arange(6), list(order)[:3])
        rows, x = 400, np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        for mask in (first, ~first):
            number = 200
            wide = np.tile(np.where(mask, x, np.nan), (rows, 1)).reshape(rows, *SHAPE)
            wide = np.nan_to_num(wide, nan=-7.0)  # what is missing may hold anything
            value, log_evidence, effective = on.complete(net, wide, mask.reshape(SHAPE), number)
            value = value.reshape(rows, 6)
            fits = np.all(flat[:, mask] == x[mask], 1)
            truth = weights[fits].sum()
            close(value[:, mask], np.tile(x[mask], (rows, 1)))
            if mask is first:
                close(log_evidence, np.log(truth), 1e-9)
                close(effective, 1.0)
            else:
                found = np.exp(log_evidence)
                assert abs(found.mean() - truth) < 5 * found.std() / np.sqrt(rows)
                assert np.all((effective > 0.5) & (effective <= number + 1e-6))
            mean = (weights[fits] @ flat[fits] / truth)[~mask]
            error = np.sqrt(mean * (1 - mean) / rows)
            assert np.all(np.abs(value[:, ~mask].mean(0) - mean) < 5 * error)


def test_expanding_and_masking_keep_the_density(dg: Any, on: Any) -> None:
    net = module(dg, on, "MADE", "bits", 0)
    x = np.random.default_rng(0).integers(0, 2, (4, 3, *SHAPE)).astype(on.BITS)
    found, shape = on.expanded(net, x, (3,))
    assert shape == (2, 3, *SHAPE)
    close(found, on.density(net, x), 1e-5)


@pytest.mark.parametrize(
    ("output", "native"),
    [("bits", "Bernoulli"), ("symbols", "Categorical"), ("levels", "DiscretizedLogisticMixture"),
     ("numbers", "MixtureSameFamily")],
)  # fmt: skip
def test_conditionals_are_native_distributions(dg: Any, on: Any, output: str, native: str) -> None:
    net = module(dg, on, "FVSBN", output, 0)
    x = np.random.default_rng(0).integers(0, 2, (4, *SHAPE))
    x = x.astype(np.float32) if output in ("numbers", "levels") else x
    x = x.astype(on.BITS) if output == "bits" else x
    name, found = on.conditionals(net, x)
    assert name.startswith(native)
    assert found.shape == (4, *SHAPE)
    close(found.sum((1, 2)), on.density(net, x), 1e-4)


def test_a_prior_and_a_guide_of_bits_give_the_evidence(dg: Any, on: Any) -> None:
    """The prior is a NADE, the guide a MADE of the datum: against enumeration, by row."""
    a = dg.autoregressive
    prior = on.perturbed(a.NADE(4, units=5), 0.6)
    guide = on.perturbed(a.MADE(4, None, (8,), 1), 0.2)
    y = np.linspace(-1.0, 4.0, 5)[:, None].astype(np.float32)
    model, amortised = on.pair(prior, guide)
    every = events(2, (4,))
    log_prior = on.density(prior, every)
    gap = (y - every.sum(-1)) / 0.7  # type: ignore[union-attr]
    joint = log_prior - 0.5 * gap**2 - np.log(0.7 * np.sqrt(2 * np.pi))
    truth = np.log(np.exp(joint).sum(-1)).sum()
    fit = dg.svi(model, amortised, y, num_steps=2, progress=False)
    found = fit.importance(y, num_particles=4000).evidence
    assert abs(found.log_evidence - truth) < 5 * found.standard_error
    assert found.standard_error < 0.2


def test_a_guide_of_numbers_learns_a_correlated_posterior(dg: Any, on: Any) -> None:
    """The bound of a mixture guide reaches the log evidence of two latents seen by their sum."""
    y = np.random.default_rng(0).normal(0.0, 1.5, (64, 1)).astype(np.float32)
    guide = dg.autoregressive.MADE(2, dg.autoregressive.GaussianMixture(1), (16,), 1)
    fit = dg.svi(
        *on.normal_pair(guide), y, num_steps=800, optim=on.adam(1e-2), progress=False
    )  # fmt: skip
    log_evidence = -0.5 * (y[:, 0] ** 2 / 2.25 + np.log(2 * np.pi * 2.25)).mean()
    assert abs(fit.losses[-100:].mean() + log_evidence) < 0.05


def test_a_program_is_fitted_saved_and_loaded(dg: Any, on: Any, tmp_path: Any) -> None:
    """Two patterns and noise: the density of held-out rows beats that of independent bits."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 2, (600, 1))
    pattern = np.array([[0, 1, 1, 0, 1, 0], [1, 0, 0, 1, 1, 1]])[which[:, 0]]
    x = np.where(rng.random((600, 6)) < 0.05, 1 - pattern, pattern).astype(on.BITS)
    net = dg.autoregressive.NADE(6, units=8, context=1)
    model = dg.autoregressive.program(net)
    context = which.astype(np.float32)
    options: dict[str, Any] = {"optim": on.adam(0.02), "batch_size": 100, "progress": False}
    fit = dg.svi(model, None, x[:500], context[:500], num_steps=500, **options)
    learned = dg.flows.fitted(net, fit, "net")
    found = on.density(learned, x[500:], context[500:]).mean()
    entropy = -6 * (0.05 * np.log(0.05) + 0.95 * np.log(0.95))
    assert abs(found + entropy) < 0.35
    fit.save(tmp_path / "fit.zip")
    again = dg.load_fit(tmp_path / "fit.zip", model, None)
    close(on.density(dg.flows.fitted(net, again, "net"), x, context),
          on.density(learned, x, context), 1e-6)  # fmt: skip


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "no size": (lambda a, on: a.NADE(0), "each size in features must be a whole number"),
    "no output": (lambda a, on: a.FVSBN(3, "bernoulli"), "output must be Bernoulli"),
    "one symbol": (lambda a, on: a.Categorical(1), "number must be a whole number of at least 2"),
    "an order too short": (lambda a, on: a.MADE(3, order=(0, 1)), "each of the 3 features once"),
    "a twice in order": (lambda a, on: a.MADE(3, order=(0, 1, 1)), "each of the 3 features once"),
    "no image": (lambda a, on: a.PixelCNN(784), r"images of shape \(height, width\), got 784"),
    "an even kernel": (lambda a, on: a.PixelCNN((4, 4), kernel=4), "kernel must be odd"),
    "a wide head": (lambda a, on: a.Transformer(4, width=10), "multiple of 2 [*] heads = 8"),
    "an activation": (lambda a, on: a.NADE(3, activation="step"), "activation must be 'relu'"),
    "no context": (lambda a, on: a.NADE(3, context=2)(), r"context of shape \(..., 2\)"),
    "a context": (lambda a, on: on.log_prob(a.NADE(3), np.ones(3), np.ones(2)), "without context"),
    "another context": (
        lambda a, on: on.log_prob(a.NADE(3, context=2), np.ones(3), np.ones(3)), r"not \(3,\)"),
    "a shape": (lambda a, on: on.log_prob(a.NADE(3), np.ones((5, 4))), r"end in the event shape"),
    "a count": (
        lambda a, on: on.log_prob(a.NADE(3), np.array([[0.0, 1, 1], [0, 2, 1], [1, 1, 1]])),
        r"must be 0 or 1, but 1 of 3 rows holds others: row 1 \(2.0\)"),
    "a missing value": (
        lambda a, on: on.log_prob(a.NADE(2), np.array([[0.0, np.nan], [np.nan, 1.0]])),
        r"2 of 2 rows hold others: rows 0 \(nan\), 1 \(nan\)"),
    "a category": (
        lambda a, on: on.log_prob(a.FVSBN(2, a.Categorical(4)), np.array([[0, 4]])),
        r"whole numbers from 0 to 3, but 1 of 1 row holds others: row 0 \(4\)"),
    "an infinite number": (
        lambda a, on: on.log_prob(a.MADE(2, a.GaussianMixture()), np.array([[0.0, np.inf]])),
        r"must be finite numbers, but 1 of 1 row holds others: row 0 \(inf\)"),
    "an observed count": (
        lambda a, on: on.complete(a.NADE(2), np.array([[3.0, 0.0]]), np.array([True, False])),
        r"must be 0 or 1, but 1 of 1 row holds others: row 0 \(3.0\)"),
    "a mask of rows": (
        lambda a, on: on.complete(a.NADE(3), np.ones((5, 3)), np.ones(5, bool)),
        r"observed has shape \(5,\), values have \(5, 3\): pass True or False"),
    "no particles": (
        lambda a, on: on.complete(a.NADE(2), np.ones((5, 2)), np.array([True, False]), 0),
        r"num_particles must be a positive whole number, got 0"),
    "uniforms": (lambda a, on: on.draw(a.NADE(3), np.ones((5, 3))), r"must end in \(3, 1\)"),
    "no module": (lambda a, on: a.program(len), "program takes a module of dg.autoregressive"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named_with_the_cure(dg: Any, on: Any, name: str) -> None:
    wrong, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        wrong(dg.autoregressive, on)


def test_a_context_of_other_rows_is_refused(dg: Any) -> None:
    model = dg.autoregressive.program(dg.autoregressive.FVSBN(2, context=1))
    with pytest.raises(ValueError, match="context has 4 rows, but x has 5: pass a row of context"):
        dg.svi(model, None, np.ones((5, 2)), np.ones((4, 1)), num_steps=1, progress=False)


def test_symbols_that_there_are_not_are_refused_before_any_step(dg: Any) -> None:
    """Rows are named, on each wing by the check of its own that comes first."""
    model = dg.autoregressive.program(dg.autoregressive.FVSBN(2, dg.autoregressive.Categorical(3)))
    x = np.array([[0, 1], [2, 3], [1, 1]])
    with pytest.raises(ValueError, match=r"in rows 1: they hold 3|1 of 3 rows holds .* row 1 \(3"):
        dg.svi(model, None, x, num_steps=1, progress=False)
