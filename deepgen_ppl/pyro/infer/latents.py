"""What the latents of a trained pair carry: a report after training, a monitor during it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import latents
from deepgen_ppl.latents import LatentReport, Monitor, check_latents, chosen_rows
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer.importance import prepare
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.parameters import forked_rng, preserved, private_store
from deepgen_ppl.pyro.parts import beside, guide_rows, local_latents, parts
from deepgen_ppl.pyro.program import Pair, several


def latent_report(
    model: Callable,
    guide: Callable,
    *data: Any,
    params: Any = None,
    num_rows: int = 500,
    num_particles: int = 32,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> LatentReport:
    r"""Report what latents local to the data carry: rate, distortion, activity, information.

    The divergence of each unit is taken in closed form where the language has it, and from the
    draws elsewhere; the mutual information weighs the code of each row under the guide at every
    other row, \(\log q(z_i \mid x_i) - \log \frac1M \sum_j q(z_i \mid x_j)\).

    Args:
        model: a Pyro model.
        guide: its guide.
        *data: arrays whose leading axis is the data axis, scalars or None.
        params: learned values by name, or a `Fit`; None takes the modules and the param store as
            they are.
        num_rows: rows M to look at, evenly over the data.
        num_particles: draws of each row.
        model_kwargs: constants passed by name to model and guide.
        seed: seed of the draws.

    Returns:
        The report; printing it shows its table, and `diagnosis` tells collapse with advice.

    Raises:
        ValueError: the guide has no latents in the data plate, a parameter has no value, or fewer
            than two rows or draws are asked for.

    Cost:
        `num_particles` passes through model and guide at M rows, and M densities of M rows under
        the guide, whose network runs once for every 50 of them.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. 2016.
        https://arxiv.org/abs/1509.00519
        Alemi et al.: Fixing a broken ELBO. 2018. https://arxiv.org/abs/1711.00464
        Lucas, Tucker, Grosse, Norouzi: Don't blame the ELBO! 2019.
        https://arxiv.org/abs/1911.02469

    Example:
        >>> import numpy as np, pyro, torch, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0, 1))
        ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> def guide(x):
        ...     slope = pyro.param("slope", torch.tensor(0.8))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(slope * x, 0.45))
        >>> x = np.random.default_rng(0).normal(0.0, 1.1, 200)
        >>> found = latent_report(model, guide, x, params={"slope": torch.tensor(0.8)})
        >>> found.num_active, found.diagnosis.ok, 0.5 < found.information < 1.2
        (1, True, True)
    """
    pair, values, tensors = prepare(model, guide, data, params, model_kwargs, seed)
    names = local_latents(pair)
    check_latents(names, num_rows, num_particles)
    size = pair.num_rows or 1
    rows = torch.as_tensor(chosen_rows(size, num_rows))
    with (
        torch.no_grad(),
        private_store(),
        handlers.validation(False),
        preserved(pair.modules),
        forked_rng(mix(seed, 2)),
    ):
        found = _arrays(pair, names, num_particles, tensors, values, rows)
    observed = [s for s in pair.model.observed.values() if s.row_plate is not None]
    return latents.latent_report(
        *found[:4],
        shared=float(found[4]) / size,
        dimensions=max(sum(int(np.prod(site.shape)) for site in observed) // size, 1),
        is_discrete=all(site.is_discrete for site in observed),
    )


class LatentMonitor(Monitor):
    """A callback of `svi` that reports what latents carry while a model is trained.

    Where the run ends, or it ends the run, it warns of a collapse, with its diagnosis' advice.

    Args:
        model: the model that is trained.
        guide: its guide.
        *data: data to look at, held out if you have some.
        every: reports of the run (a hundred of them) from one look to the next.
        patience: looks in a row at a collapsed posterior after which to stop the run; None goes on.
        num_rows: rows to look at.
        num_particles: draws of each row.
        model_kwargs: constants passed by name to model and guide.

    Attributes:
        steps: steps at which it looked.
        reports: what it saw.

    Raises:
        ValueError: `every` or `patience` is not positive.

    Cost:
        One `latent_report` a look, compiled once.

    Example:
        >>> monitor = LatentMonitor(lambda x: None, lambda x: None, [0.0], every=20)
        >>> monitor.steps
        []
    """

    def report(self, params: Any) -> LatentReport:
        """Return the report at the present parameters."""
        return latent_report(
            self.model,
            self.guide,
            *self.data,
            params=params,
            model_kwargs=self.model_kwargs,
            **self.options,
        )


def _arrays(
    pair: Pair,
    names: list[str],
    num_particles: int,
    data: tuple[Any, ...],
    values: Mapping[str, Tensor],
    rows: Tensor,
) -> tuple[Any, ...]:
    """Return likelihoods, costs, draws, densities of codes under other rows, and shared costs."""

    def draw(_: Any) -> tuple[Any, ...]:
        found = parts(pair, values, data, rows, analytic=True)
        kept = {name: beside(pair.model, {name: found.draws[name]}) for name in names}
        shared = sum((x.sum() for x in found.shared_costs.values()), found.rows.new_zeros(()))
        return found.rows, found.costs, kept, shared, found.draws

    likelihood, costs, kept, shared, draws = several(pair, draw, num_particles)
    codes = {name: value[0] for name, value in draws.items()}
    assert pair.guide is not None
    axes = {name: pair.guide.sites[name] for name in codes}
    places = {n: s.plates.index(s.row_plate) for n, s in axes.items() if s.row_plate in s.plates}

    def shifted(_: Any, held: dict[str, Tensor]) -> Tensor:
        return guide_rows(pair, values, held, data, rows)

    size, found = len(rows), []
    for start in range(0, size, 50):
        shifts = range(start, min(start + 50, size))
        held = {
            name: torch.stack([x.roll(s, places[name]) if name in places else x for s in shifts])
            for name, x in codes.items()
        }
        found.append(several(pair, shifted, len(shifts), held))  # (shift, x row)
    index = torch.arange(size)
    table = torch.cat(found)[(index[None, :] - index[:, None]) % size, index[None, :]]
    numbers = {name: value.cpu().numpy() for name, value in costs.items()}
    drawn = {name: value.cpu().numpy() for name, value in kept.items()}
    return likelihood.cpu().numpy(), numbers, drawn, table.cpu().numpy(), shared.mean()
