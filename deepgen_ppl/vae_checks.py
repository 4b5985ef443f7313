"""The sentences of bad input to variational autoencoders, shared by both wings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepgen_ppl import flow_checks
from deepgen_ppl.likelihoods import Likelihood

_SHOWN = 8


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Return a number of features, or the shape of one datum, as a shape.

    Raises:
        ValueError: it is none.

    Example:
        >>> shape("features", 784)
        (784,)
    """
    sizes = (value,) if isinstance(value, int | np.integer) else value
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
        raise ValueError(f"{name} must be a number, or a shape such as (28, 28), got {value!r}.")
    return tuple(flow_checks.whole(f"each size in {name}", size) for size in sizes)


def listed(bad: Any) -> tuple[int, str]:
    """Return how many rows are marked, and the first ones in words.

    Example:
        >>> listed(np.array([False, True, True]))
        (2, 'rows 1, 2')
    """
    rows = np.flatnonzero(bad)
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    return len(rows), f"row{'' if len(rows) == 1 else 's'} {shown}"


def check_data(
    x: np.ndarray, mask: np.ndarray | None, features: tuple[int, ...], likelihood: Likelihood | None
) -> None:
    """Refuse data that a decoder's likelihood has no density for.

    Args:
        x: the data.
        mask: which cells are observed; all when None.
        features: shape of one datum.
        likelihood: the likelihood, None where the decoder brings its own.

    Raises:
        ValueError: naming shapes, or the rows and values.

    Example:
        >>> from deepgen_ppl.likelihoods import Bernoulli
        >>> check_data(np.array([[0, 1], [3, 0]]), None, (2,), Bernoulli())
        Traceback (most recent call last):
        ...
        ValueError: 1 of 2 rows holds values that likelihood 'bernoulli' has no density for (...
    """
    if x.shape[1:] != features:
        raise ValueError(
            f"the data x have shape {x.shape}, but the VAE was made with features={features}: "
            f"pass rows of that shape, such as x.reshape({', '.join(map(str, (-1, *features)))})."
        )
    if mask is not None:
        check_mask(mask, x.shape)
    if likelihood is None:
        return
    wrong = ~likelihood.inside(x)
    if mask is not None:
        wrong &= np.asarray(mask, bool)
    if wrong.any():
        count, rows = listed(np.any(wrong.reshape(len(x), -1), axis=1))
        values = ", ".join(f"{value:g}" for value in np.unique(x[wrong].astype(float))[:3])
        raise ValueError(
            f"{count} of {len(x)} rows hold{'s' if count == 1 else ''} values that likelihood "
            f"'{likelihood.name}' has no density for (it takes what is {likelihood.domain}): "
            f"{rows}, which hold{'s' if count == 1 else ''} {values}. {likelihood.cure}"
        )


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse a mask of other cells, or one that leaves a row without any.

    Raises:
        ValueError: naming shapes, or the rows.

    Example:
        >>> check_mask(np.array([[True, False], [False, False]]), (2, 2))
        Traceback (most recent call last):
        ...
        ValueError: 1 of 2 rows has no observed cell: row 1. Drop it.
    """
    if mask.shape != shape:
        raise ValueError(
            f"the mask has shape {mask.shape}, but the data have shape {shape}: it says of each "
            "cell whether it is observed."
        )
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError("the mask must hold True (observed) and False, or 1 and 0.")
    count, rows = listed(~np.any(np.asarray(mask, bool).reshape(len(mask), -1), axis=1))
    if count:
        verb, pronoun = ("has", "it") if count == 1 else ("have", "them")
        raise ValueError(
            f"{count} of {len(mask)} rows {verb} no observed cell: {rows}. Drop {pronoun}."
        )


def check_context(y: np.ndarray | None, rows: int, context: int) -> None:
    """Refuse conditions that are missing, not asked for, or of another shape.

    Args:
        y: the conditions.
        rows: rows of the data.
        context: number of condition features, 0 for none.

    Raises:
        ValueError: naming both shapes.

    Example:
        >>> check_context(None, 10, 3)
        Traceback (most recent call last):
        ...
        ValueError: the VAE was made with context=3: pass y of shape (10, 3) beside x.
    """
    if y is None and context:
        raise ValueError(
            f"the VAE was made with context={context}: pass y of shape ({rows}, {context}) beside "
            "x."
        )
    if y is not None and not context:
        raise ValueError(
            f"y of shape {y.shape} is given, but the VAE was made without context. Make it with "
            f"context={y.shape[-1] if y.ndim > 1 else 1}, or pass None in the place of y."
        )
    if y is not None and y.shape != (rows, context):
        raise ValueError(
            f"y has shape {y.shape}, but the VAE was made with context={context} and x has {rows} "
            f"rows: pass y of shape ({rows}, {context})."
        )


def check_encoded(shape: Sequence[int], batch: Sequence[int], outputs: int, parts: str) -> None:
    """Refuse an encoder whose output is not what the posterior takes.

    Args:
        shape: shape of the output.
        batch: shape of the batch.
        outputs: numbers that the posterior takes for each datum.
        parts: what they are, in words.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_encoded((10, 4), (10,), 10, "5 locations and 5 log scales")
        Traceback (most recent call last):
        ...
        ValueError: the encoder's output has shape (10, 4), but this posterior takes (10, 10): ...
    """
    expected = (*batch, outputs)
    if tuple(shape) != expected:
        raise ValueError(
            f"the encoder's output has shape {tuple(shape)}, but this posterior takes {expected}: "
            f"{parts} for each datum. Give the encoder {outputs} outputs."
        )


def check_decoded(
    shape: Sequence[int], batch: Sequence[int], features: tuple[int, ...], outputs: int, name: str
) -> tuple[int, ...]:
    """Return the shape that a decoder's output is read in, batch, features and outputs of each.

    Args:
        shape: shape of the output.
        batch: shape of the batch.
        features: shape of one datum.
        outputs: numbers that the likelihood takes for each feature.
        name: the likelihood's name.

    Raises:
        ValueError: the output holds another number of numbers.

    Example:
        >>> check_decoded((10, 8), (10,), (4,), 2, "gaussian")
        (10, 4, 2)
    """
    size, total = int(np.prod(features)), int(np.prod(shape[len(batch) :], dtype=int))
    if tuple(shape[: len(batch)]) != tuple(batch) or total != size * outputs:
        raise ValueError(
            f"the decoder's output has shape {tuple(shape)}, but likelihood '{name}' takes "
            f"{outputs} number{'' if outputs == 1 else 's'} for each of {size} features of a datum "
            f"and the batch has shape {tuple(batch)}. Give the decoder {size * outputs} outputs."
        )
    return (*batch, *features, outputs)


def is_hidden(value: Any) -> bool:
    """Tell whether the units of hidden layers stand in the place of a network.

    Example:
        >>> is_hidden((200, 200)), is_hidden(None)
        (True, False)
    """
    sized = isinstance(value, tuple | list)
    return sized and all(isinstance(units, int | np.integer) for units in value)


def known(likelihood: Likelihood | None) -> Likelihood:
    """Return the likelihood where there is one.

    Raises:
        ValueError: there is none, and the decoder gives numbers.

    Example:
        >>> from deepgen_ppl.likelihoods import Bernoulli
        >>> known(Bernoulli())
        Bernoulli()
    """
    if likelihood is None:
        raise ValueError(
            "likelihood=None says that the decoder returns a distribution of the language, but it "
            "returns numbers. Name the likelihood that they are of."
        )
    return likelihood


def check_networks(encoder: Any, decoder: Any) -> None:
    """Refuse networks that cannot be called.

    Raises:
        TypeError: naming what was given.

    Example:
        >>> check_networks(None, 784)
        Traceback (most recent call last):
        ...
        TypeError: decoder must be a module, a function, or the units of hidden layers such as ...
    """
    for name, net in (("encoder", encoder), ("decoder", decoder)):
        if not callable(net) and not (name == "encoder" and net is None):
            raise TypeError(
                f"{name} must be a module, a function, or the units of hidden layers such as "
                f"(200, 200), not {net!r}."
            )


def check_axes(prior: Any, encoder: Any, context: int) -> None:
    """Refuse priors that need an encoder of the data alone where there is none.

    Raises:
        ValueError: naming the axes that do not go together.

    Example:
        >>> from deepgen_ppl.latent_axes import VampPrior
        >>> check_axes(VampPrior(3), None, 0)
        Traceback (most recent call last):
        ...
        ValueError: a VampPrior is made of the encoder, and encoder=None has none. Take ...
    """
    if type(prior).__name__ != "VampPrior":
        return
    if encoder is None:
        raise ValueError(
            "a VampPrior is made of the encoder, and encoder=None has none. Take prior='mixture'."
        )
    if context:
        raise ValueError(
            f"a VampPrior is made of the encoder, which takes conditions here (context={context}). "
            "Take prior='mixture', or a flow with that context."
        )


def check_own(batch: tuple[int, ...], event: tuple[int, ...], features: tuple[int, ...]) -> None:
    """Refuse a distribution of a decoder's own that is not of data.

    Raises:
        ValueError: naming its shape and that of the data.

    Example:
        >>> check_own((10,), (4,), (4,))
    """
    shape = (*batch, *event)
    if shape[len(shape) - len(features) :] != features or len(event) > len(features):
        raise ValueError(
            f"the decoder returns a distribution of batch shape {batch} and event shape {event}, "
            f"but the VAE was made with features={features}: let its shape end in that."
        )


def joint() -> str:
    """Return why cells cannot be left out of a joint density.

    Example:
        >>> joint()[:34]
        "the decoder's own distribution has"
    """
    return (
        "the decoder's own distribution has a joint density of the features, from which missing "
        "cells cannot be left out. Take a likelihood of dg.vae, or independent features."
    )


def table(rows: int, outputs: int) -> np.ndarray:
    """Return the numbers of the posterior of each datum as they are at first: noise around zero.

    Example:
        >>> table(3, 4).shape
        (3, 4)
    """
    return 0.01 * np.random.default_rng(0).normal(size=(rows, outputs))


def check_table(rows: int, given: int) -> None:
    """Refuse other data than those that a table of posteriors is of.

    Raises:
        ValueError: naming both numbers of rows.

    Example:
        >>> check_table(100, 100)
    """
    if rows != given:
        raise ValueError(
            f"encoder=None keeps the posterior of each of {rows} rows in a table, and {given} rows "
            "are given. Pass the data of the fit, or refine(fit, x) to find posteriors of new rows."
        )


def check_latents(shape: Sequence[int], latents: int) -> None:
    """Refuse latents of another size.

    Raises:
        ValueError: naming the shape.

    Example:
        >>> check_latents((10, 2), 3)
        Traceback (most recent call last):
        ...
        ValueError: z has shape (10, 2): its last axis must hold 3 latents, one row for each datum.
    """
    if len(shape) < 2 or shape[-1] != latents:
        raise ValueError(
            f"z has shape {tuple(shape)}: its last axis must hold {latents} latents, one row for "
            "each datum."
        )


def refuse_unlearned(name: str) -> None:
    """Refuse to run with the initial value of a parameter, as if it had been learned.

    Args:
        name: the parameter that has no learned value.

    Raises:
        ValueError: always.

    Example:
        >>> refuse_unlearned("encoder$params")
        Traceback (most recent call last):
        ...
        ValueError: no learned value for 'encoder$params'. Pass the Fit of dg.svi, or its params.
    """
    raise ValueError(f"no learned value for '{name}'. Pass the Fit of dg.svi, or its params.")
