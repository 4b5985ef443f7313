"""What a flow is made of: invertible layers, the native transform and distribution they give."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jax.core import Tracer
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import sum_rightmost, validate_sample

from deepgen_ppl import flow_checks

Context = Float[Array, "*#batch context"] | None
Pushed = tuple[Float[Array, "*values"], Float[Array, "*batch"]]


class About(NamedTuple):
    """What is fixed about a layer.

    Attributes:
        event_shape: shape of one event.
        context: number of context features, 0 for none.
        fast: the direction that takes one pass: "push" (draws), "pull" (densities) or "both".
        numerical: whether a direction is the numerical solution of an equation.
    """

    event_shape: tuple[int, ...]
    context: int = 0
    fast: str = "both"
    numerical: bool = False


def joined(parts: Sequence[About]) -> About:
    """Return what is fixed about layers one after the other.

    Raises:
        ValueError: they have different event shapes.
    """
    for part in parts:
        flow_checks.check_event(part.event_shape, parts[0].event_shape)
    slow = [part.fast for part in parts if part.fast != "both"]
    return About(
        parts[0].event_shape,
        max(part.context for part in parts),
        slow[0] if slow else "both",
        any(part.numerical for part in parts),
    )


class Layer(eqx.Module):
    r"""One invertible map f of an event, whose parameters are its arrays; an abstract base.

    A layer is written for batches: `push` and `pull` take values of shape (*batch, *event) and a
    context that broadcasts against (*batch, context), and return the values at the other end with

    \[ \log |\det \partial f(z) / \partial z| \quad\text{and}\quad
       \log |\det \partial f^{-1}(x) / \partial x|. \]

    Calling a layer with a context (or without, where it has none) gives NumPyro's own `Transform`.

    Attributes:
        about: its event shape, its context, and which direction is fast.
    """

    about: eqx.AbstractVar[About]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.about.event_shape

    @abstractmethod
    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant of the map."""

    @abstractmethod
    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""

    def initialise(self, x: Array, context: Context = None) -> tuple[Layer, Array]:
        """Return the layer as a batch at its end has it begin, and the batch at its start."""
        return self, self.pull(x, context)[0]

    def __call__(self, context: Context = None) -> FlowTransform:
        """Return the native transform at a context.

        Raises:
            ValueError: the context is missing, not asked for, or of another size.
        """
        if context is not None:
            context = jnp.asarray(context)
        flow_checks.check_context(None if context is None else context.shape, self.about.context)
        return FlowTransform(self, context)


class FlowTransform(dist.transforms.Transform):
    """A layer at a context, as NumPyro's own transform.

    Args:
        layer: the layer.
        context: its context, shape (*batch, context), or None.
    """

    def __init__(self, layer: Layer, context: Context = None) -> None:
        self.layer, self.context = layer, context

    def tree_flatten(self) -> tuple:
        """Return layer and context, the arrays it is made of."""
        return (self.layer, self.context), (("layer", "context"), {})

    @property
    def domain(self) -> Any:
        """Real events."""
        return constraints.independent(constraints.real, len(self.layer.event_shape))

    codomain = domain

    def push(self, z: Array) -> Pushed:
        """Map z to x, with the log determinant of the map, in one pass."""
        return self._refuse(self.layer.push(self._broadcast(z), self.context))

    def pull(self, x: Array) -> Pushed:
        """Map x to z, with the log determinant of that map, in one pass."""
        return self._refuse(self.layer.pull(self._broadcast(x), self.context))

    def __call__(self, x: Array) -> Array:
        """Map z to x."""
        return self.push(x)[0]

    def _inverse(self, y: Array) -> Array:
        return self.pull(y)[0]

    def call_with_intermediates(self, x: Array) -> Pushed:
        """Map z to x, and keep the log determinant for the density."""
        return self.push(x)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """Return the log determinant at x (or y), by the direction that is fast."""
        if intermediates is not None:
            return intermediates
        return -self.pull(y)[1] if self.layer.about.fast == "pull" else self.push(x)[1]

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape with the batch of the context."""
        event = self.layer.event_shape
        flow_checks.check_event(shape, event)
        if self.context is None:
            return tuple(shape)
        batch = shape[: len(shape) - len(event)]
        return (*jnp.broadcast_shapes(batch, self.context.shape[:-1]), *event)

    inverse_shape = forward_shape

    def eq(self, other: object, static: bool = False) -> Any:
        """Tell whether it is the same layer at the same context."""
        if not isinstance(other, FlowTransform):
            return False
        return eqx.tree_equal((self.layer, self.context), (other.layer, other.context))

    def _broadcast(self, value: Array) -> Array:
        value = jnp.asarray(value)
        return jnp.broadcast_to(value, self.forward_shape(value.shape))

    def _refuse(self, pushed: Pushed) -> Pushed:
        """Refuse rows whose numerical inverse has not converged; they are NaN in compiled code."""
        value, log_det = pushed
        if self.layer.about.numerical and not isinstance(value, Tracer):
            flow_checks.refuse_unsolved(~np.isnan(np.asarray(log_det)))
        return pushed


class FlowDistribution(dist.TransformedDistribution):
    """NumPyro's own transformed distribution, whose density takes one pass of each transform."""

    @validate_sample
    def log_prob(self, value: Array, intermediates: list | None = None) -> Array:
        """Return the log density."""
        if intermediates is not None:
            return jnp.asarray(super().log_prob(value, intermediates))
        event_dim, total = len(self.event_shape), jnp.zeros(())
        for transform in reversed(self.transforms):
            batch_dim = event_dim - transform.codomain.event_dim
            if isinstance(transform, FlowTransform):
                value, log_det = transform.pull(value)
            else:
                _refuse_outside(transform, value, batch_dim)
                end, value = value, jnp.asarray(transform.inv(value))
                log_det = -jnp.asarray(transform.log_abs_det_jacobian(value, end))
            total = total + sum_rightmost(log_det, batch_dim)
            event_dim = transform.domain.event_dim + batch_dim
        base = self.base_dist
        return jnp.asarray(total + base.log_prob(value))

    def sample_and_log_prob(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Pushed:
        """Return draws and their log densities, both from one pass.

        Args:
            key: random key.
            sample_shape: shape of independent draws.
        """
        value, intermediates = self.sample_with_intermediates(key, sample_shape)
        return jnp.asarray(value), self.log_prob(jnp.asarray(value), intermediates)


def _refuse_outside(transform: Any, value: Array, dims: int) -> None:
    """Refuse finite rows outside the values of a transform; compiled code has NaN there."""
    if isinstance(value, Tracer) or transform.codomain is constraints.real:
        return
    within = constraints.independent(transform.codomain, dims) if dims else transform.codomain
    axes = tuple(range(-within.event_dim, 0))
    inside = within(value) | ~jnp.isfinite(value).all(axes)
    flow_checks.refuse_outside(np.asarray(inside), f"the support ({transform.codomain})")


class Chain(Layer):
    """Layers one after the other.

    Args:
        layers: from the base to the data.
    """

    layers: tuple[Layer, ...]
    about: About = eqx.field(static=True)

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.about = joined([layer.about for layer in self.layers])

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Push through the layers in order."""
        total = jnp.zeros(z.shape[: z.ndim - len(self.event_shape)], z.dtype)
        for layer in self.layers:
            z, log_det = layer.push(z, context)
            total = total + log_det
        return z, total

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Pull through the layers in reverse."""
        total = jnp.zeros(x.shape[: x.ndim - len(self.event_shape)], x.dtype)
        for layer in reversed(self.layers):
            x, log_det = layer.pull(x, context)
            total = total + log_det
        return x, total

    def initialise(self, x: Array, context: Context = None) -> tuple[Layer, Array]:
        """Begin each layer from what the batch is there."""
        begun = []
        for layer in reversed(self.layers):
            layer, x = layer.initialise(x, context)
            begun.append(layer)
        return Chain(begun[::-1]), x


class Stack(Layer):
    """Layers of one kind one after the other, run by `lax.scan`: compiling takes one layer's time.

    Args:
        layers: from the base to the data, of equal structure and shapes.
    """

    stacked: Layer
    number: int = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.stacked = jax.tree.map(_stack, *layers)
        self.number, self.about = len(layers), layers[0].about

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers one by one."""
        return tuple(
            jax.tree.map(lambda leaf, i=i: leaf[i], self.stacked) for i in range(self.number)
        )

    def _scan(self, value: Array, context: Context, reverse: bool) -> Pushed:
        def step(carry: Pushed, arrays: Any) -> tuple[Pushed, None]:
            layer = eqx.combine(arrays, static)
            value, total = carry
            value, log_det = (layer.pull if reverse else layer.push)(value, context)
            return (value, total + log_det), None

        arrays, static = eqx.partition(self.stacked, eqx.is_array_like)
        total = jnp.zeros(value.shape[: value.ndim - len(self.event_shape)], value.dtype)
        return lax.scan(step, (value, total), arrays, self.number, reverse)[0]

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Push through the layers in order."""
        return self._scan(z, context, False)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Pull through the layers in reverse."""
        return self._scan(x, context, True)

    def initialise(self, x: Array, context: Context = None) -> tuple[Layer, Array]:
        """Begin each layer from what the batch is there."""
        begun, x = Chain(self.layers).initialise(x, context)
        return Stack(begun.layers), x  # type: ignore[attr-defined]


def _stack(*leaves: Any) -> Any:
    if isinstance(leaves[0], np.ndarray | np.generic):
        return np.stack(leaves)  # what is not learned stays NumPy's
    return jnp.stack(leaves)


class Inverse(Layer):
    """A layer the other way round.

    Args:
        layer: the layer.
    """

    layer: Layer
    about: About = eqx.field(static=True)

    def __init__(self, layer: Layer) -> None:
        other = {"push": "pull", "pull": "push"}
        self.layer = layer
        self.about = layer.about._replace(fast=other.get(layer.about.fast, "both"))

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Pull through the layer."""
        return self.layer.pull(z, context)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Push through the layer."""
        return self.layer.push(x, context)
