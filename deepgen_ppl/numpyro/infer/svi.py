"""Stochastic variational inference: fit the parameters of a model and its guide."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array
from numpyro.infer.autoguide import AutoLaplaceApproximation

from deepgen_ppl import checks, energy_checks
from deepgen_ppl.loop import NonFiniteError, Progress, non_finite
from deepgen_ppl.numpyro.compilation import build_of
from deepgen_ppl.numpyro.infer import train as train_
from deepgen_ppl.numpyro.infer.checkpoint import Checkpoint
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.laplace import approximate
from deepgen_ppl.numpyro.infer.step import batch_key
from deepgen_ppl.numpyro.objectives import ExactMarginal, Native, as_objective
from deepgen_ppl.numpyro.probes import first_nonfinite, moving_factors
from deepgen_ppl.numpyro.program import (
    Inputs,
    Pair,
    as_key,
    init_params,
    learned,
    read_pair,
)


def svi(
    model: Callable,
    guide: Callable | None = None,
    *data: Any,
    num_steps: int = 2000,
    batch_size: int | None = None,
    optim: Any = None,
    loss: Any = None,
    validation_data: Any = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    compile: str = "auto",
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int | Array = 0,
) -> Fit:
    r"""Fit a model and its guide by stochastic gradients of a bound on the log evidence.

    $$\max_{\theta, \phi} \; \mathbb E_{q_\phi(z)}\bigl[\log p_\theta(x, z) - \log q_\phi(z)\bigr]$$

    A model is written once for the full data, `with plate("data", len(x)): ...`. With `batch_size`
    each step sees that many rows, drawn without replacement per epoch, and every site in a plate
    that follows the data is scaled by N / B, so the expected loss is that of the full data. The
    last N mod B rows of an epoch's permutation wait for a later epoch.

    Args:
        model: a NumPyro model.
        guide: its guide or autoguide; None for no latents (maximum likelihood). The fit of an
            `AutoLaplaceApproximation` has the normal at the mode as its guide.
        *data: arrays whose leading axis is the data axis, scalars or None.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: an optax transformation or NumPyro optimizer, with its schedule; None is Adam, 1e-3.
        loss: `ELBO`, `IWAE`, `Renyi` or an ELBO object of NumPyro; None is `ELBO()`.
        validation_data: held-out data, one array or a tuple as `data`; its loss is evaluated once
            an epoch, or at every report without minibatches.
        patience: validations without improvement after which the run stops; the best parameters
            are kept.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
            Without them the steps run for half a second between two looks at their losses.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        compile: "auto" or "compiled": on this wing the whole loop is always compiled.
        model_kwargs: constants passed by name to model and guide.
        params: values to start from, by name, or a `Fit`.
        seed: int or random key; seeds initial values, batches and noise.

    Returns:
        The fit: parameters, losses per datum, and the verbs that use them. Its history has beside
        the loss the "bound" and "kl" per datum of an `ELBO` with options that are no bound.

    Raises:
        ValueError: bad data, sites that do not match, or a minibatch that cannot be scaled; before
            anything is compiled.
        TypeError: integer data at a site of real support; an unknown loss or optimizer.
        NonFiniteError: a loss or gradient turned non-finite; `.fit` holds the last finite state.

    Cost:
        Compiles once, 1-3 s for small programs; then as fast as a hand-written JAX loop. Another
        call with the same guide and model functions, shapes and options takes what was compiled,
        whatever the values of data, bound arrays, parameters and seed.

    References:
        Hoffman, Blei, Wang, Paisley: Stochastic variational inference. 2013.
        https://arxiv.org/abs/1206.7051

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> from numpyro.infer.autoguide import AutoNormal
        >>> def model(x):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 10))
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> x = np.random.default_rng(0).normal(3.0, 1.0, 100)
        >>> fit = svi(model, AutoNormal(model), x, num_steps=500, batch_size=20, progress=False)
        >>> fit.losses.shape
        (500,)
    """
    _check_options(num_steps, patience, validation_data, compile)
    objective = as_objective(loss)
    pair = read_pair(
        model,
        guide,
        data,
        model_kwargs=model_kwargs,
        params=params,
        batch_size=batch_size,
        seed=seed,
        enumerated=getattr(objective, "enumerated", False),
        alone=isinstance(objective, ExactMarginal),
    )
    batch_size = None if batch_size == pair.model.num_rows else batch_size
    objective.check(pair, batch_size)
    inputs = pair.inputs(data)
    key = as_key(seed)
    values = init_params(pair, inputs, seed=random.fold_in(key, 0), params=params)
    if isinstance(objective, ExactMarginal):
        objective.prepare(pair, values, inputs, batch_size)
    if not pair.params:
        raise ValueError("there is nothing to fit: neither model nor guide has a parameter.")
    if moving := moving_factors(pair, values, inputs):
        told = energy_checks.unnormalised_warning(moving, pair.model.params)
        warnings.warn(told, UserWarning, stacklevel=2)

    columns = getattr(objective, "columns", ())

    def total(
        free: Any, mutable: Any, inputs: Inputs, rows: Any, key: Array, *step: Array
    ) -> tuple[Array, Any]:
        given = {**pair.constrain(free), **lax.stop_gradient(mutable)}
        value, aux = objective(pair, given, inputs, rows, key, *step)
        state = {**mutable, **aux.state}
        return value, (state, aux.columns) if step else state

    def judged(free: Any, mutable: Any, inputs: Inputs, rows: Any, key: Array) -> tuple[Array, Any]:
        given = {**pair.constrain(free), **lax.stop_gradient(mutable)}
        bound = getattr(objective, "reported", objective)
        return bound(pair, given, inputs, rows, key)

    validate = None
    if validation_data is not None:
        validate = _validation(model, guide, pair, judged, objective, validation_data, batch_size,
                               values, model_kwargs, key)  # fmt: skip
    settings = {
        "kind": "svi",
        "num_rows": pair.model.num_rows,
        "batch_size": batch_size,
        "seed": np.asarray(random.key_data(key)).tolist(),
        "loss": type(loss).__name__ if isinstance(objective, Native) else repr(objective),
        "clip_norm": clip_norm,
        "sites": sorted(pair.model.sites),
    }  # fmt: skip
    result = train_.train(
        total,
        pair.unconstrain(values),
        {n: v for n, v in values.items() if n not in pair.params},
        inputs,
        num_steps=num_steps,
        batch_size=batch_size,
        optim=optim,
        per_datum=pair.per_datum,
        clip_norm=clip_norm,
        validate=validate,
        patience=patience,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, settings),
        columns=columns,
        callbacks=callbacks,
        constrain=lambda free, mutable: {**pair.constrain(free), **mutable},
        progress=progress,
        seed=random.fold_in(key, 1),
        build=build_of(pair, *_settings(objective)),
    )
    fit = Fit(
        params=jax.device_get({**pair.constrain(result.params), **result.mutable}),
        losses=result.losses,
        history={name: np.asarray(values) for name, values in result.history.items()},
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
        model=model,
        guide=guide,
        seed=seed,
        stopped=result.stopped,
        data=tuple(data),
        model_kwargs=dict(model_kwargs or {}),
    )
    if result.failed is not None:
        raise _non_finite(pair, inputs, fit, result, batch_key(random.fold_in(key, 1),
                                                                      result.failed))  # fmt: skip
    if isinstance(guide, AutoLaplaceApproximation):
        fit.guide, found = approximate(pair, guide, fit.params, inputs, key)
        fit.params = jax.device_get(found)
    return fit


def _check_options(
    num_steps: int, patience: int | None, validation_data: Any, compile: str
) -> None:
    checks.check_steps(num_steps)
    checks.check_patience(patience, validation_data is not None)
    if compile not in ("auto", "compiled"):
        raise ValueError(
            f"compile={compile!r}: the NumPyro wing compiles the whole loop always; pass 'auto'."
        )


def _validation(
    model: Callable,
    guide: Callable | None,
    pair: Pair,
    total: Callable,
    objective: Any,
    validation_data: Any,
    batch_size: int | None,
    values: Mapping[str, Any],
    model_kwargs: Mapping[str, Any] | None,
    key: Array,
) -> train_.Validation:
    """Return the loss per datum of held-out data, block by block where there are minibatches."""
    held_out = validation_data if isinstance(validation_data, tuple | list) else (validation_data,)
    other = read_pair(
        model,
        guide,
        held_out,
        model_kwargs=model_kwargs,
        params=learned(values),
        enumerated=getattr(objective, "enumerated", False),
        alone=isinstance(objective, ExactMarginal),
    )
    inputs = other.inputs(held_out)
    size = min(batch_size or 0, inputs.num_rows)
    if isinstance(objective, ExactMarginal):
        objective.prepare(pair, values, inputs, size if 0 < size < inputs.num_rows else None)
    starts = np.arange(0, inputs.num_rows - size + 1, size) if size else np.zeros(1, int)
    if size and inputs.num_rows % size:  # the last block overlaps the one before
        starts = np.append(starts, inputs.num_rows - size)

    def loss(free: Any, mutable: Any, inputs: Inputs, starts: Array, noise: Array) -> Array:
        def block(start: Array) -> Array:
            rows = start + jnp.arange(size) if 0 < size < inputs.num_rows else None
            return total(free, mutable, inputs, rows, random.fold_in(noise, start))[0]

        return jnp.mean(lax.map(block, starts)) / other.per_datum

    args = (inputs, jnp.asarray(starts), random.fold_in(key, 2))
    return train_.Validation(loss, args, (size, other.per_datum))


def _settings(objective: Any) -> tuple[Any, ...]:
    """Return what an objective is by content: its class and its fields."""
    loss = objective.elbo if isinstance(objective, Native) else objective
    return type(loss), vars(loss)


def _non_finite(
    pair: Pair, inputs: Inputs, fit: Fit, result: train_.TrainResult, key: Array
) -> NonFiniteError:
    site, bad = first_nonfinite(pair, fit.params, inputs, result.rows, key)
    return non_finite(result.failed or 0, result.rows, site, bad, fit)
