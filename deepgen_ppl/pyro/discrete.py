"""The discrete view of a program: its discrete latents as one vector of numbers of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pyro.poutine.messenger import Messenger
from torch import Tensor

from deepgen_ppl.discrete import Coordinates, check_discrete, check_supports, values_between
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.parameters import forked_rng, installed, preserved, private_store
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential


class Discrete:
    r"""The joint density of a program over its discrete coordinates and its continuous point.

    \[ \log p(x, T(z)) = \sum_t f_t(x, z) \]

    The terms f are the log densities of single elements of the sample sites, factors and data
    among them, masked and scaled. Continuous latents z are given unconstrained.

    Args:
        program: A model whose discrete latents have finite supports.
        coordinates: Where they stand in x.
        params: Constrained parameters.
        data: The full data, tensors.
    """

    def __init__(
        self,
        program: Program,
        coordinates: Coordinates,
        params: Mapping[str, Tensor],
        data: Sequence[Any],
    ) -> None:
        self.program, self.coordinates = program, coordinates
        self.params, self.data = params, tuple(data)
        given = {name: site._replace(role="observed") for name, site in program.latents.items()
                 if site.is_discrete}  # fmt: skip
        sites = {**program.sites, **given}
        self.potential = Potential(replace(program, sites=sites), params, data)
        self._supports = supports_of(coordinates)
        self.is_moving = bool(self.potential.moving)

    def values(self, x: Int[Tensor, " D"]) -> dict[str, Tensor]:
        """Return the value of each discrete site.

        Args:
            x: The coordinates of one chain.
        """
        return site_values(self.coordinates, self._supports, x)

    def hold(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what `terms` needs of a continuous point: the sites' values, computed once.

        Where a support depends on other sites it is the point itself.
        """
        return z if self.is_moving else self.potential.values(z)[0]

    def terms(self, x: Int[Tensor, " D"], held: Mapping[str, Tensor]) -> Float[Tensor, " T"]:
        """Return the terms of the log density at the coordinates of one chain.

        Args:
            x: The coordinates.
            held: The continuous sites, by `hold`.
        """
        values = self.values(x)
        if self.is_moving:
            return -self._energy(dict(held), values)[None]
        found = self._log_probs({**values, **held})
        return torch.cat([term.reshape(-1) for term in found.values()])

    def energy(self, z: dict[str, Tensor], x: Int[Tensor, " D"]) -> Float[Tensor, ""]:
        """Return the potential energy of an unconstrained point, the coordinates given."""
        return self._energy(z, self.values(x))

    def gains(self, x: Int[Tensor, " D"], z: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        r"""Return the log density, and what each value of each coordinate adds to it, about.

        \[ d_{ik} = \langle \nabla_{v_i} \log p(v, z), \, s_{ik} - v_i \rangle \]

        to first order, for site values \(v_i\) with supports \(s_{ik}\), relaxed to real numbers.

        Args:
            x: The coordinates.
            z: Unconstrained point of the continuous latents.

        Returns:
            log p, a scalar, and d of shape (D, K).

        Raises:
            Exception: The program takes no real numbers for these sites, as where they index.
        """
        relaxed = {n: v.to(torch.get_default_dtype()) for n, v in self.values(x).items()}
        slopes, energy = torch.func.grad_and_value(lambda v: self._energy(z, v))(relaxed)
        parts = []
        for name, place in self.coordinates.places.items():
            support = self._supports[name].to(relaxed[name])
            value = relaxed[name].reshape(place.size, 1, *support.shape[2:])
            slope = slopes[name].reshape(place.size, 1, *support.shape[2:])
            gain = -(slope * (support - value)).reshape(place.size, support.shape[1], -1).sum(-1)
            missing = self.coordinates.num_values - support.shape[1]
            parts.append(torch.nn.functional.pad(gain, (0, missing)))
        return -energy, torch.cat(parts)

    def constrain(self, x: Int[Tensor, " D"], z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the values of all latent and deterministic sites."""
        values = self.values(x)
        values |= self._reached(z, values)[0]
        names = [n for n, s in self.program.sites.items() if s.role == "deterministic"]
        if names:
            with private_store(), handlers.validation(False):
                run = self.potential.run(values)
            values |= {name: run.sites[name]["value"] for name in names}
        return values

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Run the program with validation off, a store of its own and its buffers put back."""
        with private_store(), handlers.validation(False), preserved(self.program.modules):
            yield

    def _energy(self, z: dict[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        reached, log_dets = self._reached(z, values)
        found = self._log_probs({**values, **reached})
        total = torch.stack([term.sum() for term in found.values()]).sum()
        return -(total + sum(log_det.sum() for log_det in log_dets.values()))

    def _reached(
        self, z: dict[str, Tensor], values: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if not self.is_moving:
            return self.potential.values(z)
        reached = handlers.constrain(z)
        with private_store(), handlers.validation(False):
            self.potential.run(values, reached)
        return reached.values, reached.log_dets

    def _log_probs(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with private_store(), handlers.validation(False):
            return program_.log_probs(self.program, self.params, latents, self.data)


def supports_of(coordinates: Coordinates) -> dict[str, Tensor]:
    """Return the values of each site, as tensors."""
    return {name: torch.as_tensor(p.support) for name, p in coordinates.places.items()}


def site_values(
    coordinates: Coordinates, supports: Mapping[str, Tensor], x: Int[Tensor, " D"]
) -> dict[str, Tensor]:
    """Return the value of each discrete site.

    Args:
        coordinates: Where the sites stand in x.
        supports: Their values, by `supports_of`.
        x: Numbers of values.
    """
    found = {}
    for name, place in coordinates.places.items():
        part, support = x[place.start : place.start + place.size], supports[name]
        if place.is_counting:
            value = part.to(support.dtype)
        else:
            row = torch.arange(place.size, device=x.device)
            value = support.to(x.device)[row if len(support) > 1 else 0 * row, part]
        found[name] = value.reshape((*place.shape, *support.shape[2:]))
    return found


def read_coordinates(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    kernel: str,
    *around: Messenger,
    known: Coordinates | None = None,
) -> Coordinates:
    """Read the supports of a program's discrete latents.

    Args:
        program: A model.
        params: Constrained parameters.
        data: The full data, tensors.
        kernel: Name of the kernel that needs them, for the messages.
        *around: Handlers that it runs under, the first outermost.
        known: What was read with other tensors of the same shapes.

    Raises:
        ValueError: There is no discrete latent, or one has no finite support, or one whose support
            depends on other latents.

    Cost:
        Two runs of the program; one where it is known and the same.
    """
    shapes = {name: site.shape for name, site in program.latents.items() if site.is_discrete}
    check_discrete(kernel, list(shapes), list(program.latents))
    seen = []
    for number in (0, 1) if known is None else (2, 0, 1):
        with (
            forked_rng(number),
            torch.no_grad(),
            private_store(),
            handlers.validation(False),
            preserved(program.modules),
            installed(program.params.values(), params) as answers,
        ):
            run = program_.call(program, data, *around, answers, handlers.feasible()).sites
        found = {name: _support(run[name]["fn"], shape) for name, shape in shapes.items()}
        check_supports(kernel, [name for name, support in found.items() if support is None], [])
        if number == 2 and known is not None:
            pairs = zip(found.values(), known.places.values(), strict=True)
            if all(np.array_equal(np.asarray(one), place.support) for one, place in pairs):
                return known
            continue
        seen.append(found)
    moving = [name for name in shapes if not np.array_equal(seen[0][name], seen[1][name])]
    check_supports(kernel, [], moving)
    return Coordinates.of(seen[0], shapes)


def _support(fn: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the values of each coordinate, `(n, K, *event)`; None where they have no end."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    low, high = (getattr(fn.support, n, None) for n in ("lower_bound", "upper_bound"))
    if low is not None and isinstance(high, Tensor) and high.numel() > 1:
        like = getattr(fn, "total_count", high)
        return values_between(low, high.cpu().numpy(), shape).astype(like.cpu().numpy().dtype)
    if not fn.has_enumerate_support:
        return None
    values = fn.enumerate_support(expand=False).cpu().numpy()
    event_dim = len(fn.event_shape)
    return values.reshape(1, len(values), *values.shape[values.ndim - event_dim :])
