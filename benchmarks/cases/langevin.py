"""Langevin steps of a neural energy: `mcmc` of either wing beside torchebm's sampler.

Unadjusted steps of 500 chains on an energy of two numbers, a network with two layers of 128 units
beside a wide normal; equal weights, and torchebm takes the step size that ours found. Seconds are
those of the core for a whole call after the first one: set-up, adaptation and diagnoses of ours
count. The mean energy at the end stands beside the speed.
"""

from __future__ import annotations

import importlib
import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Case, Contender, Run, Skip, Target

REQUIRES = ("jax", "numpyro", "torch", "pyro")
VARIANTS = ("numpyro", "pyro")
CHAINS, WARMUP = 500, 200
WIDTHS = (128, 128)
DEVIATION = 2.0


def build(variant: str, quick: bool) -> Case:
    """Return the contenders of a wing."""
    steps = 1000 if quick else 4000
    found: dict[str, float] = {}
    contenders = (
        Contender("deepgen_ppl", lambda: ours(variant, steps, found)),
        Contender("torchebm", lambda: theirs(steps, found)),
    )
    return Case(steps, "steps of all chains", contenders, (Target("deepgen_ppl", "torchebm", 2.0),))


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights and biases of the energy's network."""
    rng, sizes = np.random.default_rng(0), (2, *WIDTHS, 1)
    return [
        (
            rng.normal(0.0, 1.5 / np.sqrt(a), (b, a)).astype(np.float32),
            rng.normal(0.0, 0.5, b).astype(np.float32),
        )
        for a, b in itertools.pairwise(sizes)
    ]


def energy(x: np.ndarray) -> np.ndarray:
    """Return energies, the base counted, by NumPy."""
    out = x
    layers = weights()
    for number, (weight, bias) in enumerate(layers):
        out = out @ weight.T + bias
        out = out / (1.0 + np.exp(-out)) if number < len(layers) - 1 else out
    return out[..., 0] + 0.5 * (x**2).sum(-1) / DEVIATION**2


def ours(wing: str, steps: int, found: dict[str, float]) -> Callable[[int], Run]:
    """Return runs of `mcmc` with unadjusted Langevin steps."""
    dg: Any = importlib.import_module(f"deepgen_ppl.{wing}")
    program = _program(wing)
    lengths = {"num_warmup": WARMUP, "num_samples": steps - WARMUP, "thinning": 100}

    def run(seed: int) -> Run:
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = dg.mcmc(
                program, kernel=dg.Langevin(dense=False), num_chains=CHAINS, progress=False,
                seed=seed, **lengths,
            )  # fmt: skip
        seconds = time.process_time() - began
        size = float(np.mean(np.asarray(posterior.stats["step_size"])))
        found.setdefault("step", size)
        last = np.asarray(posterior.draws["x"])[:, -1]
        return Run(seconds, quality={"mean energy": float(energy(last).mean()), "step": size})

    run(0)
    return run


def _program(wing: str) -> Callable[[], None]:
    """Return the energy as a program of the wing, on one value."""
    if wing == "numpyro":
        import jax
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist

        layers: Any = [(jnp.asarray(w), jnp.asarray(b)) for w, b in weights()]

        def net(x: Any) -> Any:
            for number, (weight, bias) in enumerate(layers):
                x = x @ weight.T + bias
                x = jax.nn.silu(x) if number < len(layers) - 1 else x
            return x[..., 0]

        def program() -> None:
            x: Any = numpyro.sample("x", dist.Normal(0.0, DEVIATION).expand([2]).to_event(1))
            numpyro.factor("energy", -net(x))

        return program
    import pyro
    import pyro.distributions as pyro_dist
    import torch

    torch.set_num_threads(1)
    own = _torch_net(torch)

    def pyro_program() -> None:
        base = pyro_dist.Normal(torch.zeros(2), DEVIATION).to_event(1)
        x = pyro.sample("x", base)
        pyro.factor("energy", -own(x)[..., 0])

    return pyro_program


def _torch_net(torch: Any) -> Any:
    parts: list[Any] = []
    for weight, bias in weights():
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(weight))
            layer.bias.copy_(torch.as_tensor(bias))
        parts += [layer.requires_grad_(False), torch.nn.SiLU()]
    return torch.nn.Sequential(*parts[:-1])


def theirs(steps: int, found: dict[str, float]) -> Callable[[int], Run]:
    """Return runs of torchebm's Langevin sampler at the step size that ours found."""
    try:
        import torch
        from torchebm.core import BaseModel  # pyright: ignore[reportMissingImports]
        from torchebm.samplers import LangevinDynamics  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Skip(f"torchebm is not installed ({error.name})") from error
    torch.set_num_threads(1)

    class Energy(BaseModel):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self) -> None:
            super().__init__()
            self.net = _torch_net(torch)

        def forward(self, x: Any, **_: Any) -> Any:
            return self.net(x)[..., 0] + 0.5 * (x**2).sum(-1) / DEVIATION**2

    model = Energy()

    def run(seed: int) -> Run:
        torch.manual_seed(seed)
        sampler = LangevinDynamics(model, step_size=0.5 * found["step"] ** 2)
        began = time.process_time()
        x = sampler.sample(x=DEVIATION * torch.randn(CHAINS, 2), n_steps=steps)
        seconds = time.process_time() - began
        return Run(seconds, quality={"mean energy": float(energy(x.numpy()).mean())})

    return run
