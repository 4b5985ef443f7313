"""What both wings say about labelled sequences: bad input, and a chain as a factor graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl.factor_graph import Factor, FactorGraph
from deepgen_ppl.flow_checks import whole

UNKNOWN = -1
NO_LOG_Z = (
    "the log Z of a CRF is known at its features, one of each sequence: crf(x).log_z. One chain "
    "goes to dg.exact and dg.log_z as crf(x[0]).factor_graph()."
)


def check_sizes(net: Any, states: Any) -> int:
    """Return the number of states of a label.

    Args:
        net: what gives the potentials: a number of features, or something callable.
        states: number of states.

    Raises:
        ValueError: a number that is no whole one, or fewer than two states.
        TypeError: a network that cannot be called.

    Example:
        >>> check_sizes(4, 1)
        Traceback (most recent call last):
        ...
        ValueError: states must be a whole number of at least 2, got 1.
        >>> check_sizes("words", 3)
        Traceback (most recent call last):
        ...
        TypeError: net must be a number of features or a network of them, not str.
    """
    if not callable(net):
        if isinstance(net, bool) or not isinstance(net, int | np.integer):
            kind = type(net).__name__
            raise TypeError(f"net must be a number of features or a network of them, not {kind}.")
        whole("net, as a number of features,", net)
    return whole("states", states, 2)


def check_features(shape: Sequence[int], features: int) -> None:
    """Refuse features that a linear map does not take.

    Args:
        shape: their shape.
        features: number of features of each place.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_features((8, 5, 4), 3)
        Traceback (most recent call last):
        ...
        ValueError: this CRF takes features of shape (*batch, time, 3), these have (8, 5, 4).
    """
    shape = tuple(shape)
    if len(shape) < 2 or shape[-1] != features:
        raise ValueError(
            f"this CRF takes features of shape (*batch, time, {features}), these have {shape}."
        )


def check_potentials(shape: Sequence[int], states: int) -> None:
    """Refuse potentials that are not one number for each state at each place.

    Args:
        shape: shape of what the network returned.
        states: number of states.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_potentials((8, 5, 4), 3)
        Traceback (most recent call last):
        ...
        ValueError: the network of this CRF must return (*batch, time, 3), a number for each ...
    """
    shape = tuple(shape)
    if len(shape) < 2 or shape[-1] != states or shape[-2] < 1:
        raise ValueError(
            f"the network of this CRF must return (*batch, time, {states}), a number for each "
            f"state at each place, and returned {shape}. Give it features of shape "
            "(*batch, time, features), at least one place long."
        )


def check_shapes(
    labels: Sequence[int] | None, lengths: Sequence[int] | None, batch: Sequence[int], time: int
) -> None:
    """Refuse labels or lengths that do not fit the features of some rows.

    Args:
        labels: shape of the labels.
        lengths: shape of the lengths.
        batch: batch shape of the features.
        time: number of places of the features.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_shapes((8, 4), None, (8,), 5)
        Traceback (most recent call last):
        ...
        ValueError: labels have shape (8, 4); these features have labels of shape (8, 5).
    """
    batch = tuple(batch)
    if labels is not None and tuple(labels) != (*batch, time):
        raise ValueError(
            f"labels have shape {tuple(labels)}; these features have labels of shape "
            f"{(*batch, time)}."
        )
    if lengths is not None and tuple(lengths) != batch:
        raise ValueError(
            f"lengths have shape {tuple(lengths)}; these features have lengths of shape {batch}, "
            "one a sequence."
        )


def check_lengths(lengths: Int[np.ndarray, "*batch"], time: int) -> None:
    """Refuse lengths that are no number of places.

    Args:
        lengths: how many places of each row count.
        time: number of places there are.

    Raises:
        ValueError: naming the first row.

    Example:
        >>> check_lengths(np.array([3, 0]), 5)
        Traceback (most recent call last):
        ...
        ValueError: the length of row 1 is 0; lengths are whole numbers from 1 to 5.
    """
    lengths = np.asarray(lengths)
    bad = ~((lengths >= 1) & (lengths <= time) & (lengths == np.floor(lengths)))
    if bad.any():
        row = np.argwhere(bad)[0]
        raise ValueError(
            f"the length of row {_place(row)} is {lengths[tuple(row)]}; lengths are whole numbers "
            f"from 1 to {time}."
        )


def check_labels(
    labels: Int[np.ndarray, "*batch T"],
    inside: Bool[np.ndarray, "*#batch T"],
    states: int,
    *,
    unknown: bool = False,
) -> None:
    """Refuse labels that are no states, places beyond the length of a row apart.

    Args:
        labels: the labels.
        inside: which places count.
        states: number of states.
        unknown: whether -1 stands for a label that is not known.

    Raises:
        ValueError: naming the first row and place.

    Example:
        >>> check_labels(np.array([[0, 2, 9]]), np.array([True, True, False]), 2)
        Traceback (most recent call last):
        ...
        ValueError: the label of row 0 at place 1 is 2; labels are whole numbers from 0 to 1.
    """
    labels = np.asarray(labels)
    least = UNKNOWN if unknown else 0
    bad = ~((labels >= least) & (labels < states) & (labels == np.floor(labels)))
    bad = bad & inside  # one row of labels may stand for a batch of lengths
    if bad.any():
        *row, place = found = tuple(np.argwhere(bad)[0])
        named = f"of row {_place(row)} " if row else ""
        value = np.broadcast_to(labels, bad.shape)[found]
        also = ", or -1 where they are not known" if unknown else ""
        raise ValueError(
            f"the label {named}at place {int(place)} is {value}; labels are whole numbers "
            f"from 0 to {states - 1}{also}."
        )


def check_one(batch: Sequence[int]) -> None:
    """Refuse a batch where one sequence is asked for.

    Args:
        batch: batch shape.

    Raises:
        ValueError: naming it.

    Example:
        >>> check_one((8,))
        Traceback (most recent call last):
        ...
        ValueError: a factor graph is of one sequence, and here are (8,): take crf(x[0]).
    """
    if tuple(batch):
        raise ValueError(
            f"a factor graph is of one sequence, and here are {tuple(batch)}: take crf(x[0])."
        )


def chain_graph(
    unary: Float[np.ndarray, "T states"],
    transition: Float[np.ndarray, "states states"],
    initial: Float[np.ndarray, " states"],
    final: Float[np.ndarray, " states"],
) -> FactorGraph:
    """Return a chain of labels y0, y1, ... as a factor graph.

    Args:
        unary: potentials of each state at each place.
        transition: potentials of each pair of neighbours, (before, after).
        initial: of the first label.
        final: of the last label.

    Example:
        >>> graph = chain_graph(np.zeros((3, 2)), np.zeros((2, 2)), np.zeros(2), np.zeros(2))
        >>> graph.variables, len(graph.factors)
        (('y0', 'y1', 'y2'), 5)
    """
    places = np.array(unary, np.float64)
    places[0] += initial
    places[-1] += final
    names = [f"y{place}" for place in range(len(places))]
    own = [Factor((name,), table) for name, table in zip(names, places, strict=True)]
    tied = [Factor(pair, np.asarray(transition, np.float64)) for pair in pairwise(names)]
    return FactorGraph({name: places.shape[1] for name in names}, [*own, *tied])


def _place(row: Sequence[Any]) -> str:
    """Return the place of a row in a batch, as it is read."""
    return ", ".join(str(int(part)) for part in row)
