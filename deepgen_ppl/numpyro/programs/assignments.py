"""Tables of a program's own log densities: by row, for every value of its one local discrete site.

A posterior of assignments or classes is read off such a table by normalising its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float, Int
from numpyro.handlers import block
from numpyro.infer.autoguide import AutoNormal

from deepgen_ppl import relabelling
from deepgen_ppl.classes import exact_evidence, learn, times_copies
from deepgen_ppl.expectation import Expected, normalise
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.bridge import bridge
from deepgen_ppl.numpyro.infer.evaluate import fields, over_draws
from deepgen_ppl.numpyro.program import learned, log_density, read, read_pair
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.posterior import Posterior

_POINT = "_point"


def log_joint(
    program: Program, site: str, num_values: int, values: Mapping[str, Any], inputs: Inputs
) -> tuple[Float[Array, "N K"], Float[Array, ""]]:
    """Return the log joint density of each row with each value of a site, and of all else.

    Args:
        program: a model.
        site: its discrete site in the data plate.
        num_values: number of its values, from 0.
        values: parameters and latent sites by name.
        inputs: its data.
    """

    def one(value: Array) -> tuple[Array, Array]:
        rows, shared = log_density(program, values, {site: value[None]}, inputs)
        return rows, shared

    rows, shared = jax.vmap(one)(jnp.arange(num_values))
    return rows.T, shared[0]


class Table:
    """The E step of a program: its log joint densities, compiled once.

    Args:
        model: a `Mixture` or a classifier.
        data: its data.
    """

    def __init__(self, model: Any, data: Sequence[Any]) -> None:
        self.model, self.program = model, read(model, data)
        self.inputs = self.program.inputs(data)
        self.size = model.num_values

    def fn(self, values: Mapping[str, Any], inputs: Inputs) -> tuple[Array, Array]:
        """Return the table and the log density of the shared sites."""
        return log_joint(self.program, self.model.assignment, self.size, values, inputs)

    def expect(self, values: Mapping[str, Any]) -> Expected:
        """Return what the program says at some parameters."""
        place = {name: jnp.asarray(v, jnp.result_type(float)) for name, v in values.items()}

        def by_component(values: Mapping[str, Any], inputs: Inputs) -> tuple[Array, Array]:
            rows, shared = self.fn(values, inputs)
            return rows.T, shared  # sums over few components go along long columns

        run = compiled(self.program.fn, "table", by_component, place, self.inputs)
        rows, shared = run(place, self.inputs)
        return Expected(np.asarray(rows, float).T, float(shared))

    def over(self, draws: Mapping[str, Any], params: Any = None) -> Float[np.ndarray, "S N K"]:
        """Return the tables of many draws."""

        def one(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Array]:
            return {"table": self.fn({**params, **draw}, inputs)[0]}

        args = (jax.tree.map(jnp.asarray, dict(params or {})), self.inputs)
        found = over_draws(self.program.fn, "tables", one, draws, args, copies=2)
        return found["table"].astype(float)


def responsibilities(model: Any, result: Any, data: Sequence[Any]) -> np.ndarray:
    """Return the probabilities of a site's values, by row, of a fit or of every draw."""
    table = Table(model, data)
    if isinstance(result, Posterior):
        even = result.resample()
        flat = {n: v for n, v in even.flat().items() if n in table.program.latents}
        found = normalise(table.over(flat, even.params))
        return found.reshape(even.num_chains, even.num_draws, *found.shape[1:])
    return table.expect(points(learned(result), table.program)).responsibilities


def points(values: Mapping[str, Any], program: Program) -> dict[str, Any]:
    """Return the values of a program's parameters and sites among those of a fit.

    Raises:
        ValueError: one is missing.
    """
    known = {n.removesuffix(_POINT): v for n, v in values.items()}
    needed = [n for n, s in program.latents.items() if not s.is_discrete] + list(program.params)
    missing = [name for name in needed if name not in known]
    if missing:
        raise ValueError(
            f"no value for '{missing[0]}'. Pass a Fit of em or of points, a dict of all "
            "parameters, or a posterior of draws (fit.posterior()) where they are latent."
        )
    return {name: known[name] for name in needed}


def assign(model: Any, posterior: Posterior, data: Sequence[Any], seed: int) -> Posterior:
    """Return a posterior with assignments drawn given each draw of the parameters."""
    even = posterior.resample()
    found = responsibilities(model, even, data)
    uniform = np.random.default_rng(seed).random((*found.shape[:-1], 1))
    site = (found.cumsum(-1) < uniform).sum(-1)
    drawn = np.minimum(site, found.shape[-1] - 1)
    draws = {**even.draws, model.assignment: drawn, "responsibilities": found}
    dims = {**even.dims, model.assignment: ("data",), "responsibilities": ("data",)}
    return replace(even, draws=draws, dims=dims)


def probabilities(
    model: Any, result: Any, data: tuple, num_samples: int, seed: int
) -> Float[np.ndarray, "N C"]:
    """Return the probabilities of classes, averaged over draws where there are any."""
    if not isinstance(result, Posterior) and getattr(result, "guide", None) is not None:
        options = {"params": learned(result), "prior": True, "enumerated": True}
        pair = read_pair(result.model, result.guide, result._data(()), **options)
        latents = pair.programs[-1].latents
        known = [name + _POINT for name in latents]
        if latents and not all(name in result.params for name in known):
            result = result.posterior(num_samples=num_samples, seed=seed)
    if isinstance(result, Posterior):
        result = result.resample(min(num_samples, result.num_chains * result.num_draws))
    found = responsibilities(model, result, data)
    return found.reshape(-1, *found.shape[-2:]).mean(0)


def conjugate(model: Any, data: tuple, num_samples: int, seed: int) -> Posterior:
    """Return draws of a posterior that is known in closed form, and its evidence."""
    given = data if data[2] is not None else data[:2]
    program = read(model, given)
    x, cells, labels = model.layout.check(*model.named(given))
    drawn, total = learn(model.layout, x, cells, labels, num_samples, seed)
    like = jax.dtypes.canonicalize_dtype(float)
    draws = {name: value[None].astype(like) for name, value in drawn.items()}
    evidence = exact_evidence(total, num_samples)
    about = fields(program, {}, given)
    return Posterior(draws, method="closed form", evidence=evidence, independent=True, **about)


def relabel(model: Any, posterior: Posterior, data: Sequence[Any], method: str) -> Posterior:
    """Permute the components of every draw to agree about which rows they hold."""
    layout, even = model.layout, posterior.resample()
    if layout.weights == "fixed":
        raise ValueError("the weights are fixed, so that components cannot trade their names.")
    table = responsibilities(model, even, data)
    flat = table.reshape(-1, *table.shape[2:])
    order = relabelling.permutations(flat, _pivot(even), method)  # type: ignore[arg-type]
    shape = np.shape(data[0])
    draws = dict(even.draws)
    lead = (even.num_chains, even.num_draws)

    def permuted(value: np.ndarray) -> np.ndarray:
        joined = value.reshape(-1, *value.shape[2:])
        return relabelling.permute(joined, order).reshape(*lead, *value.shape[2:])

    for name in layout.relabelled(shape):
        if name in draws:
            draws[name] = permuted(draws[name])
    named = permuted(layout.named_weights(draws))
    draws["weights"] = named
    if "sticks" in draws:
        draws["sticks"] = relabelling.sticks(named)
    for name in (model.assignment, "responsibilities"):
        draws.pop(name, None)
    return replace(even, draws=draws)


def all_namings(model: Any, posterior: Posterior, data: Sequence[Any], seed: int) -> Posterior:
    """Bridge relabelled draws, and count the copies of their mode."""
    if model.layout.weights == "stick_breaking":
        raise ValueError(
            "under stick-breaking the prior tells the components apart, so that copies of a mode "
            "do not weigh alike: use smc."
        )
    named = relabel(model, posterior, data, "stephens")
    found = bridge(named, model, *data, seed=seed)
    return replace(found, evidence=times_copies(found.evidence, model.num_values))


def guide(model: Any) -> Callable[..., Any]:
    """Return a guide of a program without its discrete site."""
    if model.priors is None and (
        model.layout is None or model.layout.weights in ("point", "fixed")
    ):  # fmt: skip
        return nothing
    # Drawn classes would contradict their labels: where it starts, a guide is not to see them.
    return AutoNormal(block(getattr(model, "unlabelled", model), hide=[model.assignment]))


def point_name(program: Program, name: str) -> str:
    """Return the name of a value among the parameters of a fit at points."""
    return name + _POINT if name in program.latents else name


def nothing(*data: Any) -> None:
    """Be the guide of a program whose only latent sites are summed out."""


def point_guide(program: Program, values: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a guide that holds the continuous latents of a program at points."""
    sites = {n: s for n, s in program.latents.items() if not s.is_discrete}
    start = {name: np.asarray(values[name]) for name in sites}

    def at_points(*data: Any) -> None:
        plates: dict[str, Any] = {}
        for name, site in sites.items():
            point = numpyro.param(name + _POINT, start[name], constraint=site.support)
            value = jnp.asarray(point)
            plate = site.plates[0] if site.plates else None
            if plate is not None:
                plates.setdefault(plate, numpyro.plate(plate, site.shape[0]))
                with plates[plate]:
                    numpyro.sample(name, dist.Delta(value, event_dim=value.ndim - 1))
            else:
                numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))

    return at_points


def _pivot(posterior: Posterior) -> Int[np.ndarray, ""] | int:
    """Return the number of the draw whose names are kept: that of the highest density."""
    density = posterior.stats.get("lp")
    return 0 if density is None else int(np.argmax(density))
