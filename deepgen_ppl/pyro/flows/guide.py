"""`flow_guide`: a flow over all continuous latents of a model, or over those of each datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.infer.autoguide import AutoContinuous
from pyro.infer.autoguide.initialization import init_to_median
from torch import Tensor, nn
from torch.distributions import ComposeTransform, biject_to

from deepgen_ppl import flow_checks
from deepgen_ppl.pyro.flows.actnorm import ActNorm
from deepgen_ppl.pyro.flows.catalogue import IAF
from deepgen_ppl.pyro.flows.flow import Flow
from deepgen_ppl.pyro.flows.layer import Chain
from deepgen_ppl.pyro.nets import MLP
from deepgen_ppl.pyro.reading import read
from deepgen_ppl.pyro.structure import Site


def flow_guide(
    model: Callable[..., Any],
    flow: Callable[..., Flow] | None = None,
    *,
    amortized: bool = False,
    init_scale: float = 0.1,
    embedding: int = 64,
    prefix: str = "auto",
    seed: int = 0,
    **options: Any,
) -> Callable[..., Any]:
    r"""Return a guide that draws a model's continuous latents from a flow.

    The latents are mapped to unconstrained space and packed into one vector z,

    \[ q(z) = \text{flow}, \qquad \text{or} \qquad
       q(z \mid x) = \textstyle\prod_n \text{flow}(z_n;\ \mathrm{net}(x_n)) \]

    with `amortized=True`, where every latent stands in the data plate: one flow serves all rows and
    minibatches, its context is a network of the datum.

    Args:
        model: a model whose latents are continuous.
        flow: a function of the number of features (and of `context`) that returns a flow, such as
            `dg.flows.NSF` or `functools.partial(dg.flows.NSF, bins=4)`; `dg.flows.IAF` when None.
            Prefer one whose draws are fast.
        amortized: whether the flow is conditional on the data of each row.
        init_scale: scale of the latents in unconstrained space at first.
        embedding: context features that the data's network returns, when amortized.
        prefix: what the guide's own names begin with.
        seed: seed of the initial weights.
        **options: further options of `flow`.

    Returns:
        A guide for `svi` and all that takes its fit. Without `amortized` it is an autoguide of the
        language, whose fit `mcmc(neutra=...)` takes.

    Raises:
        ValueError: at the first call, when amortized: a latent outside of the data plate.

    References:
        Kingma et al.: Improved variational inference with inverse autoregressive flow. NeurIPS
        2016. https://arxiv.org/abs/1606.04934

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(x**2, 0.5))
        >>> guide = dg.flow_guide(model, dg.flows.NSF, transforms=2, hidden=(8,))
        >>> fit = dg.svi(model, guide, num_steps=100, progress=False)
        >>> fit.posterior(num_samples=10).draws["y"].shape
        (1, 10)
    """
    flow = IAF if flow is None else flow
    if not callable(flow) or isinstance(flow, Flow):
        raise TypeError(
            "flow must be a function that makes a flow of so many features, such as dg.flows.IAF, "
            f"not {type(flow).__name__}."
        )
    flow_checks.positive("init_scale", init_scale)
    make = partial(flow, seed=seed, **options)
    if not amortized:
        return AutoFlow(model, make, init_scale, prefix=prefix)
    flow_checks.whole("embedding", embedding)
    return AmortizedFlow(model, make, init_scale, embedding, prefix, seed)


class AutoFlow(AutoContinuous):
    """A flow over all continuous latents, packed and unconstrained; made by `flow_guide`."""

    def __init__(
        self,
        model: Callable[..., Any],
        make: Callable[..., Flow],
        init_scale: float,
        *,
        prefix: str = "auto",
        init_loc_fn: Callable[..., Any] = init_to_median,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        self._pyro_name = prefix
        self._make, self._init_scale = make, init_scale

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        start = self._init_loc().detach().cpu().numpy()
        self.flow = placed(self._make(self.latent_dim), start, self._init_scale)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """Return the distribution of the packed latents."""
        return self.flow()

    def get_transform(self, *args: Any, **kwargs: Any) -> Any:
        """Return the transform from the standard normal to the packed latents."""
        return ComposeTransform(self.flow().transforms)

    def get_base_dist(self) -> Any:
        """Return the standard normal that the flow begins with."""
        return self.flow().base_dist


def placed(flow: Flow, start: np.ndarray, scale: float) -> Flow:
    """Return a flow with a learned location and scale at its end.

    Args:
        flow: the flow.
        start: location at first.
        scale: scale at first.

    Example:
        >>> bool(placed(IAF(2), np.full(2, 7.0), 0.1)().sample().min() > 6.0)
        True
    """
    end = ActNorm(len(start))
    with torch.no_grad():
        end.log_scale.fill_(math.log(scale))
        end.shift.copy_(torch.tensor(start))
    return Flow(Chain((flow.layer, end)))


class Part(NamedTuple):
    """One latent of each datum.

    Attributes:
        site: the site.
        transform: from unconstrained space to its support.
        shape: shape of one unconstrained value.
        size: number of its entries.
    """

    site: Site
    transform: Any
    shape: tuple[int, ...]
    size: int


class AmortizedFlow(nn.Module):
    """A flow over the latents of each datum, conditional on the datum; made by `flow_guide`."""

    def __init__(
        self,
        model: Callable[..., Any],
        make: Callable[..., Flow],
        init_scale: float,
        embedding: int,
        prefix: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.source = (model,)  # no part of the guide, where it is a module
        self.make, self.init_scale = make, init_scale
        self.embedding, self.prefix, self.seed = embedding, prefix, seed
        self.plate, self.parts = "", ()
        self.net, self.flow = None, None

    def _set_up(self, data: Sequence[Tensor]) -> None:
        with pyro.poutine.block():  # type: ignore[attr-defined]
            found = read(self.source[0], data)
        rows = {name: plate.size for name, plate in found.plates.items() if plate.follows_data}
        self.plate, self.parts = parts_of(dict(found.sites), rows)
        size = sum(part.size for part in self.parts)
        inputs_size = sum(math.prod(x.shape[1:]) for x in data)
        self.flow = placed(self.make(size, context=self.embedding), np.zeros(size), self.init_scale)
        self.net = MLP(inputs_size, self.embedding, (128,), seed=self.seed)

    def forward(self, *data: Tensor) -> dict[str, Tensor]:
        """Draw the latents of each datum."""
        if self.flow is None:
            self._set_up(data)
        own_net: Any = self.net
        own_flow: Any = self.flow
        net: Any = pyro.module(f"{self.prefix}_net", own_net)
        density: Any = pyro.module(f"{self.prefix}_flow", own_flow)
        rows = len(data[0])
        flat = [x.to(torch.get_default_dtype()).reshape(rows, -1) for x in data]
        context = net(torch.cat(flat, -1), None)
        found: dict[str, Tensor] = {}
        with pyro.plate(self.plate, rows):
            name = f"_{self.prefix}_latent"
            packed: Any = pyro.sample(name, density(context), infer={"is_auxiliary": True})
            begin = 0
            for part in self.parts:
                own = packed[..., begin : begin + part.size]
                own = own.reshape(*own.shape[:-1], *part.shape)
                begin += part.size
                value = part.transform(own)
                log_det = part.transform.log_abs_det_jacobian(own, value)
                event_dim = len(part.site.event_shape)
                log_det: Any = sum_rightmost(log_det, log_det.dim() - (value.dim() - event_dim))
                delta = dist.Delta(value, log_density=-log_det, event_dim=event_dim)
                found[part.site.name] = pyro.sample(part.site.name, delta)  # type: ignore[assignment]
        return found


def parts_of(sites: dict[str, Site], rows: dict[str, int]) -> tuple[str, tuple[Part, ...]]:
    """Return the data plate of the latents, and how each is packed.

    Raises:
        ValueError: a latent is discrete, stands outside of a plate of the rows, has further plates,
            or its support depends on other values.
    """
    parts, plates = [], set()
    for name, site in sites.items():
        if site.role != "latent":
            continue
        if site.is_discrete or site.support is None:
            kind = "is discrete" if site.is_discrete else "has a support that other values decide"
            raise ValueError(f"flow_guide draws continuous latents, but '{name}' {kind}.")
        if len(site.batch_shape) != 1 or site.plates[0] not in rows:
            raise ValueError(
                f"an amortized flow_guide draws latents of the data plate, one row each, "
                f"but '{name}' has batch shape {site.batch_shape}. Leave out amortized=True, or "
                "write further batch axes as event axes with to_event."
            )
        plates.add(site.plates[0])
        transform = biject_to(site.support)
        shape = tuple(transform.inverse_shape(site.event_shape))
        parts.append(Part(site, transform, shape, math.prod(shape)))
    if len(plates) != 1:
        raise ValueError(
            f"an amortized flow_guide needs latents in one data plate, found {sorted(plates)}."
        )
    return plates.pop(), tuple(parts)
