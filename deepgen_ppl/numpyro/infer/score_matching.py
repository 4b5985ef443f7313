"""The verb `score_matching`: unnormalised densities fitted by their slopes alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float

from deepgen_ppl import energy_checks
from deepgen_ppl.loop import Progress
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.learn import Asked, learn, program_of, shaken, start_values
from deepgen_ppl.numpyro.infer.negative import GradientChains
from deepgen_ppl.numpyro.infer.phases import check_data, negative_chains, read_phases
from deepgen_ppl.numpyro.infer.program_chains import ProgramChains

Density = Callable[[Float[Array, "B D"]], Float[Array, " B"]]


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
    checkpoint: str | os.PathLike | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int | Array = 0,
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
        optim: an optax transformation or NumPyro optimizer; None is Adam, 1e-3.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        model_kwargs: constants passed by name.
        params: values to start from, by name, or a `Fit`.
        seed: int or random key; seeds initial values, batches, directions and noise.

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
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     rate = numpyro.param("rate", jnp.zeros(()))
        ...     with numpyro.plate("data", len(x)):
        ...         x = numpyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        ...         numpyro.factor("energy", -0.5 * rate * x**2)
        >>> x = np.random.default_rng(0).normal(size=500)
        >>> import optax
        >>> fit = score_matching(model, x, num_steps=300, optim=optax.adam(0.05), progress=False)
        >>> bool(abs(fit.params["rate"] + 0.25 - 1 / np.mean(x**2)) < 1e-2)
        True
    """
    energy_checks.check_choice("method", method, energy_checks.SCORE_METHODS)
    energy_checks.check_count("num_slices", num_slices)
    (noise_level,) = energy_checks.check_noise_levels([noise_level]).tolist()
    asked = Asked(num_steps, batch_size, optim, clip_norm, checkpoint, callbacks, progress,
                  model_kwargs, params, seed)  # fmt: skip
    program, energy = program_of(model)
    levels = getattr(energy, "levels", None)
    if levels is not None:
        energy_checks.check_noisy_method(method)
    phases = read_phases(
        program, None, data, negative=negative, positive="sampled", params=params,
        model_kwargs=model_kwargs, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    pair = phases.pair
    sites = pair.model.sites
    energy_checks.check_real({n: sites[n].is_discrete for n in phases.negative}, "score_matching")
    energy_checks.check_no_hidden(phases.hidden)
    asked = asked._replace(batch_size=None if batch_size == pair.model.num_rows else batch_size)
    inputs = pair.inputs(data)
    values = start_values(pair, inputs, asked)
    check_data(phases, inputs, values)
    chains, _ = negative_chains(
        phases, energy, "mala", program, data, inputs, shaken(pair, values), model_kwargs
    )
    assert isinstance(chains, GradientChains | ProgramChains)

    def loss(free: Any, mutable: Any, inputs: Inputs, rows: Any, key: Array) -> tuple[Array, Any]:
        own = {**pair.constrain(free), **lax.stop_gradient(mutable)}
        count = max(inputs.num_rows, 1)
        index = jnp.arange(count, dtype=jnp.int32) if rows is None else rows
        begun = lax.stop_gradient(chains.start(key, own, inputs, index, True))
        z = chains.place(begun)

        def density(z: Array) -> Array:
            state = z.reshape(begun.shape) if isinstance(chains, GradientChains) else (begun[0], z)
            return chains.log_prob(own, inputs, index, state)

        if levels is not None:
            assert isinstance(chains, GradientChains)
            noisy = chains.module(own).log_density
            terms = noisy_objective(noisy, z.reshape(begun.shape), jnp.asarray(levels), key)
        else:
            terms = objective(method, density, z, key, noise_level, num_slices)
        return count * jnp.mean(terms), mutable

    settings = {"method": method, "noise_level": noise_level, "num_slices": num_slices}
    settings |= {} if levels is None else {"levels": list(levels)}
    fit, result = learn(
        "score_matching", pair, (program, None), data, inputs, loss, values, {}, asked,
        settings=settings, also=(repr(settings), type(chains).__name__),
    )  # fmt: skip
    if result.failed is not None:
        raise energy_checks.non_finite_energy(result.failed, None, result.rows, fit)
    return fit


def objective(
    method: str,
    density: Density,
    z: Float[Array, "B D"],
    key: Array,
    noise_level: float = 0.1,
    num_slices: int = 1,
) -> Float[Array, " B"]:
    """Return the terms of score matching, one for each row.

    Args:
        method: "exact", "sliced" or "denoising".
        density: log density of each row, which must not touch each other.
        z: the rows.
        key: seeds directions and noise.
        noise_level: deviation of the noise.
        num_slices: number of directions.

    Example:
        >>> z = jnp.ones((1, 2))
        >>> objective("exact", lambda z: -0.5 * (z**2).sum(-1), z, random.key(0)).tolist()
        [-1.0]
    """

    def score(z: Array) -> Array:
        return jax.grad(lambda z: density(z).sum())(z)

    if method == "denoising":
        noise = random.normal(key, z.shape, z.dtype)
        return 0.5 * jnp.sum((noise_level * score(z + noise_level * noise) + noise) ** 2, -1)

    def curvature(v: Array) -> Array:
        return jnp.sum(jax.jvp(score, (z,), (v,))[1] * v, -1)

    if method == "exact":
        basis = jnp.eye(z.shape[1], dtype=z.dtype)[:, None] * jnp.ones_like(z)
        trace = lax.map(curvature, basis).sum(0)
    else:
        trace = jax.vmap(curvature)(random.normal(key, (num_slices, *z.shape), z.dtype)).mean(0)
    return trace + 0.5 * jnp.sum(score(z) ** 2, -1)


def noisy_objective(
    density: Callable[[Array, Array], Array],
    x: Float[Array, "B ..."],
    levels: Float[Array, " level"],
    key: Array,
) -> Float[Array, " B"]:
    r"""Return the terms of denoising at a level drawn for each row, weighted by its square.

    \[ \tfrac12 \lVert \sigma \nabla \log p_\sigma(x + \sigma \epsilon) + \epsilon \rVert^2 \]

    Args:
        density: log density of rows at a level of each.
        x: the rows.
        levels: deviations of the noise.
        key: seeds levels and noise.

    References:
        Song, Ermon: Generative modeling by estimating gradients of the data distribution. NeurIPS
        2019. https://arxiv.org/abs/1907.05600
    """
    keys = random.split(key)
    level = random.choice(keys[0], levels.astype(x.dtype), (len(x),))
    noise = random.normal(keys[1], x.shape, x.dtype)
    wide = level.reshape(-1, *(1,) * (x.ndim - 1))
    slope = jax.grad(lambda x: density(x, level).sum())(x + wide * noise)
    return 0.5 * jnp.sum((wide * slope + noise).reshape(len(x), -1) ** 2, -1)
