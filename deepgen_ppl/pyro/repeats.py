"""Where a graph repeats elements: as late as it can, and in the order that loops run well in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

aten: Any = torch.ops.aten

_ALONG = {aten._log_softmax.default, aten._softmax.default}  # of each slice by itself
_ANY_STRIDES = {
    aten.expand.default, aten.sum.dim_IntList, aten.mean.dim, aten.amax.default,
    aten.logsumexp.default, aten._log_softmax_backward_data.default,
    aten._softmax_backward_data.default, *_ALONG,
}  # fmt: skip
_LONG = 64  # elements of the two inner loops that hide the cost of the outer ones
_LARGEST = 2**16  # elements of a constant


def late(graph: GraphModule) -> None:
    """Compute of each element before elements are repeated, once rather than for each row.

    A plate repeats its parameters for each row, and the program then takes logarithms of all. Here
    an operation on each element takes what was repeated, and the result is repeated instead, or
    broadcast by the operation that meets the rows. In place; the graph is to be recompiled.
    """
    nodes = graph.graph
    source: dict[Node, Any] = {}  # of nodes that repeat it
    whole: dict[Node, Node] = {}  # copies, with each element in its own place
    made: set[Node] = set()
    for node in list(nodes.nodes):
        if node.target is aten.expand.default:
            repeated: Any = node.args[0]
            source[node] = source.get(repeated, repeated)
        shape = _narrow(node, source)
        if shape is None:
            continue
        value = node.meta["val"]
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: source.get(n, n))
        if shape != value.shape:
            if all(_takes_any_strides(user) for user in node.users):
                with nodes.inserting_before(node):
                    few = nodes.call_function(node.target, args, kwargs)
                    many = nodes.call_function(aten.expand.default, (few, list(value.shape)))
                few.meta["val"], many.meta["val"] = value.new_empty(shape), value
                source[many] = few
                made.add(many)
                node.replace_all_uses_with(many)
                nodes.erase_node(node)
        elif _runs(node, source) >= min(_LONG, _runs(node, {})):
            node.args, node.kwargs = args, kwargs
        else:
            for many in made.intersection(node.all_input_nodes):
                if many not in whole:
                    with nodes.inserting_after(many):
                        whole[many] = nodes.call_function(
                            aten.clone.default, (many,), {"memory_format": torch.contiguous_format}
                        )
                    whole[many].meta["val"] = many.meta["val"]
                node.replace_input_with(many, whole[many])
    _widen(graph)


def _widen(graph: GraphModule) -> None:
    """Repeat constants inside of their shape, where that costs nothing at run time."""
    nodes = graph.graph
    for node in list(nodes.nodes):
        if not _is_pointwise(node) or not isinstance(node.meta.get("val"), Tensor):
            continue
        for constant in node.all_input_nodes:
            held = getattr(graph, str(constant.target), None)
            if constant.op != "get_attr" or not isinstance(held, Tensor) or held.dim() == 0:
                continue
            first = next((i for i, n in enumerate(held.shape) if n != 1), held.dim())
            behind = node.meta["val"].shape[node.meta["val"].dim() - held.dim() + first :]
            shape = torch.Size([*held.shape[:first], *behind])
            if shape != held.shape and shape.numel() <= _LARGEST:
                name = f"{constant.target}_{'x'.join(map(str, shape))}"
                graph.register_buffer(name, held.expand(shape).contiguous())
                with nodes.inserting_before(node):
                    wide = nodes.get_attr(name)
                wide.meta["val"] = node.meta["val"].new_empty(shape, dtype=held.dtype)
                node.replace_input_with(constant, wide)


def _is_pointwise(node: Node) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.pointwise in target.tags and not target._schema.is_mutable


def _takes_any_strides(node: Node) -> bool:
    return node.target in _ANY_STRIDES or _is_pointwise(node)


def _narrow(node: Node, source: dict[Node, Node]) -> torch.Size | None:
    """Return the shape that an operation gives of its arguments before they are repeated."""
    if not any(argument in source for argument in node.all_input_nodes):
        return None
    values: list[Any] = [source.get(n, n).meta.get("val") for n in node.all_input_nodes]
    many = node.meta.get("val")
    if not isinstance(many, Tensor) or not all(isinstance(v, Tensor) for v in values):
        return None
    if any(v.dim() == 0 for v in values) and len({v.dtype for v in values}) > 1:
        return None  # single numbers take no part in the choice of a type
    if node.target in _ALONG:
        few, dim = values[0], int(node.args[1])  # type: ignore[arg-type]
        same = few.dim() == many.dim() and few.shape[dim] == many.shape[dim]
        return few.shape if same else None
    if not _is_pointwise(node):
        return None
    return torch.broadcast_shapes(*(v.shape for v in values))


def _runs(node: Node, source: dict[Node, Node]) -> int:
    """Return the elements of the two inner loops over an operation's arguments."""
    shape = node.meta["val"].shape
    values = [source.get(n, n).meta["val"] for n in node.all_input_nodes]
    dims = [d for d in range(len(shape)) if shape[d] > 1]
    moved = [tuple(_moves(v.shape, len(shape) - d) for v in values) for d in dims]
    inner, loops = 1, 0
    for i in range(len(dims) - 1, -1, -1):
        loops += i == len(dims) - 1 or moved[i] != moved[i + 1]
        if loops > 2:
            break
        inner *= shape[dims[i]]
    return inner


def _moves(shape: Sequence[int], behind: int) -> bool:
    return len(shape) >= behind and shape[-behind] > 1
