"""A differentiable function of one point as one of a batch: vectorised, and traced flat."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from deepgen_ppl.pyro import graphs
from deepgen_ppl.pyro.parameters import forked_rng
from deepgen_ppl.pyro.vectorised import mappable_draws

Tensors = tuple[Tensor, ...]

_NUM_CHECKED = 4
"""Points at which a graph is compared with the function."""


class Pointwise:
    r"""A function of one point over a batch of them, with the gradients of its values.

    The function is differentiated once for each of its values and traced at one point into a flat
    graph, by `make_fx`, so that effect handlers run at the first call only; that graph is
    vectorised by `torch.func.vmap` and made flat again for each batch shape. A function whose
    control flow depends on the point, so that the graph would be wrong elsewhere, runs by itself.

    Args:
        point: One point, a tensor, to a tuple of differentiable tensors. Where these have rows, the
            i-th may depend on the i-th row of the point alone.
        around: Makes the context that the function runs in.

    Attributes:
        compiled: How gradients run: `"torchscript"`, `"traced"` (the flat graph run by Python) or
            `"eager"` (the function itself); empty before the first.
        reason: Why it is no better than that.

    Example:
        >>> square = Pointwise(lambda z: ((z * z).sum(),))
        >>> value, grad = square.gradients(torch.ones(5, 2))
        >>> value.shape, grad[0], square.compiled
        (torch.Size([5]), tensor([2., 2.]), 'torchscript')
    """

    def __init__(
        self,
        point: Callable[[Tensor], Tensors],
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.point, self.around = point, around
        self.compiled = self.reason = ""
        self._mapped: Callable[[Tensor], Tensors] | None = None
        self._single: Callable[[Tensor], Tensors] | None = None
        self._graphs: dict[torch.Size, Callable[[Tensor], Tensors]] = {}

    def values(self, z: Tensor) -> Tensors:
        """Return the values at each point of a batch, each with the leading axis of the batch.

        Args:
            z: Points along the leading axis.
        """
        with self.around(), torch.no_grad(), forked_rng(0):
            if self._mapped is None:
                self._mapped = self._vectorised(z)
            return self._mapped(z)

    def gradients(self, z: Tensor) -> Tensors:
        """Return the values at each point of a batch, and after them the gradient of each.

        Args:
            z: Points along the leading axis.

        Cost:
            0.1 to 1 s to trace at the first batch of a shape.
        """
        if z.shape not in self._graphs:
            with self.around(), forked_rng(0):
                self._graphs[z.shape] = self._traced(z)
        return self._graphs[z.shape](z)

    def _vectorised(self, z: Tensor) -> Callable[[Tensor], Tensors]:
        for make in (lambda: self.point, lambda: graphs.traced(self.point, z[0].clone())):
            try:
                mapped = vmap(make())
                _check(mapped, self.point, z[-_NUM_CHECKED:])
            except Exception:  # control flow, `.item()`, operations without a batching rule
                continue
            return mapped
        return lambda z: one_by_one(self.point, z)

    def _traced(self, z: Tensor) -> Callable[[Tensor], Tensors]:
        mapped = vmap(self.point)

        def single(z: Tensor) -> Tensors:
            return with_gradients(self.point, z)

        def direct(z: Tensor) -> Tensors:
            return with_gradients(mapped, z)

        def from_one() -> Callable[[Tensor], Tensors]:
            if self._single is None:
                # Not simplified: constants among its gradients would have no leading axis.
                self._single = graphs.traced(single, z[0].clone())
            return vmap(self._single)

        reasons = []
        for make in (from_one, lambda: direct):
            try:
                graph = graphs.flat(make(), z)
                _check(graph, self.point, z)
            except Exception as error:  # whatever keeps it from being traced, it still runs itself
                reasons.append(f"{type(error).__name__}: {str(error)[:200]}")
                continue
            return self._scripted(graph, z)
        self.compiled, self.reason = "eager", f"tracing failed: {reasons[-1]}"
        return self._eager(single, direct, z)

    def _scripted(self, graph: Any, z: Tensor) -> Callable[[Tensor], Tensors]:
        try:
            found, self.compiled, self.reason = graphs.script(graph, (z,)), "torchscript", ""
        except Exception as error:
            reason = f"no TorchScript: {type(error).__name__}: {str(error)[:200]}"
            found, self.compiled, self.reason = graph, "traced", reason

        def run(z: Tensor) -> Tensors:
            with torch.no_grad():
                return tuple(found(z))

        return run

    def _eager(self, single: Any, direct: Any, z: Tensor) -> Callable[[Tensor], Tensors]:
        try:
            direct(z)
            found = direct
        except Exception:  # as above
            found = lambda z: one_by_one(single, z)  # noqa: E731

        def run(z: Tensor) -> Tensors:
            with self.around(), forked_rng(0):
                return found(z)

        return run


def vmap(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorise a function over the leading axis; what it draws differs from point to point."""
    mapped = torch.func.vmap(fn, randomness="different")

    def quiet(*args: Any) -> Any:
        with warnings.catch_warnings(), mappable_draws():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            return mapped(*args)

    return quiet


def over(fn: Callable[..., Any], points: Any) -> Any:
    """Map a function of one point over a batch, vectorised where it allows it.

    Args:
        fn: One point, a tree of tensors, to a tree of tensors.
        points: The same tree with a leading axis.
    """
    try:
        return vmap(fn)(points)
    except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError):
        # A program may ask for values, or use an operation that has no batching rule.
        return one_by_one(fn, points)


def one_by_one(fn: Callable[..., Any], points: Any) -> Any:
    """Map a function of one point over a batch, one after the other."""
    size = len(tree_leaves(points)[0])
    found = [fn(tree_map(lambda leaf: leaf[i], points)) for i in range(size)]  # noqa: B023
    return tree_map(lambda *leaves: torch.stack(leaves), *found)


def with_gradients(fn: Callable[[Tensor], Tensors], z: Tensor) -> Tensors:
    """Return a function's values at a point, or at a batch, and the gradient of each one's sum."""
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        values = fn(z)
        grads = [_gradient(value, z) for value in values]
    return *(value.detach() for value in values), *grads


def _gradient(value: Tensor, z: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(value.sum(), z, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if found is None else found


def _check(mapped: Callable[[Tensor], Any], exact: Callable[[Tensor], Tensors], z: Tensor) -> None:
    with torch.no_grad():
        found = mapped(z)
        for i in np.linspace(0, len(z) - 1, min(len(z), _NUM_CHECKED)).astype(int):
            for value, wanted in zip(found, exact(z[i]), strict=False):
                if not torch.allclose(value[i], wanted, rtol=1e-3, atol=1e-3, equal_nan=True):
                    raise ValueError("the density's control flow depends on its latents")
