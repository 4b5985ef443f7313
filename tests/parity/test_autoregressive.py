"""Autoregressive modules of equal weights are equal on both wings, to 1e-6, densities and draws."""

from typing import Any

import numpy as np
import pytest

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro

from ..wings import autoregressive_numpyro, autoregressive_pyro
from ..wings.test_autoregressive import CONTEXT, FAMILIES, contexts, module, uniforms

SIDES: Any = ((on_numpyro, autoregressive_numpyro), (on_pyro, autoregressive_pyro))
# each family with two outputs, each output with three families
ROWS = [
    (family, output)
    for i, family in enumerate(FAMILIES)
    for output in (("bits", "numbers") if i % 2 else ("symbols", "levels"))
]


@pytest.mark.parametrize(("family", "output"), ROWS)
def test_modules_of_equal_seeds_are_equal(family: str, output: str) -> None:
    """Weights; after the same noise draws of the same uniform numbers, and their densities."""
    built = [module(dg, on, family, output) for dg, on in SIDES]
    first, second = (on.leaves(net) for net, (_, on) in zip(built, SIDES, strict=True))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=1e-12, atol=1e-12)
    u, c = uniforms(on_numpyro, output, 20), contexts(CONTEXT[output])
    ours, theirs = (on.draw(net, u, c) for net, (_, on) in zip(built, SIDES, strict=True))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    x = ours.astype(float)
    ours, theirs = (on.density(net, x, c) for net, (_, on) in zip(built, SIDES, strict=True))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
