"""Discrete data by densities: noise between the levels, uniform or learned, and a bound in bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.flow import Flow
from deepgen_ppl.pyro.flows.layer import Context


class Dequantised(NamedTuple):
    """A model of discrete data and its guide; unpacks as `dg.svi(*pair, x)`.

    Attributes:
        model: noise in the unit cube, and the flow's density of data plus noise.
        guide: the noise's distribution.
    """

    model: Callable[..., None]
    guide: Callable[..., None]


def dequantised(flow: Flow, noise: Flow | None = None) -> Dequantised:
    r"""Return a model of whole numbers by a flow's density, and a guide over the noise between.

    \[ P(x \mid c) = \int_{[0, 1)^D} p(x + u \mid c)\,du \ge \exp \mathbb E_{q(u \mid x)}
       [\log p(x + u \mid c) - \log q(u \mid x)] \]

    Every verb takes the pair: `svi` maximises the bound, `importance` and `evidence_bounds` tighten
    it. `dg.flows.bits_per_dimension` puts a loss into bits.

    Args:
        flow: the density of data plus noise, which lie in (0, levels): end it with `Logit`.
        noise: a flow of D features with support `constraints.unit_interval` and context D, the
            variational noise q(u | x); uniform noise when None.

    Returns:
        The pair of model and guide, of whole numbers x and the context where the flow has one; its
        plate is `data`, its latent site `noise`, and the parameters are `flow` and `noise`.

    Raises:
        ValueError: the noise has another size than the data.
        TypeError: what is given is no flow.

    References:
        Theis, van den Oord, Bethge: A note on the evaluation of generative models. ICLR 2016.
        https://arxiv.org/abs/1511.01844

        Ho, Chen, Srinivas, Duan, Abbeel: Flow++. ICML 2019. https://arxiv.org/abs/1902.00275

    Example:
        >>> import deepgen_ppl.pyro as dg, numpy as np
        >>> f = dg.flows
        >>> flow = f.Flow(f.Chain([f.RealNVP(2, hidden=(8,)).layer, f.Logit(2, levels=4)]))
        >>> x = np.random.default_rng(0).integers(0, 4, (50, 2)).astype(float)
        >>> fit = dg.svi(*dequantised(flow), x, num_steps=50, progress=False)
        >>> bool(np.isfinite(bits_per_dimension(fit.losses[-1], 2)))
        True
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"dequantised takes a flow of dg.flows, not {type(flow).__name__}.")
    shape = flow.event_shape
    size = math.prod(shape)
    if noise is not None and (noise.event_shape != (size,) or noise.context != size):
        raise ValueError(
            f"the noise must be a flow of {size} features with context={size}, the data, got "
            f"{noise.event_shape[0]} features and context={noise.context}."
        )

    def uniform(x: Tensor) -> Any:
        low: Any = x.new_zeros((), dtype=torch.get_default_dtype())
        return dist.Uniform(low, low + 1.0).expand((size,)).to_event(1)  # type: ignore[attr-defined]

    def model(x: Tensor, context: Context = None) -> None:
        flow_checks.check_event(x.shape, shape)
        density: Any = pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            u = pyro.sample("noise", uniform(x))
            value = x + u.reshape(*u.shape[:-1], *shape)
            pyro.factor("x", density(context).log_prob(value))

    def guide(x: Tensor, context: Context = None) -> None:
        learned: Any = None if noise is None else pyro.module("noise", noise)
        with pyro.plate("data", len(x)):
            own = uniform(x) if learned is None else learned(_centred(x))
            pyro.sample("noise", own)

    return Dequantised(model, guide)


def _centred(x: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    return flat / torch.clamp(flat.max(), min=1.0) - 0.5


def bits_per_dimension(loss: float, size: int | tuple[int, ...]) -> float:
    r"""Return a loss in nats per datum as bits per dimension, \( \ell / (D \ln 2) \).

    Args:
        loss: negative log probability, or a bound of it, per datum.
        size: number of dimensions D, or the shape of a datum.

    Example:
        >>> round(bits_per_dimension(64 * 8 * 0.6931471805599453, (8, 8)), 6)
        8.0
    """
    dims = size if isinstance(size, int) else math.prod(size)
    return float(loss) / (flow_checks.whole("size", dims) * math.log(2.0))
