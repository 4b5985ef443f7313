"""Optimizers as the training loop drives them: torch's, with schedules, and Pyro's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

_HINT = "For example functools.partial(torch.optim.Adam, lr=1e-3)."


class Optimizer:
    """A torch optimizer over the leaves, its schedule and its clipping.

    Args:
        optimizer: The optimizer; it updates the leaves in place.
        scheduler: Its learning-rate schedule, moved on once a step.
        leaves: The tensors by name.
        clip_norm: Largest Euclidean norm of the whole gradient, None for no limit.
        clips: Clipping of single tensors, `(tensor) -> None`, as Pyro's optimizers have it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        leaves: Mapping[str, Tensor],
        clip_norm: float | None,
        clips: Callable[[str, Tensor], None] | None = None,
    ) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        self.leaves, self.clip_norm, self.clips = dict(leaves), clip_norm, clips
        self.tensors = list(self.leaves.values())

    def step(self, loss: Tensor) -> None:
        """Apply the gradients that stand in the leaves, then move the schedule on."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.tensors, self.clip_norm)
        if self.clips is not None:
            for name, leaf in self.leaves.items():
                self.clips(name, leaf)
        self.optimizer.step()
        self.schedule(loss)

    def schedule(self, loss: Tensor) -> None:
        """Move the learning rate on by one step."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(float(loss))
        elif self.scheduler is not None:
            self.scheduler.step()

    @property
    def in_graph(self) -> bool:
        """Whether its update is plain Adam, which a compiled step does itself."""
        groups = self.optimizer.param_groups
        return (
            type(self.optimizer) in (torch.optim.Adam, torch.optim.AdamW)
            and len(groups) == 1
            and self.clips is None
            and not isinstance(self.scheduler, ReduceLROnPlateau)
            and not any(groups[0].get(flag) for flag in ("amsgrad", "maximize", "differentiable"))
            and not isinstance(groups[0]["lr"], Tensor)
        )

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and numbers that continue the run."""
        state = self.optimizer.state_dict()
        groups = [{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]]
        schedule = None
        if self.scheduler is not None:
            schedule = {
                k: v
                for k, v in self.scheduler.state_dict().items()
                if isinstance(v, int | float | str | bool | list | None)
            }
        return {"state": state["state"], "groups": groups, "schedule": schedule}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        now = self.optimizer.state_dict()
        groups = [
            {**old, **new} for old, new in zip(now["param_groups"], saved["groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        if self.scheduler is not None and saved["schedule"] is not None:
            self.scheduler.load_state_dict({**self.scheduler.state_dict(), **saved["schedule"]})


def as_optimizer(
    optim: Any, leaves: Mapping[str, Tensor], clip_norm: float | None = None
) -> Optimizer:
    """Return an optimizer of the leaves.

    Args:
        optim: None (Adam, step 1e-3), a `torch.optim` class, a function `parameters -> optimizer`
            or `parameters -> (optimizer, scheduler)` (`functools.partial` of a class is one), or an
            optimizer of `pyro.optim`.
        leaves: The unconstrained tensors by name.
        clip_norm: Largest Euclidean norm of the whole gradient, None for no limit.

    Raises:
        TypeError: `optim` is none of these.
        ValueError: `clip_norm` is not positive.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, got {clip_norm}.")
    if isinstance(optim, torch.optim.Optimizer | LRScheduler):
        raise TypeError(
            f"optim is a {type(optim).__name__} that holds its own parameters already. Pass what "
            f"makes one: the class, or a function of the parameters. {_HINT}"
        )
    if isinstance(optim, PyroOptim):
        return _from_pyro(optim, leaves, clip_norm)
    if optim is not None and not callable(optim):
        raise TypeError(
            "optim must be a torch.optim class, a function of the parameters or a pyro.optim "
            f"optimizer, got {optim!r}. {_HINT}"
        )
    make = functools.partial(torch.optim.Adam, lr=1e-3) if optim is None else optim
    made = make(list(leaves.values()))
    optimizer, scheduler = made if isinstance(made, tuple) else (made, None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optim made a {type(optimizer).__name__}, no torch optimizer. {_HINT}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError("torch.optim.LBFGS evaluates its own loss. Use Adam or another optimizer.")
    _fuse(optimizer)
    return Optimizer(optimizer, scheduler, leaves, clip_norm)


def _fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let Adam update all tensors in one call, where the user did not say how."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return
    for group in optimizer.param_groups:
        asked = group.get("fused") is not None or group.get("foreach") is not None
        plain = all(
            p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]
        )
        if not asked and plain and not group.get("differentiable"):
            group["fused"] = True


def _from_pyro(
    optim: PyroOptim, leaves: Mapping[str, Tensor], clip_norm: float | None
) -> Optimizer:
    def per_tensor(options: Any, name: str) -> dict[str, Any]:
        if not callable(options):
            return dict(options)
        made: Any = options
        if len(inspect.signature(made).parameters) == 1:
            return dict(made(name))
        head, _, tail = name.partition(".")
        return dict(made(head, tail or head))

    groups = [{"params": [x], **per_tensor(optim.pt_optim_args, n)} for n, x in leaves.items()]
    first = {k: v for k, v in groups[0].items() if k != "params"}
    if all({k: v for k, v in g.items() if k != "params"} == first for g in groups):
        groups = [{"params": list(leaves.values()), **first}]
    optimizer = optim.pt_optim_constructor(groups)  # type: ignore[operator]
    _fuse(optimizer)
    scheduler = None
    if isinstance(optim, PyroLRScheduler):
        scheduler = optim.pt_scheduler_constructor(optimizer, **optim.kwargs)

    def clips(name: str, leaf: Tensor) -> None:
        options = per_tensor(optim.pt_clip_args, name)
        if options.get("clip_norm") is not None:
            torch.nn.utils.clip_grad_norm_([leaf], options["clip_norm"])
        if options.get("clip_value") is not None:
            torch.nn.utils.clip_grad_value_([leaf], options["clip_value"])

    wanted = clips if optim.pt_clip_args else None
    return Optimizer(optimizer, scheduler, leaves, clip_norm, wanted)
