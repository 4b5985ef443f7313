"""What autoregressive distributions are made of, and the sentences of bad input to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepgen_ppl import flow_checks

_SHOWN = 5
NO_RSAMPLE = "draws of discrete features carry no gradients: use sample."
RULES = {
    "binary": "must be 0 or 1",
    "integer": "must be whole numbers from 0 to {last}",
    "real": "must be finite numbers",
}


class About(NamedTuple):
    """What is fixed about an autoregressive module.

    Attributes:
        event_shape: shape of one event.
        order: which feature of the flattened event comes when; None for the order they stand in.
        context: number of context features, 0 for none.
    """

    event_shape: tuple[int, ...]
    order: tuple[int, ...] | None
    context: int

    @property
    def features(self) -> int:
        """Number of features D of an event."""
        return math.prod(self.event_shape)

    @property
    def back(self) -> np.ndarray | None:
        """Where each feature of the flattened event stands in the order."""
        return None if self.order is None else np.argsort(self.order)


class Values(NamedTuple):
    """Which values a feature may take.

    Attributes:
        kind: "binary", "integer" or "real".
        number: how many values there are, 0 for the real numbers.
    """

    kind: str
    number: int = 0

    @property
    def rule(self) -> str:
        """The rule in words."""
        return RULES[self.kind].format(last=self.number - 1)

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Tell which values are allowed.

        Args:
            x: values of any shape.
        """
        if self.kind == "real":
            return np.isfinite(x)
        last = 1 if self.kind == "binary" else self.number - 1
        return (x >= 0) & (x <= last) & (x == np.floor(x))


def about(features: Any, order: Any, context: Any) -> About:
    """Return what is fixed about a module.

    Args:
        features: number of features, or the shape of an event.
        order: a permutation of the flattened features, or None.
        context: number of context features.

    Raises:
        ValueError: a size is no whole number, or the order is no permutation of the features.

    Example:
        >>> about((2, 2), None, 0).features
        4
        >>> about(3, (0, 1), 0)
        Traceback (most recent call last):
        ...
        ValueError: order must hold each of the 3 features once, got 2 entries: give a ...
    """
    shape = (features,) if isinstance(features, int | np.integer) else tuple(features)
    if not shape:
        raise ValueError("features must be a number of features or the shape of an event, got ().")
    for size in shape:
        flow_checks.whole("each size in features", size)
    flow_checks.whole("context", context, 0)
    found = About(tuple(int(size) for size in shape), None, int(context))
    if order is None:
        return found
    ranks = np.asarray(order).reshape(-1)
    if sorted(ranks.tolist()) != list(range(found.features)):
        raise ValueError(
            f"order must hold each of the {found.features} features once, got {len(ranks)} "
            f"entries: give a permutation of 0 to {found.features - 1}."
        )
    return found._replace(order=tuple(int(rank) for rank in ranks))


def check_image(shape: Any) -> tuple[int, int]:
    """Return height and width of an image.

    Raises:
        ValueError: the shape is no pair of whole numbers.

    Example:
        >>> check_image(784)
        Traceback (most recent call last):
        ...
        ValueError: a PixelCNN takes images of shape (height, width), got 784.
    """
    if isinstance(shape, int | str | np.integer) or len(shape) != 2:
        raise ValueError(f"a PixelCNN takes images of shape (height, width), got {shape!r}.")
    return flow_checks.whole("height", shape[0]), flow_checks.whole("width", shape[1])


def check_heads(width: Any, heads: Any) -> None:
    """Refuse a width that attention cannot split into heads of even size.

    Example:
        >>> check_heads(10, 4)
        Traceback (most recent call last):
        ...
        ValueError: width must be a multiple of 2 * heads = 8, so that positions rotate pairs of ...
    """
    flow_checks.whole("width", width)
    flow_checks.whole("heads", heads)
    if width % (2 * heads):
        raise ValueError(
            f"width must be a multiple of 2 * heads = {2 * heads}, so that positions rotate pairs "
            f"of numbers, got {width}."
        )


def check_kernel(name: str, size: Any) -> int:
    """Return the odd size of a convolution.

    Example:
        >>> check_kernel("kernel", 4)
        Traceback (most recent call last):
        ...
        ValueError: kernel must be odd and at least 3, got 4.
    """
    if flow_checks.whole(name, size) < 3 or size % 2 == 0:
        raise ValueError(f"{name} must be odd and at least 3, got {size}.")
    return int(size)


def check_output(output: Any, known: type) -> None:
    """Refuse what is no output.

    Example:
        >>> check_output("bernoulli", int)
        Traceback (most recent call last):
        ...
        TypeError: output must be Bernoulli(), Categorical(number), GaussianMixture(components) ...
    """
    if not isinstance(output, known):
        raise TypeError(
            "output must be Bernoulli(), Categorical(number), GaussianMixture(components) or "
            f"LogisticMixture(levels) of dg.autoregressive, got {output!r}."
        )


def check_context(shape: Sequence[int] | None, expected: int) -> None:
    """Refuse a context of the wrong size.

    Args:
        shape: its shape, None for no context.
        expected: the context features that the module was made with.

    Raises:
        ValueError: it is missing, not asked for, or its last axis has another size.

    Example:
        >>> check_context(None, 2)
        Traceback (most recent call last):
        ...
        ValueError: the module was made with context=2: call it with a context of shape (..., 2).
    """
    if (shape is None and not expected) or (shape and expected and shape[-1] == expected):
        return
    if expected:
        found = "" if shape is None else f", not {tuple(shape)}"
        raise ValueError(
            f"the module was made with context={expected}: call it with a context of shape "
            f"(..., {expected}){found}."
        )
    raise ValueError(
        f"the module was made without context, but is called with one of shape {tuple(shape or ())}"
        f". Make it with context={shape[-1] if shape else 1}."
    )


def check_rows(shape: Sequence[int] | None, rows: int) -> None:
    """Refuse a context of another number of rows than the data.

    Args:
        shape: its shape, None for no context.
        rows: rows of the data.

    Raises:
        ValueError: naming both numbers.

    Example:
        >>> check_rows((4, 2), 5)
        Traceback (most recent call last):
        ...
        ValueError: context has 4 rows, but x has 5: pass a row of context beside each row of x.
    """
    if shape is not None and len(shape) > 1 and shape[0] not in (1, rows):
        raise ValueError(
            f"context has {shape[0]} rows, but x has {rows}: pass a row of context beside each row "
            "of x."
        )


def check_observed(shape: Sequence[int], values: Sequence[int], event: Sequence[int]) -> None:
    """Refuse a mask that does not fit the values it is of.

    Args:
        shape: its shape.
        values: shape of the values.
        event: shape of one of them.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_observed((5,), (5, 6), (6,))
        Traceback (most recent call last):
        ...
        ValueError: observed has shape (5,), values have (5, 6): pass True or False for each ...
    """
    own, wanted = tuple(shape), tuple(values)
    padded = (1,) * (len(wanted) - len(own)) + own
    if len(padded) > len(wanted) or any(
        n not in (1, m) for n, m in zip(padded, wanted, strict=True)
    ):
        raise ValueError(
            f"observed has shape {own}, values have {wanted}: pass True or False for each entry, "
            f"of shape {tuple(event)} for all values alike, or {wanted}."
        )


def check_event(shape: Sequence[int], event: Sequence[int]) -> None:
    """Refuse values whose last axes are not the event.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_event((10, 784), (28, 28))
        Traceback (most recent call last):
        ...
        ValueError: values of shape (10, 784) do not end in the event shape (28, 28): reshape ...
    """
    shape, event = tuple(shape), tuple(event)
    if shape[len(shape) - len(event) :] != event or len(shape) < len(event):
        raise ValueError(
            f"values of shape {shape} do not end in the event shape {event}: reshape them to "
            f"(..., {', '.join(map(str, event))})."
        )


def check_values(x: np.ndarray, values: Values, features: int, where: Any = None) -> None:
    """Refuse values that no feature takes, by row.

    Args:
        x: values whose flattened rows hold `features` entries.
        values: which values are allowed.
        features: entries of a row.
        where: the entries that count, of the shape of `x`; all when None.

    Raises:
        ValueError: naming the rows and what stands there.

    Example:
        >>> check_values(np.array([[0.0, 1.0], [2.0, 1.0]]), Values("binary"), 2)
        Traceback (most recent call last):
        ...
        ValueError: values must be 0 or 1, but 1 of 2 rows holds others: row 1 (2.0).
        >>> check_values(np.array([[0, 4]]), Values("integer", 4), 2)
        Traceback (most recent call last):
        ...
        ValueError: values must be whole numbers from 0 to 3, but 1 of 1 row holds others: row 0 ...
    """
    rows = np.asarray(x).reshape(-1, features)
    wrong = ~values.inside(rows)
    if where is not None:
        wrong &= np.asarray(where).reshape(-1, features)
    bad = np.flatnonzero(wrong.any(-1))
    if not len(bad):
        return
    shown = [f"{row} ({rows[row][wrong[row]][0]})" for row in bad[:_SHOWN]]
    more = ", ..." if len(bad) > _SHOWN else ""
    raise ValueError(
        f"values {values.rule}, but {len(bad)} of {len(rows)} row{'s' * (len(rows) > 1)} "
        f"{'holds' if len(bad) == 1 else 'hold'} others: row{'s' * (len(bad) > 1)} "
        f"{', '.join(shown)}{more}."
    )


def check_uniforms(shape: Sequence[int], event: Sequence[int], size: int) -> None:
    """Refuse uniform numbers of the wrong shape.

    Example:
        >>> check_uniforms((5, 3), (3,), 1)
        Traceback (most recent call last):
        ...
        ValueError: uniforms of shape (5, 3) must end in (3, 1): 1 for each feature.
    """
    wanted = (*event, size)
    if len(shape) < len(wanted) or tuple(shape[len(shape) - len(wanted) :]) != wanted:
        raise ValueError(
            f"uniforms of shape {tuple(shape)} must end in {wanted}: {size} for each feature."
        )


def is_prefix(observed: np.ndarray, features: int, order: Sequence[int] | None) -> bool:
    """Tell whether in every row what is observed comes before all that is missing.

    Args:
        observed: which entries are observed, shape (..., *event).
        features: entries of a row.
        order: which entry comes when.

    Example:
        >>> is_prefix(np.array([True, False, False]), 3, None)
        True
        >>> is_prefix(np.array([True, False, False]), 3, (2, 1, 0))
        False
    """
    rows = np.asarray(observed).reshape(-1, features)
    rows = rows if order is None else rows[:, list(order)]
    return bool(np.all(rows[:, :-1] >= rows[:, 1:]))
