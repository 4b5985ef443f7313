"""What a flow is made of: invertible layers, the native transform and distribution they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.distributions import constraints
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.data import to_tensor

Context = Float[Tensor, "*#batch context"] | None
Pushed = tuple[Float[Tensor, "*values"], Float[Tensor, "*batch"]]


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


class Layer(nn.Module, ABC):
    r"""One invertible map f of an event, whose parameters are its tensors; an abstract base.

    A layer is written for batches: `push` and `pull` take values of shape (*batch, *event) and a
    context that broadcasts against (*batch, context), and return the values at the other end with

    \[ \log |\det \partial f(z) / \partial z| \quad\text{and}\quad
       \log |\det \partial f^{-1}(x) / \partial x|. \]

    Calling a layer with a context (or without, where it has none) gives torch's own `Transform`.

    Attributes:
        about: its event shape, its context, and which direction is fast.
    """

    about: About

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.about.event_shape

    @abstractmethod
    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant of the map."""

    @abstractmethod
    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""

    def initialise(self, x: Tensor, context: Context = None) -> tuple[Layer, Tensor]:
        """Return the layer as a batch at its end has it begin, and the batch at its start."""
        return self, self.pull(x, context)[0]

    def forward(self, context: Context = None) -> FlowTransform:
        """Return the native transform at a context.

        Raises:
            ValueError: the context is missing, not asked for, or of another size.
        """
        if context is not None:
            context = to_tensor(context)
        flow_checks.check_context(None if context is None else context.shape, self.about.context)
        return FlowTransform(self, context)


class FlowTransform(torch.distributions.Transform):
    """A layer at a context, as torch's own transform, without a cache.

    Args:
        layer: the layer.
        context: its context, shape (*batch, context), or None.
    """

    bijective = True

    def __init__(self, layer: Layer, context: Context = None) -> None:
        super().__init__()
        self.layer, self.context = layer, context

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """Real events."""
        return constraints.independent(constraints.real, len(self.layer.event_shape))

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """Real events."""
        return self.domain

    def push(self, z: Tensor) -> Pushed:
        """Map z to x, with the log determinant of the map, in one pass."""
        return self._refuse(self.layer.push(self._broadcast(z), self.context))

    def pull(self, x: Tensor) -> Pushed:
        """Map x to z, with the log determinant of that map, in one pass."""
        return self._refuse(self.layer.pull(self._broadcast(x), self.context))

    def _call(self, x: Tensor) -> Tensor:
        return self.push(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.pull(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log determinant at x (or y), by the direction that is fast."""
        return -self.pull(y)[1] if self.layer.about.fast == "pull" else self.push(x)[1]

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        """Return the transform itself: it keeps nothing."""
        return self

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape with the batch of the context."""
        event = self.layer.event_shape
        flow_checks.check_event(shape, event)
        if self.context is None:
            return torch.Size(shape)
        batch = shape[: len(shape) - len(event)]
        return torch.Size((*torch.broadcast_shapes(batch, self.context.shape[:-1]), *event))

    inverse_shape = forward_shape

    def _broadcast(self, value: Tensor) -> Tensor:
        value = to_tensor(value)
        shape = self.forward_shape(value.shape)
        return value if shape == value.shape else value.expand(shape)

    def _refuse(self, pushed: Pushed) -> Pushed:
        """Refuse rows whose numerical inverse has not converged; they are NaN in traced code."""
        _, log_det = pushed
        if self.layer.about.numerical and is_concrete(log_det):
            flow_checks.refuse_unsolved(~torch.isnan(log_det.detach()).cpu().numpy())
        return pushed


def is_concrete(value: Tensor) -> bool:
    """Tell whether a tensor's values can be looked at: no tracing and no transform of functions."""
    if is_functorch_wrapped_tensor(value):
        return False
    modes = _get_current_dispatch_mode_stack()
    return type(value) in (Tensor, nn.Parameter) and not modes and not torch.jit.is_tracing()


class Drawn(NamedTuple):
    """A draw of a flow with what its density needs.

    Attributes:
        value: the draw.
        version: how often it had been changed in place.
        z: the draw of the base.
        log_det: sum of the log determinants of the transforms.
        tensors: parameters and context it came from, with how often each had been changed.
    """

    value: Tensor
    version: int
    z: Tensor
    log_det: Tensor
    tensors: list[tuple[Tensor, int]]


class FlowDistribution(dist.TransformedDistribution):
    """Pyro's own transformed distribution, whose density takes one pass of each transform.

    The density of its own latest draw takes none: the draw is known by identity, and only as long
    as neither it nor a parameter has changed; the result is that of the pass.

    Args:
        base: the base.
        transforms: transforms from the base to the values.
        support: constraint of the values, where the transforms' own says less: torch's map onto
            the positive numbers has all real ones for its values.
    """

    _drawn: Drawn | None = None

    def __init__(self, base: Any, transforms: Sequence[Any], support: Any = None) -> None:
        self._support = support
        super().__init__(base, list(transforms))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """Return independent copies."""
        found = self._get_checked_instance(FlowDistribution, _instance)
        found._support = self._support
        return super().expand(batch_shape, found)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """The values that it has a density of."""
        within = self._support
        if within is None:
            return super().support
        dims = len(self.event_shape) - within.event_dim
        return constraints.independent(within, dims) if dims else within

    def _validate_sample(self, value: Any) -> None:
        """Refuse finite rows outside the support by number, then as torch does."""
        if self._support is not None and is_concrete(value):
            flow_checks.check_event(value.shape, self.event_shape)
            axes = tuple(range(-len(self.event_shape), 0))
            inside = self.support.check(value) | ~torch.isfinite(value).all(axes)
            flow_checks.refuse_outside(inside.cpu().numpy(), f"the support ({self._support})")
        super()._validate_sample(value)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws that carry gradients."""
        z = self.base_dist.rsample(torch.Size(sample_shape))
        value, event_dim = z, len(self.base_dist.event_shape)
        total: Any = 0.0
        for transform in self.transforms:
            batch_dim = event_dim - transform.domain.event_dim
            if isinstance(transform, FlowTransform):
                value, log_det = transform.push(value)
            else:
                start, value = value, transform(value)
                log_det = transform.log_abs_det_jacobian(start, value)
            total = total + sum_rightmost(log_det, batch_dim)
            event_dim = transform.codomain.event_dim + batch_dim
        version = _version(value)
        if version is not None:
            self._drawn = Drawn(value, version, z, total, self._tensors())
        return value

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density."""
        if self._validate_args:
            self._validate_sample(value)
        if (drawn := self._recalled(value)) is not None:
            return self.base_dist.log_prob(drawn.z) - drawn.log_det
        event_dim = len(self.event_shape)
        total: Any = 0.0
        for transform in reversed(self.transforms):
            batch_dim = event_dim - transform.codomain.event_dim
            if isinstance(transform, FlowTransform):
                value, log_det = transform.pull(value)
            else:
                end, value = value, transform.inv(value)
                log_det = -transform.log_abs_det_jacobian(value, end)
            total = total + sum_rightmost(log_det, batch_dim)
            event_dim = transform.domain.event_dim + batch_dim
        return total + self.base_dist.log_prob(value)

    def sample_and_log_prob(self, sample_shape: Any = torch.Size()) -> Pushed:  # noqa: B008
        """Return draws and their log densities, both from one pass.

        Args:
            sample_shape: shape of independent draws.
        """
        value = self.rsample(sample_shape)
        drawn = self._drawn
        if drawn is None or drawn.value is not value:  # a tensor that does not count its changes
            return value, self.log_prob(value)
        return value, self.base_dist.log_prob(drawn.z) - drawn.log_det

    def _tensors(self) -> list[tuple[Tensor, int]]:
        found: list[Tensor] = []
        for transform in self.transforms:
            if isinstance(transform, FlowTransform):
                found += [*transform.layer.parameters(), *transform.layer.buffers()]
                found += [] if transform.context is None else [transform.context]
        return [(tensor, _version(tensor) or 0) for tensor in found]

    def _recalled(self, value: Tensor) -> Drawn | None:
        """Return the latest draw where its density at `value` is that of a pass, else None."""
        drawn = self._drawn
        if drawn is None or drawn.value is not value or drawn.version != _version(value):
            return None
        tensors = self._tensors()
        same = len(tensors) == len(drawn.tensors) and all(
            a is b and i == j for (a, i), (b, j) in zip(tensors, drawn.tensors, strict=True)
        )
        # of a draw without gradients, the density's gradient to the parameters needs a pass
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor, _ in tensors)
        return drawn if same and (value.requires_grad or not learns) else None


def _version(tensor: Tensor) -> int | None:
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor
        return None


class Chain(Layer):
    """Layers one after the other.

    Args:
        layers: from the base to the data.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.about = joined([layer.about for layer in layers])

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Push through the layers in order."""
        total: Any = None
        for layer in self.layers:
            z, log_det = layer.push(z, context)  # type: ignore[operator]
            total = log_det if total is None else total + log_det
        return z, total

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Pull through the layers in reverse."""
        total: Any = None
        for layer in reversed(self.layers):
            x, log_det = layer.pull(x, context)  # type: ignore[operator]
            total = log_det if total is None else total + log_det
        return x, total

    def initialise(self, x: Tensor, context: Context = None) -> tuple[Layer, Tensor]:
        """Begin each layer from what the batch is there."""
        begun = []
        for layer in reversed(self.layers):
            layer, x = layer.initialise(x, context)  # type: ignore[operator]
            begun.append(layer)
        return type(self)(begun[::-1]), x


class Stack(Chain):
    """Layers of one kind one after the other.

    Args:
        layers: from the base to the data, of equal structure and shapes.
    """

    @property
    def number(self) -> int:
        """How many."""
        return len(self.layers)


class Inverse(Layer):
    """A layer the other way round.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        other = {"push": "pull", "pull": "push"}
        self.layer = layer
        self.about = layer.about._replace(fast=other.get(layer.about.fast, "both"))

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Pull through the layer."""
        return self.layer.pull(z, context)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Push through the layer."""
        return self.layer.push(x, context)
