"""A flow: a module that gives, at a context, the language's own transformed distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float
from numpyro.contrib.module import eqx_module

from deepgen_ppl import data_checks, flow_checks
from deepgen_ppl.numpyro.flows.actnorm import Standardise
from deepgen_ppl.numpyro.flows.layer import Chain, Context, FlowDistribution, Layer


class Flow(eqx.Module):
    r"""A density by change of variables: a standard normal z, pushed through invertible layers.

    \[ x = f(z; c), \qquad \log p(x \mid c) = \log \mathcal N(f^{-1}(x; c); 0, I)
       + \log |\det \partial f^{-1}(x; c) / \partial x| \]

    Called with a context (or without, where it has none) it gives NumPyro's own
    `TransformedDistribution`, of the batch shape of the context. In a program, register its
    parameters as those of any equinox module: `eqx_module("flow", flow)(context)`.

    Args:
        layer: the layers, from the base to the data.
        support: constraint of the values, onto which `biject_to` maps the features; the real
            numbers when None.

    Attributes:
        fast: the direction that takes one pass: "push" (draws), "pull" (densities) or "both".

    Raises:
        ValueError: at a call, a context that is missing, not asked for, or of another size.

    References:
        Papamakarios, Nalisnick, Rezende, Mohamed, Lakshminarayanan: Normalizing flows for
        probabilistic modeling and inference. JMLR 22, 2021. https://arxiv.org/abs/1912.02762

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> flow = dg.flows.NSF(2, context=3)
        >>> flow(jnp.zeros((5, 3))).sample(jax.random.key(0)).shape
        (5, 2)
    """

    layer: Layer
    support: Any = None

    @property
    def fast(self) -> str:
        """The direction that takes one pass: "push" (draws), "pull" (densities) or "both"."""
        return self.layer.about.fast

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the base."""
        return self.layer.event_shape

    @property
    def context(self) -> int:
        """Number of context features, 0 for none."""
        return self.layer.about.context

    def __call__(self, context: Context = None) -> FlowDistribution:
        """Return the distribution at a context."""
        transform = self.layer(context)
        batch = () if transform.context is None else transform.context.shape[:-1]
        leaves = [leaf for leaf in jax.tree.leaves(self.layer) if eqx.is_inexact_array(leaf)]
        dtype = leaves[0].dtype if leaves else jnp.zeros(()).dtype
        normal = dist.Normal(jnp.zeros((), dtype), jnp.ones((), dtype))
        base = normal.expand((*batch, *self.event_shape)).to_event(len(self.event_shape))
        ends = [] if self.support is None else [dist.biject_to(self.support)]
        return FlowDistribution(base, [transform, *ends])


def program(flow: Flow, name: str = "flow") -> Callable[..., None]:
    """Return the native program whose data are draws of a flow, a row of context beside each.

    Args:
        flow: the flow.
        name: name of its parameters; the plate is `data` and the site `x`.

    Returns:
        A model of the data, and of the context where the flow has one, for `svi` without a guide.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.random.default_rng(0).normal(3.0, 1.0, (100, 2))
        >>> flow = dg.flows.NICE(2, transforms=2, hidden=(8,))
        >>> fit = dg.svi(dg.flows.program(flow), None, x, num_steps=200, progress=False)
        >>> bool(fit.losses[-1] < fit.losses[0])
        True
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"program takes a flow of dg.flows, not {type(flow).__name__}.")

    def model(x: Array, context: Context = None) -> None:
        flow_checks.check_context(None if context is None else context.shape, flow.context)
        density: Any = eqx_module(name, flow)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", density(context), obs=x)

    return model


def fitted(flow: Any, fit: Any, name: str = "flow") -> Any:
    """Return a flow, or another module of a program, with the values that a fit has learned.

    What an energy knew of its log Z before, it knows no more.

    Args:
        flow: the module that the program registers.
        fit: a `Fit`, or its `params`.
        name: the name that it is registered by.

    Raises:
        ValueError: the fit has no module of this name.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> flow = dg.flows.NICE(2, transforms=2, hidden=(8,))
        >>> x = np.ones((10, 2))
        >>> fit = dg.svi(dg.flows.program(flow), None, x, num_steps=2, progress=False)
        >>> dg.flows.fitted(flow, fit)().log_prob(x).shape
        (10,)
    """
    params = fit if isinstance(fit, Mapping) else fit.params
    key = f"{name}$params"
    if key not in params:
        known = ", ".join(repr(k.removesuffix("$params")) for k in params if k.endswith("$params"))
        raise ValueError(f"the fit has no module '{name}', only {known or 'no module at all'}.")
    learned, flow = (
        module if getattr(module, "log_z", None) is None else module.without_log_z()
        for module in (params[key], flow)
    )
    _, static = eqx.partition(flow, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(jnp.asarray, learned), static)


def standardised(flow: Flow, x: Float[Array, "rows ..."]) -> Flow:
    """Return a flow behind a fixed layer that scales its draws as data are scaled.

    Args:
        flow: the flow, that then learns data of mean 0 and deviation 1.
        x: the data.

    Raises:
        ValueError: a column of the data is constant, the data hold NaN or do not fit the flow.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.random.default_rng(0).normal(3.0, 2.0, (100, 2))
        >>> draws = standardised(dg.flows.NSF(2), x)().sample(jax.random.key(0), (1000,))
        >>> bool(abs(draws.mean() - 3.0) < 0.3)
        True
    """
    flow_checks.check_event(np.shape(x), flow.event_shape)
    data_checks.check_nan("x", np.asarray(x))
    end = Standardise.of(np.asarray(x), len(flow.event_shape))
    return Flow(Chain((flow.layer, end)), flow.support)


def initialised(flow: Flow, x: Float[Array, "rows ..."], context: Context = None) -> Flow:
    """Return a flow whose `ActNorm` layers begin by making a batch of mean 0 and deviation 1.

    Args:
        flow: the flow.
        x: a batch of data.
        context: its context.

    Raises:
        ValueError: the batch holds NaN or does not fit the flow.

    References:
        Kingma, Dhariwal: Glow, generative flow with invertible 1x1 convolutions. NeurIPS 2018.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.random.default_rng(0).normal(3.0, 2.0, (100, 2))
        >>> flow = initialised(dg.flows.NICE(2), x)
        >>> bool(flow().log_prob(x).mean() > dg.flows.NICE(2)().log_prob(x).mean())
        True
    """
    x = jnp.asarray(x, float)
    flow_checks.check_event(x.shape, flow.event_shape)
    data_checks.check_nan("x", np.asarray(x))
    if flow.support is not None:
        x = jnp.asarray(dist.biject_to(flow.support).inv(x))
    return Flow(flow.layer.initialise(x, context)[0], flow.support)
