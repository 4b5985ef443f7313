"""The autoregressive layer: each feature is moved given those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from deepgen_ppl import flow_checks, networks
from deepgen_ppl.numpyro.flows.affine import Affine
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.numpyro.nets import ACTIVATIONS, MaskedMLP


class Autoregressive(Layer):
    r"""Each feature is moved by an elementwise map, given the features before it.

    \[ v_i = g(u_i;\ \mathrm{net}(u_{<i}, c)), \qquad \log|\det J| = \textstyle\sum \log g' \]

    One direction is a single pass of a masked network. The other one knows feature i only after
    those before it; it visits each hidden unit once, at the feature that completes it, so that its
    arithmetic is that of about one pass rather than of D of them, in D short steps.

    Args:
        features: number of features D.
        context: number of context features.
        univariate: the elementwise map g: `Affine`, `Additive`, `Spline`, `Sigmoids` or `Integral`.
        hidden: units of each hidden layer of the network.
        order: the features in the order in which each is moved given those before it; that of
            their numbers when None.
        fast: "pull" makes densities one pass (as MAF), "push" draws (as IAF).
        activation: "relu", "tanh", "silu", "elu" or "softplus".
        identity: whether the layer begins as the identity; otherwise the network's last layer is
            drawn as the others are.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, an unknown direction, or no order.

    Cost:
        One pass of the network in the fast direction, D steps that visit each weight once in the
        other.

    References:
        Kingma et al.: Improved variational inference with inverse autoregressive flow. NeurIPS
        2016. https://arxiv.org/abs/1606.04934

        Papamakarios, Pavlakou, Murray: Masked autoregressive flow for density estimation. NeurIPS
        2017. https://arxiv.org/abs/1705.07057

    Example:
        >>> transform = Autoregressive(3)()
        >>> transform(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    net: MaskedMLP
    univariate: Any = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        univariate: Any = None,
        hidden: Sequence[int] = (64, 64),
        *,
        order: Sequence[int] | np.ndarray | None = None,
        fast: str = "pull",
        activation: str = "relu",
        identity: bool = True,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.choice("fast", fast, ("pull", "push"))
        self.univariate = Affine() if univariate is None else univariate
        options: dict[str, Any] = {"order": order, "activation": activation, "zero": identity}
        self.net = MaskedMLP(features, self.univariate.size, hidden, context, seed=seed, **options)
        numerical = getattr(self.univariate, "max_steps", None) is not None
        self.about = About((features,), context, fast, numerical)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        return (self._pass if self.about.fast == "push" else self._steps)(z, context)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        return (self._pass if self.about.fast == "pull" else self._steps)(x, context)

    def _pass(self, value: Array, context: Context) -> Pushed:
        moved, log_slope = self.univariate.push(value, self.net(value, context))
        return moved, log_slope.sum(-1)

    def _steps(self, value: Array, context: Context) -> Pushed:
        batch = value.shape[:-1]
        flat = value.reshape(-1, value.shape[-1])
        if context is not None:
            context = jnp.broadcast_to(context, (*batch, context.shape[-1]))
            context = context.reshape(-1, context.shape[-1])
        found, log_slope = solve(self.net, self.univariate, flat, context)
        return found.reshape(value.shape), log_slope.reshape(batch)


def solve(
    net: MaskedMLP, univariate: Any, value: Array, context: Array | None
) -> tuple[Array, Array]:
    """Return the u of which `value` is the image, with the log determinant of that map.

    Step i computes the hidden units of group i, which see the features before it in the order, then
    the parameters of the feature whose turn it is, then the feature. Units are sorted by group; a
    step computes as many as the largest group has, and what it computes too early a later step
    computes again.

    Args:
        net: the network.
        univariate: the elementwise map.
        value: shape (B, D).
        context: shape (B, context), or None.
    """
    rows, features = value.shape
    weights, activation = net.masked, ACTIVATIONS[net.activation]
    groups = networks.groups(features, net.hidden, net.context)
    starts = [np.searchsorted(g, np.arange(features)) for g in groups]
    widths = [int(np.bincount(g, minlength=features).max()) for g in groups]
    biases = [jnp.broadcast_to(b[:, None], (len(b), rows)) for b in net.biases[:-1]]
    last = net.biases[-1].reshape(net.outputs, features)
    from_context = None
    if net.from_context is not None and context is not None:
        from_context = (context @ net.from_context).T
        if biases:
            biases[0] = biases[0] + from_context
    padded = [
        (jnp.pad(w.T, ((0, n), (0, 0))), jnp.pad(b, ((0, n), (0, 0))))
        for w, b, n in zip(weights[:-1], biases, widths, strict=True)
    ]
    out = weights[-1].T.reshape(net.outputs, features, -1)

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        found, total, hidden = carry
        i, target, begins = inputs
        before, units = found, []
        for (w, b), h, n, begin in zip(padded, hidden, widths, begins, strict=True):
            part = lax.dynamic_slice_in_dim(w, begin, n) @ before
            part = activation(part + lax.dynamic_slice_in_dim(b, begin, n))
            h = lax.dynamic_update_slice_in_dim(h, part, begin, 0)
            units.append(h)
            before = h[: h.shape[0] - n]
        params = lax.dynamic_index_in_dim(out, i, 1, False) @ before
        params = params + lax.dynamic_index_in_dim(last, i, 1)
        if from_context is not None and not padded:
            own = from_context.reshape(net.outputs, features, rows)
            params = params + lax.dynamic_index_in_dim(own, i, 1, False)
        x, log_slope = univariate.pull(target, params)
        found = lax.dynamic_update_slice_in_dim(found, x[None], i, 0)
        return (found, total + log_slope, units), None

    zero = jnp.zeros((features, rows), value.dtype)
    hidden = [jnp.zeros(b.shape, value.dtype) for _, b in padded]
    begins = [jnp.asarray(s) for s in starts]
    order = jnp.arange(features) if net.order is None else jnp.asarray(net.order)
    sequence = (order, value.T[order], begins)
    (found, total, _), _ = lax.scan(step, (zero, zero[0], hidden), sequence)
    return found.T, total
