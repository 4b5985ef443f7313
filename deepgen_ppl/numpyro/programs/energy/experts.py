"""What stands for one expert among several: an energy, a distribution, a module that gives one."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from deepgen_ppl import experts as checks
from deepgen_ppl.numpyro.programs.energy.ready import Energy


class Held(eqx.Module):
    """A distribution, or an energy, that is no parameter: known by identity.

    Args:
        value: what is held.
    """

    box: _Box = eqx.field(static=True)

    def __init__(self, value: Any) -> None:
        self.box = _Box(value)

    def __call__(self) -> Any:
        """Return what is held."""
        return self.box.value


class _Box:
    def __init__(self, value: Any) -> None:
        self.value = value


def wrapped(experts: Any, name: str) -> tuple[Any, ...]:
    """Return experts as modules, distributions held as they are.

    Args:
        experts: what was given.
        name: what is made of them.

    Raises:
        TypeError: something that is no expert. ValueError: there is none.
    """
    given = checks.check_experts(
        experts, name, lambda e: isinstance(e, Energy) or hasattr(e, "log_prob") or callable(e)
    )
    return tuple(
        Held(e) if hasattr(e, "log_prob") and not isinstance(e, Energy) else e for e in given
    )


def distribution_of(expert: Any, context: Array | None = None) -> Any:
    """Return the native distribution of an expert.

    Args:
        expert: an energy, or a module.
        context: what a module is called with.
    """
    if context is None or isinstance(expert, Energy | Held):
        return expert()
    return expert(context)


def base_of(expert: Any) -> Any:
    """Return a normalised distribution of an expert's values: its own, or an energy's base."""
    return expert.base() if isinstance(expert, Energy) else expert()


def log_density(expert: Any, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
    """Return the log density of an expert, but for log Z where it is an energy.

    Args:
        expert: an energy, or a module.
        x: values.
    """
    if isinstance(expert, Energy):
        return expert.unnormalised_log_prob(x)
    return expert().log_prob(x)


def values_of(support: Any) -> np.ndarray | None:
    """Return the values of one entry where there are finitely many, else None.

    Args:
        support: the support of a distribution.

    Example:
        >>> values_of(constraints.independent(constraints.boolean, 1)).tolist()
        [0, 1]
    """
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is constraints.boolean:
        return np.arange(2)
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        lower, upper = np.asarray(support.lower_bound), np.asarray(support.upper_bound)
        if lower.size == upper.size == 1:
            return np.arange(int(lower), int(upper) + 1)
    return None


def uniform_on(values: np.ndarray, event_shape: tuple[int, ...]) -> Any:
    """Return the even distribution of independent entries.

    Args:
        values: the values of an entry, whole numbers from zero on.
        event_shape: shape of the entries.
    """
    even: Any = dist.Bernoulli(probs=0.5)
    if len(values) != 2 or values[0] != 0:
        even = dist.DiscreteUniform(int(values[0]), int(values[-1]))
    return even.expand(event_shape).to_event(len(event_shape))


def start_of(experts: tuple[Any, ...]) -> Any:
    """Return the distribution that values of a product have before its experts count.

    It is the first normalised expert, or the base of the first energy where there is none; of
    entries with finitely many values the first whose entries are independent, or the even one.

    Args:
        experts: energies and modules.
    """
    found = [base_of(e) for e in experts]
    normalised = [d for d, e in zip(found, experts, strict=True) if not isinstance(e, Energy)]
    first = (normalised or found)[0]
    if not getattr(first.support, "is_discrete", False):
        return first
    listed = [d for d in (*normalised, *found) if d.has_enumerate_support]
    values = values_of(first.support)
    if listed or values is None:
        return (listed or [first])[0]
    return uniform_on(values, tuple(first.event_shape))


def as_value(x: Any) -> Array:
    """Return values as an array of the dtype that densities take."""
    return jnp.asarray(x)
