"""The factor graph of a program: the terms of its log density, element by element, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from pyro.ops.provenance import ProvenanceTensor, get_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.exact_subjects import check_integrated
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.discrete import site_values, supports_of
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.pointwise import over
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.terms import unmasked
from deepgen_ppl.readings import Found
from deepgen_ppl.tabulation import Tabulation, Term, tabulate, unobserved_name

_MOST_NUMBERS = 1 << 25
"""Values of terms that are held at once: a run of the program costs as much as many of them."""


class Tables:
    """The terms of a program at its discrete latents, and how they are tabulated.

    Args:
        program: a model whose discrete latents have finite supports.
        coordinates: its discrete latents.
        params: constrained parameters.
        data: the full data, tensors.
        held: values of its continuous latents.
        *around: handlers that it runs under, the first outermost.
        integrated: sites among these whose own density integrates to one and is left out.
        fixed: whether parameters and held values stay as they are.
        known: terms and tabulation of the same program, where any of this may be another.

    Raises:
        ValueError: something else depends on one of `integrated`.

    Attributes:
        terms: what each site contributes.
        tabulation: how the tables are found.
    """

    def __init__(
        self,
        program: Program,
        coordinates: Coordinates,
        params: Mapping[str, Tensor],
        data: Sequence[Any],
        held: Mapping[str, Tensor],
        *around: Messenger,
        integrated: Sequence[str] = (),
        fixed: bool = True,
        known: tuple[list[Term], Tabulation] | None = None,
    ) -> None:
        self.program, self.coordinates, self.integrated = program, coordinates, integrated
        self.args = (dict(params), tuple(data), dict(held), *around)
        self.supports = supports_of(coordinates)
        if known is not None:
            self.terms, self.tabulation = known
            if self.tabulation.holds(self.evaluate, self.terms):
                return
        self.terms = self._read()
        plates = {name: program.sites[name].plates for name in coordinates.places}
        self.tabulation = tabulate(
            coordinates, plates, self.terms, self.evaluate, certain=False, fixed=fixed
        )

    def tables(self) -> Found:
        """Return the tables of all pieces, and the constant terms."""
        return self.tabulation.tables(self.evaluate, _MOST_NUMBERS)

    def evaluate(self, x: Int[np.ndarray, "P D"]) -> Float[np.ndarray, "P T"]:
        """Return the terms at some coordinates, on the host."""
        num_terms = max(sum(term.size for term in self.terms), 1)
        width = max(_MOST_NUMBERS // num_terms, 1)
        found = []
        with torch.no_grad(), forked_rng(0), preserved(self.program.modules):
            for first in range(0, len(x), width):
                rows = torch.as_tensor(x[first : first + width]).long()
                found.append(self.at(rows, *self.args).cpu().numpy())
        return found[0] if len(found) == 1 else np.concatenate(found)

    def at(
        self,
        x: Int[Tensor, "P D"],
        params: Mapping[str, Tensor],
        data: Sequence[Any],
        held: Mapping[str, Tensor],
        *around: Messenger,
    ) -> Float[Tensor, "P T"]:
        """Return the terms at some coordinates; parameters and held values may carry gradients."""

        def one(x: Tensor) -> Tensor:
            latents = {**site_values(self.coordinates, self.supports, x), **held}
            found = element_log_probs(self.program, params, latents, data, *around)
            return torch.cat([found[term.name].reshape(-1) for term in self.terms])

        return over(one, x)

    def _read(self) -> list[Term]:
        params, data, held, *around = self.args
        start = torch.zeros(self.coordinates.size, dtype=torch.long)
        values = site_values(self.coordinates, self.supports, start)
        followed = {**values, **{name: held[name] for name in self.integrated}}
        tracked = {n: ProvenanceTensor(v, frozenset({n})) for n, v in followed.items()}
        with torch.no_grad(), forked_rng(0), preserved(self.program.modules):
            found = element_log_probs(self.program, params, {**held, **tracked}, data, *around)
        seen = {name: get_provenance(log_prob) for name, log_prob in found.items()}
        check_integrated(self.integrated, seen)
        terms, first = [], 0
        for name, log_prob in found.items():
            if name in self.integrated:
                continue
            depends = tuple(site for site in values if site in seen[name])
            plates = self.program.sites[name].plates
            term = Term(name, first, tuple(log_prob.shape), plates, depends)
            terms.append(term)
            first += term.size
        return terms


def element_log_probs(
    program: Program,
    params: Mapping[str, Tensor],
    latents: Mapping[str, Tensor],
    data: Sequence[Any],
    *around: Messenger,
) -> dict[str, Tensor]:
    """Return the log density of each sample site, element by element where elements are apart.

    Independent dimensions are not summed. The missing elements that `obs_mask` makes a latent site
    of keep their density, and those that are observed take the observed value.

    Args:
        program: a model.
        params: constrained parameters.
        latents: value of each latent site.
        data: the full data, tensors.
        *around: handlers that it runs under, the first outermost.
    """
    with (
        private_store(),
        handlers.validation(False),
        installed(program.params.values(), params) as answers,
    ):
        seen = program_.call(program, data, *around, answers, handlers.replay(latents)).sites
        return {
            name: _log_prob(name, msg, seen, program)
            for name, msg in seen.items()
            if not msg["infer"].get("_deterministic")
        }


def _log_prob(
    name: str, msg: Mapping[str, Any], seen: Mapping[str, Any], program: Program
) -> Tensor:
    whole, fn = unobserved_name(name, program.sites), msg["fn"]
    log_prob = _elements(fn if whole is None else unmasked(fn), msg)
    batch = len(fn.batch_shape)
    if whole is not None:
        log_prob = _pinned(log_prob, msg, seen[f"{whole}_observed"])
    elif isinstance(msg["mask"], Tensor):
        mask = _widened(msg["mask"], log_prob.dim() - batch)
        log_prob = torch.where(mask, log_prob, log_prob.new_zeros(()))
    elif msg["mask"] is False:
        log_prob = torch.zeros_like(log_prob)
    if isinstance(msg["scale"], Tensor) or msg["scale"] != 1.0:
        scale = torch.as_tensor(msg["scale"])
        log_prob = log_prob * _widened(scale, log_prob.dim() - batch if scale.dim() else 0)
    return log_prob


def _elements(fn: Any, msg: Mapping[str, Any]) -> Tensor:
    value = msg["value"]
    if msg["args"] or msg["kwargs"]:
        return fn.log_prob(value, *msg["args"], **msg["kwargs"])
    if isinstance(fn, dist.Independent):
        return _elements(fn.base_dist, msg)
    if isinstance(fn, dist.MaskedDistribution):
        if fn._mask is False:
            return fn.log_prob(value)
        inner = _elements(fn.base_dist, msg)
        mask = torch.as_tensor(fn._mask).expand(fn.batch_shape)
        mask = _widened(mask, inner.dim() - mask.dim())
        return torch.where(mask, inner, inner.new_zeros(()))
    return fn.log_prob(value)


def _pinned(log_prob: Tensor, missing: Mapping[str, Any], observed: Mapping[str, Any]) -> Tensor:
    """Let the elements that are observed take the observed value alone."""
    same = missing["value"] == observed["value"]
    for _ in range(same.dim() - log_prob.dim()):
        same = same.all(-1)
    zero = log_prob.new_zeros(())
    mask = torch.as_tensor(observed["mask"])
    mask = _widened(mask, log_prob.dim() - mask.dim() if mask.dim() else 0)
    return torch.where(mask, torch.where(same, zero, zero - torch.inf), log_prob)


def _widened(value: Tensor, count: int) -> Tensor:
    return value.reshape((*value.shape, *(1,) * count))
