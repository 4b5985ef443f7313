"""Labels that are known of some rows only: what is refused, shared by both wings."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepgen_ppl.vae_checks import listed

UNKNOWN = -1
"""The label of a row whose class is not known."""

CERTAIN = 1e4
"""Log odds of a class that is known: in any precision the others have no probability at all."""


def check_labels(y: Any, rows: int, classes: int) -> None:
    """Refuse labels that are of no class, of another shape, or no whole numbers.

    Args:
        y: a class of each row, -1 where it is not known; None where none is.
        rows: rows of the data.
        classes: number of classes.

    Raises:
        ValueError: naming the rows and labels.

    Example:
        >>> check_labels(np.array([0, 3, -1]), 3, 3)
        Traceback (most recent call last):
        ...
        ValueError: 1 of 3 rows has a label that is none of 3 classes: row 1, which has 3. ...
    """
    if y is None:
        return
    found = np.asarray(y)
    if found.shape != (rows,):
        raise ValueError(
            f"y has shape {found.shape}, but x has {rows} rows: pass one label for each row, of "
            f"shape ({rows},), -1 where it is not known."
        )
    whole = found == np.round(found)
    wrong = ~whole | (found < UNKNOWN) | (found >= classes)
    if wrong.any():
        count, told = listed(wrong)
        values = ", ".join(f"{value:g}" for value in np.unique(found[wrong].astype(float))[:3])
        verb = "has a label that is" if count == 1 else "have labels that are"
        also = "has" if count == 1 else "have"
        raise ValueError(
            f"{count} of {rows} rows {verb} none of {classes} classes: {told}, which {also} "
            f"{values}. Labels are 0 to {classes - 1}, and -1 where the class is not known."
        )


def check_alpha(alpha: Any) -> float:
    """Return the weight of the classifier's term.

    Raises:
        ValueError: no number, or a negative one.

    Example:
        >>> check_alpha(50)
        50.0
    """
    number = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
    if not number or not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a number that is not negative, got {alpha!r}.")
    return float(alpha)


def check_known(y: np.ndarray, classes: int) -> None:
    """Refuse labels that are not all known.

    Raises:
        ValueError: naming the rows.

    Example:
        >>> check_known(np.array([0, -1]), 2)
        Traceback (most recent call last):
        ...
        ValueError: 1 of 2 labels is not known: row 1. Pass a class for each.
    """
    check_labels(y, len(y), classes)
    count, told = listed(y < 0)
    if count:
        verb = "label is" if len(y) == 1 else ("labels is" if count == 1 else "labels are")
        raise ValueError(f"{count} of {len(y)} {verb} not known: {told}. Pass a class for each.")


def check_logits(shape: Any, rows: int, classes: int) -> None:
    """Refuse a classifier whose output is not a logit of each class.

    Example:
        >>> check_logits((10, 4), 10, 3)
        Traceback (most recent call last):
        ...
        ValueError: the classifier's output has shape (10, 4), but 3 classes and 10 rows ask for ...
    """
    if tuple(shape) != (rows, classes):
        raise ValueError(
            f"the classifier's output has shape {tuple(shape)}, but {classes} classes and {rows} "
            f"rows ask for ({rows}, {classes}): a logit of each class. Give it {classes} outputs."
        )


def check_classifier(net: Any) -> None:
    """Refuse a classifier that cannot be called.

    Example:
        >>> check_classifier(None)
        Traceback (most recent call last):
        ...
        TypeError: classifier must be a module, a function, ...
    """
    if not callable(net):
        raise TypeError(
            "classifier must be a module, a function, or the units of hidden layers such as "
            f"(200, 200), not {net!r}."
        )
