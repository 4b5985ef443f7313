"""Parallel tempering on programs whose discrete latents are drawn: the driver of its chains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks, mixing
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.pyro.infer import ensemble
from deepgen_ppl.pyro.infer.bridge import positions
from deepgen_ppl.pyro.infer.tempered import Tempered
from deepgen_ppl.pyro.infer.vectorized import Sampled
from deepgen_ppl.pyro.kernels import gibbs
from deepgen_ppl.pyro.kernels.tempering import ParallelTempering
from deepgen_ppl.pyro.mixed import MixedPath, find_table

_TRIES = 100
_DENSE = 256


def sample(
    kernel: ParallelTempering,
    path: MixedPath,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    init: Any = None,
    adaptation: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Sampled:
    """Run the chains of parallel tempering around Gibbs sampling.

    Args:
        kernel: Its options.
        path: The path from the prior to the posterior.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains at each temperature.
        init: A posterior whose draws the chains at the posterior start from.
        adaptation: What an earlier run learnt.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    began = time.perf_counter()
    known = None
    if adaptation is not None:
        known = checks.check_ladder(adaptation, kernel.num_temperatures, path.num_free)
    generator = torch.Generator(path.device).manual_seed(seed)
    start = (
        _starts(path, generator, num_chains)
        if init is None
        else _given(path, init, num_chains, seed)
    )
    table = find_table(path, generator)
    compiled = time.perf_counter()
    options: dict[str, Any] = {"known": known, "progress": progress}
    tempered, record = _run(kernel, path, table, start, lengths, generator, **options)
    if tempered.discrepancy > discrete_.MOST_DISCREPANCY:
        table = find_table(path, generator, apart=True)
        tempered, record = _run(kernel, path, table, start, lengths, generator, **options)
    flat = torch.as_tensor(record.positions.reshape(-1, path.dim), device=path.device)
    draws = path.constrain(flat)
    attrs = {
        "kernel": type(kernel).__name__,
        "compiled": path.compiled,
        "compiled_reason": path.reason,
        "compile_seconds": compiled - began,
        "warmup_time": record.warmup_seconds,
        "sampling_time": record.sampling_seconds,
        "num_gradients": record.num_gradients,
        "tuning_steps": lengths[0],
        "temperatures": tempered.betas,
        "swap_acceptance": tempered.swap_rates,
        "num_blocks": len(table.places) + len(table.singles),
    }
    free, x = np.split(record.positions, [path.num_free], axis=-1)
    seen, sites = path.coordinates.looked_at(x, free, path.layout.shapes)
    attrs |= mixing.gate(attrs["kernel"], seen, None, sites, resting=not path.num_free)
    draws = {name: value.reshape(num_chains, -1, *value.shape[1:]) for name, value in draws.items()}
    made = Sampled(draws, record.stats, attrs, record.adaptation)
    return made._replace(restore=path.coordinates.restored)


def _run(
    kernel: ParallelTempering,
    path: MixedPath,
    table: gibbs.Table,
    start: Tensor,
    lengths: tuple[int, int, int],
    generator: torch.Generator,
    *,
    known: Mapping[str, np.ndarray] | None,
    progress: bool,
) -> tuple[Tempered, ensemble.Record]:
    inner = kernel.kernel.continuous
    dense = path.num_free <= _DENSE if inner.dense is None else inner.dense

    def sweep(
        generator: torch.Generator, z: Tensor, beta: Tensor, check: bool
    ) -> tuple[Tensor, float]:
        worst = 0.0
        for _ in range(kernel.kernel.num_discrete_steps):
            z, error = path.sweep(generator, z, beta, table, check=check)
            worst = max(worst, error)
        return z, worst

    counts = (kernel.num_temperatures, lengths[0])
    tempered = Tempered(inner, *counts, path, dense, generator, known, sweep)
    learning: Any = tempered
    run = (tempered.step, path.tempered(1.0), start, learning, lengths, generator, progress)
    record = ensemble.run(*run)
    return tempered, record


def _starts(path: MixedPath, generator: torch.Generator, num_chains: int) -> Tensor:
    """Return draws of the prior at which the joint density is not zero.

    Raises:
        ValueError: There is none in 100 tries.
    """
    z = path.sample(generator, num_chains)
    for _ in range(_TRIES):
        bad = ~path.log_densities(z)[1].isfinite()
        if not bool(bad.any()):
            return z
        z = torch.where(bad.unsqueeze(-1), path.sample(generator, num_chains), z)
    name, value = path.first_nonfinite(z[bad][0])
    raise ValueError(
        f"No starting point of finite density in {_TRIES} tries: the log density of site '{name}' "
        f"is {value}. Check the data against the supports."
    )


def _given(path: MixedPath, init: Any, num_chains: int, seed: int) -> Tensor:
    """Return the positions of draws of a posterior."""
    shapes = {name: path.pair.model.sites[name].shape for name in path.sites}
    found = discrete_.starting_draws(init, shapes, num_chains, seed)
    z = positions(path, {name: value[None] for name, value in found.items()})[0]
    return torch.as_tensor(z, device=path.device)
