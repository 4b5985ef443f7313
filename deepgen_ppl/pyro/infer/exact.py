"""Exact inference of discrete latents: any program, network or factor graph, by summing out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro import settings
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from deepgen_ppl import exact_subjects
from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.exact_posterior import ExactPosterior
from deepgen_ppl.exact_sums import Subject
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.findings import read_findings
from deepgen_ppl.kept import Kept
from deepgen_ppl.pyro import engine, parameters
from deepgen_ppl.pyro.data import unwrap
from deepgen_ppl.pyro.discrete import read_coordinates
from deepgen_ppl.pyro.fingerprint import Depends, fingerprint
from deepgen_ppl.pyro.infer.importance import prepare
from deepgen_ppl.pyro.marginal import some_values
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.tables import Tables
from deepgen_ppl.readings import MOST_BYTES, digests
from deepgen_ppl.tabulation import Tabulation, Term, unobserved_name, unobserved_names


def exact(
    model: Callable | BayesNet | FactorGraph,
    *data: Any,
    given: Mapping[str, Any] | None = None,
    soft: Mapping[str, Any] | None = None,
    query: Sequence[str] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    max_bytes: int = 1 << 32,
) -> ExactPosterior:
    r"""Return the exact posterior of the discrete latents of a model, and its log evidence.

    $$\log p(x) = \log \sum_z p(x, z), \qquad p(z_i \mid x) =
    \frac{\partial \log p(x)}{\partial \log \phi_i(z_i)}$$

    The terms of the program's log density are tabulated over the states of the discrete latents
    that they depend on, as read from the program and checked by random changes, and the factor
    graph is summed out along a good elimination order: elements that do not touch each other at
    once (plates), chains as loops. There is no limit on the number of latents, only on the width of
    the graph, which is told before anything runs.

    Args:
        model: a Pyro model with discrete latents of finite support, a `BayesNet` or a
            `FactorGraph`.
        *data: arrays whose leading axis is the data axis, scalars or None.
        given: evidence by site: values of the site's shape, or with a leading axis of B rows of
            evidence; masked arrays leave cells unknown; a network's labels. Continuous latents have
            to be given, by one value.
        soft: likelihoods by site, with a last axis over its values.
        query: sites whose marginals are wanted, None for all, () for the evidence alone.
        params: learned values by name, or a `Fit`; None takes the modules and the param store as
            they are.
        model_kwargs: constants passed by name.
        max_bytes: memory above which it stops with the numbers.

    Returns:
        Log evidence and marginals, and what follows from them on request, joint marginals, the most
        probable values, draws, expected counts, entropy.

    Raises:
        ValueError: a continuous latent that is not given, a latent without finite support, evidence
            that is no state of its site, a graph that is too wide.

    Cost:
        Each row of evidence costs its `entries`; about three times that with the marginals. A
        program is read by eight to ten runs; where its code is the same and only data or parameters
        are others, by four, and by none where they are the same too.

    References:
        Zhang, Poole: A simple approach to Bayesian network computations. Canadian AI, 1994.
        Darwiche: A differential approach to inference in Bayesian networks. J. ACM 50, 2003.
        Obermeyer et al.: Tensor variable elimination for plated factor graphs. ICML 2019.
        https://arxiv.org/abs/1902.03210

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     rain = pyro.sample("rain", dist.Bernoulli(0.2))
        ...     pyro.sample("wet", dist.Bernoulli(0.1 + 0.8 * rain))
        >>> answer = exact(model, given={"wet": 1})
        >>> answer.marginals["rain"].round(4).tolist(), round(float(answer.log_evidence), 4)
        ([0.3077, 0.6923], -1.3471)
    """
    graph = exact_subjects.graph_of(model, data, params, model_kwargs)
    if graph is not None:
        subject, given = exact_subjects.of_graph(graph), dict(given or {})
    else:
        subject, given = _of_program(model, data, dict(given or {}), params, model_kwargs)
    findings = read_findings(subject.coordinates, given, soft, subject.labels, subject.names)
    exact_subjects.check_query(subject, query)
    return ExactPosterior(subject, findings, engine, query=query, max_bytes=max_bytes)


class _Question(NamedTuple):
    """What is asked about.

    Attributes:
        model: the program.
        data: its data.
        params: learned values.
        model_kwargs: constants passed by name.
    """

    model: Any
    data: tuple
    params: Mapping[str, Tensor] | None
    model_kwargs: Mapping[str, Any] | None

    def depends(self) -> Depends | None:
        """Return what the answer depends on; None where that cannot be seen."""
        if _PYRO_STACK:  # handlers around the question
            return None
        types = str(torch.get_default_dtype()), str(torch.get_default_device())
        return fingerprint(*self, types, settings.get())

    def prepared(
        self, known: Program | None = None
    ) -> tuple[Program, dict[str, Tensor], tuple[Any, ...]]:
        """Read the program; return it with its parameters and data."""
        model, data, params, model_kwargs = self
        options: dict[str, Any] = {"prior": True, "known": known}
        pair, values, tensors = prepare(model, None, data, params, model_kwargs, 0, **options)
        part = {plate.name: plate.size for plate in pair.model.plates.values() if plate.subsampled}
        exact_subjects.check_subsampled(part)
        return pair.model, values, tensors

    def about(self) -> Mapping[str, Any]:
        """Return further fields of a `Posterior`."""
        from deepgen_ppl.pyro.infer.evaluate import fields

        return fields(*self.prepared())


class _Known(NamedTuple):
    """What was read of a program; it holds neither the program nor its modules.

    Attributes:
        program: its sites and plates.
        coordinates: its discrete latents.
        terms: what each site contributes.
        tabulation: how the tables are found.
        subject: the tables.
        contents: digests of the tensors that it depends on.
        held: digests of the continuous latents that were given.
        integrated: continuous sites that were left out.
    """

    program: Program
    coordinates: Coordinates
    terms: list[Term]
    tabulation: Tabulation
    subject: Subject
    contents: tuple[bytes, ...]
    held: Mapping[str, bytes]
    integrated: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Memory that the tables take."""
        return sum(block.nbytes for block in self.subject.graph.tables or ())

    def holds(self, contents: tuple[bytes, ...], given: Mapping[str, Any]) -> bool:
        """Tell whether it answers a question, too."""
        if self.contents != contents:
            return False
        held, integrated = _continuous(self.program, given)
        return (_digests(held), integrated) == (self.held, self.integrated)


_KNOWN: Kept[_Known] = Kept()
_MOST_KEPT = 4
"""Readings that are kept of one program."""


def _of_program(
    model: Any,
    data: tuple,
    given: dict[str, Any],
    params: Any,
    model_kwargs: Mapping[str, Any] | None,
) -> tuple[Subject, dict[str, Any]]:
    """Read a program as a factor graph; return what of the evidence is on discrete sites.

    What was read is kept. A question about the same program with the same data and parameters is
    answered from it; where these are others of the same shapes, it is checked at them.
    """
    fn = unwrap(model)[0]
    question = _Question(model, data, parameters.given(params), model_kwargs)
    depends = question.depends()
    table = {} if depends is None else _KNOWN.of(fn)
    known = None if depends is None else table.get(depends.structure)
    if depends is None or known is None or not known.holds(depends.contents, given):
        known = _read(question, given, depends, known)
        if depends is not None and known.num_bytes <= MOST_BYTES:
            table.pop(depends.structure, None)
            table[depends.structure] = known
        for old in list(table)[:-_MOST_KEPT]:
            del table[old]
    subject = replace(known.subject, about=question.about)
    return subject, {name: value for name, value in given.items() if name not in known.held}


def _read(
    question: _Question, given: dict[str, Any], depends: Depends | None, known: _Known | None
) -> _Known:
    """Read a program, or check what is known of it."""
    program, values, tensors = question.prepared(None if known is None else known.program)
    held, integrated = _continuous(program, given)
    inside = {name: torch.as_tensor(value) for name, value in held.items()}
    if integrated:
        seen = some_values(program, values, tensors)
        inside |= {name: seen[name] for name in integrated}
    if known is not None and program.sites is not known.program.sites:
        known = None
    before = None if known is None else known.coordinates
    coordinates = read_coordinates(program, values, tensors, "exact", known=before)
    is_same = known is not None and before is coordinates and known.integrated == integrated
    tables = Tables(
        program, coordinates, values, tensors, inside,
        integrated=integrated, known=(known.terms, known.tabulation) if known and is_same else None,
    )  # fmt: skip
    found, constants = tables.tables()
    plates = {name: program.sites[name].plates for name in coordinates.places}
    rows = exact_subjects.rows_of(tables.terms, plates, tables.tabulation, program.data_plates)
    subject = exact_subjects.of_program(
        tables.tabulation,
        found,
        constants,
        rows,
        terms=tables.terms,
        names=unobserved_names(coordinates.places, program.sites),
        about=dict,
        has_data=bool(program.observed),
    )
    bare = replace(program, fn=_nothing, args=(), kwargs={}, params={}, modules=(), notes={})
    contents = () if depends is None else depends.contents
    own = tables.terms, tables.tabulation, subject, contents, _digests(held), integrated
    return _Known(bare, coordinates, *own)


def _continuous(
    program: Program, given: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the values of the continuous latents, and those that are missing cells."""
    shapes = {n: s.shape for n, s in program.latents.items() if not s.is_discrete}
    missing = tuple(n for n in shapes if unobserved_name(n, program.sites) and n not in given)
    shapes = {name: shape for name, shape in shapes.items() if name not in missing}
    return exact_subjects.held(shapes, given), missing


def _digests(held: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return dict(zip(held, digests(held.values()), strict=True))


def _nothing() -> None:
    """Stand in for the program where only its structure is kept."""
