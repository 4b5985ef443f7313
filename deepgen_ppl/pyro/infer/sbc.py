"""The verb `sbc`: is an inference right on average over the data that a model simulates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks, simulation
from deepgen_ppl.calibration import Calibration
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.importance import importance
from deepgen_ppl.pyro.infer.mcmc import mcmc
from deepgen_ppl.pyro.infer.simulated import (
    Simulated,
    data_log_likelihood,
    looking,
    on_host,
    replaced,
)
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store, resolve
from deepgen_ppl.pyro.probes import points
from deepgen_ppl.pyro.structure import Pair, Program
from deepgen_ppl.trials import LOG_LIKELIHOOD, Counts, Inference, Trials, calibration

_NUM_PARTICLES = 1000


def sbc(
    model: Callable[..., Any],
    infer: Any,
    *data: Any,
    num_simulations: int = 200,
    num_draws: int = 99,
    test_quantities: Mapping[str, Callable[..., Any]] | None = None,
    simulate: Callable[..., Any] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Calibration:
    r"""Check an inference by simulation-based calibration.

    Parameters are drawn from the prior and data from the model, and the inference is run on every
    simulated data set; among L independent draws of the exact posterior the rank of the true value
    is uniform:

    \[ \theta \sim p(\theta), \quad y \sim p(y \mid \theta), \quad
       \theta_1, \ldots, \theta_L \sim p(\theta \mid y) \;\Rightarrow\;
       r = \#\{l : \theta_l < \theta\} \sim U\{0, \ldots, L\} \]

    Observed sites are drawn anew and put back into the data arguments they come from (columns and
    slices of arguments are found); covariates, and `None` of what is not observed, stay as they
    are. The joint log likelihood of parameters and data is ranked too: it finds what single
    parameters do not show, such as a posterior that is the prior. It is left out where the
    inference sums discrete latents out. Chains are thinned to their effective sample size.

    Where all latents are local to the data plate, rows are simulations of their own and their ranks
    are pooled, unless the guide is trained on each data set. Else every element of a site is judged
    by itself, see `Calibration.diagnose`.

    Args:
        model: A Pyro program with proper priors.
        infer: What is calibrated: a `Fit` of an amortised guide, which is not trained again; or a
            function of model and data that returns a `Posterior` or a `Fit`, such as
            `partial(dg.mcmc, num_samples=500)`, `partial(dg.svi, guide=AutoNormal, num_steps=1000)`
            (of a class of autoguides an object is made), or one of your own; or the name
            of a verb, `"mcmc"` or `"importance"`. Where it takes `seed`, `progress`, `params` or
            `model_kwargs` and binds none, it is given them.
        *data: Data of the shapes that are simulated, with rows on the leading axis; the values of
            what is observed are not used.
        num_simulations: Number of data sets.
        num_draws: Number L of draws that a true value is ranked among.
        test_quantities: Further quantities by name: functions of draws (a dict of sites to
            `(S, *shape)`) and the data arguments that return `(S, ...)`.
        simulate: Where data are transformed on their way to the observed sites: a function of the
            drawn sites of one simulation (a dict) and a `numpy.random.Generator` that returns the
            data arguments.
        params: Learned values of the model's parameters: a dict or a `Fit`; by default those of
            `infer`, if that is one.
        model_kwargs: Constants passed to the model by name.
        progress: Whether to show a progress bar over the simulations.
        seed: Seed of simulations and inferences.

    Returns:
        The ranks; `diagnose()` judges them, `to_datatree()` hands them to arviz_plots.

    Raises:
        TypeError: `infer` returns neither a `Posterior` nor a `Fit`.
        ValueError: The model has factors, an improper prior, or a density that depends on the data
            that are to be simulated; data cannot be put back; or the guide of a `Fit` does not read
            the data.

    Cost:
        `num_simulations` inferences. Importance sampling and the guide of a `Fit` run vectorised
        over simulations where the program allows it.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman: Validating Bayesian inference algorithms with
        simulation-based calibration. 2018. https://arxiv.org/abs/1804.06788

        Modrák et al.: Simulation-based calibration checking for Bayesian computation: the choice of
        test quantities shapes sensitivity. Bayesian Analysis, 2023.
        https://arxiv.org/abs/2211.02383

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> sbc(model, "importance", np.zeros(2), num_simulations=100).diagnose().ok
        True
    """
    simulation.check_counts(num_simulations=num_simulations, num_draws=num_draws)
    fit = infer if isinstance(infer, Fit) else None
    if fit is not None:
        params = fit.params if params is None else params
        model_kwargs = fit.model_kwargs if model_kwargs is None else model_kwargs
    options: dict[str, Any] = {"params": params, "model_kwargs": model_kwargs, "progress": False}
    verbs = {"mcmc": mcmc, "importance": importance}
    called = None if fit is not None else Inference(infer, verbs, options, anew=True)
    learned = given(params)
    program = program_.read(
        model, data_.to_tensors(data), model_kwargs=model_kwargs, params=learned, seed=seed
    )
    if called is not None:
        called.check_fixed([n for n, param in program.params.items() if param.trainable])
    subsampled = [plate.name for plate in program.plates.values() if plate.subsampled]
    simulation.check_proper(program.factors, program.observed, program.latents, subsampled)
    source = Simulated(program, resolve(program.params, learned), data)
    seeds = [int(s >> 1) for s in np.random.SeedSequence(seed).generate_state(3)]
    truth, back = simulation.simulated(source, num_simulations, simulate, seeds[0])
    by_row = source.has_own_rows()
    trained, quantities = False, dict(test_quantities or {})
    vectorised = _vectorised_pair(model, fit, called, data, model_kwargs)
    if vectorised is not None and not quantities:
        run = _Vectorised(source, *vectorised, num_draws)
        if fit is not None:
            simulation.check_amortised(*run.draw_twice(back))
        counts, among = run.counts(truth, back, by_row, seeds[1]), [num_draws] * num_simulations
    else:
        find = _found_by(called, fit, model, num_draws)
        weigh = source.log_likelihood(by_row)
        trials = Trials(truth, program.latents, num_draws, quantities, weigh)
        with _untrained(called, model, data, model_kwargs) as renew:
            trials.run(
                lambda one, s: renew(find(one, s)), source.data, back, seeds[1], progress,
                source.as_given,
            )  # fmt: skip
        counts, among, trained = trials.stacked(), trials.num_draws, fit is None and trials.trained
    rows = program.data_plates[0] if by_row and not trained else None
    return calibration(
        counts, among, wanted=num_draws, latents=program.latents, plates=source.plates(by_row),
        rows=rows, infer="svi" if called is None else called.name, seed=seeds[2],
    )  # fmt: skip


def _found_by(
    called: Inference | None, fit: Fit | None, model: Callable[..., Any], num_draws: int
) -> Callable[[Sequence[Any], int], Any]:
    """Return the inference as a function of data and a seed to a posterior."""

    def find(data: Sequence[Any], seed: int) -> Any:
        found = fit if called is None else called(model, data, seed)
        if isinstance(found, Fit):
            return found.posterior(*data, num_samples=num_draws, seed=seed)
        return found

    return find


@contextmanager
def _untrained(
    called: Inference | None,
    model: Callable[..., Any],
    data: Sequence[Any],
    model_kwargs: Mapping[str, Any] | None,
) -> Iterator[Callable[[Any], Any]]:
    """Give a function that puts a guide's modules back as they were before they were trained."""
    kept: list[tuple[Tensor, Tensor]] = []
    guide = None if called is None else called.guide
    if guide is not None and not isinstance(guide, type):
        with private_store(), forked_rng(0):
            options: dict[str, Any] = {"model_kwargs": model_kwargs, "prior": True}
            pair = program_.read_pair(
                model, guide, data_.to_tensors(data), **options, enumerated=True
            )
        kept = [(p.leaf, p.leaf.detach().clone()) for p in pair.params.values()]

    def renew(found: Any) -> Any:
        with torch.no_grad():
            for leaf, value in kept:
                leaf.copy_(value)
        return found

    try:
        yield renew
    finally:
        renew(None)


def _vectorised_pair(
    model: Callable[..., Any],
    fit: Fit | None,
    called: Inference | None,
    data: Sequence[Any],
    model_kwargs: Mapping[str, Any] | None,
) -> tuple[Pair, dict[str, Tensor], int | None] | None:
    """Return what runs vectorised over simulations: the pair, its values and number of particles.

    That is the guide of a fit (no particles: its draws as they are), and importance sampling.
    """
    options: dict[str, Any] = {"model_kwargs": model_kwargs, "enumerated": True}
    tensors = data_.to_tensors(data)
    if fit is not None:
        pair = program_.read_pair(model, fit.guide, tensors, params=fit.params, **options)
        return pair, resolve(pair.params, given(fit.params)), None
    if called is None or called.fn is not importance or called.args:
        return None
    if called.own - {"num_particles", "params", "model_kwargs"}:
        return None
    options["model_kwargs"] = called.bound["model_kwargs"]
    learned, guide = given(called.bound["params"]), called.guide_of(model)
    pair = program_.read_pair(model, guide, tensors, params=learned, prior=True, **options)
    values = resolve(pair.params, learned)
    with handlers.validation(False):
        checks.check_points(points(pair, values, tensors))
    return pair, values, called.bound.get("num_particles", _NUM_PARTICLES)


class _Vectorised:
    """Draws of a guide, or weighted ones, at all simulated data sets at once."""

    def __init__(
        self,
        source: Simulated,
        pair: Pair,
        values: Mapping[str, Tensor],
        num_particles: int | None,
        num_draws: int,
    ) -> None:
        self.source, self.pair, self.num_draws = source, pair, num_draws
        self.values, self.num_particles = dict(values), num_particles

    def draw_twice(self, back: Mapping[int, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the guide's draws at the first and at the last data set, from the same seed."""
        found = []
        with looking(self.pair.modules):
            for s in (0, -1):
                one = {name: value[s] for name, value in self.source.named(back).items()}
                data = replaced(self.source.tensors, one)
                drawn = program_.log_weights(self.pair, self.values, data, key=0).latents
                found.append({name: on_host(value) for name, value in drawn.items()})
        return found

    def counts(
        self,
        truth: Mapping[str, np.ndarray],
        back: Mapping[int, np.ndarray],
        by_row: bool,
        seed: int,
    ) -> Counts:
        """Return how many draws are below the true values, and how many equal them."""
        pair, program = self.pair, self.pair.model
        num_draws, num_particles = self.num_draws, self.num_particles
        names = [name for name in program.latents if name not in pair.enumerated]

        def one(draw: dict[str, Tensor]) -> dict[str, Tensor]:
            data = replaced(self.source.tensors, draw)
            weights = program_.particles(pair, self.values, data, None, num_particles or num_draws)
            drawn = weights.latents
            if num_particles is not None:
                chosen = _chosen(weights, num_draws, by_row and pair.local)
                drawn = {name: _taken(program, name, drawn[name], chosen) for name in names}
            values = {name: (draw[f"true {name}"], drawn[name]) for name in names}
            if not pair.enumerated:

                def weigh_data(latents: Any) -> Tensor:
                    return data_log_likelihood(program, self.values, latents, data, by_row)

                true = {name: value for name, (value, _) in values.items()}
                found = torch.func.vmap(weigh_data)({name: drawn[name] for name in names})
                values[LOG_LIKELIHOOD] = (weigh_data(true), found)
            less = {f"less {n}": (found < true).sum(0) for n, (true, found) in values.items()}
            same = {f"equal {n}": (found == true).sum(0) for n, (true, found) in values.items()}
            return less | same

        true = {f"true {n}": torch.as_tensor(truth[n], device=self.source.device) for n in names}
        with preserved(pair.modules):
            found = evaluate.over_draws(
                one, {**self.source.named(back), **true}, seed, copies=num_particles or num_draws
            )
        ranked = [*names, *([] if pair.enumerated else [LOG_LIKELIHOOD])]
        return {name: (found[f"less {name}"], found[f"equal {name}"]) for name in ranked}


def _chosen(weights: program_.Weights, num_draws: int, by_row: bool) -> Tensor:
    """Return the numbers of the particles that are drawn again, (L,) or (L, N)."""
    if not by_row:
        total = weights.shared + weights.scale * weights.rows.sum(1)
        return torch.multinomial(total.softmax(0), num_draws, replacement=True)
    return torch.multinomial(weights.rows.T.softmax(1), num_draws, replacement=True).T


def _taken(program: Program, name: str, value: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen particles of a site, row by row where each row has its own."""
    if chosen.dim() == 1:
        return value[chosen]
    site = program.sites[name]
    axis = 1 + site.plates.index(site.row_plate)
    rows = torch.arange(chosen.shape[1], device=chosen.device)
    return value.movedim(axis, 1)[chosen, rows].movedim(1, axis)
