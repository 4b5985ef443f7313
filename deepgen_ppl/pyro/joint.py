"""Both ends of a path at one unconstrained point: a reference and the joint density."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.infer.autoguide import AutoContinuous
from pyro.ops.contract import contract_to_tensor
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.compilation import without_host_values
from deepgen_ppl.pyro.parameters import installed, preserved
from deepgen_ppl.pyro.program import call, terms
from deepgen_ppl.pyro.structure import Pair
from deepgen_ppl.pyro.unconstrained import Potential


class Joint:
    """Log densities of reference and joint at one unconstrained point.

    Args:
        pair: Model and guide; without a guide the reference is the prior.
        params: Constrained values of the parameters.
        data: The data, tensors.
        by_rows: Whether densities are those of each row, which must not touch each other.

    Attributes:
        potential: The unconstrained view of the model.
    """

    def __init__(
        self, pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], by_rows: bool
    ) -> None:
        self.pair, self.params, self.data, self.by_rows = pair, params, data, by_rows
        with preserved(pair.modules):
            self.potential = Potential(pair.model, params, data)

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
        return self.pair.model.num_rows

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

    def _run(self, program: Any, *around: Any) -> handlers.record:
        with installed(self.pair.params.values(), self.params) as answers:
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
