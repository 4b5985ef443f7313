"""Stochastic variational inference: fit the parameters of a model and its guide."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoLaplaceApproximation
from torch import Tensor

from deepgen_ppl import checks, energy_checks
from deepgen_ppl.loop import NonFiniteError, Progress, non_finite
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.compilation import head
from deepgen_ppl.pyro.infer import train as train_
from deepgen_ppl.pyro.infer.checkpoint import Checkpoint
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.laplace import approximate
from deepgen_ppl.pyro.infer.optimizers import as_optimizer
from deepgen_ppl.pyro.infer.step import MODES, Step
from deepgen_ppl.pyro.objectives import ExactMarginal, Native, as_objective
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store, snapshot
from deepgen_ppl.pyro.probes import first_nonfinite, moving_factors
from deepgen_ppl.pyro.program import Pair, init_params, read_pair


def svi(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *data: Any,
    num_steps: int = 2000,
    batch_size: int | None = None,
    optim: Any = None,
    loss: Any = None,
    validation_data: Any = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    compile: str = "auto",
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int = 0,
) -> Fit:
    r"""Fit a model and its guide by stochastic gradients of a bound on the log evidence.

    $$\max_{\theta, \phi} \; \mathbb E_{q_\phi(z)}\bigl[\log p_\theta(x, z) - \log q_\phi(z)\bigr]$$

    A model is written once for the full data, `with plate("data", len(x)): ...`. With `batch_size`
    each step sees that many rows, drawn without replacement per epoch, and every site in a plate
    that follows the data is scaled by N / B, so the expected loss is that of the full data. The
    last N mod B rows of an epoch's permutation wait for a later epoch.

    Modules are trained in place, as torch users expect; `pyro.param` values live in a private scope
    of the param store, and the user's store, random state and validation settings stay as they are.

    Args:
        model: a Pyro model.
        guide: its guide or autoguide; None for no latents (maximum likelihood). The fit of an
            `AutoLaplaceApproximation` has the normal at the mode as its guide.
        *data: arrays whose leading axis is the data axis, scalars or None.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: a torch optimizer class, a function of the parameters that makes an optimizer or an
            (optimizer, schedule) pair, or an optimizer of Pyro; None is Adam, 1e-3. Schedules move
            on once a step.
        loss: `ELBO`, `IWAE`, `Renyi`, `ExactMarginal` or an ELBO object of Pyro; None is `ELBO()`.
        validation_data: held-out data, one array or a tuple as `data`; its loss is evaluated once
            an epoch, or at every report without minibatches.
        patience: validations without improvement after which the run stops; the best parameters
            are kept.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
            Without them the steps run for half a second between two looks at their losses.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        compile: "eager" (handlers run at each step), "traced" (they run once; the graph of loss and
            gradient is run by torch), "compiled" (the graph is compiled by inductor, Adam's update
            with it) or "auto": the first steps are timed, and tracing and compiling are done where
            the steps left pay for them twice. `fit.compiled` and `fit.reason` tell the choice.
        model_kwargs: constants passed by name to model and guide.
        params: values to start from, by name, or a `Fit`.
        seed: seeds initial values of `pyro.param`, batches and noise.

    Returns:
        The fit: parameters, losses per datum, and the verbs that use them. Its history has beside
        the loss the "bound" and "kl" per datum of an `ELBO` with options that are no bound.

    Raises:
        ValueError: bad data, sites that do not match, or a minibatch that cannot be scaled; before
            any step.
        TypeError: integer data at a site of real support; an unknown loss or optimizer.
        NonFiniteError: a loss or gradient turned non-finite; `.fit` holds the last finite state.

    Cost:
        Eager, a step costs about what `pyro.infer.SVI.step` does without validation. Tracing takes
        less than a second, compiling about ten with a cold cache.

    References:
        Hoffman, Blei, Wang, Paisley: Stochastic variational inference. 2013.
        https://arxiv.org/abs/1206.7051

    Example:
        >>> import numpy as np, pyro, pyro.distributions as dist
        >>> from pyro.infer.autoguide import AutoNormal
        >>> def model(x):
        ...     mu = pyro.sample("mu", dist.Normal(0, 10))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mu, 1), obs=x)
        >>> x = np.random.default_rng(0).normal(3.0, 1.0, 100)
        >>> fit = svi(model, AutoNormal(model), x, num_steps=300, batch_size=20, progress=False)
        >>> fit.losses.shape
        (300,)
    """
    _check_options(num_steps, patience, validation_data, compile)
    objective = as_objective(loss)
    start = (given(params) or {}) if params is not None else {}
    with private_store(), forked_rng(seed):
        pair = read_pair(
            model,
            guide,
            data,
            model_kwargs=model_kwargs,
            params=start,
            batch_size=batch_size,
            seed=seed,
            enumerated=getattr(objective, "enumerated", False),
            alone=isinstance(objective, ExactMarginal),
        )
        batch_size = None if batch_size == pair.num_rows else batch_size
        objective.check(pair, batch_size)
        leaves = place_leaves(pair, start)
        if not leaves:
            raise ValueError("there is nothing to fit: neither model nor guide has a parameter.")
        tensors = data_.to_tensors(data, next(iter(leaves.values())).device)
        optimizer = as_optimizer(optim, leaves, clip_norm)

        def values(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: p.value(own.get(name)) for name, p in pair.params.items()}

        if isinstance(objective, ExactMarginal):
            objective.prepare(pair, values(leaves), tensors, batch_size)
        if moving := moving_factors(pair, values(leaves), tensors):
            told = energy_checks.unnormalised_warning(moving, pair.model.params)
            warnings.warn(told, UserWarning, stacklevel=2)

        columns = getattr(objective, "columns", ())
        clock = torch.zeros(2, device=next(iter(leaves.values())).device) if columns else None

        def total(own: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
            told = () if clock is None else (clock[0],)
            return objective(pair, values(own), tensors, rows, *told)

        validate = None
        if validation_data is not None:
            validate = _validation(
                model, guide, getattr(objective, "reported", objective), lambda: values(leaves),
                validation_data, batch_size,
                model_kwargs, pair, seed,
            )  # fmt: skip
        settings = {
            "kind": "svi",
            "num_rows": pair.num_rows,
            "batch_size": batch_size,
            "seed": seed,
            "loss": type(loss).__name__ if isinstance(objective, Native) else repr(objective),
            "clip_norm": clip_norm,
            "sites": sorted(pair.model.sites),
        }  # fmt: skip
        buffers = {n: p.leaf for n, p in pair.params.items() if p.is_buffer}
        with handlers.validation(False):
            _check_announced(total, leaves, pair, batch_size)
            step = Step(total, leaves, optimizer, pair.modules, compile, objective.traceable,
                        clock)  # fmt: skip
            result = train_.train(
                step,
                buffers,
                num_steps=num_steps,
                num_rows=pair.num_rows,
                batch_size=batch_size,
                per_datum=pair.per_datum,
                validate=validate,
                patience=patience,
                checkpoint=None if checkpoint is None else Checkpoint(checkpoint, settings),
                callbacks=callbacks,
                params=lambda: snapshot(pair.params.values()),
                progress=progress,
                seed=seed,
                columns=columns,
            )
            for leaf in leaves.values():
                leaf.grad = None
        fit = Fit(
            params=snapshot(pair.params.values()),
            losses=result.losses,
            history={name: np.asarray(kept) for name, kept in result.history.items()},
            seconds=result.seconds,
            compile_seconds=result.compile_seconds,
            model=model,
            guide=guide,
            compiled=step.mode,
            reason=step.reason,
            seed=seed,
            stopped=result.stopped,
            data=tuple(data),
            model_kwargs=dict(model_kwargs or {}),
        )
        fit._batch_size = batch_size
        if result.failed is not None:
            raise _non_finite(pair, tensors, fit, result)
        if isinstance(guide, AutoLaplaceApproximation):
            fit.guide, fit.params = approximate(
                pair, guide, fit.params, tensors, model, model_kwargs
            )
    return fit


def _check_options(
    num_steps: int, patience: int | None, validation_data: Any, compile: str
) -> None:
    checks.check_steps(num_steps)
    checks.check_patience(patience, validation_data is not None)
    if compile not in MODES:
        raise ValueError(f"compile={compile!r}: pass one of {', '.join(map(repr, MODES))}.")


def place_leaves(pair: Pair, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the leaves that are trained, at the values to start from."""
    with torch.no_grad():
        for name, value in values.items():
            if name not in pair.params:
                continue
            param = pair.params[name]
            leaf = param.inverse(value.to(param.leaf.device))
            if leaf.shape != param.leaf.shape:
                raise ValueError(
                    f"parameter '{name}' has shape {tuple(value.shape)}, but the model and guide "
                    "on "
                    f"this data need {tuple(param.value().shape)}. Pass the parameters of this "
                    "model and data."
                )
            param.leaf.copy_(leaf)
    return init_params(pair)


def _check_announced(
    total: Callable[..., Tensor], leaves: Mapping[str, Tensor], pair: Pair, batch_size: int | None
) -> None:
    """Warn of tensors that require gradients and that no module or parameter announces."""
    known = {id(leaf) for leaf in leaves.values()} | {id(p.leaf) for p in pair.params.values()}
    rows = None if batch_size is None else torch.arange(batch_size)
    with forked_rng(0), preserved(pair.modules), torch.enable_grad():
        loss = head(total(leaves, rows))
    strangers, queue, seen = [], [loss.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            strangers.append(tuple(variable.shape))
        queue += [parent for parent, _ in node.next_functions]
    if strangers:
        warnings.warn(
            f"the program uses tensors of shapes {strangers[:4]} that require gradients but belong "
            "to no module or parameter it announces: they are not trained. Announce their module "
            "with pyro.module('net', net), or make it part of a PyroModule.",
            UserWarning,
            stacklevel=4,
        )


def _validation(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    objective: Any,
    values: Callable[[], dict[str, Tensor]],
    validation_data: Any,
    batch_size: int | None,
    model_kwargs: Mapping[str, Any] | None,
    pair: Pair,
    seed: int,
) -> Callable[[], float]:
    """Return the loss per datum of held-out data, block by block where there are minibatches."""
    held_out = validation_data if isinstance(validation_data, tuple | list) else (validation_data,)
    device = next(iter(pair.params.values())).leaf.device
    tensors = data_.to_tensors(held_out, device)
    other = read_pair(
        model,
        guide,
        held_out,
        model_kwargs=model_kwargs,
        enumerated=getattr(objective, "enumerated", False),
        alone=isinstance(objective, ExactMarginal),
    )
    for name, param in other.params.items():
        shape, own = tuple(param.leaf.shape), tuple(pair.params[name].leaf.shape)
        if shape != own:
            raise ValueError(
                f"parameter '{name}' has shape {own}, but on validation_data it needs {shape}: it "
                "has entries for each row. Use an amortised guide, or drop validation_data."
            )
    total = other.num_rows or 0
    size = min(batch_size or 0, total)
    if isinstance(objective, ExactMarginal):
        objective.prepare(other, values(), tensors, size if 0 < size < total else None)
    starts = list(range(0, total - size + 1, size)) if size else [0]
    if size and total % size:  # the last block overlaps the one before
        starts.append(total - size)

    def validate() -> float:
        losses = []
        with torch.no_grad(), forked_rng(None), preserved(pair.modules):
            for start in starts:
                rows = (
                    torch.arange(start, start + size, device=device) if 0 < size < total else None
                )
                torch.manual_seed(train_.mix(seed, 2, start))
                losses.append(objective(other, values(), tensors, rows))
        return float(torch.stack(losses).double().mean()) / other.per_datum

    return validate


def _non_finite(
    pair: Pair, data: Sequence[Any], fit: Fit, result: train_.TrainResult
) -> NonFiniteError:
    key = train_.mix(fit.seed, 1, result.failed or 0)
    with handlers.validation(False), preserved(pair.modules):
        site, bad = first_nonfinite(pair, fit.params, data, result.rows, key)
    return non_finite(result.failed or 0, result.rows, site, bad, fit)
