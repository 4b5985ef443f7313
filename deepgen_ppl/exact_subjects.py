"""What exact inference is asked about: a network, a factor graph, or a program with its tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.checks import quote
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.evidence import some
from deepgen_ppl.exact_sums import Subject
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.tabulation import Tabulation, Term, row_numbers

_SUBJECTS: WeakKeyDictionary[FactorGraph, Subject] = WeakKeyDictionary()


def graph_of(model: Any, data: Sequence[Any], params: Any, kwargs: Any) -> FactorGraph | None:
    """Return the factor graph that a model is, None for a program.

    Raises:
        TypeError: Data or parameters beside a network or a graph, or what is no model.
    """
    if not isinstance(model, BayesNet | FactorGraph):
        if not callable(model):
            raise TypeError(
                f"exact takes a program, a BayesNet or a FactorGraph, not {type(model).__name__}."
            )
        return None
    if data or params is not None or kwargs:
        raise TypeError(
            f"a {type(model).__name__} takes no data or parameters: pass evidence by given=, a "
            "dict of site names to states, with a leading axis for many rows."
        )
    return model if isinstance(model, FactorGraph) else model.factor_graph()


def of_graph(graph: FactorGraph) -> Subject:
    """Return a factor graph with a site for each variable; it is kept with the graph."""
    if graph in _SUBJECTS:
        return _SUBJECTS[graph]
    supports = {name: np.arange(card)[None] for name, card in graph.cardinalities.items()}
    coordinates = Coordinates.of(supports, dict.fromkeys(supports, ()))
    _SUBJECTS[graph] = found = Subject(
        coordinates,
        graph.numbered,
        np.zeros(()),
        labels={name: tuple(map(str, labels)) for name, labels in graph.states.items()},
    )
    return found


def of_program(
    tabulation: Tabulation,
    tables: Sequence[np.ndarray],
    constants: np.ndarray,
    rows: Rows | None,
    *,
    terms: Sequence[Term],
    names: Mapping[str, str],
    about: Callable[[], Mapping[str, Any]],
    has_data: bool,
) -> Subject:
    """Return a program with its tables.

    Args:
        tabulation: How the tables were found.
        tables: The tables of its pieces.
        constants: Terms that depend on no discrete latent.
        rows: Where rows stand apart.
        terms: The terms by site.
        names: Names that users know sites by, where these differ.
        about: Makes further fields of a `Posterior`.
        has_data: Whether the program observes something.

    Raises:
        ValueError: A term is NaN: its site and elements are named.
    """
    graph = tabulation.numbered(tables)
    _check_not_nan(tabulation, tables, constants, terms)
    base = np.asarray(constants.sum(dtype=float))
    if rows is not None:
        base = np.bincount(rows.constants, constants, rows.count)
    return Subject(
        tabulation.coordinates,
        graph,
        base,
        rows=None if rows is None else rows.coordinates,
        names=names,
        about=about,
        has_data=has_data,
    )


def _check_not_nan(
    tabulation: Tabulation,
    tables: Sequence[np.ndarray],
    constants: np.ndarray,
    terms: Sequence[Term],
) -> None:
    places = [tabulation.constants[np.isnan(constants)]]
    for piece, table in zip(tabulation.pieces, tables, strict=True):
        places.append(piece.columns[np.isnan(table.reshape(-1, table.shape[-1])).any(0)])
    bad = np.unique(np.concatenate(places))
    if not len(bad):
        return
    term = next(term for term in terms if term.start <= bad[0] < term.start + term.size)
    where = bad[bad < term.start + term.size] - term.start
    held = " in rows " + some(where) if len(term.shape) == 1 else ""
    if len(term.shape) > 1:
        first = tuple(map(int, np.unravel_index(where[0], term.shape)))
        held = f" in {len(where)} of its elements, the first of them {first}"
    raise ValueError(
        f"the log density of site '{term.name}' is NaN{held}: its data lie outside of its support, "
        "or they or its parameters are NaN. Correct the data, or look at the learned parameters."
    )


class Rows(NamedTuple):
    """The row of the data plate that each coordinate and each constant term belongs to.

    Attributes:
        count: Number of rows.
        coordinates: Row of each coordinate.
        constants: Row of each constant term.
    """

    count: int
    coordinates: Int[np.ndarray, " D"]
    constants: Int[np.ndarray, " c"]


def rows_of(
    terms: Sequence[Term],
    plates: Mapping[str, tuple[str | None, ...]],
    tabulation: Tabulation,
    data_plates: Sequence[str],
) -> Rows | None:
    """Return the rows that coordinates and terms belong to, None where some belong to none.

    Args:
        terms: The terms by site.
        plates: Plate of each axis of each latent site.
        tabulation: What each term touches.
        data_plates: Plates that follow the data.
    """
    if not data_plates:
        return None
    own, found = row_numbers(tabulation, terms, plates, data_plates)
    if (own < 0).any() or (found < 0).any():
        return None
    for piece in tabulation.pieces:
        if (found[piece.scopes] != own[piece.columns][:, None]).any():
            return None
    return Rows(int(own.max(initial=-1)) + 1, found, own[tabulation.constants])


def held(
    continuous: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the values of the continuous latents, all of which have to be given.

    Args:
        continuous: Shape of each.
        given: The evidence.

    Raises:
        ValueError: One is missing, or given in another shape.
    """
    missing = [name for name in continuous if name not in given]
    if missing:
        raise ValueError(
            f"exact sums over discrete latents, and {quote(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} continuous. Give a value by given=, or draw "
            "the continuous sites by mcmc or svi, which sum the discrete ones out."
        )
    found = {name: np.asarray(given[name]) for name in continuous}
    for name, value in found.items():
        if value.shape != tuple(continuous[name]):
            raise ValueError(
                f"given['{name}'] has shape {value.shape}; the continuous site's is "
                f"{tuple(continuous[name])}, and it takes one value."
            )
    return found


def check_integrated(sites: Sequence[str], depends: Mapping[str, Collection[str]]) -> None:
    """Refuse missing continuous cells that something else depends on: they do not integrate to one.

    Args:
        sites: The sites that `obs_mask` made of continuous ones.
        depends: Sites that the density of each site was seen to depend on.

    Raises:
        ValueError: Naming a site and what depends on it.
    """
    for site in sites:
        users = [name for name, seen in depends.items() if site in seen and name != site]
        if users:
            raise ValueError(
                f"the missing cells '{site}' are continuous, and {quote(users)} depends on them: "
                "they cannot be left out. Give their values by given=, or draw them by mcmc."
            )


def check_subsampled(sizes: Mapping[str, int]) -> None:
    """Refuse a program that draws a subsample of a plate by itself.

    Args:
        sizes: Size of each plate that does.

    Raises:
        ValueError: Naming one.
    """
    for name, size in sizes.items():
        raise ValueError(
            f"plate '{name}' subsamples; exact needs all of its {size} elements. Drop "
            "subsample_size."
        )


def check_query(subject: Subject, query: Sequence[str] | None) -> None:
    """Refuse unknown sites.

    Raises:
        ValueError: naming them.
    """
    if isinstance(query, str):
        raise ValueError(f"query takes a sequence of site names, as ['{query}'].")
    known = [subject.public(site) for site in subject.coordinates.places]
    if unknown := [name for name in query or () if name not in known]:
        raise ValueError(
            f"query names {quote(unknown)}; the discrete latent sites are {quote(known)}."
        )
