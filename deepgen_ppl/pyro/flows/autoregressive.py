"""The autoregressive layer: each feature is moved given those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import flow_checks, networks
from deepgen_ppl.pyro.flows.affine import Affine
from deepgen_ppl.pyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.pyro.nets import ACTIVATIONS, MaskedMLP


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
        >>> transform(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

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
        super().__init__()
        flow_checks.choice("fast", fast, ("pull", "push"))
        self.univariate = Affine() if univariate is None else univariate
        options: dict[str, Any] = {"order": order, "activation": activation, "zero": identity}
        self.net = MaskedMLP(features, self.univariate.size, hidden, context, seed=seed, **options)
        numerical = getattr(self.univariate, "max_steps", None) is not None
        self.about = About((features,), context, fast, numerical)

    def push(self, z: Tensor, context: Context = None) -> Pushed:
        """Map z to x, with the log determinant."""
        return (self._pass if self.about.fast == "push" else self._steps)(z, context)

    def pull(self, x: Tensor, context: Context = None) -> Pushed:
        """Map x to z, with the log determinant of that map."""
        return (self._pass if self.about.fast == "pull" else self._steps)(x, context)

    def _pass(self, value: Tensor, context: Context) -> Pushed:
        moved, log_slope = self.univariate.push(value, self.net(value, context))
        return moved, log_slope.sum(-1)

    def _steps(self, value: Tensor, context: Context) -> Pushed:
        batch = value.shape[:-1]
        flat = value.reshape(-1, value.shape[-1])
        if context is not None:
            context = context.expand(*batch, context.shape[-1])
            context = context.reshape(-1, context.shape[-1])
        found, log_slope = solve(self.net, self.univariate, flat, context)
        return found.reshape(value.shape), log_slope.reshape(batch)


def solve(
    net: MaskedMLP, univariate: Any, value: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the u of which `value` is the image, with the log determinant of that map.

    Step i computes the hidden units of group i, which see the features before it in the order, then
    the parameters of the feature whose turn it is, then the feature. Units are sorted by group.

    Args:
        net: the network.
        univariate: the elementwise map.
        value: shape (B, D).
        context: shape (B, context), or None.
    """
    rows, features = value.shape
    weights, activation, order = list(net.masked), ACTIVATIONS[net.activation], net.order
    if order is not None:
        weights[0] = weights[0][order]
    groups = networks.groups(features, net.hidden, net.context)
    bounds = [np.searchsorted(g, np.arange(features + 1)) for g in groups]
    biases = [b[:, None] for b in list(net.biases)[:-1]]
    last = list(net.biases)[-1].reshape(net.outputs, features, 1)
    if net.from_context is not None and context is not None:
        from_context = (context @ net.from_context).mT
        if biases:
            biases[0] = biases[0] + from_context
        else:
            last = last + from_context.reshape(net.outputs, features, rows)
    inner = [w.mT for w in weights[:-1]]
    out = weights[-1].mT.reshape(net.outputs, features, -1)
    if order is not None:
        value, out, last = value[:, order], out[:, order], last[:, order]
    found: list[Tensor] = []
    units: list[list[Tensor]] = [[] for _ in inner]
    total = value.new_zeros(rows)
    for i in range(features):
        before = _joined(found, value)
        for weight, bias, own, bound in zip(inner, biases, units, bounds, strict=True):
            begin, end = int(bound[i]), int(bound[i + 1])
            if end > begin:
                part = weight[begin:end, : before.shape[0]] @ before
                own.append(activation(part + bias[begin:end]))
            before = _joined(own, value)
        params = out[:, i, : before.shape[0]] @ before + last[:, i]
        x, log_slope = univariate.pull(value[:, i], params)
        found.append(x[None])
        total = total + log_slope
    solved = torch.cat(found).mT
    return solved if order is None else solved[:, torch.argsort(order)], total


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts) if parts else like.new_zeros(0, like.shape[0])
