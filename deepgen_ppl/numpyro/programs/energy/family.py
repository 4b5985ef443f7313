"""Exponential families: a density from sufficient statistics, its log Z known or summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.contrib.module import eqx_module
from numpyro.distributions import biject_to

from deepgen_ppl import energies, normalising
from deepgen_ppl import exponential as families
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.numpyro.programs.energy.experts import Held, values_of
from deepgen_ppl.numpyro.programs.energy.ready import Energy


class ExponentialFamily(Energy):
    r"""A density given by its sufficient statistics.

    \[ p(x \mid \eta) = h(x) \exp(\eta \cdot T(x) - A(\eta)), \qquad
       \nabla A(\eta) = \mathbb E \, T(x) \]

    A is a known function, or is summed: over all values where they are few, over counts, or by
    quadrature of one dimension. Then the family has an honest density at once, and
    `dg.svi(family.likelihood, None, x)` is maximum likelihood, whose gradient is the mean of T over
    the data less its mean under the family: moments are matched. Elsewhere it is an energy as any
    other. Called with nothing, or with natural parameters (*batch, K), as a network of a context
    gives them, it is NumPyro's own `Distribution`.

    Args:
        statistics: T, a function of values (*batch, *event), to (*batch, K).
        base: a distribution on the support; its density is h, so that zeros are its own natural
            parameters.
        log_base: log h, a function of values, in place of the base's density.
        log_partition: A, a function of natural parameters (*batch, K), to (*batch).
        natural: the natural parameters to begin with, zeros where None.

    Raises:
        ValueError: statistics that are no vector, natural parameters of another length, or none
            beside `log_base`.

    Cost:
        The statistics of a value; a summed A those of at most 16,384 values.

    References:
        Wainwright, Jordan: Graphical models, exponential families, and variational inference.
        Foundations and Trends in Machine Learning 1, 2008. https://doi.org/10.1561/2200000001

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> def moments(x):
        ...     return jnp.stack([x, x**2], -1)
        >>> family = ExponentialFamily(moments, dist.Normal(0.0, 1.0), natural=[1.0, -0.5])
        >>> family.mean_parameters().round(4).tolist()  # precision 2, mean 1/2
        [0.5, 0.75]
    """

    natural: Array
    statistics: Any
    log_base: Any
    partition: Any
    held_base: Held
    nodes: Held
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self,
        statistics: Callable[..., Any],
        base: Any,
        *,
        log_base: Callable[..., Any] | None = None,
        log_partition: Callable[..., Any] | None = None,
        natural: Sequence[float] | None = None,
    ) -> None:
        self.statistics, self.log_base, self.partition = statistics, log_base, log_partition
        self.held_base, self.log_z = Held(base), None
        found = jax.eval_shape(lambda: statistics(base.sample(jax.random.key(0))))
        start = families.check_statistics(tuple(found.shape), natural, log_base is not None)
        self.natural = jnp.asarray(start, float)
        self.nodes = Held(None)
        if log_partition is None and (nodes := _nodes(base)) is not None:
            self.nodes = Held(families.kept(nodes, self._log_base, statistics))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return tuple(self.base().event_shape)

    def base(self) -> Any:
        """Return the base distribution."""
        return self.held_base()

    @property
    def is_normalised(self) -> bool:
        """Whether A is known, or can be summed."""
        return self.partition is not None or self.nodes() is not None

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density but for A.

        Args:
            x: values.
        """
        x = jnp.asarray(x)
        return self._log_base(x) + (self.statistics(x) * self.natural).sum(-1)

    def log_partition(
        self, natural: Float[Array, "*batch K"] | None = None
    ) -> Float[Array, "*batch"]:
        """Return A, not a number where a sum that is cut has not come to its end.

        Args:
            natural: natural parameters, those of the family where None.

        Raises:
            ValueError: A is neither known nor summed.
        """
        natural = self.natural if natural is None else jnp.asarray(natural)
        if self.partition is not None:
            return self.partition(natural)
        nodes = self.nodes()
        if nodes is None:
            raise ValueError(families.unknown_partition())
        x = jnp.asarray(nodes.values)
        terms = self._log_base(x) + jnp.asarray(nodes.log_weights, natural.dtype)
        terms = terms + natural @ self.statistics(x).T.astype(natural.dtype)
        found = jax.nn.logsumexp(terms, -1)
        ended = [terms[..., end] < terms.max(-1) - families.EDGE for end in nodes.ends]
        return jnp.where(jnp.all(jnp.stack(ended), 0), found, jnp.nan) if ended else found

    def mean_parameters(
        self, natural: Float[Array, "*batch K"] | None = None
    ) -> Float[Array, "*batch K"]:
        r"""Return the means of the statistics, \(\nabla A(\eta)\).

        Args:
            natural: natural parameters, those of the family where None.
        """
        natural = self.natural if natural is None else jnp.asarray(natural)
        return jax.grad(lambda eta: self.log_partition(eta).sum())(natural)

    def log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density.

        Args:
            x: values.

        Raises:
            ValueError: A is neither known nor summed, and no log Z was given.
        """
        if not self.is_normalised:
            found = normalising.need_log_z(type(self).__name__, self.log_z)
            return self.unnormalised_log_prob(x) - found.log_evidence
        return self.unnormalised_log_prob(x) - self.log_partition()

    def exact_log_z(self) -> Evidence | None:
        """Return A at the natural parameters where it is known or summed, else None.

        Raises:
            ValueError: it is not finite.
        """
        if not self.is_normalised:
            return None
        found = families.check_partition(float(self.log_partition()), self.natural)
        method = "closed form" if self.partition is not None else "summation"
        return normalising.exact_evidence(found, method)

    def __call__(self, natural: Float[Array, "*batch K"] | None = None) -> FamilyMember:
        """Return the native distribution at natural parameters, those of the family where None."""
        natural = self.natural if natural is None else jnp.asarray(natural)
        families.check_natural(tuple(natural.shape), self.natural.shape[0])
        return FamilyMember(natural, self)

    @property
    def likelihood(self) -> Callable[..., None]:
        """The native program of rows with their normalised density: site "x" in plate "data"."""

        def likelihood(x: Array) -> None:
            family: Any = eqx_module("family", self)
            with numpyro.plate("data", len(x)):
                numpyro.sample("x", family(), obs=x)

        return likelihood

    def _log_base(self, x: Any) -> Array:
        return self.base().log_prob(x) if self.log_base is None else self.log_base(x)


class FamilyMember(dist.Distribution):
    """A member of an exponential family as NumPyro's own distribution.

    Args:
        natural: natural parameters, shape (*batch, K).
        family: the family.
    """

    arg_constraints: Any = {}  # noqa: RUF012
    pytree_data_fields = ("natural", "family")

    def __init__(self, natural: Array, family: Any, *, validate_args: bool | None = None) -> None:
        self.natural, self.family = natural, family
        batch = tuple(natural.shape[:-1])
        super().__init__(batch, tuple(family.event_shape), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Constraint of the values."""
        return self.family.base().support

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Refuse: a family is not drawn from forwards."""
        raise NotImplementedError(energies.refuse_draw("ExponentialFamily"))

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Return the log density of values."""
        family = self.family
        if not family.is_normalised and not self.batch_shape:
            return family.log_prob(value)
        value = jnp.asarray(value)
        inner = (family.statistics(value) * self.natural).sum(-1)
        return family._log_base(value) + inner - family.log_partition(self.natural)


def _nodes(base: Any) -> families.Nodes | None:
    """Return where the density is summed: all values, counts, or nodes of one dimension."""
    event = tuple(base.event_shape)
    values = values_of(base.support)
    if values is not None:
        return families.listed(values, event)
    if int(np.prod(event, dtype=int)) != 1:
        return None
    if base.support.is_discrete:
        return families.counts(event)
    z, log_weights = families.line()
    transform = biject_to(base.support)
    at = jnp.asarray(z, float).reshape(-1, *event)
    x = transform(at)
    slope = np.asarray(transform.log_abs_det_jacobian(at, x), float).reshape(len(z))
    return families.Nodes(np.asarray(x), log_weights + slope, (0, -1))
