"""The compiled step of the Pyro wing: the same losses, exact resume, and Adam inside the graph."""

from functools import partial

import numpy as np
import pytest

pyro = pytest.importorskip("pyro", reason="the Pyro wing is not installed")

import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import deepgen_ppl.pyro as dg  # noqa: E402

pytestmark = pytest.mark.slow

X = (torch.rand(256, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def vae():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))
    # No bias before the normalisation: its gradient would be rounding noise, which Adam magnifies.
    first = nn.Sequential(nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU())
    encoder = nn.Sequential(first, nn.Linear(8, 4))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide


def fit_of(mode: str, **options):
    start = {"num_steps": 60, "batch_size": 64, "progress": False, "compile": mode}
    return dg.svi(*vae(), X, **{**start, **options})


OPTIMIZERS = {
    "adam": None,
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "decay": partial(torch.optim.Adam, lr=1e-2, weight_decay=0.1),
    "sgd": partial(torch.optim.SGD, lr=1e-4, momentum=0.9),
    "schedule": lambda p: (a := torch.optim.Adam(p, lr=1e-2),
                           torch.optim.lr_scheduler.ExponentialLR(a, 0.9)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_compiled_step_is_the_eager_step(name: str) -> None:
    options = {"optim": OPTIMIZERS[name], "clip_norm": 50.0 if name == "adam" else None}
    eager, compiled = fit_of("eager", **options), fit_of("compiled", **options)
    assert compiled.compiled == "compiled", compiled.reason
    np.testing.assert_allclose(compiled.losses, eager.losses, rtol=1e-3)
    for key, value in eager.params.items():
        torch.testing.assert_close(compiled.params[key], value, rtol=1e-2, atol=1e-3)


def test_a_compiled_run_resumes_exactly(tmp_path) -> None:
    path = tmp_path / "run.ckpt"
    whole = fit_of("compiled")

    def stop(told):
        if told.step == 30:
            raise RuntimeError("the machine went down")
        return False

    from deepgen_ppl.pyro.infer import checkpoint

    due, checkpoint.Checkpoint.due = checkpoint.Checkpoint.due, lambda self: True
    try:
        with pytest.raises(RuntimeError, match="went down"):
            fit_of("compiled", checkpoint=path, callbacks=[stop])
    finally:
        checkpoint.Checkpoint.due = due
    again = fit_of("compiled", checkpoint=path)
    np.testing.assert_array_equal(whole.losses, again.losses)


def test_a_non_finite_compiled_step_is_found() -> None:
    def model(y):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    y = torch.ones(100)
    y[17] = 1e30  # its square is no float32
    options = {"num_steps": 60, "batch_size": 10, "progress": False, "compile": "compiled"}
    with pytest.raises(dg.NonFiniteError, match="data rows 17") as caught:
        dg.svi(model, None, y, **options)
    error = caught.value
    assert error.step < 10
    assert len(error.fit.losses) == error.step
    assert torch.isfinite(error.fit.params["loc"])
