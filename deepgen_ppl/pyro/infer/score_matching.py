"""The verb `score_matching`: unnormalised densities fitted by their slopes alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import energy_checks
from deepgen_ppl.loop import Progress
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.learn import (
    Asked,
    learn,
    program_of,
    shaken,
    start_values,
    values_of,
)
from deepgen_ppl.pyro.infer.negative import GradientChains
from deepgen_ppl.pyro.infer.phases import check_data, negative_chains, read_phases
from deepgen_ppl.pyro.infer.program_chains import ProgramChains
from deepgen_ppl.pyro.parameters import forked_rng, installed, private_store

Density = Callable[[Float[Tensor, "B D"]], Float[Tensor, " B"]]


def score_matching(
    model: Any,
    *data: Any,
    method: str = "exact",
    noise_level: float = 0.1,
    num_slices: int = 1,
    negative: Sequence[str] | None = None,
    num_steps: int = 2000,
    batch_size: int | None = None,
    optim: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int = 0,
) -> Fit:
    r"""Fit an unnormalised density of continuous data by matching its score to that of the data.

    \[ \mathbb E_x \Bigl[\operatorname{tr} \nabla^2 \log p^*(x)
       + \tfrac12 |\nabla \log p^*(x)|^2\Bigr] \qquad \text{(exact)} \]

    `"sliced"` takes the trace along random directions, \(v^\top \nabla^2 \log p^* \, v\);
    `"denoising"` fits the score of the data with noise of deviation \(\sigma\),
    \(\tfrac12 \mathbb E \lVert \sigma \nabla \log p^*(x + \sigma \epsilon) + \epsilon \rVert^2\).
    All three hold where the visible sites live unconstrained, so data on an interval or a half line
    are matched there. A `NoiseConditionalEnergy` is matched at a noise level drawn for each row.

    Args:
        model: a program with factors and no hidden site, or a ready energy.
        *data: arrays whose leading axis is the data axis, scalars or None.
        method: "exact", "sliced" or "denoising".
        noise_level: deviation of the noise, of "denoising".
        num_slices: directions for each datum, of "sliced".
        negative: names of the visible sites, by default those observed in the data plate.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: a torch optimizer class, a function of the parameters that makes one, or an optimizer
            of Pyro; None is Adam, 1e-3.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        model_kwargs: constants passed by name.
        params: values to start from, by name, or a `Fit`.
        seed: seeds initial values, batches, directions and noise.

    Returns:
        The fit; its losses are the objective per datum.

    Raises:
        ValueError: discrete or hidden sites, an unknown method, data outside their support.
        NonFiniteError: the loss turned non-finite.

    Cost:
        "exact" takes D products with the Hessian a datum, "sliced" one for each direction,
        "denoising" one gradient.

    References:
        Hyvarinen: Estimation of non-normalized statistical models by score matching. JMLR 6, 2005.

        Song, Garg, Shi, Ermon: Sliced score matching. UAI 2019. https://arxiv.org/abs/1905.07088

        Vincent: A connection between score matching and denoising autoencoders. Neural Computation
        23(7), 2011.

    Example:
        >>> import numpy as np, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     rate = pyro.param("rate", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         x = pyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        ...         pyro.factor("energy", -0.5 * rate * x**2)
        >>> x = np.random.default_rng(0).normal(size=500)
        >>> from functools import partial
        >>> adam = partial(torch.optim.Adam, lr=0.05)
        >>> fit = score_matching(model, x, num_steps=200, optim=adam, progress=False)
        >>> bool(abs(fit.params["rate"] + 0.25 - 1 / np.mean(x**2)) < 1e-2)
        True
    """
    energy_checks.check_choice("method", method, energy_checks.SCORE_METHODS)
    energy_checks.check_count("num_slices", num_slices)
    (noise_level,) = energy_checks.check_noise_levels([noise_level]).tolist()
    asked = Asked(num_steps, batch_size, optim, clip_norm, checkpoint, callbacks, progress,
                  model_kwargs, params, seed)  # fmt: skip
    with private_store(), forked_rng(seed):
        return _fit(model, data, asked, method, noise_level, num_slices, negative)


def _fit(
    model: Any,
    data: Sequence[Any],
    asked: Asked,
    method: str,
    noise_level: float,
    num_slices: int,
    negative: Sequence[str] | None,
) -> Fit:
    program, energy = program_of(model)
    levels = getattr(energy, "levels", None)
    if levels is not None:
        energy_checks.check_noisy_method(method)
    phases = read_phases(
        program, None, data, negative=negative, positive="sampled", params=asked.start,
        model_kwargs=asked.model_kwargs, batch_size=asked.batch_size, seed=asked.seed,
    )  # fmt: skip
    pair = phases.pair
    sites = pair.model.sites
    energy_checks.check_real({n: sites[n].is_discrete for n in phases.negative}, "score_matching")
    energy_checks.check_no_hidden(phases.hidden)
    size = asked.batch_size
    asked = asked._replace(batch_size=None if size == pair.num_rows else size)
    leaves = start_values(pair, asked)
    tensors = data_.to_tensors(data, next(iter(leaves.values())).device)
    check_data(phases, tensors, values_of(pair, leaves))
    chains, _ = negative_chains(
        phases, energy, "mala", program, data, shaken(pair, leaves), asked.model_kwargs
    )
    assert isinstance(chains, GradientChains | ProgramChains)
    count = max(pair.num_rows or 1, 1)

    def loss(leaves: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        own = values_of(pair, leaves)
        index = torch.arange(count) if rows is None else rows
        with torch.no_grad(), handlers.validation(False):
            begun = chains.start(own, tensors, index, True)
        z = chains.place(begun).detach()

        def density(z: Tensor) -> Tensor:
            state = z.reshape(begun.shape) if isinstance(chains, GradientChains) else (begun[0], z)
            return chains.log_prob(own, tensors, index, state)

        if levels is not None:
            assert isinstance(chains, GradientChains)
            with installed(chains.params, own):
                noisy = chains.energy.log_density
                terms = noisy_objective(noisy, z.reshape(begun.shape), z.new_tensor(levels))
        else:
            terms = objective(method, density, z, noise_level, num_slices)
        return count * terms.mean()

    settings = {"method": method, "noise_level": noise_level, "num_slices": num_slices}
    settings |= {} if levels is None else {"levels": list(levels)}
    fit, result = learn(
        "score_matching", pair, (program, None), data, loss, leaves, {}, asked, settings=settings
    )
    if result.failed is not None:
        raise energy_checks.non_finite_energy(result.failed, None, result.rows, fit)
    return fit


def objective(
    method: str,
    density: Density,
    z: Float[Tensor, "B D"],
    noise_level: float = 0.1,
    num_slices: int = 1,
) -> Float[Tensor, " B"]:
    """Return the terms of score matching, one for each row.

    Args:
        method: "exact", "sliced" or "denoising".
        density: log density of each row, which must not touch each other.
        z: the rows.
        noise_level: deviation of the noise.
        num_slices: number of directions.

    Example:
        >>> z = torch.ones(1, 2)
        >>> objective("exact", lambda z: -0.5 * (z**2).sum(-1), z).tolist()
        [-1.0]
    """

    def score(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_(True)
        return z, torch.autograd.grad(density(z).sum(), z, create_graph=True)[0]

    if method == "denoising":
        noise = torch.randn_like(z)
        found = score(z + noise_level * noise)[1]
        return 0.5 * (noise_level * found + noise).square().sum(-1)
    z, slope = score(z)

    def curvature(v: Tensor) -> Tensor:
        if not slope.requires_grad:
            return torch.zeros_like(slope[:, 0])
        (found,) = torch.autograd.grad((slope * v).sum(), z, create_graph=True, allow_unused=True)
        return torch.zeros_like(slope[:, 0]) if found is None else (found * v).sum(-1)

    if method == "exact":
        basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        trace = torch.stack([curvature(v.expand_as(z)) for v in basis]).sum(0)
    else:
        trace = torch.stack([curvature(torch.randn_like(z)) for _ in range(num_slices)]).mean(0)
    return trace + 0.5 * slope.square().sum(-1)


def noisy_objective(
    density: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "B ..."],
    levels: Float[Tensor, " level"],
) -> Float[Tensor, " B"]:
    r"""Return the terms of denoising at a level drawn for each row, weighted by its square.

    \[ \tfrac12 \lVert \sigma \nabla \log p_\sigma(x + \sigma \epsilon) + \epsilon \rVert^2 \]

    Args:
        density: log density of rows at a level of each.
        x: the rows.
        levels: deviations of the noise.

    References:
        Song, Ermon: Generative modeling by estimating gradients of the data distribution. NeurIPS
        2019. https://arxiv.org/abs/1907.05600
    """
    level = levels[torch.randint(len(levels), (len(x),), device=x.device)]
    noise = torch.randn_like(x)
    wide = level.reshape(-1, *(1,) * (x.dim() - 1))
    moved = (x + wide * noise).detach().requires_grad_(True)
    slope = torch.autograd.grad(density(moved, level).sum(), moved, create_graph=True)[0]
    return 0.5 * (wide * slope + noise).reshape(len(x), -1).square().sum(-1)
