"""The sentences of bad input to flows, shared by both wings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ORDERS = ("reverse", "random")
ACTIVATIONS = ("relu", "tanh", "silu", "elu", "softplus", "sigmoid")
_SHOWN = 8


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`.

    Raises:
        ValueError: it is none.

    Example:
        >>> whole("transforms", 0)
        Traceback (most recent call last):
        ...
        ValueError: transforms must be a whole number of at least 1, got 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number above zero.

    Raises:
        ValueError: it is none.

    Example:
        >>> positive("bound", 5)
        5.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{name} must be a positive number, got {value!r}.")
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, got {value!r}.")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return a number between zero and one, neither of them.

    Raises:
        ValueError: it is none.

    Example:
        >>> fraction("least", 0.01)
        0.01
    """
    if positive(name, value) >= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}.")
    return float(value)


def sizes(
    features: Any, context: Any, hidden: Any, least: int = 1, kind: str = "This flow"
) -> None:
    """Check the sizes of a layer.

    Args:
        features: number of features.
        context: number of context features, 0 for none.
        hidden: units of each hidden layer.
        least: fewest features that the layer takes.
        kind: name of the layer, for the message.

    Raises:
        ValueError: a size is no whole number, or there are too few features.

    Example:
        >>> sizes(1, 0, (64,), 2, "A coupling")
        Traceback (most recent call last):
        ...
        ValueError: A coupling moves some features given the others, so it needs features >= 2, ...
    """
    whole("features", features)
    whole("context", context, 0)
    if features < least:
        raise ValueError(
            f"{kind} moves some features given the others, so it needs features >= {least}, got "
            f"{features}. Use an autoregressive flow such as MAF, or an elementwise spline."
        )
    if isinstance(hidden, int | str) or not isinstance(hidden, Sequence):
        raise ValueError(f"hidden must be the units of each layer, as (64, 64), got {hidden!r}.")
    for units in hidden:
        whole("each size in hidden", units)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return one of a few words.

    Raises:
        ValueError: it is another one.

    Example:
        >>> choice("activation", "relu", ACTIVATIONS)
        'relu'
    """
    if value not in allowed:
        words = ", ".join(map(repr, allowed[:-1]))
        raise ValueError(f"{name} must be {words} or {allowed[-1]!r}, got {value!r}.")
    return value


def check_context(shape: Sequence[int] | None, expected: int) -> None:
    """Refuse a context of the wrong size.

    Args:
        shape: its shape, None for no context.
        expected: the context features the flow was made with.

    Raises:
        ValueError: it is missing, not asked for, or its last axis has another size.

    Example:
        >>> check_context((5, 3), 2)
        Traceback (most recent call last):
        ...
        ValueError: the context has shape (5, 3), but the flow was made with context=2: ...
    """
    if shape is None:
        if expected:
            raise ValueError(
                f"the flow was made with context={expected}: call it with a context of shape "
                f"(..., {expected})."
            )
        return
    if not expected:
        raise ValueError(
            f"the flow was made without context, but is called with one of shape {tuple(shape)}. "
            f"Make it with context={shape[-1] if len(shape) else 1}."
        )
    if not len(shape) or shape[-1] != expected:
        raise ValueError(
            f"the context has shape {tuple(shape)}, but the flow was made with context={expected}: "
            f"its last axis must have {expected} entries."
        )


def check_event(shape: Sequence[int], event: Sequence[int]) -> None:
    """Refuse values whose last axes are not the features of the flow.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_event((10, 3), (2,))
        Traceback (most recent call last):
        ...
        ValueError: values of shape (10, 3) do not end in the event shape (2,) of the flow.
    """
    shape, event = tuple(shape), tuple(event)
    if len(shape) < len(event) or shape[len(shape) - len(event) :] != event:
        raise ValueError(
            f"values of shape {shape} do not end in the event shape {event} of the flow."
        )


def refuse_outside(inside: np.ndarray, domain: str) -> None:
    """Refuse data outside the domain of a flow, by row.

    Args:
        inside: which rows are inside, shape (rows,) or () for one.
        domain: the domain in words.

    Raises:
        ValueError: some row is outside.

    Example:
        >>> refuse_outside(np.array([True, False, True]), "the unit cube")
        Traceback (most recent call last):
        ...
        ValueError: 1 of 3 rows is outside the unit cube, where the flow has no density: row 1. ...
    """
    flat = np.atleast_1d(np.asarray(inside)).reshape(-1)
    rows = np.flatnonzero(~flat)
    if not len(rows):
        return
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    one = len(rows) == 1
    raise ValueError(
        f"{len(rows)} of {len(flat)} rows {'is' if one else 'are'} outside {domain}, where the "
        f"flow has no density: row{'' if one else 's'} {shown}. Rescale or drop "
        f"{'it' if one else 'them'}."
    )


def refuse_unsolved(solved: np.ndarray) -> None:
    """Refuse the result of a numerical inverse that did not converge, by row.

    Args:
        solved: which rows have converged, shape (rows,) or () for one.

    Raises:
        ValueError: some row has not.

    Example:
        >>> refuse_unsolved(np.array([True, True]))
    """
    flat = np.atleast_1d(np.asarray(solved)).reshape(-1)
    rows = np.flatnonzero(~flat)
    if len(rows):
        shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
        raise ValueError(
            f"the numerical inverse did not converge in {len(rows)} of {len(flat)} rows: {shown}. "
            "Look for values that are not finite or far outside of the training data, raise "
            "max_steps or tolerance, or compute in float64."
        )


def permutation(order: Any, seed: int | np.random.Generator = 0) -> np.ndarray:
    """Return an order of the features as integers, a random one for a number of features.

    Raises:
        ValueError: it is no permutation.

    Example:
        >>> permutation((0, 2))
        Traceback (most recent call last):
        ...
        ValueError: an order of 2 features must hold each of 0 to 1 once, got [0, 2].
    """
    if isinstance(order, int | np.integer):
        return np.random.default_rng(seed).permutation(whole("features", order))
    return order_of(order, np.size(order))


def order_of(order: Any, features: int) -> np.ndarray:
    """Return an order of a number of features as integers.

    Raises:
        ValueError: it is no permutation, or one of another number of features.

    Example:
        >>> order_of((1, 0), 3)
        Traceback (most recent call last):
        ...
        ValueError: an order of 3 features must hold each of 0 to 2 once, got [1, 0].
    """
    found = np.asarray(order)
    if found.ndim != 1 or sorted(found.tolist()) != list(range(features)):
        raise ValueError(
            f"an order of {features} features must hold each of 0 to {features - 1} once, got "
            f"{found.tolist()}."
        )
    return found.astype(np.int64)


def mean_and_scale(mean: Any, scale: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of each feature as arrays.

    Raises:
        ValueError: their shapes differ, a value is not finite, or a scale is not positive.

    Example:
        >>> mean_and_scale([0.0, 0.0], [1.0, 0.0])
        Traceback (most recent call last):
        ...
        ValueError: features 1 do not vary: their scale is zero or not finite. ...
    """
    mean, scale = np.asarray(mean, float), np.asarray(scale, float)
    if mean.shape != scale.shape or not mean.ndim:
        raise ValueError(
            f"mean and scale must have one entry for each feature, got the shapes {mean.shape} "
            f"and {scale.shape}."
        )
    wrong = ~(np.isfinite(mean) & np.isfinite(scale) & (scale > 0)).reshape(-1)
    if wrong.any():
        shown = ", ".join(map(str, np.flatnonzero(wrong)[:_SHOWN]))
        raise ValueError(
            f"features {shown} do not vary: their scale is zero or not finite. Drop them, or add "
            "noise."
        )
    return mean, scale
