"""What the verbs that train an unnormalised density have in common: one run of the loop, a fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks
from deepgen_ppl.loop import Progress
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer import train as train_
from deepgen_ppl.pyro.infer.checkpoint import Checkpoint
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.optimizers import as_optimizer
from deepgen_ppl.pyro.infer.step import Loss, Step
from deepgen_ppl.pyro.infer.svi import place_leaves
from deepgen_ppl.pyro.kernels.chains import ReadyEnergy
from deepgen_ppl.pyro.parameters import given, snapshot
from deepgen_ppl.pyro.structure import Pair


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
        seed: seed.
    """

    num_steps: int
    batch_size: int | None
    optim: Any
    clip_norm: float | None
    checkpoint: str | os.PathLike[str] | None
    callbacks: Sequence[Callable[[Progress], Any]]
    progress: bool
    model_kwargs: Mapping[str, Any] | None
    params: Any
    seed: int

    @property
    def start(self) -> dict[str, Tensor]:
        """The values to start from, by name."""
        return (given(self.params) or {}) if self.params is not None else {}


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


def start_values(pair: Pair, asked: Asked) -> dict[str, Tensor]:
    """Return the leaves that are trained, at the values to start from.

    Raises:
        ValueError: there is no parameter.
    """
    checks.check_steps(asked.num_steps)
    leaves = place_leaves(pair, asked.start)
    if not leaves:
        raise ValueError("there is nothing to fit: neither model nor guide has a parameter.")
    return leaves


def values_of(pair: Pair, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the constrained values of all parameters and buffers at some leaves."""
    return {name: p.value(leaves.get(name)) for name, p in pair.params.items()}


def held_of(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters apart from their gradients; modules still see that they are trained."""
    return {n: v.detach().requires_grad_(v.requires_grad) for n, v in params.items()}


def shaken(pair: Pair, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values in general position, where whatever depends on another does so visibly."""

    def moved(leaf: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(leaf.numel() % 1009)
        noise = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        return leaf.detach() + 0.1 * noise.to(leaf.device)

    moved_leaves = {name: moved(leaf).requires_grad_() for name, leaf in leaves.items()}
    return held_of(values_of(pair, moved_leaves))


def learn(
    verb: str,
    pair: Pair,
    programs: tuple[Callable[..., Any], Callable[..., Any] | None],
    data: Sequence[Any],
    loss: Loss,
    leaves: Mapping[str, Tensor],
    mutable: Mapping[str, Tensor],
    asked: Asked,
    *,
    settings: Mapping[str, Any],
    extra: Mapping[str, Tensor] | None = None,
    monitor: Callable[[], Mapping[str, float]] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
) -> tuple[Fit, train_.TrainResult]:
    """Run the training loop on a loss, and return the fit of what it found.

    Args:
        verb: the verb that was called.
        pair: model and guide.
        programs: both as the user gave them.
        data: the data arguments.
        loss: loss of the whole data, of unconstrained leaves.
        leaves: the tensors that are trained.
        mutable: further tensors that the loss changes in place.
        asked: the options of the run.
        settings: what a checkpoint must agree in.
        extra: further real parameters that the pair does not know, by name.
        monitor: numbers that join the history at every report.
        callbacks: further callbacks.

    Returns:
        The fit, and the result of the loop.
    """
    extra = dict(extra or {})
    trained = {**leaves, **extra}

    def now() -> dict[str, Tensor]:
        own = snapshot(pair.params.values())
        return {**own, **{name: leaf.detach().clone() for name, leaf in extra.items()}}

    about = {
        "kind": verb,
        "num_rows": pair.num_rows,
        "batch_size": asked.batch_size,
        "seed": asked.seed,
        "clip_norm": asked.clip_norm,
        "sites": sorted(pair.model.sites),
        **settings,
    }
    buffers = {n: p.leaf for n, p in pair.params.items() if p.is_buffer}
    with handlers.validation(False):
        optimizer = as_optimizer(asked.optim, trained, asked.clip_norm)
        step = Step(loss, trained, optimizer, pair.modules, "eager", False)
        result = train_.train(
            step,
            {**buffers, **mutable},
            num_steps=asked.num_steps,
            num_rows=pair.num_rows,
            batch_size=asked.batch_size,
            per_datum=pair.per_datum,
            checkpoint=None if asked.checkpoint is None else Checkpoint(asked.checkpoint, about),
            callbacks=(*asked.callbacks, *callbacks),
            params=now,
            progress=asked.progress,
            seed=asked.seed,
            monitor=monitor,
            verb=verb,
        )
        for leaf in trained.values():
            leaf.grad = None
    fit = Fit(
        params=now(),
        losses=result.losses,
        history={name: np.asarray(kept) for name, kept in result.history.items()},
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
        model=programs[0],
        guide=programs[1],
        compiled="eager",
        reason=f"{verb} runs its steps one by one",
        seed=asked.seed,
        stopped=result.stopped,
        data=tuple(data),
        model_kwargs=dict(asked.model_kwargs or {}),
        verb=verb,
    )
    return fit, result
