"""`flow_guide`: a flow over all continuous latents of a model, or over those of each datum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.module import eqx_module
from numpyro.distributions.util import sum_rightmost
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.initialization import init_to_median

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.data import Inputs, as_inputs
from deepgen_ppl.numpyro.flows.actnorm import ActNorm
from deepgen_ppl.numpyro.flows.catalogue import IAF
from deepgen_ppl.numpyro.flows.flow import Flow
from deepgen_ppl.numpyro.flows.layer import Chain
from deepgen_ppl.numpyro.nets import MLP
from deepgen_ppl.numpyro.structure import Site, read_once


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
        >>> import deepgen_ppl.numpyro as dg
        >>> def model():
        ...     x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(x**2, 0.5))
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
        self._make, self._init_scale, self._flow = make, init_scale, None
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        start = np.asarray(self._init_latent)
        self._flow = placed(self._make(self.latent_dim), start, self._init_scale)

    def _get_posterior(self) -> dist.TransformedDistribution:
        density: Any = eqx_module(f"{self.prefix}_flow", self._flow)
        return density()

    def get_base_dist(self) -> dist.Distribution:
        """Return the standard normal that the flow begins with."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1.0).to_event(1)


def placed(flow: Flow, start: np.ndarray, scale: float) -> Flow:
    """Return a flow with a learned location and scale at its end.

    Args:
        flow: the flow.
        start: location at first.
        scale: scale at first.

    Example:
        >>> bool(placed(IAF(2), np.full(2, 7.0), 0.1)().sample(jax.random.key(0)).min() > 6.0)
        True
    """
    end = ActNorm(len(start))
    values = jnp.full(len(start), math.log(scale)), jnp.asarray(start, float)
    end = eqx.tree_at(lambda layer: (layer.log_scale, layer.shift), end, values)
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


class AmortizedFlow:
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
        self.model, self.make, self.init_scale = model, make, init_scale
        self.embedding, self.prefix, self.seed = embedding, prefix, seed
        self.plate, self.parts = "", ()
        self.net: Any = None
        self.flow: Any = None

    def _set_up(self, data: Sequence[Any]) -> None:
        inputs = Inputs(as_inputs(tuple(data)))
        with numpyro.handlers.block():
            found = read_once(self.model, inputs, "model")
        rows = {name: size for name, (_, size, _) in found.plates.items() if size == len(data[0])}
        self.plate, self.parts = parts_of(found.sites, rows)
        size = sum(part.size for part in self.parts)
        inputs_size = sum(math.prod(jnp.shape(x)[1:]) for x in data)
        with jax.ensure_compile_time_eval():
            flow = self.make(size, context=self.embedding)
            self.flow = placed(flow, np.zeros(size), self.init_scale)
            self.net = MLP(inputs_size, self.embedding, (128,), seed=self.seed)

    def __call__(self, *data: Any) -> dict[str, Array]:
        """Draw the latents of each datum."""
        if self.flow is None:
            self._set_up(data)
        net: Any = eqx_module(f"{self.prefix}_net", self.net)
        density: Any = eqx_module(f"{self.prefix}_flow", self.flow)
        rows = len(data[0])
        flat = [jnp.reshape(jnp.asarray(x, float), (rows, -1)) for x in data]
        context = net(jnp.concatenate(flat, -1), None)
        found: dict[str, Array] = {}
        with numpyro.plate(self.plate, rows):
            name = f"_{self.prefix}_latent"
            packed: Any = numpyro.sample(name, density(context), infer={"is_auxiliary": True})
            begin = 0
            for part in self.parts:
                own = packed[..., begin : begin + part.size]
                own = own.reshape(*own.shape[:-1], *part.shape)
                begin += part.size
                value = part.transform(own)
                log_det = jnp.asarray(part.transform.log_abs_det_jacobian(own, value))
                event_dim = len(part.site.event_shape)
                log_det = sum_rightmost(log_det, log_det.ndim - (value.ndim - event_dim))
                delta = dist.Delta(value, log_density=-log_det, event_dim=event_dim)
                found[part.site.name] = jnp.asarray(numpyro.sample(part.site.name, delta))
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
        transform = dist.biject_to(site.support)
        shape = tuple(transform.inverse_shape(site.event_shape))
        parts.append(Part(site, transform, shape, math.prod(shape)))
    if len(plates) != 1:
        raise ValueError(
            f"an amortized flow_guide needs latents in one data plate, found {sorted(plates)}."
        )
    return plates.pop(), tuple(parts)
