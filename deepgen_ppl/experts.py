"""What both wings say and compute about experts that are combined: bad input, states, powers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

MOST_STATES = 1 << 18
_AT_ONCE = 1 << 14


def check_experts(
    experts: Sequence[Any], name: str, is_expert: Callable[[Any], bool]
) -> tuple[Any, ...]:
    """Return the experts of a combination.

    Args:
        experts: what was given.
        name: what is made of them.
        is_expert: tells whether something is an expert.

    Raises:
        TypeError: no list, or something that has no density. ValueError: an empty list.

    Example:
        >>> check_experts([], "ProductOfExperts", callable)
        Traceback (most recent call last):
        ...
        ValueError: a ProductOfExperts needs at least one expert.
    """
    if not isinstance(experts, list | tuple):
        raise TypeError(f"{name} takes a list of experts, not {type(experts).__name__}.")
    if not experts:
        raise ValueError(f"a {name} needs at least one expert.")
    for number, expert in enumerate(experts):
        if not is_expert(expert):
            raise TypeError(
                f"expert {number} of the {name} is {type(expert).__name__}: pass a ready energy, a "
                "distribution, or a module that gives a distribution where it is called."
            )
    return tuple(experts)


def check_shapes(
    events: Sequence[tuple[int, ...]], batches: Sequence[tuple[int, ...]], name: str
) -> tuple[int, ...]:
    """Return the event shape that all experts have.

    Args:
        events: event shape of each.
        batches: batch shape of each.
        name: what is made of them.

    Raises:
        ValueError: naming the first expert that differs, or that has a batch.

    Example:
        >>> check_shapes([(2,), (3,)], [(), ()], "ProductOfExperts")
        Traceback (most recent call last):
        ...
        ValueError: expert 1 of the ProductOfExperts has event shape (3,), expert 0 has (2,): ...
    """
    for number, (event, batch) in enumerate(zip(events, batches, strict=True)):
        if tuple(batch):
            raise ValueError(
                f"expert {number} of the {name} has batch shape {tuple(batch)} and event shape "
                f"{tuple(event)}: one value must be one event. Write "
                f"expert.to_event({len(batch)})."
            )
        if tuple(event) != tuple(events[0]):
            raise ValueError(
                f"expert {number} of the {name} has event shape {tuple(event)}, expert 0 has "
                f"{tuple(events[0])}: all are densities of the same values."
            )
    return tuple(events[0])


def check_kinds(discrete: Sequence[bool], name: str) -> None:
    """Refuse discrete experts beside continuous ones.

    Args:
        discrete: whether the values of each expert are discrete.
        name: what is made of them.

    Raises:
        ValueError: naming one of each.

    Example:
        >>> check_kinds([True, False], "ProductOfExperts")
        Traceback (most recent call last):
        ...
        ValueError: expert 0 of the ProductOfExperts is discrete and expert 1 is continuous: ...
    """
    if len(set(discrete)) > 1:
        first, second = discrete.index(True), discrete.index(False)
        raise ValueError(
            f"expert {first} of the {name} is discrete and expert {second} is continuous: their "
            "values cannot be the same. Dequantise the discrete data, or put both into a program."
        )


def check_powers(powers: Any, number: int) -> tuple[float, ...]:
    """Return the power of each expert, one where none is given.

    Args:
        powers: what was given.
        number: how many experts there are.

    Raises:
        ValueError: another number of them, or one that is not finite.

    Example:
        >>> check_powers(None, 2)
        (1.0, 1.0)
    """
    found = np.ones(number) if powers is None else np.asarray(powers, float)
    if found.shape != (number,) or not np.isfinite(found).all():
        raise ValueError(
            f"powers must be {number} finite numbers, one for each expert, got {powers!r}."
        )
    return tuple(found.tolist())


def check_mixture_weights(weights: Any, number: int) -> Float[np.ndarray, " expert"]:
    """Return the logarithms of the weights that a mixture begins with, even where none is given.

    Args:
        weights: what was given.
        number: how many experts there are.

    Raises:
        ValueError: another number of them, or one that is not positive.

    Example:
        >>> check_mixture_weights([3.0, 1.0], 2).round(3).tolist()
        [-0.288, -1.386]
    """
    found = np.ones(number) if weights is None else np.asarray(weights, float)
    if found.shape != (number,) or not np.isfinite(found).all() or not (found > 0).all():
        raise ValueError(
            f"weights must be {number} positive numbers, one for each expert, got {weights!r}."
        )
    return np.log(found / found.sum())


def check_component(number: int, name: str, log_z: Any) -> None:
    """Refuse an energy without log Z as part of a mixture.

    Args:
        number: which expert.
        name: what kind of energy.
        log_z: its log Z.

    Raises:
        ValueError: it has none.

    Example:
        >>> check_component(1, "RBM", None)
        Traceback (most recent call last):
        ...
        ValueError: expert 1 of the MixtureOfExperts is an RBM without log Z, and a mixture adds ...
    """
    if log_z is None:
        raise ValueError(
            f"expert {number} of the MixtureOfExperts is an {name} without log Z, and a mixture "
            "adds densities: energy.with_log_z(dg.log_z(energy)). A product needs none."
        )


def check_gate(logits: tuple[int, ...], batch: tuple[int, ...], number: int) -> None:
    """Refuse a gate whose outputs are not one for each expert.

    Args:
        logits: shape of its output.
        batch: batch shape of the context.
        number: how many experts there are.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_gate((5, 2), (5,), 2)
    """
    if tuple(logits) != (*batch, number):
        raise ValueError(
            f"the gate gives shape {tuple(logits)} for contexts of shape {batch}: it must be "
            f"{(*batch, number)}, a logit for each of {number} experts."
        )


def check_context(has_gate: bool, conditional: bool, is_given: bool) -> None:
    """Refuse a context that nothing takes, and a missing one.

    Args:
        has_gate: whether the mixture has a gate.
        conditional: whether its experts take the context.
        is_given: whether a context was given.

    Raises:
        ValueError: naming the cure.

    Example:
        >>> check_context(True, False, True)
    """
    if is_given and not (has_gate or conditional):
        raise ValueError(
            "this MixtureOfExperts takes no context: pass gate=, a module of the context, or "
            "conditional=True for experts that take it."
        )
    if not is_given and (has_gate or conditional):
        raise ValueError("this MixtureOfExperts needs a context: call it with one.")


def is_listed(num_values: int, event_shape: Sequence[int]) -> bool:
    """Return whether all values are few enough to be listed.

    Args:
        num_values: values of an entry.
        event_shape: shape of the entries.

    Example:
        >>> is_listed(2, (18,)), is_listed(2, (19,))
        (True, False)
    """
    return num_values ** int(np.prod(event_shape, dtype=int)) <= MOST_STATES


def summed(
    log_density: Callable[[np.ndarray], np.ndarray],
    values: Float[np.ndarray, " value"],
    event_shape: Sequence[int],
) -> float:
    """Return the log of the sum of a density over all values, in double precision.

    Args:
        log_density: log density of a batch of values.
        values: values of an entry.
        event_shape: shape of the entries.

    Example:
        >>> found = summed(lambda x: np.log(x.sum(-1) + 1), np.arange(2.0), (2,))
        >>> round(float(np.exp(found)), 9)
        8.0
    """
    size = int(np.prod(event_shape, dtype=int))
    count, found = len(values) ** size, []
    for begin in range(0, count, _AT_ONCE):
        places = np.arange(begin, min(begin + _AT_ONCE, count))
        digits = [places // len(values) ** i % len(values) for i in range(size)]
        numbers = np.stack(digits, -1) if digits else np.zeros((len(places), 0), int)
        x = values[numbers].reshape(len(places), *event_shape)
        found.append(np.asarray(log_density(x), np.float64))
    log_p = np.concatenate(found)
    top = log_p.max()
    return float(top + np.log(np.exp(log_p - top).sum()))
