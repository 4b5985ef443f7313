"""Tables of a program's own log densities: by row, for every value of its one local discrete site.

A posterior of assignments or classes is read off such a table by normalising its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro.infer.autoguide import AutoNormal
from pyro.poutine import block
from torch import Tensor

from deepgen_ppl import relabelling
from deepgen_ppl.classes import exact_evidence, learn, times_copies
from deepgen_ppl.expectation import Expected, normalise
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.data import has_rows, num_rows, to_tensor, to_tensors
from deepgen_ppl.pyro.infer.bridge import bridge
from deepgen_ppl.pyro.infer.evaluate import fields, over_draws
from deepgen_ppl.pyro.parameters import given, private_store
from deepgen_ppl.pyro.program import log_density, read
from deepgen_ppl.pyro.structure import Program

_POINT = "_point"


def log_joint(
    program: Program, site: str, num_values: int, values: Mapping[str, Tensor], data: Sequence[Any]
) -> tuple[Float[Tensor, "N K"], Float[Tensor, ""]]:
    """Return the log joint density of each row with each value of a site, and of all else.

    Args:
        program: a model.
        site: its discrete site in the data plate.
        num_values: number of its values, from 0.
        values: parameters and latent sites by name.
        data: its data.
    """
    params = {name: value for name, value in values.items() if name in program.params}
    latents = {name: value for name, value in values.items() if name not in params}

    def one(value: int) -> tuple[Tensor, Tensor]:
        given = {**latents, site: torch.tensor([value])}
        return log_density(program, params, given, data)

    found = [one(value) for value in range(num_values)]
    # Sums over few components go along long columns.
    return torch.stack([rows for rows, _ in found]).T, found[0][1]


class Table:
    """The E step of a program: its log joint densities.

    Args:
        model: a `Mixture` or a classifier.
        data: its data.
    """

    def __init__(self, model: Any, data: Sequence[Any]) -> None:
        self.inputs = to_tensors(data)
        self.rows = num_rows(self.inputs)
        if self.rows == 1:  # no plate of one row is known to follow the data: a copy goes along
            twice = [torch.cat([x, x]) if has_rows(x) else x for x in self.inputs]
            self.inputs = tuple(twice)
        self.model, self.program = model, read(model, self.inputs)
        self.size = model.num_values

    def fn(self, values: Mapping[str, Tensor], data: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the table and the log density of the shared sites."""
        site = self.model.assignment
        rows, shared = log_joint(self.program, site, self.size, values, data)
        return rows[: self.rows], shared

    def expect(self, values: Mapping[str, Any]) -> Expected:
        """Return what the program says at some parameters."""
        place = {name: to_tensor(v) for name, v in values.items()}
        with torch.no_grad(), private_store(), handlers.validation(False):
            rows, shared = self.fn(place, self.inputs)
        return Expected(rows.double().numpy(), float(shared))

    def over(self, draws: Mapping[str, Any], params: Any = None) -> Float[np.ndarray, "S N K"]:
        """Return the tables of many draws."""
        fixed = {name: to_tensor(v) for name, v in dict(params or {}).items()}

        def one(draw: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"table": self.fn({**fixed, **draw}, self.inputs)[0]}

        return over_draws(one, draws, copies=2)["table"].astype(float)


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
        latents = result._read(result._data(())).programs[-1].latents
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
    draws = {name: to_tensor(value[None]).numpy() for name, value in drawn.items()}
    evidence = exact_evidence(total, num_samples)
    about = fields(program, {}, to_tensors(given))
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


def learned(params: Any) -> dict[str, Tensor]:
    """Return parameter values from a mapping or a `Fit`."""
    return dict(given(params) or {})


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
    start = {name: to_tensor(values[name]) for name in sites}

    def at_points(*data: Any) -> None:
        plates: dict[str, Any] = {}
        for name, site in sites.items():
            point = pyro.param(name + _POINT, start[name], constraint=site.support)
            plate = site.plates[0] if site.plates else None
            if plate is not None:
                plates.setdefault(plate, pyro.plate(plate, site.shape[0]))
                with plates[plate]:
                    pyro.sample(name, dist.Delta(point, event_dim=point.dim() - 1))
            else:
                pyro.sample(name, dist.Delta(point, event_dim=point.dim()))

    return at_points


def _pivot(posterior: Posterior) -> Int[np.ndarray, ""] | int:
    """Return the number of the draw whose names are kept: that of the highest density."""
    density = posterior.stats.get("lp")
    return 0 if density is None else int(np.argmax(density))
