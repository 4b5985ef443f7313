"""Both ends of a path at one unconstrained point: a reference and the joint density."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from opt_einsum import shared_intermediates
from pyro.infer.autoguide import AutoContinuous
from pyro.ops.contract import contract_to_tensor
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.autoguides import autoguide_rows
from deepgen_ppl.pyro.compilation import without_host_values
from deepgen_ppl.pyro.parameters import installed
from deepgen_ppl.pyro.program import call, log_probs, terms
from deepgen_ppl.pyro.structure import Pair, Site
from deepgen_ppl.pyro.unconstrained import Potential


class Joint:
    """Log densities of reference and joint at one unconstrained point.

    Args:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained values of the parameters.
        data: The data, tensors.
        by_rows: Whether densities are those of each row, which must not touch each other.
        index: The rows that are looked at, None for all.

    Attributes:
        potential: The unconstrained view of the model.
    """

    def __init__(
        self,
        pair: Pair,
        params: Mapping[str, Tensor],
        data: Sequence[Any],
        by_rows: bool,
        index: Tensor | None = None,
    ) -> None:
        self.pair, self.by_rows, self.index = pair, by_rows, index
        self.params, self.data = dict(params), data_.take(data, index)
        if index is not None:
            tables = {n: axis for p in pair.programs for n, axis in p.tables.items()}
            self.params |= {n: params[n].index_select(axis, index) for n, axis in tables.items()}
        self.potential = Potential(pair.model, self.params, self.data)

    def log_densities(self, z: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return those of the reference and of the joint, Jacobians included."""
        values, log_dets = self.potential.values(z)
        jacobian = self._jacobian(log_dets)
        if self.potential.evaluator is not None:
            with without_host_values():
                reference, target = self._enumerated(values)
        else:
            reference, target = self._plain(self.potential.run(values))
        if reference is None:
            reference = self._guide(z, values)
        return reference + jacobian, target + jacobian

    def draw(self) -> dict[str, Tensor]:
        """Return one unconstrained draw of the reference."""
        guide = self.pair.guide
        values: dict[str, Tensor] = {}
        if guide is not None:
            run = self._run(guide)
            values = {n: run.sites[n]["value"] for n in self.potential.continuous}
        return self.unconstrain(values)

    def unconstrain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the unconstrained point of given values; what is missing is drawn."""
        if not self.potential.moving and len(values) >= len(self.potential.continuous):
            return {n: t.inv(values[n]) for n, t in self.potential.transforms.items()}
        run = self.potential.run(values, handlers.proper())
        found = {name: run.sites[name] for name in self.potential.continuous}
        return {n: biject_to(msg["fn"].support).inv(msg["value"]) for n, msg in found.items()}

    @property
    def _size(self) -> int | None:
        return self.pair.model.num_rows if self.index is None else len(self.index)

    def _reduce(self, rows: Tensor, shared: Tensor) -> Tensor:
        return rows if self.by_rows else rows.sum() + shared

    def _jacobian(self, log_dets: Mapping[str, Tensor]) -> Tensor | float:
        if not self.by_rows:
            return sum(log_det.sum() for log_det in log_dets.values())
        sites = self.potential.continuous
        moved = [
            x.movedim(sites[n].plates.index(sites[n].row_plate), 0) for n, x in log_dets.items()
        ]
        return sum(x.reshape(len(x), -1).sum(1) for x in moved)

    def _plain(self, run: handlers.record) -> tuple[Tensor | None, Tensor]:
        """Return the prior, unless there is a guide, and the joint of a recorded run."""
        model = self.pair.model
        if self.pair.guide is not None:
            return None, self._reduce(*terms(run, model, self._size, self._size))
        # What the latents were drawn from knows no mask and no scale.
        bare = handlers.record()
        bare.sites = {n: {**run.sites[n], "scale": 1.0, "mask": None} for n in model.latents}
        prior = self._reduce(*terms(bare, model, self._size, self._size))
        rest = terms(run, model, self._size, self._size, skip=model.latents)
        return prior, prior + self._reduce(*rest)

    def log_probs(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the log density of each site of the model at values of the latents."""
        return log_probs(self.pair.model, self.params, values, self.data)

    def _run(self, program: Any, *around: Any) -> handlers.record:
        plates, total = program.data_plates, self.pair.model.num_rows or 0
        with (
            installed(self.pair.params.values(), self.params) as answers,
            autoguide_rows(program.modules, plates, total, self._size or 0),
        ):
            return call(program, self.data, answers, *around)

    def _guide(self, z: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        """Return the guide's log density on the supports; auxiliary sites stand for z itself."""
        guide = self.pair.guide
        assert guide is not None
        held = {**values, **auxiliary(guide, z)}
        if len(held) > len(values):  # the model's sites are points determined by the auxiliary ones
            held = {name: value for name, value in held.items() if name not in values}
        run = self._run(guide, handlers.replay(held))
        return self._reduce(*terms(run, guide, self._size, self._size))

    def _enumerated(self, values: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor]:
        """Return the prior, unless there is a guide, and the joint, discrete sites summed out."""
        trace = self.potential.enumerated(values)
        evaluator = self.potential.evaluator
        assert evaluator is not None
        target = self._contract(trace, evaluator._get_log_factors(trace))
        if self.pair.guide is not None:
            return None, target
        factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        for name in self.pair.model.latents:
            node: Any = trace.nodes[name]
            packed = node["packed"]["unscaled_log_prob"]
            factors.setdefault(evaluator.ordering[name], []).append(packed)
        return self._contract(trace, factors), target

    def _contract(self, trace: Any, factors: Any) -> Tensor:
        evaluator = self.potential.evaluator
        assert evaluator is not None
        dims = evaluator._enum_dims
        if not self.by_rows:
            with shared_intermediates() as cache:
                return contract_to_tensor(factors, dims, cache=cache)
        total: Tensor = torch.zeros(())
        for plate in self.pair.model.data_plates:
            symbol = trace.plate_to_symbol[plate]
            inside = OrderedDict((o, terms) for o, terms in factors.items() if symbol in o)
            if inside:
                with shared_intermediates() as cache:
                    target = frozenset([symbol])
                    rows = contract_to_tensor(inside, dims, target_ordinal=target, cache=cache)
                total = total + rows.expand(self._size or 0)
        return total


class Layout(NamedTuple):
    """Unconstrained sites as one vector, or as one for each row.

    Attributes:
        shapes: Shape of each site, without the axis of the rows where there is one.
        axes: Axis of the rows in each site; None where they are all one vector.
    """

    shapes: dict[str, tuple[int, ...]]
    axes: dict[str, int | None]

    @classmethod
    def of(cls, sites: Mapping[str, Site], point: Mapping[str, Tensor], by_rows: bool) -> Layout:
        """Lay out the sites of a point.

        Args:
            sites: The continuous sites.
            point: Their unconstrained values.
            by_rows: Whether there is a vector for each row.
        """
        axes = {n: s.plates.index(s.row_plate) if by_rows else None for n, s in sites.items()}
        shapes = {
            n: tuple(size for i, size in enumerate(value.shape) if i != axes[n])
            for n, value in point.items()
        }
        return cls(shapes, axes)

    @property
    def size(self) -> int:
        """Length of a vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def join(self, sites: Mapping[str, Tensor]) -> Float[Tensor, "*rows size"]:
        """Return the sites' values as vectors."""
        parts = []
        for name, axis in self.axes.items():
            value = sites[name]
            lead = () if axis is None else (value.shape[axis],)
            parts.append((value if axis is None else value.movedim(axis, 0)).reshape(*lead, -1))
        return torch.cat(parts, -1)

    def split(self, z: Float[Tensor, "*rows size"]) -> dict[str, Tensor]:
        """Return the vectors as sites."""
        parts = z.split([math.prod(shape) for shape in self.shapes.values()], -1)
        sites = {}
        for part, (name, shape) in zip(parts, self.shapes.items(), strict=True):
            value, axis = part.reshape((*z.shape[:-1], *shape)), self.axes[name]
            sites[name] = value if axis is None else value.movedim(0, axis)
        return sites


def auxiliary(guide: Any, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a guide's auxiliary sites at an unconstrained point, as autoguides have.

    Raises:
        ValueError: It has another auxiliary site, whose value the point does not determine.
    """
    found: dict[str, Tensor] = {}
    inner = [m for root in guide.modules for m in root.modules() if isinstance(m, AutoContinuous)]
    packed = {f"_{module._pyro_name}_latent": module for module in inner}
    for name, site in guide.latents.items():
        if not site.auxiliary:
            continue
        base = name.removesuffix("_unconstrained")
        if name in packed:
            names = packed[name]._unconstrained_shapes
            found[name] = torch.cat([z[n].reshape(-1) for n in names])
        elif base in z:
            found[name] = z[base]
        else:
            raise ValueError(
                f"The guide draws '{name}', which the model lacks, so that the density of the "
                "guide alone is unknown. Use a guide without auxiliary sites."
            )
    return found
