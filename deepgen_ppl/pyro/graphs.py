"""Flat graphs of tensor operations: constants folded, idle operations left out, scripted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map

from deepgen_ppl.loop import uninterrupted
from deepgen_ppl.pyro import repeats

aten: Any = torch.ops.aten

_LARGEST = 2**16
_FILLS = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0}
_FILLED = (aten.full_like.default, aten.fill.Scalar)  # with the number that stands second
_VIEWS = {
    aten.detach.default, aten.view.default, aten.expand.default, aten._to_copy.default,
    aten._unsafe_view.default, aten.alias.default,
}  # fmt: skip
_SHAPES = {
    aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim,
    aten.squeeze.dims,
}  # fmt: skip
_TIMES = {aten.mul.Tensor, aten.mul.Scalar}
_PLUS = {aten.add.Tensor, aten.add.Scalar}
_BY_ONE = {aten.div.Tensor: 1, aten.pow.Tensor_Scalar: 1, aten.sub.Tensor: 0}


def traced(function: Callable[..., Any], *examples: Any) -> GraphModule:
    """Trace a function of tensors into a graph; Ctrl-C waits until it is done.

    Tracing puts modes on a stack that all of torch looks at; ended midway it leaves them there.

    Args:
        function: It draws no random numbers and asks for no tensor's value.
        *examples: Arguments, tensors or nests of them; the graph holds for their shapes only.
    """
    with uninterrupted():
        return make_fx(function)(*examples)


def flat(function: Callable[..., Any], *examples: Any) -> GraphModule:
    """Trace a function of tensors into one graph without in-place operations, and simplify it.

    Args:
        function: It draws no random numbers and asks for no tensor's value.
        *examples: Arguments, tensors or tuples of them; the graph holds for their shapes only.

    Returns:
        The graph, a callable of the same arguments.

    Example:
        >>> graph = flat(lambda x: (x + 0.0 * torch.ones(3).log()).view(3) * 1.0, torch.zeros(3))
        >>> len([node for node in graph.graph.nodes if node.op == "call_function"])
        0
    """
    copies: Any = tree_map(lambda x: x.detach().clone(), examples)
    graph = traced(function, *copies)  # first, as functionalize knows no custom functions
    return simplify(traced(torch.func.functionalize(graph), *copies))


def simplify(graph: GraphModule) -> GraphModule:
    """Fold constants, drop operations that change nothing, compute what is equal once; in place.

    What a distribution computes of its constants (logarithms of scales, factors of covariances) is
    computed here and not at every call, and what it computes of a parameter that a plate repeats
    for each row is computed once. The values stay the same but for the sign of zeros and the order
    of sums.
    """
    nodes = graph.graph
    _out_of_place(graph)
    known: dict[Node, Tensor] = {}
    seen: dict[tuple[Any, ...], Node] = {}
    for node in list(nodes.nodes):
        if node.op == "get_attr" and isinstance(getattr(graph, str(node.target), None), Tensor):
            known[node] = getattr(graph, str(node.target))
        if not _is_pure(node):
            continue
        same = _unchanged(node, known)
        value = None if same is not None else _fold(node, known)
        key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
        if same is None and value is None:
            same = seen.setdefault(key, node)
        if value is not None:
            known[node] = value
        elif same is not node:
            node.replace_all_uses_with(same)
            nodes.erase_node(node)
    folded = [n for n in known if n.op != "get_attr" and any(u not in known for u in n.users)]
    for number, node in enumerate(folded):
        graph.register_buffer(f"_folded{number}", known[node])
        with nodes.inserting_before(node):
            constant = nodes.get_attr(f"_folded{number}")
            constant.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(constant)
    repeats.late(graph)
    nodes.eliminate_dead_code()  # so that a product's users are those that count
    _join(graph, known)
    nodes.eliminate_dead_code()
    nodes.lint()
    graph.recompile()
    return graph


def script(graph: GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
    """Put a graph into TorchScript, which calls the same kernels at a third of Python's cost.

    Raises:
        Exception: This torch has no TorchScript, or cannot script the graph.
    """
    with warnings.catch_warnings(), torch.no_grad(), uninterrupted():
        warnings.simplefilter("ignore")
        found: Any = torch.jit.trace(graph, tuple(examples), check_trace=False)
        scripted = torch.jit.freeze(found.eval())
        for _ in range(3):  # profiled twice, then optimised
            scripted(*examples)
    return scripted


class Traced:
    """A function of tensors as flat graphs, one for each of their shapes; itself where it must.

    Args:
        function: It draws no random numbers.

    Attributes:
        compiled: `"torchscript"`, `"traced"` or `"eager"`; empty before the first call.
        reason: Why it is no better than that.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.compiled, self.reason = function, "", ""
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Tensor) -> Any:
        """Return what the function returns."""
        key = tuple((x.shape, x.dtype) for x in args)
        if key not in self._graphs:
            self._graphs[key] = self._traced(args)
        return self._graphs[key](*args)

    def _traced(self, args: tuple[Tensor, ...]) -> Callable[..., Any]:
        self.compiled, self.reason = "eager", ""
        try:
            graph = flat(self.function, *args)
            found: Any = graph
            self.compiled = "traced"
            found = script(graph, args)
            self.compiled = "torchscript"
        except Exception as error:  # whatever keeps it from being traced, it still runs itself
            self.reason = f"{type(error).__name__}: {str(error)[:120]}"
            return self.function if self.compiled == "eager" else graph
        return found


def _out_of_place(graph: GraphModule) -> None:
    """Put new values in the place of what operations change that `functionalize` left in place.

    It sees what is made of arguments only. What is made of constants alone would be folded, and
    the folded constant changed anew at every call.

    Raises:
        ValueError: A view is changed, or what has views, or an operation has no other form.
    """
    before: set[Node] = set()
    for node in list(graph.graph.nodes):
        before.add(node)
        target: Any = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        if not target._schema.is_mutable:
            continue
        changed: Any = node.args[0]
        name = target._schema.name.removeprefix("aten::")
        packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
        form = getattr(packet, target._overloadname, None)
        others = [user for user in changed.users if user in before and user is not node]
        if form is None or any(map(_is_view, [changed, *others])):
            raise ValueError(f"{target} changes a value in place.")
        node.target = form
        changed.replace_all_uses_with(node, lambda user: user not in before)


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def _is_pure(node: Node) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def _unchanged(node: Node, known: dict[Node, Tensor]) -> Node | None:
    """Return the argument that an operation gives back as it is, if it does."""
    args: tuple[Any, ...] = node.args

    def same(i: int) -> bool:
        return isinstance(args[i], Node) and _alike(args[i], node)

    def every(i: int, number: float) -> bool:
        if isinstance(args[i], Node):
            value = known.get(args[i])
            return value is not None and value.numel() > 0 and bool((value == number).all())
        return args[i] == number

    target: Any = node.target
    if target in _SHAPES:
        source: Any = args[0]
        while source.target in _SHAPES and not _alike(source, node):
            source = source.args[0]
        return source if _alike(source, node) else None
    if target in _VIEWS:
        return args[0] if same(0) else None
    if target in _TIMES or target in _PLUS:
        neutral = 1.0 if target in _TIMES else 0.0
        pairs = [(i, j) for i, j in ((0, 1), (1, 0)) if same(i) and every(j, neutral)]
        return args[pairs[0][0]] if pairs and _weight(node) == 1 else None
    if target in _BY_ONE:
        return args[0] if same(0) and every(1, _BY_ONE[target]) else None
    if target is aten.sum.dim_IntList and len(args) == 2:
        inner = args[0]
        if inner.target is aten.unsqueeze.default and _alike(inner.args[0], node):
            dim, count = inner.args[1], inner.meta["val"].dim()
            return inner.args[0] if [d % count for d in args[1]] == [dim % count] else None
    return None


def _join(graph: GraphModule, known: dict[Node, Tensor]) -> None:
    """Put several operations of networks into the one that torch has for them.

    These are a product with a bias, and the slope of `silu`, which torch differentiates into six
    operations where gradients may be differentiated again.
    """
    for node in list(graph.graph.nodes):
        found = _with_bias(node) or _slope_of_silu(node, known)
        if found is None:
            continue
        target, args = found
        with graph.graph.inserting_before(node):
            joined = graph.graph.call_function(target, args)
        joined.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(joined)


def _with_bias(node: Node) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the product with a bias that a sum is, if it is one."""
    if node.target is not aten.add.Tensor or _weight(node) != 1:
        return None
    product, bias = node.args[:2]
    if not isinstance(product, Node) or not isinstance(bias, Node):
        return None
    fits = product.target is aten.mm.default and len(product.users) == 1 and _alike(product, node)
    if not fits or bias.meta["val"].dim() != 1 or bias.meta["val"].dtype != node.meta["val"].dtype:
        return None
    return aten.addmm.default, (bias, *product.args)


def _slope_of_silu(node: Node, known: dict[Node, Tensor]) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the slope of silu that a product is: g s (1 + x (1 - s)) with s = sigmoid(x)."""
    if node.target is not aten.mul.Tensor or not all(isinstance(a, Node) for a in node.args):
        return None
    outer: Any = node.args
    scaled, bent = outer
    if scaled.target is not aten.mul.Tensor or bent.target not in _PLUS or bent.args[1] != 1.0:
        return None
    if _weight(bent) != 1:
        return None
    inner: Any = bent.args[0]
    if inner.target is not aten.mul.Tensor or not isinstance(inner.args[1], Node):
        return None
    x, rest = inner.args
    if rest.target is not aten.sub.Tensor or _number(rest.args[0], known) != 1.0:
        return None
    share = rest.args[1]
    if not isinstance(share, Node) or share.target is not aten.sigmoid.default:
        return None
    if share.args[0] is not x or share not in scaled.args or not _alike(x, node):
        return None
    change = scaled.args[1 - scaled.args.index(share)]
    if not isinstance(change, Node) or not _alike(change, node):
        return None
    return aten.silu_backward.default, (change, x)


def _number(node: Any, known: dict[Node, Tensor]) -> float | None:
    """Return the one number that a constant holds, None where there are several."""
    value = known.get(node)
    if value is None and isinstance(node, Node) and node.op == "get_attr":
        found: Any = getattr(node.graph.owning_module, str(node.target), None)
        value = found if isinstance(found, Tensor) else None
    if value is None or value.numel() == 0 or not bool((value == value.flatten()[0]).all()):
        return None
    return float(value.flatten()[0])


def _weight(node: Node) -> Any:
    """The factor `alpha` of an addition, which stands behind two arguments or by name."""
    return node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)


def _alike(first: Any, second: Node) -> bool:
    a, b = first.meta.get("val"), second.meta.get("val")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


def _fold(node: Node, known: dict[Node, Tensor]) -> Tensor | None:
    """Return the value of an operation on constants, unless it is large."""
    value, target = node.meta.get("val"), node.target
    if isinstance(value, Tensor) and (target in _FILLS or target in _FILLED):
        fill: Any = _FILLS[target] if target in _FILLS else node.args[1]
        is_large = value.numel() > _LARGEST  # then one number stands for all
        shape = (1,) * value.dim() if is_large else value.shape
        return torch.full(shape, fill, dtype=value.dtype, device=value.device).expand(value.shape)
    if isinstance(value, Tensor) and value.numel() > _LARGEST:
        return None
    if not all(argument in known for argument in node.all_input_nodes):
        return None
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: known[n])
    with torch.no_grad():
        found = target(*args, **kwargs)  # type: ignore[operator]
    return found if isinstance(found, Tensor) and found.numel() <= _LARGEST else None
