"""The potential energies of a batch of chains and their gradients, as one graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl.pyro import graphs, handlers
from deepgen_ppl.pyro.compilation import compile_step
from deepgen_ppl.pyro.infer.gradient import Layout

LEVELS = ("auto", "eager", "traced", "compiled")
_COMPILING = 15.0  # seconds that inductor takes on a small program
_SAVED = 0.6  # share of a traced gradient's time that it saves
_CHECKED = 8


class BatchedGradient:
    """Potential energies of chains and their gradients: the `value_and_grad` of the kernels.

    It is called with positions `(*batch, D)` and, where the potential takes more, with inputs that
    have the same leading axes; it returns energies `(*batch,)` and gradients `(*batch, D)`. There
    is one graph for each number of chains.

    Attributes:
        compiled: `"compiled"` (by inductor), `"torchscript"`, `"traced"` (the flat graph run by
            Python) or `"eager"` (the program itself).
        reason: Why it is so.
        seconds: Time that tracing and compiling took.
    """

    def __init__(self, function: Callable[..., Any], level: str, calls: float) -> None:
        self.function, self.level, self.calls = function, level, calls
        self.compiled, self.reason, self.seconds = "eager", "", 0.0
        self._graphs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(
        self, position: Float[Tensor, "*batch D"], *inputs: Tensor
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch D"]]:
        """Return energies and gradients."""
        batch = position.shape[:-1]
        rows = [position, *inputs]
        if len(batch) != 1:
            rows = [x.reshape(-1, *x.shape[len(batch) :]) for x in rows]
        key = tuple((x.shape, x.dtype) for x in rows)
        run = self._graphs.get(key) or self._prepare(key, rows)
        gradient, value = run(*rows)
        if len(batch) != 1:
            value, gradient = value.reshape(batch), gradient.reshape(position.shape)
        return value, gradient

    def _prepare(self, key: tuple[Any, ...], rows: list[Tensor]) -> Callable[..., Any]:
        began = time.perf_counter()
        self._graphs[key], self.compiled, self.reason = self._built(rows)
        self.seconds += time.perf_counter() - began
        return self._graphs[key]

    def _built(self, rows: list[Tensor]) -> tuple[Callable[..., Any], str, str]:
        if self.level == "eager":
            return self.function, "eager", self.reason or "asked for"
        try:
            with handlers.validation(False):
                graph = graphs.flat(self.function, *rows)
                _agree(self.function, graph, rows)
        except Exception as error:  # what keeps a program from being traced leaves it as it is
            return self.function, "eager", f"tracing failed: {_said(error)}"
        try:
            run, how, why = graphs.script(graph, rows), "torchscript", ""
        except Exception as error:
            run, how, why = graph, "traced", f"no TorchScript: {_said(error)}"
        if self.level == "traced":
            return run, how, why or "asked for"
        each = _seconds(run, rows)
        expected = self.calls * each
        about = f"{self.calls:.0f} gradients of {1e6 * each:.0f} us expected"
        if self.level == "auto" and _SAVED * expected < _COMPILING:
            return run, how, why or f"{about}: too few for inductor to pay"
        try:
            compiled = compile_step(graph, None, len(rows), rows)
            with torch.no_grad():
                _agree(self.function, compiled, rows)
        except Exception as error:
            return run, how, f"inductor failed: {_said(error)}"
        return compiled, "compiled", "asked for" if self.level == "compiled" else about


def batched(
    potential: Callable[..., Tensor],
    layout: Layout,
    points: Float[Tensor, "K D"],
    *inputs: Tensor,
    level: str = "auto",
    calls: float = 0.0,
) -> BatchedGradient:
    r"""Return the energies of a batch of chains with their gradients, traced into one graph.

    \[ z_k \mapsto U(z_k), \; \nabla U(z_k), \qquad k = 1, \dots, K \]

    The program runs once, under `torch.func.vmap`, while the graph is made, and never again. What
    cannot be vectorised is traced for one chain first, and that graph is vectorised; what cannot be
    traced either runs chain by chain.

    Args:
        potential: Unconstrained sites of one chain (and further inputs) to its energy, a scalar.
        layout: How the sites lie in a position, in one block.
        points: Positions at which the graph must agree with the program.
        *inputs: Examples of the further inputs, with a leading axis of chains.
        level: `"eager"`, `"traced"`, `"compiled"` (by inductor), or `"auto"`: compiled where the
            expected number of calls repays it, else traced.
        calls: Expected number of calls.

    Raises:
        ValueError: An unknown level.

    Cost:
        0.1 to 1 s to trace, about 10 s more to compile.

    Example:
        >>> layout = Layout.of({"x": torch.zeros(3)})
        >>> points = torch.arange(6.0).reshape(2, 3)
        >>> energy = batched(lambda z: (z["x"] ** 2).sum() / 2, layout, points)
        >>> energy(points)[0], energy.compiled
        (tensor([ 2.5000, 25.0000]), 'torchscript')
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(map(repr, LEVELS))}, not {level!r}.")

    def energy(position: Tensor, *more: Tensor) -> Tensor:
        return potential(layout.split((position,)), *more)

    rows = [points, *inputs]
    function, reason = _vectorised(energy, rows)
    made = BatchedGradient(function, "eager" if reason else level, calls)
    made.reason = reason
    made(*rows)
    return made


def obstacle(potential: Callable[..., Tensor], layout: Layout, points: Tensor) -> str:
    """Return what keeps a potential from being vectorised over chains; empty where nothing does."""
    return _vectorised(lambda position: potential(layout.split((position,))), [points])[1]


def _vectorised(
    energy: Callable[..., Tensor], rows: list[Tensor]
) -> tuple[Callable[..., Any], str]:
    """Return gradients and energies of a batch, and why they come chain by chain if they do."""
    with handlers.validation(False):
        try:
            mapped = torch.func.vmap(torch.func.grad_and_value(energy))
            _agree(_one_by_one(energy), mapped, [x[:_CHECKED] for x in rows])
            return mapped, ""
        except Exception as error:  # control flow, `.item()`, no batching rule
            reason = f"vmap failed: {_said(error)}"
        try:
            graph = graphs.traced(energy, *(x[0].detach().clone() for x in rows))
            mapped = torch.func.vmap(torch.func.grad_and_value(graph))
            _agree(_one_by_one(energy), mapped, [x[:_CHECKED] for x in rows])
            return mapped, ""
        except Exception:
            return _one_by_one(energy), f"chain by chain; {reason}"


def _one_by_one(energy: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def gradient(position: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        leaves = [z.detach().requires_grad_(True) for z in position]
        more = [[x[k] for x in inputs] for k in range(len(leaves))]
        with torch.enable_grad(), handlers.validation(False):
            values = [energy(z, *own) for z, own in zip(leaves, more, strict=True)]
            grads = [torch.autograd.grad(v, z)[0] for v, z in zip(values, leaves, strict=True)]
        return torch.stack(grads), torch.stack([v.detach() for v in values])

    return gradient


def _agree(exact: Callable[..., Any], other: Callable[..., Any], rows: list[Tensor]) -> None:
    """Raise where two gradients differ, at given positions and halfway to the origin."""
    for scale in (1.0, 0.5):
        args = [scale * rows[0], *rows[1:]]
        pairs = zip(exact(*args), other(*args), strict=True)
        if not all(torch.allclose(b, a, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs):
            raise ValueError("the density's control flow depends on its latents")


def _seconds(run: Callable[..., Any], rows: list[Tensor]) -> float:
    times = []
    with torch.no_grad():
        for _ in range(5):
            began = time.perf_counter()
            run(*rows)
            times.append(time.perf_counter() - began)
    return sorted(times)[2]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"
