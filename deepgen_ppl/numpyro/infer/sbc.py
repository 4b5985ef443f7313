"""The verb `sbc`: is an inference right on average over the data that a model simulates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from deepgen_ppl import checks, simulation
from deepgen_ppl.calibration import Calibration
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.infer.importance import check_learned, importance
from deepgen_ppl.numpyro.infer.mcmc import mcmc
from deepgen_ppl.numpyro.infer.simulated import Simulated, data_log_likelihood, named, replaced
from deepgen_ppl.numpyro.probes import points
from deepgen_ppl.numpyro.structure import Pair, Program
from deepgen_ppl.numpyro.unconstrained import row_axis
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
    seed: int | Array = 0,
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
        model: A NumPyro program with proper priors.
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
        seed: Seed of simulations and inferences, an int or a random key.

    Returns:
        The ranks; `diagnose()` judges them, `to_datatree()` hands them to arviz_plots.

    Raises:
        TypeError: `infer` returns neither a `Posterior` nor a `Fit`.
        ValueError: The model has factors, an improper prior, or a density that depends on the data
            that are to be simulated; data cannot be put back; or the guide of a `Fit` does not read
            the data.

    Cost:
        `num_simulations` inferences, which run what the first of them compiled. Importance sampling
        and the guide of a `Fit` run vectorised over simulations.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman: Validating Bayesian inference algorithms with
        simulation-based calibration. 2018. https://arxiv.org/abs/1804.06788

        Modrák et al.: Simulation-based calibration checking for Bayesian computation: the choice of
        test quantities shapes sensitivity. Bayesian Analysis, 2023.
        https://arxiv.org/abs/2211.02383

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with numpyro.plate("data", len(y)):
        ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
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
    called = None if fit is not None else Inference(infer, verbs, options, anew=False)
    learned = program_.learned(params)
    program = program_.read(model, data, model_kwargs=model_kwargs, params=learned)
    check_learned(Pair(program, None, program.local), learned)
    if called is not None:
        called.check_fixed(list(program.params))
    subsampled = [plate.name for plate in program.plates.values() if plate.subsampled]
    simulation.check_proper(program.factors, program.observed, program.latents, subsampled)
    number = int(random.bits(as_key(seed)))
    seeds = [int(s >> 1) for s in np.random.SeedSequence(number).generate_state(3)]
    source = Simulated(program, jax.tree.map(jnp.asarray, learned), data)
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
        trials = Trials(
            truth, program.latents, num_draws, quantities, source.log_likelihood(by_row)
        )
        trials.run(find, source.data, back, seeds[1], progress, source.as_given)
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


def _vectorised_pair(
    model: Callable[..., Any],
    fit: Fit | None,
    called: Inference | None,
    data: Sequence[Any],
    model_kwargs: Mapping[str, Any] | None,
) -> tuple[Pair, dict[str, Any], int | None] | None:
    """Return what runs vectorised over simulations: the pair, its values and number of particles.

    That is the guide of a fit (no particles: its draws as they are), and importance sampling.
    """
    options: dict[str, Any] = {"model_kwargs": model_kwargs, "enumerated": True}
    if fit is not None:
        pair = program_.read_pair(model, fit.guide, data, params=fit.params, **options)
        check_learned(pair, fit.params)
        return pair, fit.params, None
    if called is None or called.fn is not importance or called.args:
        return None
    if called.own - {"num_particles", "params", "model_kwargs"}:
        return None
    options["model_kwargs"] = called.bound["model_kwargs"]
    values, guide = program_.learned(called.bound["params"]), called.guide_of(model)
    pair = program_.read_pair(model, guide, data, params=values, prior=True, **options)
    check_learned(pair, values)
    checks.check_points(points(pair, values, pair.inputs(data), random.key(0)))
    return pair, values, called.bound.get("num_particles", _NUM_PARTICLES)


class _Vectorised:
    """Draws of a guide, or weighted ones, at all simulated data sets at once."""

    def __init__(
        self,
        source: Simulated,
        pair: Pair,
        values: Mapping[str, Any],
        num_particles: int | None,
        num_draws: int,
    ) -> None:
        self.source, self.pair, self.num_draws = source, pair, num_draws
        self.values = jax.tree.map(jnp.asarray, dict(values))
        self.inputs, self.num_particles = pair.inputs(source.given), num_particles

    def draw_twice(self, back: Mapping[int, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the guide's draws at the first and at the last data set, from the same seed."""
        pair, found = self.pair, []
        for s in (0, -1):
            one = {name: jnp.asarray(value[s]) for name, value in named(back).items()}
            inputs = replaced(self.inputs, one)
            drawn = program_.log_weights(pair, self.values, inputs, key=random.key(0)).latents
            found.append({name: np.asarray(value) for name, value in drawn.items()})
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

        def one(draw: Any, key: Array, params: Any, inputs: Any) -> dict[str, Array]:
            inputs = replaced(inputs, draw)
            keys = random.split(key, (num_particles or num_draws) + 1)

            def weigh(key: Array) -> program_.Weights:
                return program_.log_weights(pair, params, inputs, key=key)

            weights = jax.vmap(weigh)(keys[1:])
            drawn = weights.latents
            if num_particles is not None:
                chosen = _chosen(keys[0], weights, num_draws, by_row and pair.local)
                drawn = {name: _taken(program, name, drawn[name], chosen) for name in names}
            values = {name: (draw[f"true {name}"], drawn[name]) for name in names}
            if not pair.enumerated:

                def weigh_data(latents: Any) -> Array:
                    return data_log_likelihood(program, params, latents, inputs, by_row)

                true = {name: value for name, (value, _) in values.items()}
                values[LOG_LIKELIHOOD] = (weigh_data(true), jax.vmap(weigh_data)(drawn))
            less = {f"less {n}": jnp.sum(found < true, 0) for n, (true, found) in values.items()}
            same = {f"equal {n}": jnp.sum(found == true, 0) for n, (true, found) in values.items()}
            return less | same

        draws = {**named(back), **{f"true {name}": truth[name] for name in names}}
        found = evaluate.over_draws(
            pair.programs[-1].fn, "sbc", one, draws, (self.values, self.inputs), seed,
            copies=num_particles or num_draws,
            static=(num_draws, num_particles, by_row, pair[2:], program.fn, *sorted(draws)),
            once=True,
        )  # fmt: skip
        ranked = [*names, *([] if pair.enumerated else [LOG_LIKELIHOOD])]
        return {name: (found[f"less {name}"], found[f"equal {name}"]) for name in ranked}


def _chosen(key: Array, weights: program_.Weights, num_draws: int, by_row: bool) -> Array:
    """Return the numbers of the particles that are drawn again, (L,) or (L, N)."""
    log_weights = weights.rows
    if not by_row:
        log_weights = (weights.shared + weights.scale * jnp.sum(weights.rows, axis=1))[:, None]
    uniform = random.uniform(key, (num_draws, log_weights.shape[1]))
    total = jnp.cumsum(jax.nn.softmax(log_weights, axis=0), axis=0)
    found = jax.vmap(jnp.searchsorted, in_axes=(1, 1), out_axes=1)(total, uniform * total[-1])
    return found if by_row else found[:, 0]


def _taken(program: Program, name: str, value: Array, chosen: Array) -> Array:
    """Return the chosen particles of a site, row by row where each row has its own."""
    if chosen.ndim == 1:
        return value[chosen]
    axis = 1 + (row_axis(program, program.sites[name]) or 0)
    rows = jnp.arange(chosen.shape[1])
    return jnp.moveaxis(jnp.moveaxis(value, axis, 1)[chosen, rows], 1, axis)
