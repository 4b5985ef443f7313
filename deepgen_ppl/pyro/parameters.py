"""Parameters and buffers of a program: who owns each tensor, its name, and how to replace it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.params.param_store import normalize_param_name
from pyro.poutine.messenger import _bound_partial, _context_wrap
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from deepgen_ppl.data_checks import learned_values
from deepgen_ppl.pyro import handlers


class Param(NamedTuple):
    """One learnable tensor or buffer of a program.

    Attributes:
        name: Its name in `fit.params`.
        site: Pyro's name, where a `pyro.param` message asks for it; None otherwise.
        leaf: The unconstrained tensor that is trained.
        constraint: Where its value lives.
        slots: The modules that hold it: `(module, key)`.
        trainable: False for buffers and frozen parameters.
        is_buffer: Whether the slots are buffers.
    """

    name: str
    site: str | None
    leaf: Tensor
    constraint: constraints.Constraint
    slots: tuple[tuple[nn.Module, str], ...]
    trainable: bool
    is_buffer: bool

    @property
    def is_real(self) -> bool:
        """Whether value and leaf are the same tensor."""
        return is_real(self.constraint)

    def value(self, leaf: Tensor | None = None) -> Tensor:
        """Return the constrained value of a leaf (the parameter's own by default)."""
        leaf = self.leaf if leaf is None else leaf
        value = leaf if self.is_real else transform_to(self.constraint)(leaf)
        if self.site is not None:
            value.unconstrained = lambda: leaf  # type: ignore[attr-defined]
        return value

    def inverse(self, value: Tensor) -> Tensor:
        """Return the unconstrained tensor of a value."""
        return value if self.is_real else transform_to(self.constraint).inv(value)


def is_real(constraint: Any) -> bool:
    """Whether a constraint leaves its tensor as it is."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return type(constraint) is type(constraints.real)


def modules_of(fn: Any) -> list[nn.Module]:
    """Return the modules a program is: itself, or what its method, partial or handler wraps."""
    if isinstance(fn, nn.Module):
        return [fn]
    if isinstance(fn, _bound_partial):
        return modules_of(fn.func)
    if isinstance(fn, partial):
        inner = fn.args[1] if fn.func is _context_wrap else fn.func
        return modules_of(inner) + [
            a for a in (*fn.args, *fn.keywords.values()) if isinstance(a, nn.Module)
        ]
    owner = getattr(fn, "__self__", None)
    return [owner] if isinstance(owner, nn.Module) else []


def collect(run: handlers.record, roots: Iterable[nn.Module]) -> dict[str, Param]:
    """Return the parameters and buffers of a recorded run, by name."""
    named_roots = [(normalize_param_name(name), module) for name, module in run.modules.items()]
    named_roots += [(getattr(root, "_pyro_name", ""), root) for root in roots]
    slots: dict[int, list[tuple[nn.Module, str]]] = {}
    found: dict[int, tuple[str, Tensor, constraints.Constraint, bool]] = {}
    seen: set[tuple[int, str]] = set()
    for prefix, root in named_roots:
        for path, module in root.named_modules():
            base = ".".join(part for part in (prefix, path) if part)
            for name, tensor, constraint, key, is_buffer in _tensors(module):
                if (id(module), key) not in seen:  # a module may be reached by two roots
                    seen.add((id(module), key))
                    slots.setdefault(id(tensor), []).append((module, key))
                full = f"{base}.{name}" if base else name
                found.setdefault(id(tensor), (full, tensor, constraint, is_buffer))
    params: dict[str, Param] = {}
    taken: set[int] = set()
    for site in run.params:
        leaf = run.leaves[site]
        if id(leaf) in taken:
            continue
        taken.add(id(leaf))
        name, own = normalize_param_name(site), tuple(slots.get(id(leaf), ()))
        constraint = run.constraints[site]
        trainable = leaf.requires_grad or not own
        params[name] = Param(name, site, leaf, constraint, own, trainable, False)
    for key, (name, leaf, constraint, is_buffer) in found.items():
        if key not in taken:
            while name in params:
                name += "_"
            trainable = leaf.requires_grad and not is_buffer
            params[name] = Param(
                name, None, leaf, constraint, tuple(slots[key]), trainable, is_buffer
            )
    return params


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, constraints.Constraint, str, bool]]:
    """Yield name, tensor, constraint, key and whether it is a buffer, of a module's own tensors."""
    constrained = module.__dict__.get("_pyro_params", {})
    for key, tensor in module._parameters.items():
        name = key.removesuffix("_unconstrained")
        if tensor is None or isinstance(tensor, nn.UninitializedParameter):
            continue
        if name != key and name in constrained:
            yield name, tensor, constrained[name][0], key, False
        else:
            yield key, tensor, constraints.real, key, False
    for key, tensor in module._buffers.items():
        if tensor is not None:
            yield key, tensor, constraints.real, key, True


def merge(model: Mapping[str, Param], guide: Mapping[str, Param]) -> dict[str, Param]:
    """Return the parameters of both programs; one tensor under two names counts once.

    Raises:
        ValueError: Both programs ask Pyro for one name and mean two tensors.
    """
    params = dict(model)
    leaves = {id(param.leaf): name for name, param in params.items()}
    for name, param in guide.items():
        if id(param.leaf) in leaves:
            continue
        if name in params:
            if param.site is not None and param.site == params[name].site and not param.slots:
                raise ValueError(
                    f"Parameter '{name}' of the guide is another tensor than the model's '{name}'. "
                    "Rename one of them, or give its module a name: PyroModule(name='guide')."
                )
            name = f"guide.{name}"
        params[name] = param._replace(name=name)
    return params


@contextmanager
def installed(params: Iterable[Param], values: Mapping[str, Tensor]) -> Iterator[handlers.answer]:
    """Run with other parameter values; yields the handler that answers `pyro.param` with them.

    Modules hold the given tensors inside and their own again afterwards, whatever happens in
    between.
    """
    swapped: list[tuple[dict[str, Any], str, Any]] = []
    answers: dict[str, Tensor] = {}
    try:
        for param in params:
            value = values.get(param.name)
            if value is None:
                continue
            if param.site is not None:
                answers[param.site] = value
            if param.slots and (param.site is None or param.is_real):
                tensor = param.inverse(value)
                for module, key in param.slots:
                    store = module._buffers if param.is_buffer else module._parameters
                    if store[key] is not tensor:
                        swapped.append((store, key, store[key]))
                        store[key] = tensor  # type: ignore[assignment]
        yield handlers.answer(answers)
    finally:
        for store, key, tensor in reversed(swapped):
            store[key] = tensor


def snapshot(
    params: Iterable[Param], leaves: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return detached copies of the constrained values, by name."""
    leaves = leaves or {}
    with torch.no_grad():
        return {p.name: p.value(leaves.get(p.name)).detach().clone() for p in params}


def given(params: Any) -> dict[str, Tensor] | None:
    """Return learned values of a dict or a `Fit` as tensors; the user's store when None."""
    if params is None:
        store = pyro.get_param_store()
        return {normalize_param_name(name): value.detach().clone() for name, value in store.items()}
    return {
        name: value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        for name, value in learned_values(params).items()
    }


def resolve(params: Mapping[str, Param], values: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return a value for every parameter: the given one, else what its module holds now.

    Raises:
        ValueError: A `pyro.param` statement has no learned value, or a value has another shape.
    """
    values = values or {}
    missing = [p.name for p in params.values() if p.name not in values and not p.slots]
    if missing:
        raise ValueError(
            f"No learned value for the parameter{'s' if len(missing) > 1 else ''} "
            f"{', '.join(map(repr, missing))}. Pass params=fit (or a dict of values)."
        )
    out: dict[str, Tensor] = {}
    for name, param in params.items():
        own = param.value().detach()
        value = values.get(name)
        if value is None:
            value = own.clone() if param.is_buffer else own
        elif value.shape != own.shape:
            raise ValueError(
                f"params['{name}'] has shape {tuple(value.shape)}, the program asks for "
                f"{tuple(own.shape)}."
            )
        else:
            value = value.detach().to(own.device, copy=param.is_buffer)
        value = value.requires_grad_() if param.trainable and not value.is_inference() else value
        if param.site is not None:
            value.unconstrained = partial(param.inverse, value)  # type: ignore[attr-defined]
        out[name] = value
    return out


@contextmanager
def preserved(params: Iterable[nn.Module]) -> Iterator[None]:
    """Put the modules' buffers back as they were after a run that is only a look."""
    with torch.no_grad():
        kept = [(buffer, buffer.clone()) for module in params for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


_depth = 0


@contextmanager
def private_store() -> Iterator[None]:
    """Run with an empty param store of our own; the user's is put back untouched. Nests."""
    global _depth
    if _depth:
        yield
        return
    _depth += 1
    try:
        with pyro.get_param_store().scope():
            yield
    finally:
        _depth -= 1


@contextmanager
def forked_rng(seed: int | None) -> Iterator[None]:
    """Seed torch's generators inside; the user's random state is put back afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield
