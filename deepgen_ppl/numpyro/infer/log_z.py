"""The log of the normaliser Z of an energy: exactly, or by annealing along its own chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import Array, random

from deepgen_ppl import labelling, normalising
from deepgen_ppl.bounds import EvidenceBounds, lower_bound, upper_bound
from deepgen_ppl.evidence import Evidence, evidence
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.flow_checks import choice
from deepgen_ppl.harmonium import can_enumerate, exact_log_z
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer import annealed
from deepgen_ppl.numpyro.infer.ais import ais
from deepgen_ppl.numpyro.infer.exact import exact
from deepgen_ppl.numpyro.programs.energy.crf import CRF, LabelDistribution
from deepgen_ppl.numpyro.programs.energy.ready import Energy


def log_z(
    model: Energy | FactorGraph | Callable[..., Any],
    *data: Any,
    method: str = "auto",
    num_chains: int = 100,
    num_temperatures: int = 5000,
    burn_in: int = 1000,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
) -> Evidence:
    r"""Return the log normaliser of an energy, exactly or by annealed importance sampling.

    \[ Z = \int p^*(x) \, dx, \qquad p(x) = p^*(x) / Z \]

    Exactly: by listing the states of the smaller side of a harmonium (up to 25 binary units), or by
    summing out a factor graph of low width. Otherwise by annealing K chains of the energy's own
    from independent units, whose Z is known, to the energy: the mean weight is Z, so that log Z is
    underestimated in expectation and the lower limit is the safe one. `method="reverse"` anneals
    from draws of the energy down to the start, which overestimates; its upper limit is the safe
    one, as far as the long-run draws it begins with are draws of the energy. Energies without a
    chain of their own, and programs with factors, are annealed by `dg.ais` from their prior.

    Args:
        model: a ready energy, a `FactorGraph`, or a program with factors.
        *data: of a ready energy: rows whose base rates the chains start from (its own chains' rates
            without them); of a program: its data.
        method: "auto" (exact where it can be, else "ais"), "exact", "ais" or "reverse".
        num_chains: number K of chains.
        num_temperatures: number of temperatures, denser towards the energy.
        burn_in: sweeps of the draws that "reverse" begins with, from the ends of annealed chains.
        params: learned values of a program by name, or a `Fit`.
        model_kwargs: constants passed to a program by name.
        progress: whether to show a progress bar.
        seed: seed of the chains.

    Returns:
        The log Z with its standard error and one-sided limits; without error where it is exact.

    Raises:
        ValueError: a method that the energy does not have, or an energy too large to list.
        TypeError: something that is no energy.

    Cost:
        Annealing: K times num_temperatures sweeps, two products of the weights each. "reverse"
        takes twice that and the burn-in. Enumeration: see `deepgen_ppl.harmonium.exact_log_z`.

    References:
        Neal: Annealed importance sampling. Statistics and Computing 11, 2001.
        https://arxiv.org/abs/physics/9803008
        Salakhutdinov, Murray: On the quantitative analysis of deep belief networks. ICML 2008.
        https://doi.org/10.1145/1390156.1390266
        Burda, Grosse, Salakhutdinov: Accurate and conservative estimates of MRF log-likelihood
        using reverse annealing. AISTATS 2015. https://arxiv.org/abs/1412.8566

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> rbm = dg.RBM(6, 4)
        >>> exact = dg.log_z(rbm)
        >>> found = dg.log_z(rbm, method="ais", num_temperatures=50, progress=False)
        >>> abs(found.log_evidence - exact.log_evidence) < 5 * found.standard_error
        True
    """
    choice("method", method, normalising.METHODS)
    check_counts(num_chains=num_chains, num_temperatures=num_temperatures, burn_in=burn_in)
    if isinstance(model, FactorGraph):
        return _of_graph(model, method)
    if not isinstance(model, Energy):
        return _of_program(
            model, data, method, num_chains, num_temperatures, params, model_kwargs, progress, seed
        )
    known = _listed(model, method)
    if known is not None:
        return known
    if not hasattr(model, "path"):
        return _of_program(
            model.program, (None,), method, num_chains, num_temperatures, None, None, progress, seed
        )
    up, down = _weights(
        model, data, method == "reverse", num_chains, num_temperatures, burn_in, progress, seed
    )
    if down is not None:
        return normalising.reverse_evidence(down, normalising.APPROXIMATE)
    return evidence(up, method="annealed importance sampling")


def log_z_bounds(
    model: Energy,
    *data: Any,
    num_chains: int = 100,
    num_temperatures: int = 5000,
    burn_in: int = 1000,
    progress: bool = True,
    seed: int | Array = 0,
) -> EvidenceBounds:
    """Return the log normaliser of an energy from both sides, by annealing up and down.

    Args:
        model: a ready energy with a chain of its own.
        *data: rows whose base rates the chains start from.
        num_chains: number of chains, both ways.
        num_temperatures: number of temperatures, both ways.
        burn_in: sweeps of the draws that the way down begins with.
        progress: whether to show a progress bar.
        seed: seed of the chains.

    Returns:
        A stochastic lower bound, and an upper one that is approximate: it takes long-run draws for
        draws of the energy.

    Raises:
        TypeError: an energy without a chain of its own.

    Cost:
        Twice that of `log_z(method="ais")`, and the burn-in.

    References:
        Burda, Grosse, Salakhutdinov: Accurate and conservative estimates of MRF log-likelihood
        using reverse annealing. AISTATS 2015. https://arxiv.org/abs/1412.8566

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> bounds = dg.log_z_bounds(dg.RBM(6, 4), num_temperatures=50, burn_in=10, progress=False)
        >>> [bound.direction for bound in bounds.bounds]
        ['lower', 'approximate upper']
    """
    check_counts(num_chains=num_chains, num_temperatures=num_temperatures, burn_in=burn_in)
    if not hasattr(model, "path"):
        raise TypeError(
            f"log_z_bounds needs an energy with a chain of its own, not {type(model).__name__}: "
            "dg.log_z, or dg.evidence_bounds of a program."
        )
    up, down = _weights(model, data, True, num_chains, num_temperatures, burn_in, progress, seed)
    cost = f"{num_chains} chains, {num_temperatures} temperatures"
    return EvidenceBounds((
        lower_bound("annealed importance sampling", up, cost=cost),
        upper_bound(
            "reverse annealing", down, cost=cost, approximate=True, assumes=normalising.ASSUMES
        ),
    ))  # fmt: skip


def _listed(model: Any, method: str) -> Evidence | None:
    """Return the exact log Z of an energy, None where it is to be annealed."""
    if method not in ("auto", "exact"):
        return None
    if hasattr(model, "exact_log_z") and (found := model.exact_log_z()) is not None:
        return found
    if hasattr(model, "sides"):
        sides = model.sides()
        if method == "exact" or can_enumerate(sides):
            return normalising.exact_evidence(exact_log_z(sides), "enumeration")
    elif hasattr(model, "factor_graph"):
        graph = model.factor_graph()
        if method == "exact" or normalising.is_narrow(graph):
            return _of_graph(graph, "exact")
    elif method == "exact":
        raise normalising.wrong_method(
            method, type(model).__name__, 'its states cannot be listed; take "ais".'
        )
    return None


def _weights(
    model: Any, data: tuple, reverse: bool, num_chains: int, num_temperatures: int, burn_in: int,
    progress: bool, seed: Any,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Return the log weights of the way up, and of the way down where it is asked for."""
    keys = random.split(as_key(seed), 4)
    path = model.path(keys[0], *data)
    betas = normalising.temperatures(num_temperatures)
    up, state = annealed.forwards(path, betas, num_chains, keys[1], progress)
    if not reverse:
        return up, None
    state = annealed.resampled(state, up, 0)
    state = annealed.settled(path, state, burn_in, keys[2])
    return up, annealed.backwards(path, betas, state, keys[3], progress)


def _of_graph(graph: FactorGraph, method: str) -> Evidence:
    """Return the log Z of a factor graph, summed out."""
    if method not in ("auto", "exact"):
        raise normalising.wrong_method(method, "factor graph", 'it is summed out: "exact".')
    return normalising.exact_evidence(float(exact(graph, query=()).log_evidence), "elimination")


def _of_program(
    model: Any, data: tuple, method: str, num_chains: int, num_temperatures: int, params: Any,
    model_kwargs: Any, progress: bool, seed: Any,
) -> Evidence:  # fmt: skip
    """Return the log Z of a program with factors, annealed from its prior."""
    if isinstance(model, CRF | LabelDistribution):
        raise TypeError(labelling.NO_LOG_Z)
    if not callable(model):
        raise TypeError(f"log_z takes an energy or a program, not {type(model).__name__}.")
    if method not in ("auto", "ais"):
        raise normalising.wrong_method(
            method, "program", 'it has no chain of its own; take "ais", or dg.evidence_bounds.'
        )
    found = ais(
        model, *data, num_chains=num_chains, num_temperatures=num_temperatures, params=params,
        model_kwargs=model_kwargs, progress=progress, seed=seed,
    )  # fmt: skip
    if found.evidence is None:
        raise ValueError("the program gave no evidence.")
    normalising.check_integrable(found.log_weights)
    return found.evidence
