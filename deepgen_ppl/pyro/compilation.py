"""Compiling a training step: the loss and its gradient as one graph, run plainly or by inductor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo, traceenum_elbo
from pyro.ops.einsum import torch_log
from torch import Tensor
from torch.fx import GraphModule

from deepgen_ppl.loop import uninterrupted
from deepgen_ppl.pyro.graphs import traced

Tensors = Sequence[Tensor]


class SafeLog(torch.autograd.Function):
    """Logarithm with a finite gradient at zero, as Pyro's, that `torch.func` can transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Return the logarithm."""
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the argument."""
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Divide by the argument, held away from zero."""
        (x,) = ctx.saved_tensors
        return grads[0] / x.clamp(min=torch.finfo(x.dtype).tiny)


@contextmanager
def without_host_values() -> Iterator[None]:
    """Let Pyro's own objectives keep their values on the device, so that they can be traced."""

    def detach(x: Any) -> Any:
        return x.detach() if isinstance(x, Tensor) else x

    def quiet(value: Any, *args: Any, **kwargs: Any) -> Any:
        return value

    changes: list[tuple[Any, str, Any]] = [(torch_log, "safe_log", SafeLog.apply)]
    for module in (trace_elbo, trace_mean_field_elbo, traceenum_elbo):
        changes += [(module, "torch_item", detach), (module, "warn_if_nan", quiet)]
    before = [(m, n, getattr(m, n)) for m, n, _ in changes if hasattr(m, n)]
    try:
        for module, name, value in changes:
            if hasattr(module, name):
                setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def trace_step(
    loss: Callable[[list[Tensor], Tensor | None], Tensor],
    leaves: Tensors,
    rows: Tensor | None,
) -> tuple[GraphModule, list[Tensor]]:
    """Trace a loss and its gradient into one graph of tensor operations.

    The program's Python and its effect handlers run once, here; the graph has static structure.

    Args:
        loss: `(leaves, rows) -> loss`, or the loss and its columns, of which it alone is
            differentiated.
        leaves: The tensors it is differentiated in.
        rows: Example of the batch rows; None for the full data.

    Returns:
        The graph `(*leaves, rows, *constants) -> (loss, *gradients)` and its constants: tensors the
        program reads from outside (data, buffers), as inputs.

    Raises:
        Exception: Whatever the program raises when its control flow asks for a tensor's value.
    """

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        own = [x.detach().requires_grad_() for x in inputs[: len(leaves)]]
        with torch.enable_grad():
            value = loss(own, inputs[len(leaves)] if rows is not None else None)
            grads = torch.autograd.grad(head(value), own, allow_unused=True)
        return value.detach(), *(
            torch.zeros_like(x) if g is None else g for x, g in zip(own, grads, strict=True)
        )

    examples = [x.detach() for x in leaves] + ([] if rows is None else [rows])
    graph = traced(step, *examples)
    return _lift(graph)


class TracedGradient:
    """A loss with its columns and its gradient: the program itself, then a graph of it.

    Handlers run at the first calls and while the graph is made; what cannot be traced, or gives
    another value at another draw, stays as it is.

    Args:
        loss: `(leaves by name, rows) -> loss and its columns`, drawn anew at each call.
        after: Calls that run the program itself before a graph is made.

    Attributes:
        traced: Whether the latest call ran a graph.

    Example:
        >>> found = TracedGradient(lambda own, rows: torch.stack([(own["x"] ** 2).sum()] * 2), 0)
        >>> value, grads = found({"x": torch.ones(3)}, torch.arange(3))
        >>> value.tolist(), grads["x"].tolist(), found.traced
        ([3.0, 3.0], [2.0, 2.0, 2.0], True)
    """

    def __init__(self, loss: Callable[[dict[str, Tensor], Tensor], Tensor], after: int) -> None:
        self.loss, self.after, self.traced = loss, after, False
        self._graphs: dict[int, tuple[GraphModule, list[Tensor]] | None] = {}

    def __call__(self, leaves: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with its columns, and its gradients by name."""
        self.after -= 1
        if self.after < 0 and len(rows) not in self._graphs:
            self._graphs[len(rows)] = self._made(leaves, rows)
        found = self._graphs.get(len(rows))
        self.traced = found is not None
        value, *grads = self._eager(leaves, rows) if found is None else _run(found, leaves, rows)
        return value, dict(zip(leaves, grads, strict=True))

    def _eager(self, leaves: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, ...]:
        own = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
        with torch.enable_grad():
            value = self.loss(own, rows)
            grads = torch.autograd.grad(head(value), list(own.values()))
        return value.detach(), *grads

    def _made(
        self, leaves: dict[str, Tensor], rows: Tensor
    ) -> tuple[GraphModule, list[Tensor]] | None:
        def loss(own: list[Tensor], rows: Tensor | None) -> Tensor:
            assert rows is not None
            return self.loss(dict(zip(leaves, own, strict=True)), rows)

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = trace_step(loss, list(leaves.values()), rows)
                torch.manual_seed(1)
                exact = self._eager(leaves, rows)
                torch.manual_seed(1)
                pairs = zip(exact, _run(found, leaves, rows), strict=True)
            except Exception:  # whatever a program may raise while it is traced
                return None
        same = [torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs]
        return found if all(same) else None


def _run(
    found: tuple[GraphModule, list[Tensor]], leaves: dict[str, Tensor], rows: Tensor
) -> tuple[Tensor, ...]:
    graph, constants = found
    with torch.no_grad():
        return graph(*(leaf.detach() for leaf in leaves.values()), rows, *constants)


def head(loss: Tensor) -> Tensor:
    """Return the loss itself of a loss with columns."""
    return loss[0] if loss.dim() else loss


def _lift(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """Make tensors that a graph holds into inputs of it, single numbers excepted."""
    constants: list[Tensor] = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    found: dict[str, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = getattr(graph, node.target)
        if not isinstance(tensor, Tensor) or (tensor.numel() == 1 and not _is_written(node)):
            continue
        if node.target not in found:
            with graph.graph.inserting_after(last):
                last = found[node.target] = graph.graph.placeholder(node.target)
            constants.append(tensor.detach())
        node.replace_all_uses_with(found[node.target])
        graph.graph.erase_node(node)
    for name in found:
        delattr(graph, name)
    graph.graph.lint()
    graph.recompile()
    return graph, constants


def _is_written(node: Any) -> bool:
    return any(
        use.op == "call_function" and getattr(use.target, "_schema", None) is not None
        and use.target._schema.is_mutable
        for use in node.users
    )  # fmt: skip


class Adam:
    """What an Adam update in the graph needs: its constants, taken from a `torch.optim` one."""

    def __init__(self, optimizer: torch.optim.Adam, clip_norm: float | None) -> None:
        group = optimizer.param_groups[0]
        self.betas, self.eps = group["betas"], group["eps"]
        self.decay = group["weight_decay"]
        self.decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(
            group.get("decoupled_weight_decay")
        )
        self.clip_norm = clip_norm

    def __call__(
        self, leaves: Tensors, grads: Tensors, means: Tensors, squares: Tensors, count: Tensor,
        rate: Tensor,
    ) -> None:  # fmt: skip
        """Update leaves and moments in place."""
        (b1, b2), eps = self.betas, self.eps
        if self.clip_norm is not None:
            norm = torch.sqrt(sum((g * g).sum() for g in grads))  # type: ignore[arg-type]
            factor = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
            grads = [g * factor for g in grads]
        now = count + 1
        bias1, bias2 = 1 - b1**now, torch.sqrt(1 - b2**now)
        step = rate / bias1
        for x, g, m, v in zip(leaves, grads, means, squares, strict=True):
            if self.decay and not self.decoupled:
                g = g + self.decay * x
            mean = m + (1 - b1) * (g - m)
            square = b2 * v + (1 - b2) * g * g
            new = x * (1 - rate * self.decay) if self.decay and self.decoupled else x
            new = new - step * mean / (torch.sqrt(square) / bias2 + eps)
            x.copy_(new)
            m.copy_(mean)
            v.copy_(square)
        count.copy_(now)


def compile_step(
    graph: GraphModule, adam: Adam | None, num_leaves: int, examples: Tensors
) -> Callable[..., Any]:
    """Compile a traced step, with the Adam update inside where there is one.

    Args:
        graph: The graph of `trace_step`.
        adam: The update; None leaves the gradients to the caller.
        num_leaves: Number of leaves.
        examples: Inputs: leaves, then with Adam their moments, the count and the rate, then what
            else the graph takes. They are not changed here.

    Returns:
        The compiled function of the same inputs; with Adam it returns the loss, else the loss and
        the gradients.

    Cost:
        Seconds to tens of seconds; inductor caches its kernels on disk.
    """
    from torch._inductor.compile_fx import compile_fx

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        if adam is None:
            return graph(*inputs)
        n = num_leaves
        leaves, means, squares = inputs[:n], inputs[n : 2 * n], inputs[2 * n : 3 * n]
        value, *grads = graph(*leaves, *inputs[3 * n + 2 :])
        adam(leaves, grads, means, squares, inputs[3 * n], inputs[3 * n + 1])
        return (value,)

    with torch.no_grad():
        copies = [x.clone() for x in examples]
        whole = traced(step, *copies)
        whole, constants = _lift(whole)
        patches = {"fallback_random": True}
        with uninterrupted():
            compiled: Any = compile_fx(whole, [*copies, *constants], config_patches=patches)

    def run(*inputs: Tensor) -> Any:
        with torch.no_grad():
            return compiled(*inputs, *constants)

    with torch.random.fork_rng(devices=[]):
        run(*[x.clone() for x in examples])  # compiles now, not in the first step
    return run


def use_compilation_cache(path: str | os.PathLike[str] | None = None) -> Path:
    """Keep inductor's compiled kernels in a folder, for later processes too.

    Nothing global changes without this call. PyTorch reads the folder from the environment
    variable `TORCHINDUCTOR_CACHE_DIR`, which is set here for this process and its children.

    Args:
        path: The folder; `~/.cache/deepgen_ppl/inductor` when None.

    Returns:
        The folder.

    Example:
        >>> import os, tempfile
        >>> before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        >>> folder = use_compilation_cache(tempfile.mkdtemp())
        >>> os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
        True
        >>> _ = os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        >>> if before is not None: os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
    """
    folder = Path(path) if path is not None else Path.home() / ".cache/deepgen_ppl/inductor"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    return folder
