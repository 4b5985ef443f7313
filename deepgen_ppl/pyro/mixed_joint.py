"""Both ends of a mixed path at one position: a reference and the joint density, term by term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro.joint import Joint, Layout, auxiliary
from deepgen_ppl.pyro.structure import Pair


class MixedJoint:
    """Terms of the log densities of reference and joint over discrete and continuous coordinates.

    A position holds the unconstrained values of the model's continuous latents and, after them, the
    numbers of the values of its discrete ones.

    Args:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained values of the parameters.
        data: The data, tensors.
        rows: Name of the data plate where positions are those of each row, else None.
        coordinates: The discrete latents, of one row where positions are by rows.
        index: The rows that are looked at, None for all.

    Attributes:
        potential: The unconstrained view of the continuous latents.
        layout: How the continuous sites' unconstrained values lie in a position.
        device: Where positions live.
    """

    def __init__(
        self,
        pair: Pair,
        params: Mapping[str, Tensor],
        data: Sequence[Any],
        rows: str | None,
        coordinates: Coordinates,
        index: Int[Tensor, " B"] | None = None,
    ) -> None:
        self.pair, self.rows, self.coordinates = pair, rows, coordinates
        given = {name: pair.model.sites[name]._replace(role="observed")
                 for name in coordinates.places}  # fmt: skip
        model = replace(pair.model, sites={**pair.model.sites, **given})
        by_rows = rows is not None
        self._joint = Joint(pair._replace(model=model), params, data, by_rows, index)
        self.potential = self._joint.potential
        start = self.potential.init(0) if self.potential.continuous else {}
        self.layout = Layout.of(self.potential.continuous, start, by_rows)
        known = [v for v in (*data, *params.values()) if isinstance(v, Tensor)]
        self.device = next((v.device for v in (*start.values(), *known)), torch.device("cpu"))
        places = coordinates.places.items()
        self._supports = {n: torch.as_tensor(p.support, device=self.device) for n, p in places}

    @property
    def num_free(self) -> int:
        """Number of continuous coordinates, which come first."""
        return self.layout.size

    @property
    def sites(self) -> list[str]:
        """The latent sites whose values make a position."""
        return list(self.pair.model.latents)

    @property
    def row_axes(self) -> dict[str, int]:
        """Axis of the rows in the value of each of these sites, empty where it is not by rows."""
        sites = self.pair.model.sites
        return {n: sites[n].plates.index(self.rows) for n in self.sites} if self.rows else {}

    def draw(self) -> Float[Tensor, "*row D"]:
        """Return one position drawn from the reference."""
        values: dict[str, Tensor] = {}
        if self.pair.guide is not None:
            run = self._joint._run(self.pair.guide)
            values = {n: run.sites[n]["value"] for n in self.sites if n in run.sites}
        run = self.potential.run(values, handlers.proper())
        values = {name: run.sites[name]["value"] for name in self.sites}
        return self.position(values)

    def terms(self, z: Float[Tensor, "*row D"]) -> tuple[Tensor, Tensor]:
        """Return the terms of reference and target at a position, `(*row, T)` each.

        Args:
            z: The position.
        """
        free, held = self.split(z)
        values, log_dets = self._reached(free, held)
        values = {**held, **values}
        reference, target = [], []
        for name, log_det in log_dets.items():
            term = self._flat(log_det, self.row_axes.get(name))
            reference.append(term)
            target.append(term)
        drawn = self._guide(free, values) if self.pair.guide is not None else None
        for term in drawn.values() if drawn else ():
            reference.append(term)
            target.append(torch.zeros_like(term))
        run = self.potential.run(values)
        for name, msg in run.sites.items():
            if msg["infer"].get("_deterministic"):
                continue
            own = name in self.pair.model.latents and name not in (drawn or ())
            # What latents are drawn from knows no mask and no scale.
            term = messages.log_prob({**msg, "scale": 1.0, "mask": None} if own else msg)
            term = self._flat(term, self._dim(msg))
            reference.append(term if own else torch.zeros_like(term))
            target.append(term)
        return torch.cat(reference, -1), torch.cat(target, -1)

    def values(self, z: Float[Tensor, "*row D"]) -> dict[str, Tensor]:
        """Return the values of the model's latent sites at a position.

        Deterministic sites are added where positions are not by rows.

        Args:
            z: The position.
        """
        sites = self.pair.model.sites.items()
        fixed = [n for n, s in sites if s.role == "deterministic" and self.rows is None]
        free, held = self.split(z)
        found = {**held, **self._reached(free, held)[0]}
        if fixed:
            run = self.potential.run(found)
            found |= {name: run.sites[name]["value"] for name in fixed}
        return found

    def position(self, values: Mapping[str, Tensor]) -> Float[Tensor, "*row D"]:
        """Return the position of values of all latent sites: the inverse of `values`."""
        return self.join(self._free(values), values)

    def log_probs(self, z: Float[Tensor, "*row D"]) -> dict[str, Tensor]:
        """Return the log density of each site of the model at a position."""
        free, held = self.split(z)
        return self._joint.log_probs({**held, **self._reached(free, held)[0]})

    # ----------------------------------------------------------------------------- helpers

    def split(self, z: Float[Tensor, "*row D"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the unconstrained continuous sites and the values of the discrete ones."""
        free = self.layout.split(z[..., : self.num_free]) if self.num_free else {}
        x, held = z[..., self.num_free :].detach().long(), {}
        for name, spot in self.coordinates.places.items():
            part, support = x[..., spot.start : spot.start + spot.size], self._supports[name]
            row = torch.arange(spot.size, device=x.device)
            value = support[row if len(support) > 1 else 0 * row, part]
            value = value.reshape((*x.shape[:-1], *spot.shape, *support.shape[2:]))
            axis = self.row_axes.get(name)
            held[name] = value if axis is None else value.movedim(0, axis)
        return free, held

    def join(
        self, free: Mapping[str, Tensor], values: Mapping[str, Tensor]
    ) -> Float[Tensor, "*row D"]:
        """Return the position of unconstrained continuous sites and values of discrete ones."""
        parts = [self.layout.join(free)] if self.num_free else []
        for name, found in self.coordinates.places.items():
            axis, support = self.row_axes.get(name), self._supports[name]
            value = values[name] if axis is None else values[name].movedim(axis, 0)
            lead = () if axis is None else value.shape[:1]
            value = value.reshape((*lead, found.size, 1, *support.shape[2:]))
            same = (value == support).reshape(*lead, found.size, support.shape[1], -1).all(-1)
            number = same.to(torch.get_default_dtype()).argmax(-1)
            parts.append(number.to(torch.get_default_dtype()))
        return torch.cat(parts, -1)

    def _free(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unconstrained continuous sites of values; what is missing is drawn."""
        potential = self.potential
        if not potential.moving and all(name in values for name in potential.continuous):
            return {n: t.inv(values[n]) for n, t in potential.transforms.items()}
        run = potential.run(values, handlers.proper())
        found = {name: run.sites[name] for name in potential.continuous}
        return {n: biject_to(msg["fn"].support).inv(msg["value"]) for n, msg in found.items()}

    def _reached(
        self, free: dict[str, Tensor], held: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the values of the continuous sites, and log |det J| of each."""
        potential = self.potential
        if not potential.moving:
            return potential.values(free)
        reached = handlers.constrain(free)
        potential.run(held, reached)
        return reached.values, reached.log_dets

    def _guide(self, free: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of the guide's sites; auxiliary ones stand for the point itself."""
        guide: Any = self.pair.guide
        held = {name: value for name, value in values.items() if name in guide.sites}
        extra = auxiliary(guide, free)
        if extra:  # the model's sites are points determined by the auxiliary ones
            held = {n: v for n, v in held.items() if n in self.coordinates.places} | extra
        run = self._joint._run(guide, handlers.replay(held))
        return {
            name: self._flat(messages.log_prob(msg), self._dim(msg))
            for name, msg in run.sites.items()
            if not msg["infer"].get("_deterministic")
        }

    def _dim(self, msg: Any) -> int | None:
        """Return the dimension of the rows in a message of a path by rows."""
        plates = self.pair.data_plates
        found = [frame.dim for frame in msg["cond_indep_stack"] if frame.name in plates]
        return found[0] if self.rows is not None else None

    def _flat(self, log_prob: Tensor, dim: int | None) -> Float[Tensor, "*row T"]:
        if dim is None:
            return log_prob.reshape(-1)
        return log_prob.movedim(dim, 0).reshape(log_prob.shape[dim], -1)
