"""Flows in compiled training: what torch's compiler makes of each is what runs plain."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .test_flows import FLOWS, SMALL

X = np.random.default_rng(3).normal(size=(32, 3)).astype("float32")
CONTEXT = np.random.default_rng(4).normal(size=(32, 2)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_a_compiled_fit_is_the_fit_that_runs_plain(wing: str, dg: ModuleType, name: str) -> None:
    """Losses of training with compiled gradients are those of training with eager ones."""
    if wing != "pyro":
        pytest.skip("the NumPyro wing always compiles")
    import pyro

    def losses(compile: str) -> Any:
        flow = FLOWS[name](dg.flows, 3, 2, transforms=2, seed=5, **SMALL)

        def model(x: Any, context: Any) -> None:
            trained = pyro.module("flow", flow)
            with pyro.plate("data", len(x)):
                pyro.sample("x", trained(context), obs=x)

        options = {"num_steps": 12, "compile": compile, "progress": False}
        fit = dg.svi(model, None, X, CONTEXT, **options)
        assert fit.compiled == compile
        return fit.losses

    found, plain = losses("compiled"), losses("eager")
    assert plain[-1] < plain[0]
    np.testing.assert_allclose(found, plain, rtol=2e-4, atol=2e-4)
