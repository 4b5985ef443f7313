"""The mixture of experts: normalised densities added, with weights that may follow a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.contrib.module import eqx_module

from deepgen_ppl import experts as checks
from deepgen_ppl.numpyro.programs.energy import experts as experts_
from deepgen_ppl.numpyro.programs.energy.ready import Energy


class MixtureOfExperts(eqx.Module):
    r"""A weighted sum of densities of the same values.

    \[ p(x \mid c) = \sum_k \pi_k(c) \, p_k(x \mid c) \]

    Its parts are normalised, so it has an honest density at once, and draws. An expert may be a
    native distribution, held as it is, a module that gives a distribution where it is called, or a
    ready energy that knows its log Z, held with it. Called with nothing, or with a context, it
    gives NumPyro's own `Distribution`. Train it by `dg.svi(mixture.model, None, x)`.

    Args:
        experts: the experts, whose event shapes are equal and whose values are of one kind.
        weights: positive numbers that the learned weights begin with, even where None.
        gate: a module of a context (*batch, C) that gives logits (*batch, K), in place of weights.
        conditional: whether experts that are modules are called with the context too.

    Raises:
        TypeError: something that is no expert. ValueError: no expert, shapes or kinds that differ,
            an energy without log Z, weights that are not positive.

    Cost:
        The sum of the experts'; a draw takes one from each.

    References:
        Jacobs, Jordan, Nowlan, Hinton: Adaptive mixtures of local experts. Neural Computation 3(1),
        1991. https://doi.org/10.1162/neco.1991.3.1.79

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> narrow, wide = dist.Normal(0.0, 1.0), dist.Normal(0.0, 3.0)
        >>> mixture = MixtureOfExperts([narrow, wide], weights=[3.0, 1.0])
        >>> p = jnp.exp(mixture().log_prob(jnp.zeros(5)))
        >>> round(p[0].item(), 4)
        0.3325
    """

    experts: tuple[Any, ...]
    logits: Array | None
    gate: Any
    conditional: bool = eqx.field(static=True)

    def __init__(
        self,
        experts: Sequence[Any],
        *,
        weights: Sequence[float] | None = None,
        gate: Callable[..., Any] | None = None,
        conditional: bool = False,
    ) -> None:
        name = type(self).__name__
        found = experts_.wrapped(experts, name)
        for number, expert in enumerate(found):
            if isinstance(expert, Energy):
                checks.check_component(number, type(expert).__name__, expert.log_z)
        self.experts = tuple(experts_.Held(e) if isinstance(e, Energy) else e for e in found)
        start = checks.check_mixture_weights(weights, len(found))
        self.logits = jnp.asarray(start, float) if gate is None else None
        self.gate, self.conditional = gate, bool(conditional)
        if not conditional:
            shown = [self._part(e, None) for e in self.experts]
            checks.check_shapes(
                [tuple(d.event_shape) for d in shown], [tuple(d.batch_shape) for d in shown], name
            )
            checks.check_kinds([bool(d.support.is_discrete) for d in shown], name)

    def __call__(self, context: Float[Array, "*batch context"] | None = None) -> ExpertMixture:
        """Return the native distribution.

        Args:
            context: what gate and conditional experts take.

        Raises:
            ValueError: a context that is missing, or that nothing takes, or a gate whose outputs
                are not one for each expert.
        """
        checks.check_context(self.gate is not None, self.conditional, context is not None)
        parts = [self._part(e, context if self.conditional else None) for e in self.experts]
        logits: Any = self.logits
        if self.gate is not None:
            context = jnp.asarray(context)
            logits = self.gate(context)
            checks.check_gate(logits.shape, context.shape[:-1], len(parts))
        return ExpertMixture(logits, parts)

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density, so that a mixture is measured as an energy is.

        Args:
            x: values.
        """
        return self().log_prob(x)

    @property
    def model(self) -> Callable[..., None]:
        """The native program of rows, and contexts where it takes them: site "x" in "data"."""
        return partial(_rows, self)

    def _part(self, expert: Any, context: Array | None) -> Any:
        found = experts_.distribution_of(expert, context)
        return found() if isinstance(found, Energy) else found


def _rows(mixture: Any, x: Array, context: Array | None = None) -> None:
    mixture = eqx_module("mixture", mixture)
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", mixture(context), obs=x)


class ExpertMixture(dist.Distribution):
    """A mixture of experts as NumPyro's own distribution.

    Args:
        logits: log weights but for a constant, shape (*batch, expert).
        parts: the distributions that are mixed.
    """

    arg_constraints: Any = {}  # noqa: RUF012
    pytree_data_fields = ("logits", "parts")

    def __init__(
        self, logits: Array, parts: Sequence[Any], *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.parts = logits, list(parts)
        shapes = [jnp.shape(logits)[:-1], *(tuple(d.batch_shape) for d in parts)]
        batch: Any = jnp.broadcast_shapes(*shapes)
        super().__init__(batch, tuple(parts[0].event_shape), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Support of the first expert."""
        return self.parts[0].support

    def joint(self, value: Array) -> Float[Array, "*batch expert"]:
        """Return the log density of a value and of the expert that made it.

        Args:
            value: values.
        """
        weights = jax.nn.log_softmax(self.logits, -1)
        found = jnp.stack(jnp.broadcast_arrays(*(d.log_prob(value) for d in self.parts)), -1)
        return weights + found

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Return the log density of values."""
        return jax.nn.logsumexp(self.joint(value), -1)

    def responsibilities(self, value: Array) -> Float[Array, "*batch expert"]:
        """Return the probability that each expert made a value.

        Args:
            value: values.
        """
        return jax.nn.softmax(self.joint(value), -1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws: an expert by its weight, then one of its own draws."""
        shape = (*sample_shape, *self.batch_shape)
        keys = random.split(key, len(self.parts) + 1)
        drawn = []
        for own, part in zip(keys[1:], self.parts, strict=True):
            lead = shape[: len(shape) - len(part.batch_shape)]
            drawn.append(part.sample(own, lead))
        chosen = random.categorical(keys[0], self.logits, shape=shape)
        index = chosen.reshape(1, *shape, *(1,) * len(self.event_shape))
        return jnp.take_along_axis(jnp.stack(drawn), index, 0)[0]
