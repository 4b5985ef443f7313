"""The verb `noise_contrastive`: unnormalised densities told apart from noise, log Z along."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from deepgen_ppl import energy_checks
from deepgen_ppl.evidence import evidence
from deepgen_ppl.loop import Progress
from deepgen_ppl.numpyro.compilation import quickly
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.learn import Asked, learn, program_of, start_values
from deepgen_ppl.numpyro.infer.phases import check_data, positive_loss, read_phases
from deepgen_ppl.numpyro.program import log_weights

_LOG_Z, _NOISE = "log_z", "noise$params"
_WEIGHED = 4000


def noise_contrastive(
    model: Any,
    noise: Any,
    *data: Any,
    noise_ratio: int = 1,
    train_noise: bool = False,
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
    r"""Fit an unnormalised density, and its log Z, by telling the data apart from noise.

    \[ \max_{\theta, \log Z} \; \mathbb E_{x} \log \sigma(G(x) - \log \nu)
       + \nu \, \mathbb E_{y \sim q} \log \sigma(\log \nu - G(y)), \qquad
       G(x) = \log p^*_\theta(x) - \log Z - \log q(x) \]

    Data may be discrete; hidden sites of the program are summed out. With a flow trained along,
    which takes the other side of the game, it is flow contrastive estimation.

    Args:
        model: a program with factors, whose first data argument is its visible site, or a ready
            energy.
        noise: q, a distribution over one row, or a module that gives one, such as a fitted flow.
        *data: arrays whose leading axis is the data axis, scalars or None.
        noise_ratio: draws nu of the noise for each datum.
        train_noise: whether the parameters of the noise, a module, are learned against the model.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: an optax transformation or NumPyro optimizer; None is Adam, 1e-3.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        model_kwargs: constants passed by name.
        params: values to start from, by name, or a `Fit`.
        seed: int or random key; seeds initial values, batches and noise.

    Returns:
        The fit. `params["log_z"]` is log Z as it was learned; `evidence` estimates it anew by
        importance sampling from the noise, with a standard error, for `with_log_z`.

    Raises:
        TypeError: the noise cannot be drawn and scored. ValueError: it has another shape than a
            row of the data; what `contrastive` refuses.
        NonFiniteError: the loss turned non-finite.

    Cost:
        1 + nu densities of model and noise for each datum and step.

    References:
        Gutmann and Hyvarinen: Noise-contrastive estimation of unnormalized statistical models.
        JMLR 13, 2012.

        Gao, Nijkamp, Kingma, Xu, Dai, Wu: Flow contrastive estimation of energy-based models. CVPR
        2020. https://arxiv.org/abs/1912.00589

    Example:
        >>> import numpyro, numpyro.distributions as dist, optax
        >>> def model(x):
        ...     rate = numpyro.param("rate", jnp.zeros(()))
        ...     with numpyro.plate("data", len(x)):
        ...         x = numpyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        ...         numpyro.factor("energy", -0.5 * rate * x**2)
        >>> x = np.random.default_rng(0).normal(size=1000)
        >>> fit = noise_contrastive(
        ...     model, dist.Normal(0.0, 1.5), x, num_steps=500, optim=optax.adam(0.02),
        ...     progress=False,
        ... )
        >>> bool(abs(fit.params["log_z"] - fit.evidence.log_evidence) < 0.1)
        True
    """
    energy_checks.check_count("noise_ratio", noise_ratio)
    asked = Asked(num_steps, batch_size, optim, clip_norm, checkpoint, callbacks, progress,
                  model_kwargs, params, seed)  # fmt: skip
    program, _ = program_of(model)
    phases = read_phases(
        program, None, data, negative=None, positive="exact", params=params,
        model_kwargs=model_kwargs, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    pair = phases.pair
    size = None if batch_size == pair.model.num_rows else batch_size
    asked = asked._replace(batch_size=size)
    inputs = pair.inputs(data)
    values = start_values(pair, inputs, asked)
    check_data(phases, inputs, values)
    positive_loss(phases, values, inputs, size)  # reads how hidden sites are summed out
    own, held = eqx.partition(noise, eqx.is_inexact_array) if train_noise else (None, None)

    def density(own: Any) -> Any:
        return energy_checks.noise_distribution(noise if own is None else eqx.combine(own, held))

    about = density(own)
    shape = (*about.batch_shape, *about.event_shape)
    energy_checks.check_noise_shape(shape, inputs.data[0].shape[1:])
    log_ratio = float(np.log(noise_ratio))

    def score(params: Any, inputs: Inputs, x: Array) -> Array:
        call = inputs._replace(data=(x, *inputs.data[1:]))
        return log_weights(pair, params, call, key=random.key(0)).rows

    def total(q: Any, x: Array) -> Array:
        found = q.log_prob(x)
        return found.reshape(found.shape[0], -1).sum(-1)

    def loss(free: Any, mutable: Any, inputs: Inputs, rows: Any, key: Array) -> tuple[Array, Any]:
        free = dict(free)
        log_z, flow = free.pop(_LOG_Z), free.pop(_NOISE, None)
        # The noise plays against the model: the same loss, its gradient turned round.
        flow = jax.tree.map(lambda leaf: 2.0 * lax.stop_gradient(leaf) - leaf, flow)
        params = {**pair.constrain(free), **lax.stop_gradient(mutable)}
        call = inputs if rows is None else inputs.gather(rows)
        x, q = call.data[0], density(flow)
        told = score(params, call, x) - log_z - total(q, x) - log_ratio
        value = -jnp.mean(jax.nn.log_sigmoid(told))
        for draw in range(noise_ratio):
            y = q.sample(random.fold_in(key, draw), (x.shape[0],)).astype(x.dtype)
            told = score(params, call, y) - log_z - total(q, y) - log_ratio
            value = value - jnp.mean(jax.nn.log_sigmoid(-told))
        return max(inputs.num_rows, 1) * value, mutable

    extra: dict[str, Any] = {_LOG_Z: jnp.zeros(())}
    if own is not None:
        extra[_NOISE] = own
    settings = {"noise_ratio": noise_ratio, "train_noise": train_noise}
    fit, result = learn(
        "noise_contrastive", pair, (program, None), data, inputs, loss, values, {}, asked,
        settings=settings, also=(repr(settings), noise), extra=extra,
    )  # fmt: skip
    if result.failed is not None:
        raise energy_checks.non_finite_energy(result.failed, None, result.rows, fit)

    def weigh(params: Any, inputs: Inputs, key: Array) -> Array:
        q = density(params.get(_NOISE))
        count = inputs.data[0].shape[0]

        def some(key: Array) -> Array:
            y = q.sample(key, (count,)).astype(inputs.data[0].dtype)
            return score(params, inputs, y) - total(q, y)

        return lax.map(some, random.split(key, -(-_WEIGHED // count))).reshape(-1)

    trained = jax.tree.map(jnp.asarray, fit.params)
    fixed = {n: v for n, v in trained.items() if n != _LOG_Z}
    log_w = np.asarray(quickly(weigh, fixed, inputs, random.fold_in(asked.key, 3)), float)
    fit.evidence = evidence(log_w, method="importance sampling from the noise")
    return fit
