"""What the verbs that train an unnormalised density have in common: one run of the loop, a fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from deepgen_ppl import checks
from deepgen_ppl.loop import Progress
from deepgen_ppl.numpyro.compilation import build_of
from deepgen_ppl.numpyro.infer import train as train_
from deepgen_ppl.numpyro.infer.checkpoint import Checkpoint
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.step import Loss
from deepgen_ppl.numpyro.kernels.chains import ReadyEnergy
from deepgen_ppl.numpyro.program import Inputs, Pair, as_key, init_params


class Asked(NamedTuple):
    """The options of a run, as every verb takes them.

    Attributes:
        num_steps: number of gradient steps.
        batch_size: rows of a minibatch, None for all.
        optim: the optimizer.
        clip_norm: largest norm of the gradient.
        checkpoint: file that keeps the run.
        callbacks: functions of a `Progress`.
        progress: whether to show a bar.
        model_kwargs: constants passed by name.
        params: values to start from.
        seed: int or random key.
    """

    num_steps: int
    batch_size: int | None
    optim: Any
    clip_norm: float | None
    checkpoint: str | os.PathLike | None
    callbacks: Sequence[Callable[[Progress], Any]]
    progress: bool
    model_kwargs: Mapping[str, Any] | None
    params: Any
    seed: int | Array

    @property
    def key(self) -> Array:
        """The random key of the run."""
        return as_key(self.seed)


def program_of(model: Any) -> tuple[Any, Any]:
    """Return a program, and the ready energy that it is of where there is one.

    Args:
        model: a program or a ready energy.

    Example:
        >>> def model(x): ...
        >>> program_of(model)[1] is None
        True
    """
    found: Any = model
    if isinstance(found, ReadyEnergy):
        return found.model, found
    return found, None


def start_values(pair: Pair, inputs: Inputs, asked: Asked) -> dict[str, Any]:
    """Return initial parameters and mutable state.

    Raises:
        ValueError: there is no parameter.
    """
    checks.check_steps(asked.num_steps)
    if not pair.params:
        raise ValueError("there is nothing to fit: neither model nor guide has a parameter.")
    return init_params(pair, inputs, seed=random.fold_in(asked.key, 0), params=asked.params)


def shaken(pair: Pair, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in general position, where whatever depends on another does so visibly."""

    def moved(leaf: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        key = random.key(jnp.size(leaf) % 1009)
        return leaf + 0.1 * random.normal(key, jnp.shape(leaf), jnp.result_type(leaf))

    free = jax.tree.map(moved, pair.unconstrain(values))
    return {**values, **pair.constrain(free)}


def learn(
    verb: str,
    pair: Pair,
    programs: tuple[Callable[..., Any], Callable[..., Any] | None],
    data: Sequence[Any],
    inputs: Inputs,
    loss: Loss,
    values: Mapping[str, Any],
    mutable: Mapping[str, Any],
    asked: Asked,
    *,
    settings: Mapping[str, Any],
    also: tuple[Any, ...] = (),
    extra: Mapping[str, Any] | None = None,
    monitor: Callable[[Any, Any], Mapping[str, float]] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
) -> tuple[Fit, train_.TrainResult]:
    """Run the training loop on a loss, and return the fit of what it found.

    Args:
        verb: the verb that was called.
        pair: model and guide.
        programs: both as the user gave them.
        data: the data arguments.
        inputs: the inputs at all rows.
        loss: loss of the whole data, of unconstrained parameters.
        values: constrained parameters and mutable state to start from.
        mutable: further state that the loss carries along.
        asked: the options of the run.
        settings: what a checkpoint must agree in.
        also: whatever else the code of the loss depends on.
        extra: further real parameters that the pair does not know, by name.
        monitor: (params, mutable) -> numbers that join the history at every report.
        callbacks: further callbacks.

    Returns:
        The fit, and the result of the loop.
    """
    own, extra = dict(pair.params), dict(extra or {})

    def constrain(free: Any, mutable: Any) -> dict[str, Any]:
        state = {n: v for n, v in mutable.items() if n in values}
        kept = {n: v for n, v in free.items() if n not in own}
        return {**pair.constrain({n: v for n, v in free.items() if n in own}), **state, **kept}

    key = asked.key
    about = {
        "kind": verb,
        "num_rows": pair.model.num_rows,
        "batch_size": asked.batch_size,
        "seed": np.asarray(random.key_data(key)).tolist(),
        "clip_norm": asked.clip_norm,
        "sites": sorted(pair.model.sites),
        **settings,
    }
    state = {n: v for n, v in values.items() if n not in own}
    result = train_.train(
        loss,
        {**pair.unconstrain(values), **extra},
        {**state, **mutable},
        inputs,
        num_steps=asked.num_steps,
        batch_size=asked.batch_size,
        optim=asked.optim,
        per_datum=pair.per_datum,
        clip_norm=asked.clip_norm,
        checkpoint=None if asked.checkpoint is None else Checkpoint(asked.checkpoint, about),
        callbacks=(*asked.callbacks, *callbacks),
        constrain=constrain,
        progress=asked.progress,
        seed=random.fold_in(key, 1),
        build=build_of(pair, verb, *also),
        monitor=monitor,
        verb=verb,
    )
    fit = Fit(
        params=jax.device_get(constrain(result.params, result.mutable)),
        losses=result.losses,
        history={name: np.asarray(kept) for name, kept in result.history.items()},
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
        model=programs[0],
        guide=programs[1],
        seed=asked.seed,
        stopped=result.stopped,
        data=tuple(data),
        model_kwargs=dict(asked.model_kwargs or {}),
        verb=verb,
    )
    return fit, result
