"""The laws of flows: one row of a table for each layer and each published flow."""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def on(wing: str) -> ModuleType:
    """Flows of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.flows_{wing}")


SMALL: dict[str, Any] = {"hidden": (8,), "activation": "tanh"}


def turned(features: int) -> list[int]:
    """An order of features that is neither that of their numbers nor its own inverse."""
    return np.roll(np.arange(features), 1).tolist()


# name: the layer of D features and C context features
LAYERS: dict[str, Callable[[Any, int, int], Any]] = {
    "additive coupling": lambda f, d, c: f.Coupling(d, c, f.Additive(), **SMALL),
    "affine coupling": lambda f, d, c: f.Coupling(d, c, f.Affine(), **SMALL),
    "affine coupling along densities": lambda f, d, c: f.Coupling(d, c, along="pull", **SMALL),
    "spline coupling": lambda f, d, c: f.Coupling(d, c, f.Spline(3, 3.0), **SMALL),
    "affine autoregressive": lambda f, d, c: f.Autoregressive(d, c, f.Affine(), **SMALL),
    "inverse autoregressive": lambda f, d, c: f.Autoregressive(d, c, fast="push", **SMALL),
    "spline autoregressive": lambda f, d, c: f.Autoregressive(d, c, f.Spline(3), **SMALL),
    "linear autoregressive": lambda f, d, c: f.Autoregressive(d, c, hidden=()),
    "ordered autoregressive": lambda f, d, c: f.Autoregressive(d, c, order=turned(d), **SMALL),
    "ordered linear autoregressive": lambda f, d, c: f.Autoregressive(
        d, c, hidden=(), order=turned(d), fast="push"
    ),
    "sigmoids autoregressive": lambda f, d, c: f.Autoregressive(d, c, f.Sigmoids(3), **SMALL),
    "integral autoregressive": lambda f, d, c: f.Autoregressive(d, c, f.Integral(3), **SMALL),
    "elementwise spline": lambda f, d, c: f.Elementwise(d, c, f.Spline(3), **SMALL),
    "elementwise integral": lambda f, d, c: f.Elementwise(d, c, f.Integral(3), **SMALL),
    "planar": lambda f, d, c: f.PlanarLayer(d, c, **SMALL),
    "radial": lambda f, d, c: f.RadialLayer(d, c, **SMALL),
    "Sylvester": lambda f, d, c: f.SylvesterLayer(d, c, 2, **SMALL),
    "continuous": lambda f, d, c: f.Continuous(d, c, (8,), num_steps=12),
}
# layers that no context reaches
PLAIN: dict[str, Callable[[Any, int], Any]] = {
    "act norm": lambda f, d: f.ActNorm(d),
    "standardise": lambda f, d: f.Standardise(np.arange(d), 1.0 + np.arange(d)),
    "reverse": lambda f, d: f.Reverse(d),
    "permutation": lambda f, d: f.Permutation(d, seed=2),
    "logit": lambda f, d: f.Logit(d, 2.0, 0.1),
    "LU": lambda f, d: f.LinearLU(d, seed=2),
    "Householder": lambda f, d: f.Householder(d, reflections=2),
    "inverse": lambda f, d: f.Inverse(f.Coupling(d, 0, **SMALL)),
    "chain": lambda f, d: f.Chain([f.Reverse(d), f.Coupling(d, 0, **SMALL), f.ActNorm(d)]),
    "stack": lambda f, d: f.Stack([f.Coupling(d, 0, **SMALL, seed=s) for s in range(3)]),
}
TOLERANCE: dict[str, float] = {  # of quadratures
    "continuous": 3e-4,
    "integral autoregressive": 1e-7,
    "elementwise integral": 1e-7,
}
ROWS = [(n, 0) for n in (*LAYERS, *PLAIN)] + [(n, 2) for n in LAYERS]

FLOWS: dict[str, Callable[..., Any]] = {
    "NICE": lambda f, d, c, **o: f.NICE(d, c, **o),
    "RealNVP": lambda f, d, c, **o: f.RealNVP(d, c, **o),
    "NSF": lambda f, d, c, **o: f.NSF(d, c, bins=3, **o),
    "autoregressive NSF": lambda f, d, c, **o: f.NSF(d, c, bins=3, autoregressive=True, **o),
    "MAF": lambda f, d, c, **o: f.MAF(d, c, **o),
    "IAF": lambda f, d, c, **o: f.IAF(d, c, **o),
    "Planar": lambda f, d, c, **o: f.Planar(d, c, **o),
    "Radial": lambda f, d, c, **o: f.Radial(d, c, **o),
    "Sylvester": lambda f, d, c, **o: f.Sylvester(d, c, units=2, **o),
    "NAF": lambda f, d, c, **o: f.NAF(d, c, units=3, **o),
    "unconstrained NAF": lambda f, d, c, **o: f.NAF(d, c, units=3, integral=True, **o),
    "FFJORD": lambda f, d, c, **o: f.FFJORD(d, c, num_steps=6, **(o | {"activation": "tanh"})),
}


def layer(dg: Any, name: str, features: int, context: int = 0) -> Any:
    if name in PLAIN:
        return PLAIN[name](dg.flows, features)
    return LAYERS[name](dg.flows, features, context)


def points(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def contexts(number: int, *batch: int) -> np.ndarray | None:
    return points(*batch, number, seed=1) if number else None


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def tried(dg: Any, on: Any) -> Callable[[str, int], dict[str, Any]]:
    """What a layer of three features makes of a batch, in float64, with noise on its weights."""

    @functools.cache
    def once(name: str, context: int) -> dict[str, Any]:
        with on.double():
            built = on.perturbed(layer(dg, name, 3, context))
            z, c = points(2, 3, 3), contexts(context, 2, 3)
            return {"z": z} | on.tried(built, z, c)

    return once


@pytest.mark.parametrize(("name", "context"), ROWS)
def test_a_layer_inverts_and_its_determinant_is_that_of_autodiff(
    tried: Any, name: str, context: int
) -> None:
    """In double precision, in compiled code (JAX), by push and pull and by the native transform."""
    found = tried(name, context)
    close(found["back"], found["z"], TOLERANCE.get(name, 1e-9))
    close(found["native_back"], found["z"], TOLERANCE.get(name, 1e-9))
    truth = np.linalg.slogdet(found["jacobian"])[1]
    for log_det in (found["log_det"], -found["log_det_back"], found["native"]):
        assert log_det.shape == (2, 3)
        close(log_det, truth, TOLERANCE.get(name, 1e-9))
    moved = np.abs(found["x"] - found["z"]).max()
    assert moved > 1e-3, "the noise must take it away from the identity"


@pytest.mark.parametrize(("name", "context"), ROWS)
def test_every_batch_shape_gives_the_same_rows(tried: Any, name: str, context: int) -> None:
    """Shape (2, 3), rows of shape (3,), events of shape (), under vmap; contexts that broadcast."""
    found = tried(name, context)
    whole = [found[key] for key in ("x", "log_det", "back", "log_det_back")]
    for parts in (found["rows"], found["events"]):
        for part, all_of_them in zip(parts, whole, strict=True):
            close(part, all_of_them, TOLERANCE.get(name, 1e-9))
    if context:
        close(found["one"][0, 0], found["x"][0, 0], TOLERANCE.get(name, 1e-9))
        close(found["many"][0, 0], found["x"][0, 0], TOLERANCE.get(name, 1e-9))
        assert np.abs(found["many"] - found["many"][0, 0]).max() > 1e-3, "the context matters"


@pytest.mark.parametrize("name", [*LAYERS, *PLAIN])
def test_single_precision_stays_single_and_inverts(dg: Any, on: Any, name: str) -> None:
    built = on.perturbed(layer(dg, name, 4), 0.1)
    z = points(5, 4).astype(np.float32)
    x, log_det = on.push(built, z)
    back, _ = on.pull(built, x)
    assert x.dtype == log_det.dtype == back.dtype == np.float32
    close(back, z, 2e-5)


def test_a_long_batch_gives_the_rows_that_short_ones_give(dg: Any, on: Any) -> None:
    """Splines of many rows are computed in blocks, of which the last one is not full here."""
    built = on.perturbed(layer(dg, "spline coupling", 3))
    z = points(2049, 3)
    for way in (on.push, on.pull):
        for whole, *parts in zip(
            way(built, z), *(way(built, p) for p in (z[:9], z[-9:])), strict=True
        ):
            for part, rows in zip(parts, (whole[:9], whole[-9:]), strict=True):
                close(rows, part, 1e-5)


@pytest.mark.parametrize("name", [n for n in LAYERS if "sigmoids" not in n])
def test_a_layer_with_a_network_begins_as_the_identity(dg: Any, on: Any, name: str) -> None:
    built = layer(dg, name, 3, 2)
    x, log_det = on.push(built, points(4, 3), contexts(2, 4))
    close(x, points(4, 3).astype(np.float32), 1e-5)
    close(log_det, 0.0, 1e-5)


@pytest.mark.parametrize(
    ("features", "hidden", "context"),
    [(1, (3,), 0), (1, (3,), 2), (2, (), 2), (5, (3,), 0), (9, (16, 7), 2), (4, (16, 5), 0)],
)
def test_autoregressive_layers_of_any_width_invert(
    dg: Any, on: Any, features: int, hidden: tuple[int, ...], context: int
) -> None:
    """More units than features, fewer, and none; the Jacobian is triangular."""
    with on.double():
        options: dict[str, Any] = {"hidden": hidden, "activation": "tanh"}
        built = on.perturbed(dg.flows.Autoregressive(features, context, **options), 0.5)
        z, c = points(2, 3, features), contexts(context, 2, 3)
        found = on.tried(dg.flows.Inverse(built), z, c)
        close(found["back"], z)
        close(found["log_det"], np.linalg.slogdet(found["jacobian"])[1])
        jacobian = found["jacobian"]
        close(jacobian, np.tril(jacobian), 1e-12)
        if min(hidden, default=features) >= features:
            lower = np.abs(jacobian).max((0, 1))[np.tril_indices(features, -1)]
            assert np.all(lower > 0), "each sees all before it"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "unconstrained NAF" else []) for n in FLOWS],
)
def test_check_flow_passes_and_the_density_integrates_to_one(dg: Any, on: Any, name: str) -> None:
    flow = on.perturbed(FLOWS[name](dg.flows, 2, 0, transforms=2, hidden=(8,)), 0.2)
    found = dg.check_flow(flow)
    assert found.ok, found
    assert all(check.ok for check in found.checks), found


@pytest.mark.parametrize("name", FLOWS)
def test_the_density_of_draws_is_log_prob_and_that_of_the_native_class(
    dg: Any, on: Any, name: str
) -> None:
    tolerance = 1e-3 if name == "FFJORD" else 1e-7  # of the solver, of the quadrature
    with on.double():
        flow = on.perturbed(FLOWS[name](dg.flows, 3, 2, transforms=2, hidden=(8,)))
        c = contexts(2, 5)
        x, log_prob = on.draw(flow, c, (4,))
        assert x.shape == (4, 5, 3)
        assert log_prob.shape == (4, 5)
        close(on.log_prob(flow, x, c), log_prob, tolerance)
        close(on.native_log_prob(flow, x, c), log_prob, tolerance)


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_reach_every_parameter_and_the_context(dg: Any, on: Any, name: str) -> None:
    """By densities and by draws, in both directions."""
    flow = on.perturbed(
        FLOWS[name](dg.flows, 3, 2, transforms=2, hidden=(8,), activation="tanh"), 0.3
    )
    for found in on.gradients(flow, points(20, 3), contexts(2, 20)):
        assert set(found) == {*on.leaves(flow), "context"}
        for parameter, gradient in found.items():
            assert np.all(np.isfinite(gradient)), parameter
            assert np.any(gradient != 0), parameter


@pytest.mark.parametrize("name", ["RealNVP", "MAF"])
def test_random_orders_begin_as_the_identity_and_invert(dg: Any, on: Any, name: str) -> None:
    """Each layer works in an order of its own; what is moved in between comes back at the end."""
    options: dict[str, Any] = {"order": "random", "hidden": (8,)}
    z = points(5, 6)
    for transforms in (1, 5):
        flow = FLOWS[name](dg.flows, 6, 0, transforms=transforms, **options)
        close(on.push(flow.layer, z)[0], z.astype(np.float32), 1e-6)
    built = [
        on.perturbed(FLOWS[name](dg.flows, 6, 0, transforms=5, seed=seed, **options))
        for seed in (0, 0, 1)
    ]
    x, again, other = (on.push(flow.layer, z) for flow in built)
    close(x[0], again[0])
    assert np.abs(x[0] - other[0]).max() > 1e-2
    back, log_det = on.pull(built[0].layer, x[0])
    close(back, z, 1e-4)
    close(-log_det, x[1], 1e-4)


@pytest.mark.parametrize("name", ["RealNVP", "MAF"])
def test_a_flow_may_begin_away_from_the_identity(dg: Any, on: Any, name: str) -> None:
    """Its hidden layers are those of the flow that does; it inverts as that one does."""
    z = points(50, 6)
    flow, other = (
        FLOWS[name](dg.flows, 6, 0, transforms=3, hidden=(8,), identity=identity)
        for identity in (False, True)
    )
    x, log_det = on.push(flow.layer, z)
    assert np.all(np.abs(x - z).max(0) > 0.03), "every feature is moved"
    back, log_det_back = on.pull(flow.layer, x)
    close(back, z, 1e-4)
    close(-log_det_back, log_det, 1e-4)
    ours, theirs = on.leaves(flow), on.leaves(other)
    equal = [key for key in ours if np.array_equal(ours[key], theirs[key])]
    assert len(equal) == len(ours) // 2, "weights and biases of one layer of two"


def test_expanding_and_masking_keep_the_density(dg: Any, on: Any) -> None:
    flow = on.perturbed(dg.flows.IAF(2, hidden=(8,), transforms=2))
    kept, plain = on.expanded_log_prob(flow, (3,))
    assert kept.shape == (2, 3)
    close(kept, plain, 1e-4)


def test_far_outside_of_a_spline_all_is_finite(dg: Any, on: Any) -> None:
    flow = on.perturbed(dg.flows.NSF(2, 0, hidden=(8,), transforms=2, bins=3, bound=2.0))
    x = np.array([[1e4, -1e4], [2.0, -2.0], [0.0, 1e3]])
    assert np.all(np.isfinite(on.log_prob(flow, x)))
    for found in on.gradients(flow, x):
        assert all(np.all(np.isfinite(g)) for g in found.values())


def test_an_amortised_flow_guide_learns_the_posterior(dg: Any, on: Any) -> None:
    """Its context is the data: z | x ~ N(0.8 x, 0.2), the bound reaches the evidence."""
    x = points(64, 2)
    model, guide = on.pair(dg.flows.IAF(2, 2, transforms=2, hidden=(16,)), 2)
    fit = dg.svi(model, guide, x, num_steps=1200, progress=False)
    log_evidence = -0.5 * (x**2 / 1.25 + np.log(2 * np.pi * 1.25)).sum(-1).mean()
    assert abs(fit.losses[-200:].mean() + log_evidence) < 0.05
    found = fit.importance(x, num_particles=200).evidence
    assert abs(found.log_evidence / len(x) - log_evidence) < 0.01


def test_a_program_of_a_flow_is_fitted_saved_and_loaded(dg: Any, on: Any, tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    angle, c = rng.uniform(0, 2 * np.pi, 400), rng.uniform(1.0, 3.0, (400, 1))
    radius = c[:, 0] + 0.1 * rng.normal(size=400)  # on a line densities have no bound: scores jump
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    flow = dg.flows.standardised(dg.flows.NSF(2, 1, transforms=3, hidden=(16,), bins=3), x)
    model = dg.flows.program(flow)
    fit = dg.svi(model, None, x, c, num_steps=300, batch_size=100, progress=False)
    assert fit.losses[-50:].mean() < fit.losses[:20].mean() - 0.3
    learned = dg.flows.fitted(flow, fit)
    before = on.log_prob(learned, x, c)
    assert abs(-before.mean() - fit.losses[-50:].mean()) < 0.3
    fit.save(tmp_path / "fit.zip")
    again = dg.load_fit(tmp_path / "fit.zip", model, None)
    close(on.log_prob(dg.flows.fitted(flow, again), x, c), before, 1e-4)


def test_data_dependent_initialisation_makes_the_base_standard(dg: Any, on: Any) -> None:
    f = dg.flows
    stack = f.Stack([f.Chain([f.Coupling(2, **SMALL), f.ActNorm(2)]) for _ in range(3)])
    flow = on.perturbed(f.Flow(stack), 0.2)
    x = 5.0 + 3.0 * points(500, 2)
    begun = f.initialised(flow, x)
    z, _ = on.pull(begun.layer, x)
    assert np.abs(z.mean(0)).max() < 1.0
    assert np.abs(z.std(0) - 1.0).max() < 0.5
    assert np.abs(on.pull(flow.layer, x)[0].mean(0)).max() > 2.0
    for i in range(3):
        assert any(np.any(v != 0) for n, v in on.leaves(begun).items() if f"layers.{i}" in n)


def test_images_in_several_scales_invert(dg: Any, on: Any) -> None:
    """Glow: round trip, determinant by autodiff, with a context; begun from a batch."""
    f = dg.flows
    with on.double():
        flow = f.Glow((4, 4, 1), 2, steps=2, channels=4)
        images, c = points(2, 3, 4, 4, 1), contexts(2, 2, 3)
        found = on.tried(on.perturbed(flow, 0.2).layer, images, c)
        close(found["back"], images)
        jacobian = found["jacobian"].reshape(2, 3, 16, 16)
        close(found["log_det"], np.linalg.slogdet(jacobian)[1])
        close(found["events"][0], found["x"])
        batch = 3.0 + 2.0 * points(50, 4, 4, 1)
        plain = f.Glow((4, 4, 1), steps=2, channels=4)
        z, _ = on.pull(f.initialised(plain, batch).layer, batch)
        assert abs(z.mean()) < 0.1
        assert abs(z.std() - 1.0) < 0.1


def test_the_trace_by_random_signs_is_unbiased(dg: Any, on: Any) -> None:
    """Hutchinson's log densities of 4,000 rows have the mean of the exact ones."""
    x = points(4000, 3)
    exact, signs = (
        on.perturbed(dg.flows.FFJORD(3, hidden=(8,), num_steps=4, trace=trace), 0.3)
        for trace in ("exact", "hutchinson")
    )
    difference = on.log_prob(signs, x) - on.log_prob(exact, x)
    assert difference.std() > 1e-3
    assert abs(difference.mean()) < 5.0 * difference.std() / len(x) ** 0.5


def test_features_see_those_before_them_in_the_order(dg: Any, on: Any) -> None:
    """Sorted by the order, the matrix of derivatives is triangular."""
    order = [2, 0, 3, 1]
    with on.double():
        built = on.perturbed(dg.flows.Autoregressive(4, order=order, **SMALL))
        jacobian = on.tried(built, points(2, 3, 4), None)["jacobian"]
    sorted_ = jacobian[..., order, :][..., order]
    assert np.abs(np.triu(sorted_, 1)).max() == 0.0
    assert np.abs(sorted_[..., *np.tril_indices(4, -1)]).min() > 1e-6


HOLED = np.array([[0.0, 1.0], [np.nan, 2.0], [1.0, 0.0], [2.0, 2.0]], np.float32)

BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one feature": (lambda f: f.RealNVP(1), "features >= 2"),
    "no features": (lambda f: f.MAF(0), "features must be a whole number"),
    "transforms": (lambda f: f.MAF(2, transforms=0), "transforms must be"),
    "hidden": (lambda f: f.MAF(2, hidden=64), "hidden must be the units of each layer"),
    "hidden size": (lambda f: f.MAF(2, hidden=(0,)), "each size in hidden"),
    "activation": (lambda f: f.MAF(2, activation="sine"), "activation must be"),
    "bins": (lambda f: f.NSF(2, bins=0), "bins must be"),
    "bound": (lambda f: f.NSF(2, bound=-1.0), "bound must be a positive number"),
    "order": (lambda f: f.Permutation((0, 0)), "each of 0 to 1 once"),
    "order of a layer": (lambda f: f.Autoregressive(3, order=(0, 1)), "each of 0 to 2 once"),
    "order of a flow": (lambda f: f.MAF(2, order="any"), "order must be 'reverse' or 'random'"),
    "least": (lambda f: f.RealNVP(2, least=1.0), "least must be a number between 0 and 1"),
    "along": (lambda f: f.Coupling(2, along="both"), "along must be 'push' or 'pull'"),
    "scale": (lambda f: f.Standardise(np.zeros(2), np.array([1.0, 0.0])), "do not vary"),
    "direction": (lambda f: f.Autoregressive(2, fast="both"), "fast must be"),
    "events": (lambda f: f.Chain([f.Reverse(2), f.Reverse(3)]), "event shape"),
    "constant": (lambda f: f.standardised(f.MAF(2), np.ones((5, 2))), "do not vary"),
    "data": (lambda f: f.standardised(f.MAF(2), np.ones((5, 3))), "do not end in the event shape"),
    "units": (lambda f: f.Sylvester(2, units=3), "units must be at most features"),
    "trace": (lambda f: f.FFJORD(2, trace="none"), "trace must be"),
    "relu field": (lambda f: f.FFJORD(2, activation="relu"), "activation of a vector field"),
    "odd image": (lambda f: f.Glow((6, 6, 1)), "cannot be halved"),
    "alpha": (lambda f: f.Logit(2, 1.0, 0.5), "alpha must be"),
    "outside": (
        lambda f: f.Logit(2, 4.0, 0.0)().inv(np.full((3, 2), -1.0)),
        "3 of 3 rows are outside",
    ),
    "NaN to scale by": (lambda f: f.standardised(f.MAF(2), HOLED), "NaN in 1 of 4 rows: 1"),
    "NaN to begin from": (lambda f: f.initialised(f.NICE(2), HOLED), "NaN in 1 of 4 rows: 1"),
    "no context": (lambda f: f.MAF(2, 3)(), "call it with a context of shape"),
    "too much": (lambda f: f.MAF(2)(np.ones((4, 3))), "made without context"),
    "context size": (lambda f: f.MAF(2, 3)(np.ones((4, 2))), "last axis must have 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_cure(dg: Any, name: str) -> None:
    act, sentence = BAD[name]
    with pytest.raises(ValueError, match=sentence):
        act(dg.flows)


def test_a_flow_on_a_support_has_it(dg: Any, on: Any) -> None:
    """For chains and guides, which ask the distribution; rows outside are named, expanded too."""
    flow = on.perturbed(dg.flows.MAF(2, hidden=(8,), support=on.positive))
    assert np.all(on.draw(flow, shape=(20,))[0] > 0)
    x = np.array([[1.0, 2.0], [-1.0, 2.0], [3.0, 0.5], [1.0, -0.1]], np.float32)
    for density in (flow(), flow().expand((4,))):
        assert np.all(on.unconstrained(density, -3.0) > 0)
        with pytest.raises(ValueError, match=r"2 of 4 rows are outside the support .* rows 1, 3"):
            on.log_prob(lambda _, d=density: d, x)
    assert np.all(np.isfinite(on.log_prob(flow, np.abs(x))))


def test_an_inverse_that_does_not_converge_is_refused_by_rows(dg: Any, on: Any) -> None:
    f = dg.flows
    slow = f.Autoregressive(2, univariate=f.Sigmoids(3, max_steps=2), hidden=(4,))
    with pytest.raises(ValueError, match=r"did not converge in \d of 5 rows: .*raise max_steps"):
        on.push(slow, points(5, 2))
    x = np.array([[0.0, 1.0], [np.inf, 0.0]])
    with pytest.raises(ValueError, match="did not converge in 1 of 2 rows: 1"):
        on.pull(on.perturbed(f.PlanarLayer(2)), x)


def test_check_flow_finds_what_is_wrong(dg: Any, on: Any) -> None:
    for act in (dg.check_flow, dg.flows.dequantised, dg.flows.program):
        with pytest.raises(TypeError, match="takes a flow"):
            act(3)
    with pytest.raises(ValueError, match="Pass one context"):
        dg.check_flow(dg.flows.MAF(2, 1), np.ones((3, 1)))
    wide = dg.flows.Flow(dg.flows.Standardise(np.zeros(2), np.array([1e12, 1e-12])))
    assert [c.name for c in dg.check_flow(wide).failed][-2:] == [
        "Lipschitz constant",
        "Lipschitz constant of the inverse",
    ]
