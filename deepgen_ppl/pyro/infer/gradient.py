"""The potential energy's gradient as one flat graph: handlers run once, no leapfrog step does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepgen_ppl.pyro import graphs, handlers

Vectors = tuple[Tensor, ...]


class Layout(NamedTuple):
    """How the unconstrained sites lie in the vectors that a kernel moves.

    There is one vector for each block of its mass matrix.

    Attributes:
        blocks: Names of the sites of each block, by the block's name.
        shapes: Unconstrained shape of each site.
    """

    blocks: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, z: Mapping[str, Tensor], dense: Sequence[Sequence[str]] = ()) -> "Layout":
        """Lay the sites out in one block, or in those of a structured mass matrix.

        Args:
            z: Unconstrained value of each site.
            dense: Sites of each dense block; the others share a diagonal one.

        Raises:
            ValueError: A block names a site that is not there, or names one twice.
        """
        named = [name for block in dense for name in block]
        unknown = [name for name in named if name not in z]
        if unknown or len(set(named)) < len(named):
            raise ValueError(
                f"full_mass={list(dense)} must name each continuous latent site at most once; "
                f"they are {sorted(z)}."
            )
        blocks = {f"dense_{i}": tuple(block) for i, block in enumerate(dense)}
        rest = tuple(sorted(set(z) - set(named)))
        if rest:
            blocks["z"] = rest
        return cls(blocks, {name: value.shape for name, value in z.items()})

    def join(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the vector of each block."""
        return {
            block: torch.cat([z[name].reshape(-1) for name in names])
            for block, names in self.blocks.items()
        }

    def split(self, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the value of each site; leading axes of the vectors stay."""
        z: dict[str, Tensor] = {}
        for vector, names in zip(vectors, self.blocks.values(), strict=True):
            parts = vector.split([self.shapes[name].numel() for name in names], dim=-1)
            for name, part in zip(names, parts, strict=True):
                z[name] = part.reshape(part.shape[:-1] + self.shapes[name])
        return z


class Gradient(NamedTuple):
    """A potential energy ready to be sampled from.

    Attributes:
        energy: Blocks to the energy, differentiable: the `potential_fn` of a Pyro kernel.
        leapfrog: One leapfrog step of a kernel's state; None when the energy could not be traced.
        compiled: `"torchscript"`, `"traced"` (the flat graph run by Python) or `"eager"` (the
            program itself).
        reason: Why it is no better than that.
    """

    energy: Callable[[Mapping[str, Tensor]], Tensor]
    leapfrog: Callable[..., Any] | None
    compiled: str
    reason: str


def trace(
    potential: Callable[[dict[str, Tensor]], Tensor],
    layout: Layout,
    points: Sequence[Mapping[str, Tensor]],
    dense: Mapping[str, bool],
) -> Gradient:
    r"""Trace the energy with its gradient, and a leapfrog step, each into one graph.

    \[ p \leftarrow p - \tfrac\epsilon2 \nabla U(z), \quad z \leftarrow z + \epsilon M^{-1} p, \quad
       p \leftarrow p - \tfrac\epsilon2 \nabla U(z) \]

    A program whose control flow or shapes depend on its latents gives a graph that is wrong
    elsewhere: it is compared with the program at every point, and the program itself is used when
    they differ.

    Args:
        potential: Unconstrained sites to the energy.
        layout: How the sites lie in vectors.
        points: Unconstrained sites at which the graph must agree with the program; it is traced at
            the first.
        dense: Whether a block's mass matrix is dense.

    Cost:
        0.1 to 0.5 s, and about one gradient for each point.
    """
    block_names = tuple(layout.blocks)

    def plain(blocks: Mapping[str, Tensor]) -> Tensor:
        return potential(layout.split([blocks[name] for name in block_names]))

    one = torch.ones(())

    def value_and_grad(vectors: Vectors) -> tuple[Tensor, Vectors]:
        leaves = tuple(v.detach().requires_grad_(True) for v in vectors)
        with torch.enable_grad():
            value = potential(layout.split(leaves))
        return value.detach(), torch.autograd.grad(value, leaves, grad_outputs=one.to(value))

    def step(
        z: Vectors, r: Vectors, g: Vectors, size: Tensor, inverse: Vectors, root: Vectors
    ) -> Any:
        half = 0.5 * size
        r = tuple(r_ - half * g_ for r_, g_ in zip(r, g, strict=True))
        z = tuple(z_ + size * times(m, r_) for z_, m, r_ in zip(z, inverse, r, strict=True))
        value, g = value_and_grad(z)
        r = tuple(r_ - half * g_ for r_, g_ in zip(r, g, strict=True))
        unscaled = tuple(times(m, r_) for m, r_ in zip(root, r, strict=True))
        kinetic = 0.5 * sum(u.dot(u) for u in unscaled)
        return z, r, unscaled, g, value, value + kinetic

    joined = [tuple(layout.join(point).values()) for point in points]
    first = joined[0]
    mass = tuple(
        torch.eye(len(v)).to(v) if dense[name] else torch.ones_like(v)
        for name, v in zip(block_names, first, strict=True)
    )
    # Arguments must be distinct tensors: tracing tells them apart by identity.
    state = (
        _copies(first),
        _copies(first),
        _copies(first),
        first[0].new_tensor(0.1),
        _copies(mass),
        _copies(mass),
    )
    try:
        with handlers.validation(False):
            gradient, leapfrog, how, why = _graphs(
                (value_and_grad, (_copies(first),)), (step, state)
            )
            _check(value_and_grad, gradient, joined)
    except (
        Exception
    ) as error:  # whatever keeps a program from being traced, the program itself still runs
        return Gradient(
            plain, None, "eager", f"tracing failed: {type(error).__name__}: {str(error)[:200]}"
        )
    return Gradient(_differentiable(gradient, block_names), leapfrog, how, why)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return a dense or diagonal matrix times a vector."""
    return matrix * vector if matrix.dim() == 1 else matrix @ vector


def _copies(vectors: Vectors) -> Vectors:
    return tuple(v.detach().clone() for v in vectors)


def _graphs(*functions: tuple[Callable[..., Any], tuple]) -> tuple[Any, Any, str, str]:
    """Trace functions into flat graphs, and put these into TorchScript where this torch has it."""
    flat: list[Any] = [graphs.flat(f, *args) for f, args in functions]
    try:
        first, second = (
            graphs.script(graph, args) for graph, (_, args) in zip(flat, functions, strict=True)
        )
    except Exception as error:
        reason = f"no TorchScript: {type(error).__name__}: {str(error)[:200]}"
        return flat[0], flat[1], "traced", reason
    return first, second, "torchscript", ""


def _check(exact: Callable[..., Any], graph: Callable[..., Any], points: Sequence[Vectors]) -> None:
    for vectors in points:
        value, grads = exact(vectors)
        with torch.no_grad():
            traced, traced_grads = graph(vectors)
        pairs = zip((value, *grads), (traced, *traced_grads), strict=True)
        if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs):
            raise ValueError("the density's control flow depends on its latents")


def _differentiable(
    gradient: Callable[[Vectors], tuple[Tensor, Vectors]], names: Sequence[str]
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    class Energy(torch.autograd.Function):
        """The traced energy; its backward pass hands out the gradient computed with it."""

        @staticmethod
        def forward(ctx: Any, *vectors: Tensor) -> Tensor:
            value, grads = gradient(vectors)
            ctx.save_for_backward(*grads)
            return value

        @staticmethod
        def backward(ctx: Any, *outer: Tensor) -> Any:
            return tuple(outer[0] * grad for grad in ctx.saved_tensors)

    def energy(blocks: Mapping[str, Tensor]) -> Tensor:
        return Energy.apply(*(blocks[name] for name in names))

    return energy
