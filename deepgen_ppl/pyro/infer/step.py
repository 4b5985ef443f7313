"""One training step, run in one of three ways: eager, traced or compiled; the same objective."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deepgen_ppl.pyro.compilation import (
    Adam,
    compile_step,
    head,
    trace_step,
    without_host_values,
)
from deepgen_ppl.pyro.infer.optimizers import Optimizer
from deepgen_ppl.pyro.parameters import forked_rng, preserved

MODES = ("auto", "eager", "traced", "compiled")

Loss = Callable[[Mapping[str, Tensor], Tensor | None], Tensor]
"""(unconstrained leaves, batch rows) -> loss of the whole data, a scalar, or it and its columns."""

_MEASURED = 10  # steps that are timed before a choice
_TRACE_GAIN = 0.4  # share of an eager step that tracing saves at the least, on small models
_NODE_SECONDS = 3e-6  # what eager torch spends on calling one operation, which compiling saves
_COMPILE_SECONDS = (8.0, 30.0)  # compile time: fixed, and per second that tracing took


def laid_out(grad: Tensor, leaf: Tensor) -> Tensor:
    """Return a gradient with the strides of its leaf, without which fused optimizers mix it up.

    Args:
        grad: The gradient.
        leaf: What it is the gradient of.

    Example:
        >>> laid_out(torch.ones(3, 2).T, torch.zeros(2, 3)).stride()
        (3, 1)
    """
    if grad.stride() == leaf.stride():
        return grad
    return torch.empty_like(leaf, requires_grad=False).copy_(grad)


class Step:
    """Runs training steps on leaves in place.

    Args:
        loss: The objective of leaves and rows.
        leaves: The tensors that are trained, by name.
        optimizer: Their optimizer.
        modules: Modules whose buffers a step may change.
        compile: One of `MODES`.
        traceable: Whether the objective can run as one graph.
        clock: Filled with the number of the step before each, for losses that read it; of two
            elements, as graphs keep single numbers as they are.

    Attributes:
        mode: How the present step is run.
        reason: Why.
        compile_seconds: Time spent on tracing and compiling.
    """

    def __init__(
        self,
        loss: Loss,
        leaves: Mapping[str, Tensor],
        optimizer: Optimizer,
        modules: Any = (),
        compile: str = "auto",
        traceable: bool = True,
        clock: Tensor | None = None,
    ) -> None:
        if compile not in MODES:
            raise ValueError(f"compile must be one of {', '.join(MODES)}, got {compile!r}.")
        self.loss, self.leaves, self.optimizer = loss, dict(leaves), optimizer
        self.names, self.tensors = list(self.leaves), list(self.leaves.values())
        self.wanted, self.traceable, self.modules = compile, traceable, tuple(modules)
        self.clock = clock
        self.mode, self.compile_seconds = "eager", 0.0
        self.reason = "the run was over before a choice was due"
        self.cuda = any(x.is_cuda for x in self.tensors)
        self.graph: Any = None
        self.compiled: Any = None
        self.constants: list[Tensor] = []
        self.seconds: dict[str, float] = {}
        self.began, self.counted = 0.0, 0
        self.settled = not self.tensors or compile == "eager"
        if compile == "eager":
            self.reason = "asked for"

    def __call__(self, rows: Tensor | None, key: int, number: int = 0) -> Tensor:
        """Take one step; returns the loss of the whole data, with its columns if it has some."""
        if self.clock is not None:
            self.clock.fill_(number)
        torch.default_generator.manual_seed(key)
        if self.cuda:
            torch.cuda.manual_seed_all(key)
        if self.mode == "compiled":
            return self._run_compiled(rows)
        if self.mode == "traced":
            return self._apply(*self._run_graph(rows))
        loss = self.loss(self.leaves, rows)
        if not loss.requires_grad:
            return self._apply(loss, *[torch.zeros_like(x) for x in self.tensors])
        grads = torch.autograd.grad(head(loss), self.tensors, allow_unused=True)
        return self._apply(loss.detach(), *grads)

    def consider(self, rows: Tensor | None, remaining: int) -> None:
        """Choose how the remaining steps are run; called after every step until it is settled."""
        if self.wanted in ("traced", "compiled"):
            self._force(rows)
            return
        if self.counted == 0:  # the first step warms up
            self.began = self._now()
        self.counted += 1
        if self.counted <= _MEASURED:
            return
        self.seconds[self.mode] = (self._now() - self.began) / _MEASURED
        self.counted = 0
        if self.mode == "eager":
            self._consider_tracing(rows, remaining)
        else:
            self._consider_compiling(rows, remaining)

    def enter(self, mode: str, rows: Tensor | None) -> None:
        """Run in a given mode from now on, as a resumed run must."""
        if mode != "eager" and self._trace(rows) and mode == "compiled":
            self._compile(rows)
        if self.mode == mode:
            self.reason = "as the run that is resumed"
        self.settled = True

    def store(self) -> None:
        """Write what a compiled step keeps aside into the optimizer's state."""
        if self.compiled is not None and self.optimizer.in_graph:
            for leaf in self.tensors:
                self.optimizer.optimizer.state[leaf]["step"].copy_(self.count)

    def reload(self) -> None:
        """Read the optimizer's state again after it was replaced."""
        if self.compiled is not None and self.optimizer.in_graph:
            self._bind_adam()

    # ---------------------------------------------------------------------------------- running

    def _apply(self, loss: Tensor, *grads: Tensor | None) -> Tensor:
        for leaf, grad in zip(self.tensors, grads, strict=True):
            leaf.grad = torch.zeros_like(leaf) if grad is None else laid_out(grad, leaf)
        self.optimizer.step(head(loss))
        return loss

    def _run_graph(self, rows: Tensor | None) -> Any:
        own = [x.detach() for x in self.tensors]
        return self.graph(*own, *([] if rows is None else [rows]), *self.constants)

    def _run_compiled(self, rows: Tensor | None) -> Tensor:
        batch = () if rows is None else (rows,)
        if not self.optimizer.in_graph:
            own = [x.detach() for x in self.tensors]
            return self._apply(*self.compiled(*own, *batch, *self.constants))
        if self.optimizer.scheduler is not None:
            self.rate.fill_(self.optimizer.optimizer.param_groups[0]["lr"])
        (loss,) = self.compiled(*self.bound, *batch, *self.constants)
        self.optimizer.schedule(head(loss))
        return loss

    def _bind_adam(self) -> None:
        """Collect the tensors an update in the graph works on: leaves, moments, count and rate."""
        state = self.optimizer.optimizer.state
        device = self.tensors[0].device
        for leaf in self.tensors:
            if not state[leaf]:
                step = torch.zeros((), device=leaf.device)
                zeros = [torch.zeros_like(leaf, requires_grad=False) for _ in range(2)]
                state[leaf] |= {"step": step, "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
        self.count = state[self.tensors[0]]["step"].detach().clone().to(device)
        self.rate = torch.tensor(self.optimizer.optimizer.param_groups[0]["lr"], device=device)
        own = [x.detach() for x in self.tensors]
        moments = [state[x][key] for key in ("exp_avg", "exp_avg_sq") for x in self.tensors]
        self.bound = (*own, *moments, self.count, self.rate)
        # The update is ours: a schedule would else warn that the optimizer was never called.
        self.optimizer.optimizer._opt_called = True  # type: ignore[attr-defined]

    # --------------------------------------------------------------------------------- choosing

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _force(self, rows: Tensor | None) -> None:
        if self._trace(rows):
            self.reason = "asked for"
            if self.wanted == "compiled" and self._compile(rows):
                self.reason = "asked for"
        self.settled = True

    def _consider_tracing(self, rows: Tensor | None, remaining: int) -> None:
        eager = self.seconds["eager"]
        gain, cost = remaining * eager * _TRACE_GAIN, 0.3 + 60 * eager
        if not self.traceable:
            self._settle("the objective calls backward itself and cannot be traced")
        elif gain < 2 * cost:
            self._settle(
                f"tracing costs about {cost:.1f} s, more than the {remaining} steps left would "
                f"save at {1e3 * eager:.2f} ms a step"
            )
        elif not self._trace(rows):
            self.settled = True

    def _consider_compiling(self, rows: Tensor | None, remaining: int) -> None:
        eager, traced = self.seconds["eager"], self.seconds["traced"]
        nodes = len(self.graph.graph.nodes)
        if traced > eager:
            self.mode = "eager"
            self._settle(f"the traced step took {1e3 * traced:.2f} ms, eager {1e3 * eager:.2f} ms")
            return
        cost = _COMPILE_SECONDS[0] + _COMPILE_SECONDS[1] * self.compile_seconds
        saved = min(0.8 * traced, nodes * _NODE_SECONDS)
        told = f"{1e3 * traced:.2f} ms a traced step (eager {1e3 * eager:.2f} ms)"
        if remaining * saved < 2 * cost:
            self._settle(
                f"compiling costs about {cost:.0f} s, more than the {remaining} steps left would "
                f"save at {told}"
            )
        elif self._compile(rows):
            self._settle(f"{remaining} steps left at {told} pay for {self.compile_seconds:.0f} s")
        else:
            self.settled = True

    def _settle(self, reason: str) -> None:
        self.reason, self.settled = reason, True

    def _trace(self, rows: Tensor | None) -> bool:
        if not self.traceable:
            self.reason = "the objective calls backward itself and cannot be traced"
            return False
        began = time.perf_counter()

        def loss(leaves: list[Tensor], rows: Tensor | None) -> Tensor:
            return self.loss(dict(zip(self.names, leaves, strict=True)), rows)

        try:
            with forked_rng(0), preserved(self.modules), without_host_values(), _quiet():
                self.graph, self.constants = trace_step(loss, self.tensors, rows)
                self._compare(rows)
        except Exception as error:  # whatever a program may raise while it is traced
            self.reason = f"the program cannot be traced: {_line(error)}"
            self.graph = None
            return False
        finally:
            self.compile_seconds += time.perf_counter() - began
        self.mode = "traced"
        return True

    def _compare(self, rows: Tensor | None) -> None:
        """Check the graph against the program at another draw: tracing may freeze what varies."""
        torch.manual_seed(1)
        with torch.no_grad():
            loss = self.loss(self.leaves, rows)
        torch.manual_seed(1)
        traced = self._run_graph(rows)[0]
        if not torch.allclose(loss, traced, rtol=1e-3, atol=1e-3, equal_nan=True):
            given, found = float(head(traced)), float(head(loss))
            raise RuntimeError(f"its graph gives loss {given:.6g}, not {found:.6g}")

    def _compile(self, rows: Tensor | None) -> bool:
        began = time.perf_counter()
        batch = [] if rows is None else [rows.clone()]
        try:
            with preserved(self.modules), _quiet():
                constants = [x.clone() for x in self.constants]
                adam = None
                if self.optimizer.in_graph:
                    self._bind_adam()
                    adam = Adam(self.optimizer.optimizer, self.optimizer.clip_norm)  # type: ignore[arg-type]
                    inputs = [*self.bound, *batch, *constants]
                else:
                    inputs = [*(x.detach() for x in self.tensors), *batch, *constants]
                self.compiled = compile_step(self.graph, adam, len(self.tensors), inputs)
        except Exception as error:  # no C++ compiler, an operation without lowering, ...
            self.reason = f"the traced step cannot be compiled: {_line(error)}"
            self.compiled = None
            return False
        finally:
            self.compile_seconds += time.perf_counter() - began
        self.mode = "compiled"
        return True


class _quiet:
    """Silence the warnings of tracing and compiling: the user can do nothing about them."""

    def __enter__(self) -> None:
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *args: Any) -> None:
        self.caught.__exit__(*args)


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
