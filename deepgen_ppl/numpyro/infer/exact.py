"""Exact inference of discrete latents: any program, network or factor graph, by summing out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from deepgen_ppl import exact_subjects
from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.exact_posterior import ExactPosterior
from deepgen_ppl.exact_sums import Subject
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.findings import read_findings
from deepgen_ppl.numpyro import engine
from deepgen_ppl.numpyro.discrete import read_coordinates
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.program import learned, read_pair, run
from deepgen_ppl.numpyro.structure import Pair
from deepgen_ppl.numpyro.tables import Tables
from deepgen_ppl.tabulation import unobserved_name, unobserved_names


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
        model: a NumPyro model with discrete latents of finite support, a `BayesNet` or a
            `FactorGraph`.
        *data: arrays whose leading axis is the data axis, scalars or None.
        given: evidence by site: values of the site's shape, or with a leading axis of B rows of
            evidence; masked arrays leave cells unknown; a network's labels. Continuous latents have
            to be given, by one value.
        soft: likelihoods by site, with a last axis over its values.
        query: sites whose marginals are wanted, None for all, () for the evidence alone.
        params: learned values by name, or a `Fit`.
        model_kwargs: constants passed by name.
        max_bytes: memory above which it stops with the numbers.

    Returns:
        Log evidence and marginals, and what follows from them on request, joint marginals, the most
        probable values, draws, expected counts, entropy.

    Raises:
        ValueError: a continuous latent that is not given, a latent without finite support, evidence
            that is no state of its site, a graph that is too wide.

    Cost:
        Each row of evidence costs its `entries`; about three times that with the marginals.
        Compiling takes 1 to 10 s for each new structure, however long its chains are. A repeated
        question evaluates only the terms that use data or parameters that changed.

    References:
        Zhang, Poole: A simple approach to Bayesian network computations. Canadian AI, 1994.
        Darwiche: A differential approach to inference in Bayesian networks. J. ACM 50, 2003.
        Obermeyer et al.: Tensor variable elimination for plated factor graphs. ICML 2019.
        https://arxiv.org/abs/1902.03210

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> def model():
        ...     rain = numpyro.sample("rain", dist.Bernoulli(0.2))
        ...     numpyro.sample("wet", dist.Bernoulli(0.1 + 0.8 * rain))
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


def _of_program(
    model: Any,
    data: tuple,
    given: dict[str, Any],
    params: Any,
    model_kwargs: Mapping[str, Any] | None,
) -> tuple[Subject, dict[str, Any]]:
    """Read a program as a factor graph; return what of the evidence is on discrete sites."""
    from deepgen_ppl.numpyro.infer.evaluate import fields

    values = learned(params)
    pair: Pair = read_pair(model, None, data, model_kwargs=model_kwargs, params=values, prior=True)
    check_learned(pair, values)
    values = jax.tree.map(jnp.asarray, values)
    program, inputs = pair.model, pair.inputs(data)
    part = {plate.name: plate.size for plate in program.plates.values() if plate.subsampled}
    exact_subjects.check_subsampled(part)
    continuous = {n: s.shape for n, s in program.latents.items() if not s.is_discrete}
    missing = [n for n in continuous if unobserved_name(n, program.sites) and n not in given]
    held = exact_subjects.held({n: continuous[n] for n in continuous if n not in missing}, given)
    inside = {name: jnp.asarray(value) for name, value in held.items()}
    if missing:
        seen = run(program, inputs, values, random.key(0), stand_in=True)
        inside |= {name: seen[name]["value"] for name in missing}
    coordinates = read_coordinates(program, {**values, **inside}, inputs, "exact")
    tables = Tables(program, coordinates, values, inputs, inside, missing)
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
        about=lambda: fields(program, {**values, **inside}, data),
        has_data=bool(program.observed),
    )
    return subject, {name: value for name, value in given.items() if name not in held}
