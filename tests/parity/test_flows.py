"""Flows of equal weights are equal on both wings, to 1e-6; equal seeds give equal weights."""

from typing import Any

import numpy as np
import pytest

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro

from ..wings import flows_numpyro, flows_pyro
from ..wings.test_flows import FLOWS, LAYERS, PLAIN, contexts, layer, points

SIDES = ((on_numpyro, flows_numpyro), (on_pyro, flows_pyro))
ROWS = [(n, 0) for n in (*LAYERS, *PLAIN)] + [(n, 2) for n in LAYERS]


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def equal_weights(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        agree(value, second[name])


@pytest.mark.parametrize(("name", "context"), ROWS)
def test_layers_of_equal_seeds_are_equal(name: str, context: int) -> None:
    """Weights at first; values and log determinants of both directions after the same noise."""
    built = [on.perturbed(layer(dg, name, 3, context), 0.4) for dg, on in SIDES]
    equal_weights(*(on.leaves(b) for b, (_, on) in zip(built, SIDES, strict=True)))
    z, c = points(4, 3), contexts(context, 4)
    for way in ("push", "pull"):
        ours, theirs = (getattr(on, way)(b, z, c) for b, (_, on) in zip(built, SIDES, strict=True))
        agree(ours[0], theirs[0])
        agree(ours[1], theirs[1])
        z = ours[0]  # what is pulled lies where it can come from


@pytest.mark.parametrize("name", FLOWS)
def test_flows_of_equal_seeds_are_equal(name: str) -> None:
    """Weights at first; densities and their gradients after the same noise."""
    built = [
        on.perturbed(FLOWS[name](dg.flows, 3, 2, transforms=2, hidden=(8,), seed=3))
        for dg, on in SIDES
    ]
    equal_weights(*(on.leaves(b) for b, (_, on) in zip(built, SIDES, strict=True)))
    x, c = points(5, 3), contexts(2, 5)
    agree(*(on.log_prob(b, x, c) for b, (_, on) in zip(built, SIDES, strict=True)))
    ours, theirs = (on.gradients(b, x, c)[0] for b, (_, on) in zip(built, SIDES, strict=True))
    equal_weights(ours, theirs)


@pytest.mark.parametrize("name", ["RealNVP", "MAF"])
@pytest.mark.parametrize("identity", [True, False])
def test_random_orders_of_equal_seeds_are_equal(name: str, identity: bool) -> None:
    """The orders too, which no weight shows: densities of five layers after the same noise."""
    options: dict[str, Any] = {"transforms": 5, "hidden": (8,), "order": "random", "seed": 3}
    options |= {"identity": identity}
    made = [FLOWS[name](dg.flows, 6, 0, **options) for dg, _ in SIDES]
    equal_weights(*(on.leaves(m) for m, (_, on) in zip(made, SIDES, strict=True)))
    built = [on.perturbed(m) for m, (_, on) in zip(made, SIDES, strict=True)]
    x = points(5, 6)
    ours, theirs = (on.log_prob(b, x) for b, (_, on) in zip(built, SIDES, strict=True))
    agree(ours, theirs)
    other: dict[str, Any] = options | {"order": "reverse"}
    reversing = FLOWS[name](on_numpyro.flows, 6, 0, **other)
    assert np.abs(flows_numpyro.log_prob(flows_numpyro.perturbed(reversing), x) - ours).max() > 0.01
