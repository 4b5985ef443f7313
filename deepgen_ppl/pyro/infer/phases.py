"""Both phases of maximum likelihood for unnormalised densities: positive term and chains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import energy_checks
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.data import unwrap
from deepgen_ppl.pyro.infer.negative import GradientChains, OwnChains, Sampler
from deepgen_ppl.pyro.infer.program_chains import ProgramChains
from deepgen_ppl.pyro.infer.tempered_chains import TemperedChains, TemperedOwnChains
from deepgen_ppl.pyro.infer.vectorized import resolve
from deepgen_ppl.pyro.kernels.chains import Chains
from deepgen_ppl.pyro.kernels.chees import ChEES
from deepgen_ppl.pyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.pyro.kernels.gibbs import Gibbs
from deepgen_ppl.pyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.pyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.pyro.kernels.rwm import RWM
from deepgen_ppl.pyro.kernels.tempering import ParallelTempering
from deepgen_ppl.pyro.objectives import ELBO, ExactMarginal
from deepgen_ppl.pyro.parameters import forked_rng, installed, private_store
from deepgen_ppl.pyro.program import Pair, call
from deepgen_ppl.pyro.reading import read, read_pair
from deepgen_ppl.pyro.structure import Program

_MOST_COMPARED = 1024
_STATES = 8


class Phases(NamedTuple):
    """What a run of contrastive training is made of.

    Attributes:
        pair: model and guide.
        negative: names of the sites that the negative phase draws.
        hidden: names of the latent sites that the guide lacks.
        positive: how hidden sites are dealt with: "exact", "sampled" or "guide"; empty for none.
        by_rows: whether a chain is one row's.
    """

    pair: Pair
    negative: tuple[str, ...]
    hidden: tuple[str, ...]
    positive: str
    by_rows: bool


def read_phases(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequence[Any],
    *,
    negative: Sequence[str] | None,
    positive: str,
    model_kwargs: Mapping[str, Any] | None,
    params: Any,
    batch_size: int | None,
    seed: Any,
) -> Phases:
    """Read a model, and a guide where there is one, and say which sites each phase draws.

    Raises:
        ValueError: no observed site, latents that the rows share, a guide with factors, or hidden
            sites that cannot be summed out and are to be.
    """
    options: dict[str, Any] = {"model_kwargs": model_kwargs, "params": params, "seed": seed}
    first = read(model, data, model_kwargs=model_kwargs, params=params, batch_size=batch_size)
    energy_checks.check_visible(first.observed, first.factors)
    by_rows = bool(first.data_plates)
    local = {n: not by_rows or _stands_in(first, s) for n, s in first.observed.items()}
    names = energy_checks.check_negative(negative, local)
    if by_rows:
        energy_checks.check_shared(
            [n for n, s in first.latents.items() if not _stands_in(first, s)]
        )
    drawn: list[str] = []
    if guide is not None:
        about = read(guide, data, role="guide", data_plates=first.data_plates, **options)
        energy_checks.check_guide_factors(about.factors)
        drawn = list(about.latents)
    hidden = {n: s for n, s in first.latents.items() if n not in drawn}
    how = ""
    if hidden:
        listed = [n for n, s in hidden.items() if s.is_discrete and s.enumerable]
        discrete = {n: s.is_discrete for n, s in hidden.items()}
        how = energy_checks.check_hidden(discrete, listed, positive)
    pair = read_pair(
        model, guide, data, batch_size=batch_size, enumerated=how == "exact",
        alone=how == "exact", prior=how == "sampled", **options,
    )  # fmt: skip
    return Phases(pair, names, tuple(hidden), how or ("guide" if drawn else ""), by_rows)


def _stands_in(program: Program, site: Any) -> bool:
    return bool(set(site.plates) & set(program.data_plates))


def check_data(phases: Phases, data: Sequence[Any], values: Mapping[str, Tensor]) -> None:
    """Refuse data outside the support of their base distribution.

    Raises:
        ValueError: naming site, rows and values.
    """
    program = phases.pair.model
    with (
        private_store(),
        forked_rng(0),
        torch.no_grad(),
        handlers.validation(False),
        installed(program.params.values(), values) as answers,
    ):
        seen = call(program, data, handlers.feasible(), answers).sites
    for name in phases.negative:
        support, value = program.sites[name].support, seen[name]["value"]
        inside = np.atleast_1d(support.check(value).numpy())
        energy_checks.check_support(name, inside, value.numpy(), support)


def freed(
    model: Callable[..., Any],
    names: Sequence[str],
    data: Sequence[Any],
    by_rows: bool,
    model_kwargs: Mapping[str, Any] | None,
    params: Any,
) -> Program:
    """Read a program whose observed sites of these names are free, at one row of the data.

    Factors stay as they are, which the language's own `uncondition` would take away.
    """
    fn, args, kwargs = unwrap(model)
    wrapped: Any = handlers.unobserve(tuple(names))(fn)
    free = functools.partial(wrapped, *args, **kwargs) if names else model
    cut = data_.take(data_.to_tensors(data), slice(0, 1)) if by_rows else data
    return read(free, cut, model_kwargs=model_kwargs, params=params)


def kernels_of(sampler: Any, is_discrete: bool, is_continuous: bool) -> tuple[Any, Any]:
    """Return the kernels of discrete and of continuous sites that are meant.

    Args:
        sampler: a name, options, or None for the usual ones.
        is_discrete: whether there are discrete sites.
        is_continuous: whether there are continuous sites.

    Raises:
        ValueError: the sampler does not fit the sites, or is no vectorised kernel.
    """
    if sampler == "hmc":
        sampler = ChEES()
    kernel = None if sampler is None else resolve(sampler)
    discrete = (Gibbs, GibbsWithGradients, DiscreteLangevin)
    moving: tuple[type[Any], ...] = (ChEES, MALA, Langevin, RWM, *discrete)
    if sampler is not None and not isinstance(kernel, moving):
        energy_checks.refuse_sampler(sampler)
    if isinstance(kernel, discrete):
        if not is_discrete:
            energy_checks.refuse_kind(sampler, "discrete", "'mala', 'langevin' or 'hmc'")
        wished = kernel.continuous
        continuous = MALA() if wished == "chees" else resolve(wished)
        return kernel, continuous if is_continuous else None
    if kernel is not None and not is_continuous:
        energy_checks.refuse_kind(sampler, "continuous", "'gibbs' or 'gibbs_with_gradients'")
    return Gibbs() if is_discrete else None, (kernel or MALA()) if is_continuous else None


def ladder_of(sampler: Any) -> ParallelTempering | None:
    """Return the options of tempering where it is meant; without a kernel by its plain name."""
    if isinstance(sampler, str) and sampler == "tempering":
        return ParallelTempering(kernel=None)
    kernel = None if sampler is None else resolve(sampler)
    return kernel if isinstance(kernel, ParallelTempering) else None


def goes_down(ladder: ParallelTempering, energy: object) -> bool:
    """Tell whether a ready energy's own sweeps are to be tempered, by its path."""
    return hasattr(energy, "path_from") and (
        ladder.kernel is None or isinstance(ladder.kernel, Gibbs)
    )


def negative_chains(
    phases: Phases,
    energy: Any,
    sampler: Any,
    model: Callable[..., Any],
    data: Sequence[Any],
    values: Mapping[str, Tensor],
    model_kwargs: Mapping[str, Any] | None,
) -> tuple[Sampler, ProgramChains | None]:
    """Return the chains of the negative phase, and those on hidden sites given the data.

    Args:
        phases: what `read_phases` found.
        energy: the ready energy, None for a program.
        sampler: what the user asked for.
        model: the program.
        data: the data.
        values: constrained parameters in general position.
        model_kwargs: constants passed by name.
    """
    ladder = ladder_of(sampler)
    if energy is not None and isinstance(energy, Chains):
        params = phases.pair.params.values()
        if sampler is None:
            return OwnChains(energy, params), None
        if ladder is not None and goes_down(ladder, energy):
            own: Any = energy
            rates = own.rates(torch.Generator(), data_.to_tensors(data)[0])
            return TemperedOwnChains(energy, params, ladder.num_temperatures, rates), None
    own = freed(model, phases.negative, data, phases.by_rows, model_kwargs, values)
    discrete = [s.is_discrete for s in own.latents.values()]
    sampler = sampler if ladder is None else ladder.kernel
    kernels = kernels_of(sampler, any(discrete), not all(discrete))
    if energy is not None and not any(discrete) and ladder is None:
        return GradientChains(energy, phases.pair.params.values(), kernels[1]), None
    source, tensors = phases.pair.model, data_.to_tensors(data)
    given = None
    if phases.hidden or phases.positive == "guide":
        held = freed(model, (), data, phases.by_rows, model_kwargs, values)
        kinds = [s.is_discrete for s in held.latents.values()]
        own_kernels = (
            kernels[0] if any(kinds) else None,
            kernels[1] if not all(kinds) else None,
        )
        given = ProgramChains(held, (), source, values, tensors, own_kernels, phases.by_rows)
    about = (own, phases.negative, source, values, tensors, kernels, phases.by_rows, given)
    if ladder is not None:
        return TemperedChains(ladder.num_temperatures, *about), given
    return ProgramChains(*about), given


def depends_on_rows(chains: Sampler, data: Sequence[Any], values: Mapping[str, Tensor]) -> bool:
    """Tell whether the free program's density differs from row to row, by its covariates."""
    total = data_.num_rows(data) or 0
    if not isinstance(chains, ProgramChains) or not chains.by_rows or total < 2:
        return False
    count = min(total, _MOST_COMPARED)
    rows = torch.as_tensor(np.linspace(0, total - 1, count).astype(np.int64))
    with torch.no_grad(), forked_rng(0), handlers.validation(False):
        begun = chains.start(values, data, rows[:1].repeat(_STATES), False)
        same = tuple(part.repeat_interleave(count, 0) for part in begun)
        log_prob = chains.log_prob(values, data, rows.repeat(_STATES), same)
    found = log_prob.numpy().reshape(_STATES, count)
    return not np.allclose(found, found[:, :1], rtol=1e-5, atol=1e-5, equal_nan=True)


def positive_loss(
    phases: Phases,
    values: Mapping[str, Tensor],
    data: Sequence[Any],
    batch_size: int | None,
    chains: Sampler | None = None,
) -> Callable[[Mapping[str, Tensor], Tensor | None], Tensor]:
    """Return minus the unnormalised log density of the data, hidden sites summed or bounded.

    It is a function of pair's parameters and rows, scaled to all rows. A ready energy with a chain
    of its own is asked by itself, without the base that its program counts and takes away.
    """
    if isinstance(chains, OwnChains) and set(phases.pair.model.sites) == {"x", "factor"}:
        own = chains

        def direct(params: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
            total = -own.data_log_prob(params, data, rows).mean()
            return max(phases.pair.num_rows or 1, 1) * total

        return direct
    objective = ExactMarginal() if phases.positive == "exact" else ELBO()
    objective.check(phases.pair, batch_size)
    if isinstance(objective, ExactMarginal):
        objective.prepare(phases.pair, values, data, batch_size)
    return lambda params, rows: objective(phases.pair, params, data, rows)
