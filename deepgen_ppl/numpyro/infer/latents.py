"""What the latents of a trained pair carry: a report after training, a monitor during it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array

from deepgen_ppl import latents
from deepgen_ppl.latents import LatentReport, Monitor, check_latents, chosen_rows
from deepgen_ppl.numpyro.compilation import build_of, compiled
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.parts import beside, guide_rows, local_latents, parts
from deepgen_ppl.numpyro.program import Inputs, Pair, as_key, learned, read_pair
from deepgen_ppl.numpyro.unconstrained import row_axis


def latent_report(
    model: Callable,
    guide: Callable,
    *data: Any,
    params: Any = None,
    num_rows: int = 500,
    num_particles: int = 32,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int | Array = 0,
) -> LatentReport:
    r"""Report what latents local to the data carry: rate, distortion, activity, information.

    The divergence of each unit is taken in closed form where the language has it, and from the
    draws elsewhere; the mutual information weighs the code of each row under the guide at every
    other row, \(\log q(z_i \mid x_i) - \log \frac1M \sum_j q(z_i \mid x_j)\).

    Args:
        model: a NumPyro model.
        guide: its guide.
        *data: arrays whose leading axis is the data axis, scalars or None.
        params: learned values by name, or a `Fit`.
        num_rows: rows M to look at, evenly over the data.
        num_particles: draws of each row.
        model_kwargs: constants passed by name to model and guide.
        seed: int or random key.

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
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0, 1))
        ...         numpyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> def guide(x):
        ...     slope = numpyro.param("slope", 0.8)
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(slope * x, 0.45))
        >>> x = np.random.default_rng(0).normal(0.0, 1.1, 200)
        >>> found = latent_report(model, guide, x, params={"slope": 0.8})
        >>> found.num_active, found.diagnosis.ok, 0.5 < found.information < 1.2
        (1, True, True)
    """
    values = learned(params)
    pair = read_pair(model, guide, data, model_kwargs=model_kwargs, params=values, seed=seed)
    names = local_latents(pair)
    check_latents(names, num_rows, num_particles)
    check_learned(pair, values)
    inputs, key = pair.inputs(data), as_key(seed)
    size = inputs.num_rows
    rows = jnp.asarray(chosen_rows(size, num_rows))
    run = partial(_arrays, pair, names, num_particles)
    args = (inputs, dict(values), rows, key)
    build = build_of(pair)
    call = compiled(build, "latents", run, *args, static=(num_particles, tuple(names)))
    found = jax.device_get(call(*args))
    observed = [s for s in pair.model.observed.values() if row_axis(pair.model, s) is not None]
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
    inputs: Inputs,
    values: Mapping[str, Any],
    rows: Array,
    key: Array,
) -> tuple[Any, ...]:
    """Return likelihoods, costs, draws, densities of codes under other rows, and shared costs."""

    def draw(key: Array) -> tuple[Any, ...]:
        found = parts(pair, values, inputs, rows, key=key, analytic=True)
        kept = {name: beside(pair.model, {name: found.draws[name]}) for name in names}
        shared = sum((jnp.sum(x) for x in found.shared_costs.values()), jnp.zeros(()))
        return found.rows, found.costs, kept, shared, found.draws

    likelihood, costs, kept, shared, draws = jax.vmap(draw)(random.split(key, num_particles))
    codes = jax.tree.map(lambda leaf: leaf[0], draws)

    def shifted(shift: Array) -> Array:
        held = {}
        for name, value in codes.items():
            assert pair.guide is not None
            axis = row_axis(pair.guide, pair.guide.sites[name])
            held[name] = value if axis is None else jnp.roll(value, shift, axis)
        return guide_rows(pair, values, held, inputs, rows, key)

    size = rows.shape[0]
    found = lax.map(shifted, jnp.arange(size), batch_size=min(50, size))  # (shift, x row)
    index = jnp.arange(size)
    table = found[(index[None, :] - index[:, None]) % size, index[None, :]]  # (code, x row)
    return likelihood, costs, kept, table, jnp.mean(shared)
