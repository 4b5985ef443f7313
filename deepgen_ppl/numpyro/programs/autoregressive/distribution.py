"""The native distribution of an autoregressive module at a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jax.core import Tracer
from jaxtyping import Bool, Float
from numpyro.distributions import constraints

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.numpyro.programs.autoregressive.completion import Completion, particles

if TYPE_CHECKING:
    from deepgen_ppl.numpyro.programs.autoregressive.module import Autoregressive, Context


class AutoregressiveDistribution(dist.Distribution):
    r"""A distribution given by its conditionals, \(p(x \mid c) = \prod_d p(x_d \mid x_{<d}, c)\).

    The density takes one pass of the network. A draw takes D steps, of which each computes what the
    new feature changes only.

    Args:
        net: the module that gives the conditionals.
        context: its context, shape (*batch, context), or None.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> density = dg.autoregressive.NADE(5, context=2)(jnp.zeros((3, 2)))
        >>> x = density.sample(jax.random.key(0), (4,))
        >>> x.shape, density.log_prob(x).shape
        ((4, 3, 5), (4, 3))
    """

    arg_constraints: Any = {}  # noqa: RUF012
    pytree_data_fields = ("net", "context")

    def __init__(
        self,
        net: Autoregressive,
        context: Context = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.net, self.context = net, context
        batch = () if context is None else context.shape[:-1]
        super().__init__(batch, net.about.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Events of values that the output allows."""
        return constraints.independent(self.net.output.support, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:
        """Whether draws carry gradients: those of real numbers do."""
        return self.net.output.values.kind == "real"

    def conditionals(self, value: Array) -> dist.Distribution:
        """Return the native distribution of each feature given those before it.

        Args:
            value: values, shape (..., *event).

        Returns:
            A distribution of the batch shape (..., *event).
        """
        _, params, batch = self._parameters(value)
        back = self.net.about.back
        params = params if back is None else params[:, back]
        params = params.reshape(*batch, *self.event_shape, params.shape[-1])
        return self.net.output.distribution(params)

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Return the log density, from one pass.

        Args:
            value: values, shape (..., *event).
            intermediates: not used.

        Raises:
            ValueError: values of another shape, or, outside of compiled code, values that the
                output does not allow, by row; compiled code gives them minus infinity.
        """
        x, params, batch = self._parameters(value)
        return self.net.output.log_prob(params, x).sum(-1).reshape(batch)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws, step by step.

        Args:
            key: random key.
            sample_shape: shape of independent draws.
        """
        shape = (*sample_shape, *self.batch_shape, *self.event_shape, self.net.output.uniforms)
        return self.from_uniforms(jax.random.uniform(key, shape, self._dtype))

    def rsample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws that carry gradients, step by step.

        Args:
            key: random key.
            sample_shape: shape of independent draws.

        Raises:
            NotImplementedError: the features are no real numbers.
        """
        if not self.has_rsample:
            raise NotImplementedError(checks.NO_RSAMPLE)
        return self.sample(key, sample_shape)

    def from_uniforms(self, u: Float[Array, "*batch uniforms"]) -> Array:
        """Return the draws that independent uniform numbers stand for.

        Args:
            u: shape (..., *event, n), n of them for each feature.

        Raises:
            ValueError: a wrong shape.
        """
        u, output = jnp.asarray(u), self.net.output
        checks.check_uniforms(u.shape, self.event_shape, output.uniforms)
        batch = jnp.broadcast_shapes(u.shape[: -len(self.event_shape) - 1], self.batch_shape)
        u = jnp.broadcast_to(u, (*batch, *self.event_shape, output.uniforms))
        u = self._ordered(u.reshape(-1, self.net.about.features, output.uniforms))
        context = self._rows(batch)

        def step(carry: Any, inputs: Any) -> tuple[Any, Array]:
            kept, before = carry
            params, kept = self.net.step(kept, inputs[0], before)
            x = output.draw(params, inputs[1])
            return (kept, output.encode(x, u.dtype)), x

        before = jnp.zeros((len(u), output.inputs), u.dtype)
        sequence = (jnp.arange(u.shape[1]), u.swapaxes(0, 1))
        _, x = lax.scan(step, (self.net.start(len(u), context), before), sequence)
        return self._events(x.T, batch)

    def complete(
        self,
        value: Array,
        observed: Bool[Array, "*#batch"],
        *,
        num_particles: int = 64,
        seed: int | Array = 0,
    ) -> Completion:
        r"""Fill in what is missing of values, given what is observed.

        Where all that is observed comes before all that is missing, in the order of the module,
        one run of the conditionals draws from the posterior exactly. Elsewhere it is a particle
        filter: each particle draws what is missing given what is before it, is weighted by the
        density of what is observed, particles are resampled where their effective number falls
        below half, and one of them is drawn at the end. That is exact as their number grows; the
        mean of \(\hat p(x_{\text{observed}})\) is exact at any.

        Args:
            value: values, shape (..., *event); entries that are missing may hold anything.
            observed: which entries are observed, True or False, broadcast against the values.
            num_particles: particles of each event, where they are needed.
            seed: an int or a random key.

        Returns:
            The completed values, the log evidence of what is observed, the effective number of
            particles at the end.

        Raises:
            ValueError: values of another shape, observed entries that the output does not allow,
                or a number of particles that is none.

        Cost:
            D steps of the network on `num_particles` times the rows.

        References:
            Gordon, Salmond, Smith: Novel approach to nonlinear/non-Gaussian Bayesian state
            estimation. IEE Proceedings F 140, 1993.

        Example:
            >>> import deepgen_ppl.numpyro as dg
            >>> density, x = dg.autoregressive.MADE(4)(), jnp.array([1, 0, 1, 1])
            >>> found = density.complete(x, jnp.array([True, True, False, True]))
            >>> found.value.shape, int(found.value[3])
            ((4,), 1)
        """
        check_counts(num_particles=num_particles)
        value, about = jnp.asarray(value), self.net.about
        checks.check_event(value.shape, self.event_shape)
        mask = jnp.asarray(observed, bool)
        checks.check_observed(mask.shape, value.shape, self.event_shape)
        mask = jnp.broadcast_to(mask, value.shape)
        concrete = not isinstance(mask, Tracer)
        if concrete and not isinstance(value, Tracer):
            here = np.asarray(value), self.net.output.values, about.features
            checks.check_values(*here, np.asarray(mask))
        exact = concrete and checks.is_prefix(np.asarray(mask), about.features, about.order)
        batch = jnp.broadcast_shapes(value.shape[: value.ndim - len(self.event_shape)],
                                     self.batch_shape)  # fmt: skip
        x, mask = (self._flat(jnp.where(mask, value, 0), batch), self._flat(mask, batch))
        key = jax.random.key(seed) if isinstance(seed, int) else seed
        count = 1 if exact else num_particles
        found = particles(self.net, self._rows(batch), x, mask, key, count, self._dtype)
        filled, *rest = found
        return Completion(self._events(filled, batch), *(r.reshape(batch) for r in rest))

    @property
    def _dtype(self) -> Any:
        return next(iter(self.net.weights.values())).dtype

    def _parameters(self, value: Array) -> tuple[Array, Array, tuple[int, ...]]:
        """Return rows of values in order, the parameters of their conditionals, the batch shape."""
        value = jnp.asarray(value)
        value = value.astype(jnp.int32) if value.dtype == bool else value
        checks.check_event(value.shape, self.event_shape)
        if not isinstance(value, Tracer):
            known = self.net.output.values
            checks.check_values(np.asarray(value), known, self.net.about.features)
        shape = value.shape[: value.ndim - len(self.event_shape)]
        batch = jnp.broadcast_shapes(shape, self.batch_shape)
        x = self._flat(value, batch)
        inputs = self.net.output.encode(x, self._dtype)
        return x, self.net.parallel(inputs, self._rows(batch)), batch

    def _rows(self, batch: tuple[int, ...]) -> Array | None:
        if self.context is None:
            return None
        size = self.context.shape[-1]
        return jnp.broadcast_to(self.context, (*batch, size)).reshape(-1, size)

    def _flat(self, value: Array, batch: tuple[int, ...]) -> Array:
        wide = jnp.broadcast_to(value, (*batch, *self.event_shape))
        return self._ordered(wide.reshape(-1, self.net.about.features))

    def _ordered(self, rows: Array) -> Array:
        order = self.net.about.order
        return rows if order is None else rows[:, np.asarray(order)]

    def _events(self, rows: Array, batch: tuple[int, ...]) -> Array:
        back = self.net.about.back
        rows = rows if back is None else rows[:, back]
        return rows.reshape(*batch, *self.event_shape)
