"""The verb `contrastive`: maximum likelihood of a program whose factors are not normalised."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import energy_monitors as monitors
from deepgen_ppl.chain_options import chain_options
from deepgen_ppl.loop import Progress
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.learn import (
    Asked,
    held_of,
    learn,
    program_of,
    shaken,
    start_values,
    values_of,
)
from deepgen_ppl.pyro.infer.phases import (
    check_data,
    depends_on_rows,
    negative_chains,
    positive_loss,
    read_phases,
)
from deepgen_ppl.pyro.infer.pool import Run, Watch
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.parameters import forked_rng, private_store


def contrastive(
    model: Any,
    *data: Any,
    sampler: Any = None,
    persistent: bool = True,
    num_chains: int = 128,
    chain_steps: int = 1,
    guide: Callable[..., Any] | None = None,
    positive: str = "auto",
    negative: Sequence[str] | None = None,
    start: str = "data",
    buffer_size: int | None = None,
    restart: float = 0.0,
    num_steps: int = 2000,
    batch_size: int | None = None,
    optim: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int = 0,
) -> Fit:
    r"""Fit an unnormalised density by maximum likelihood, its normaliser's gradient by chains.

    \[ \nabla_\theta \log p_\theta(x) = \nabla_\theta \log p^*_\theta(x)
       - \mathbb E_{x' \sim p_\theta}\bigl[\nabla_\theta \log p^*_\theta(x')\bigr] \]

    for any program with `factor` statements, whose density is the product of its sites' densities
    and of the factors' exponentials, or for a ready energy. The visible variables are observed
    sites with a base distribution. The positive phase scores the data, hidden sites summed out
    exactly, bounded by a guide, or drawn; the negative phase draws the observed sites of the data
    plate anew, with hidden ones, by chains. Covariates and factors stay as they are.

    Args:
        model: a program with factors, or a ready energy such as `EnergyModel` or `RBM`.
        *data: arrays whose leading axis is the data axis, scalars or None.
        sampler: "gibbs", "gibbs_with_gradients", "discrete_langevin", "langevin", "mala", "hmc",
            "tempering", or the options of a vectorised kernel of `mcmc`; None is a ready energy's
            own chain, else Gibbs for discrete sites and MALA for continuous ones. Step sizes follow
            the acceptance. Tempering keeps for each chain a ladder of them between the base and
            the model, which swap places: it finds modes that no plain chain crosses to. By that
            name, or around "gibbs", it runs a machine's own sweeps at all temperatures.
        persistent: whether chains go on where they were (PCD); otherwise they set out from the
            batch at each step (CD-k).
        num_chains: chains that move at each step; with covariates, or without persistence, there is
            one for each row of the batch.
        chain_steps: steps k of each chain between two updates.
        guide: a guide over hidden sites; the positive phase is then its evidence lower bound.
        positive: "exact" sums hidden sites out, "sampled" draws them by chains; "auto" sums them
            out where it can.
        negative: names of the observed sites to draw, by default those of the data plate.
        start: "data" or "base", where chains set out from.
        buffer_size: persistent chains that are kept, of which `num_chains` move at each step.
        restart: probability with which a chain that moves sets out anew from the base.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: a torch optimizer class, a function of the parameters that makes one, or an optimizer
            of Pyro; None is Adam, 1e-3.
        checkpoint: file that keeps the run with its chains; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        model_kwargs: constants passed by name.
        params: values to start from, by name, or a `Fit`.
        seed: seeds initial values, batches and chains.

    Returns:
        The fit. `losses` are energies of the data less energies of the chains, which hover about
        zero and are no measure of success; `history` has "energy_data", "energy_chains",
        "energy_width" (deviation among chains), "acceptance", "chain_age", "chain_rhat",
        "chain_spread", "weight_norm", "log_z_drift" (change of log Z since the last report) and,
        by tempering, "swap_acceptance" (of the pair of temperatures that swaps least);
        `chains` the last visible values; `diagnose()` judges them.

    Raises:
        ValueError: no observed site, data outside their support, a guide with factors, a sampler
            that does not fit; before anything is compiled.
        NonFiniteError: an energy turned non-finite; it names the first chain and the step.

    Cost:
        A gradient of the data's energy, and `chain_steps` moves of all chains, at each step; steps
        run one by one.

    References:
        Hinton: Training products of experts by minimizing contrastive divergence. Neural
        Computation 14(8), 2002.

        Tieleman: Training restricted Boltzmann machines using approximations to the likelihood
        gradient. ICML 2008.

        Du and Mordatch: Implicit generation and modeling with energy-based models. NeurIPS 2019.
        https://arxiv.org/abs/1903.08689

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):  # spins with a learned tie
        ...     tie = pyro.param("tie", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         x = pyro.sample("x", dist.Bernoulli(0.5).expand([2]).to_event(1), obs=x)
        ...         pyro.factor("energy", tie * (2 * x[..., 0] - 1) * (2 * x[..., 1] - 1))
        >>> x = np.repeat([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [40, 40, 10, 10], 0)
        >>> fit = contrastive(model, x, num_steps=60, progress=False)
        >>> bool(fit.params["tie"] > 0)
        True
    """
    asked = Asked(num_steps, batch_size, optim, clip_norm, checkpoint, callbacks, progress,
                  model_kwargs, params, seed)  # fmt: skip
    options = chain_options(persistent, num_chains, chain_steps, start, buffer_size, restart)
    with private_store(), forked_rng(seed):
        run, leaves = _set_up(model, data, asked, guide, sampler, positive, negative)
        run.options = options
        asked = asked._replace(batch_size=run.batch_size)
        run.begin(leaves, seed)
        watch = Watch(run, leaves)
        fit, result = learn(
            "contrastive", run.phases.pair, (run.model, guide), data, run.loss, leaves,
            run.pool.tensors(), asked, settings={"options": repr(options)}, monitor=watch,
            callbacks=(lambda _: monitors.diverges(watch.spread),),
        )  # fmt: skip
        with handlers.validation(False):
            if result.failed is not None:
                held = held_of(values_of(run.phases.pair, leaves))
                raise run.blame(fit, result, held, seed)
            pool = run.pool
            trained = held_of(values_of(run.phases.pair, leaves))
            fit.chains = run.chains.values(trained, run.data, pool.rows, pool.state)
            if monitors.diverges(watch.spread):
                fit.stopped = monitors.run_away(watch.spread)
                warnings.warn(fit.stopped, UserWarning, stacklevel=2)
            elif persistent:
                torch.manual_seed(mix(seed, 3))
                fit.history["short_run_gap"] = np.asarray([run.short_run(trained)])
    return fit


def _set_up(
    model: Any,
    data: Sequence[Any],
    asked: Asked,
    guide: Callable[..., Any] | None,
    sampler: Any,
    positive: str,
    negative: Sequence[str] | None,
) -> tuple[Run, dict[str, Tensor]]:
    """Read the model and make its chains."""
    program, energy = program_of(model)
    negative = getattr(energy, "negative", None) if negative is None else negative
    phases = read_phases(
        program, guide, data, negative=negative, positive=positive, params=asked.start,
        model_kwargs=asked.model_kwargs, batch_size=asked.batch_size, seed=asked.seed,
    )  # fmt: skip
    pair = phases.pair
    batch_size = None if asked.batch_size == pair.num_rows else asked.batch_size
    leaves = start_values(pair, asked)
    tensors = data_.to_tensors(data, next(iter(leaves.values())).device)
    values = values_of(pair, leaves)
    check_data(phases, tensors, values)
    general = shaken(pair, leaves)
    chains, given = negative_chains(
        phases, energy, sampler, program, data, general, asked.model_kwargs
    )
    loss: Any = None
    if phases.positive != "sampled":
        loss = positive_loss(phases, values, tensors, batch_size, chains)
    by_row = depends_on_rows(chains, tensors, general)
    run = Run(program, phases, chains, given, loss, tensors, batch_size, by_row)
    return run, leaves
