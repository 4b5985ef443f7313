"""Chains of the negative phase on the sites of a program, one row of its data each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from deepgen_ppl.blocks import find_blocks
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.discrete import Discrete, read_coordinates
from deepgen_ppl.pyro.infer.negative import Data, Moved, Values, climb, first_step
from deepgen_ppl.pyro.kernels import gibbs
from deepgen_ppl.pyro.kernels import gibbs_with_gradients as gradients_
from deepgen_ppl.pyro.kernels.gibbs import Gibbs
from deepgen_ppl.pyro.parameters import forked_rng, installed, private_store
from deepgen_ppl.pyro.pointwise import over
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential


class ProgramChains:
    """Chains on latent sites of a program at one row of its data, discrete ones among them.

    Args:
        program: the program, its visible sites free, read at one row (or at all data, where it has
            no data plate).
        visible: its visible sites, whose data chains may set out from; the others are hidden.
        source: the program as the user wrote it, that knows the data's values.
        params: constrained parameters in general position, at which it is found what depends on
            what.
        data: the data at all rows.
        kernels: discrete and continuous kernel; either may be missing.
        by_rows: whether a chain is one row's.
        given_data: chains on the hidden sites alone, by which these are drawn where chains set out
            from data.
    """

    def __init__(
        self,
        program: Program,
        visible: tuple[str, ...],
        source: Program,
        params: Values,
        data: Data,
        kernels: tuple[Any, Any],
        by_rows: bool,
        given_data: ProgramChains | None = None,
    ) -> None:
        self.program, self.visible, self.source = program, visible, source
        self.by_rows, (self.discrete, self.continuous) = by_rows, kernels
        self.given_data = given_data
        one = data_.take(data, torch.zeros(1, dtype=torch.int64)) if by_rows else tuple(data)
        own = {n: v.detach().requires_grad_(v.requires_grad) for n, v in params.items()}
        names = [n for n, s in program.latents.items() if not s.is_discrete]
        self.coordinates: Any = None
        if len(names) < len(program.latents):
            self.coordinates = read_coordinates(program, own, one, "gibbs")
            self.view: Any = Discrete(program, self.coordinates, own, one)
            self.potential = self.view.potential
            places = self.coordinates.places.items()
            self.supports = {n: torch.as_tensor(p.support) for n, p in places}
        else:
            self.view = self.potential = Potential(program, own, one)
        self.names = names
        self.shapes = {n: _free_shape(self.potential.transforms[n], program.latents[n].shape)
                       for n in names}  # fmt: skip
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        self._read_beside(own, one)
        if self.coordinates is not None:
            with private_store(), handlers.validation(False), forked_rng(0), torch.no_grad():
                self._prepare(own, data)

    # ------------------------------------------------------------------------------ protocol

    @property
    def tuning(self) -> Any:
        """Logarithm of the first step size."""
        return first_step(self.continuous)

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        hidden: dict[str, Tensor] = {}
        if at_data and self.given_data is not None:
            begun = self.given_data.start(params, data, rows, False)
            first = self.given_data.tuning
            found = self.given_data.move(params, data, rows, begun, first, 1)
            hidden = self.given_data.values(params, data, rows, found.state)
        batch = self._rows_of(data, rows)

        def one(point: tuple[dict[str, Tensor], list[Tensor]]) -> tuple[Tensor, Tensor]:
            hidden, row = point
            here = self._row(data, row)
            given = {**self.data_of(params, here), **hidden} if at_data else {}
            seen = self._run(self.program, params, here, given)
            free = [self.potential.transforms[n].inv(seen[n]).reshape(-1) for n in self.names]
            z = torch.cat(free) if free else torch.zeros(0)
            return self._numbers(seen), z

        with torch.no_grad(), private_store():
            if self.by_rows:
                return over(one, (hidden, batch))
            several = {**hidden, "": rows}

            def each(point: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
                return one(({n: v for n, v in point.items() if n}, []))

            return over(each, several)

    def move(
        self, params: Values, data: Data, rows: Any, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Move discrete and continuous sites of all chains in turn."""
        params = {n: v.detach().requires_grad_(v.requires_grad) for n, v in params.items()}
        batch = self._rows_of(data, rows)
        with private_store():
            if self.coordinates is None:
                both = self._both(params, data, batch, state[0])
                z, tuning, rate = climb(self.continuous, state[1], both, tuning, num_steps)
                return Moved((state[0], z), tuning, rate, tuning.new_zeros(()))
            zeros = tuning.new_zeros(len(state[0]))
            now = Moved(state, tuning, zeros, tuning.new_zeros(()))
            for number in range(num_steps):
                now = self._mixed((params, data, batch), now, number)
        return now._replace(acceptance=now.acceptance / num_steps)

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each chain, where it lives."""
        with private_store():
            return -self._energies(params, data, self._rows_of(data, rows), *state)

    @property
    def is_continuous(self) -> bool:
        """Whether there are continuous sites."""
        return bool(self.size)

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return the positions of the continuous sites."""
        return state[1]

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the value of each site."""

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> dict[str, Tensor]:
            x, z, row = point
            view = self._view(params, data, row)
            if self.coordinates is None:
                return view.constrain(self._split(z))
            return view.constrain(x, self._split(z))

        with torch.no_grad(), private_store():
            return over(one, (*state, self._rows_of(data, rows)))

    def data_of(self, params: Values, row: Data) -> dict[str, Tensor]:
        """Return the data of the visible sites at a row."""
        if not self.visible:
            return {}
        seen = self._run(self.source, params, row, {})
        return {name: seen[name] for name in self.visible}

    # ------------------------------------------------------------------------------- helpers

    def _rows_of(self, data: Data, rows: Any) -> Any:
        """Return the arrays of some rows; nothing where a chain is all of the data's."""
        if not self.by_rows:
            return []
        return [x for x in data_.take(data, rows) if data_.has_rows(x)]

    def _row(self, data: Data, row: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the data arguments at one row, its arrays given without a leading axis."""
        if not self.by_rows:
            return tuple(data)
        arrays = iter(row)
        return tuple(next(arrays)[None] if data_.has_rows(x) else x for x in data)

    def _run(
        self, program: Program, params: Values, data: Data, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        with installed(program.params.values(), params) as answers:
            run = program_.call(program, data, handlers.feasible(), answers, handlers.replay(given))
        return {name: msg["value"] for name, msg in run.sites.items()}

    def _read_beside(self, params: Values, data: Data) -> None:
        """Read what there is beside the program, at one row."""

    def _view(self, params: Values, data: Data, row: Any) -> Any:
        return seen_at(self.view, params, self._row(data, row))

    def _split(self, z: Tensor) -> dict[str, Tensor]:
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = z.split(sizes) if sizes else ()
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(shape) for (name, shape), part in named}

    def _numbers(self, values: Mapping[str, Tensor]) -> Int[Tensor, " D"]:
        if self.coordinates is None:
            return torch.zeros(0, dtype=torch.int64)
        parts = []
        for name, place in self.coordinates.places.items():
            support = self.supports[name]
            value = values[name].reshape(place.size, 1, *support.shape[2:])
            same = (value == support).reshape(place.size, support.shape[1], -1).all(-1)
            parts.append(same.to(torch.int64).argmax(-1))
        return torch.cat(parts)

    def _energies(self, params: Values, data: Data, batch: Any, x: Tensor, z: Tensor) -> Tensor:
        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> Tensor:
            x, z, row = point
            view = self._view(params, data, row)
            if self.coordinates is None:
                return view.energy(self._split(z))
            return view.energy(self._split(z), x)

        return over(one, (x, z, batch))

    def _both(
        self, params: Values, data: Data, batch: Any, x: Tensor
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def both(z: Tensor) -> tuple[Tensor, Tensor]:
            z = z.detach().requires_grad_(True)
            with torch.enable_grad():
                energy = self._energies(params, data, batch, x, z)
                (slope,) = torch.autograd.grad(energy.sum(), z)
            return energy.detach(), slope

        return both

    def _terms(self, args: tuple[Any, ...], x: Tensor, z: Tensor) -> Float[Tensor, "*batch T"]:
        """Return the terms at coordinates with further leading axes, for each chain's z and row."""
        params, data, batch = args

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> Tensor:
            x, z, row = point
            view = self._view(params, data, row)
            return view.terms(x, view.hold(self._split(z)))

        lead = x.shape[:-2]
        times = math.prod(lead)
        own = tree_map(lambda part: _tiled(part, times), batch)
        flat = x.reshape(-1, x.shape[-1])
        with torch.no_grad():
            found = over(one, (flat, _tiled(z, times), own))
        return found.reshape(*lead, len(z), -1)

    def _mixed(self, args: tuple[Any, ...], now: Moved, number: int) -> Moved:
        """Move the discrete sites once, then the continuous ones."""
        x, z = now.state
        generator: Any = torch.default_generator

        def terms(x: Tensor) -> Tensor:
            return self._terms(args, x, z)

        if not isinstance(self.discrete, Gibbs):
            x, rate, worst = self._changed(args, x, z)
        else:
            options: dict = {"num_values": self.coordinates.num_values, "scan": self.discrete.scan}
            begun = gibbs.init(x, terms)
            state, info = gibbs.step(
                generator, begun, terms, self.table, check=number == 0, **options
            )
            x, rate, worst = state.position, info.acceptance, info.discrepancy.max()
        tuning = now.tuning
        if self.size:
            both = self._both(args[0], args[1], args[2], x)
            z, tuning, rate = climb(self.continuous, z, both, tuning, 1)
        worst = torch.maximum(now.discrepancy, worst)
        return Moved((x, z), tuning, now.acceptance + rate, worst)

    def _changed(
        self, args: tuple[Any, ...], x: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Change single coordinates where a gradient says that they are likely to change."""
        params, data, batch = args

        def one(point: tuple[Tensor, Tensor, list[Tensor]]) -> tuple[Tensor, Tensor]:
            x, z, row = point
            return self._view(params, data, row).gains(x, self._split(z))

        def gains(x: Tensor) -> tuple[Tensor, Tensor]:
            return over(one, (x, z, batch))

        if self.discrete.differences == "exact":

            def terms(x: Tensor) -> Tensor:
                return self._terms(args, x, z)

            def gains(x: Tensor) -> tuple[Tensor, Tensor]:
                state = gibbs.init(x, terms)
                options = {"num_values": self.coordinates.num_values}
                told = gibbs.conditionals(state, terms, self.table, **options)
                return state.terms.sum(-1), told

        generator: Any = torch.default_generator
        move, begun = self.discrete.bind(self.coordinates.size), gradients_.init(x, gains)
        state, info = move(generator, begun, gains, self.table.cardinality)
        return state.position, info.acceptance, info.acceptance.new_zeros(())

    def _anywhere(self, rows: Tensor) -> Any:
        """Return what the density is looked at by, to find what depends on what."""
        return rows

    def _prepare(self, params: Values, data: Data) -> None:
        """Find which coordinates may move at once."""
        rows, width = torch.zeros(8, dtype=torch.int64), 64
        first = ProgramChains.start(self, params, data, rows, False)
        anywhere = self._anywhere(torch.zeros(width, dtype=torch.int64))
        args = (params, data, self._rows_of(data, anywhere))

        def evaluate(points: Int[np.ndarray, "n D"], number: int) -> np.ndarray:
            found = []
            z = first[1][number % 8 : number % 8 + 1].expand(width, -1)
            for begin in range(0, len(points), width):
                take = np.minimum(np.arange(begin, begin + width), len(points) - 1)
                x = torch.as_tensor(points[take], dtype=torch.int64)
                found.append(self._terms(args, x, z).numpy())
            return np.concatenate(found)[: len(points)]

        num_terms = evaluate(first[0][:1].numpy(), 0).shape[1]
        cardinality, groups = self.coordinates.cardinality, self.coordinates.groups
        blocks = find_blocks(evaluate, cardinality, groups)
        self.table = gibbs.table(blocks, cardinality, num_terms)


def seen_at(view: Any, params: Values, data: Data) -> Any:
    """Return a density, of continuous sites alone or of discrete ones too, at other inputs."""
    view = copy.copy(view)
    view.params, view.data = params, tuple(data)
    if isinstance(view, Discrete):
        view.potential = seen_at(view.potential, params, data)
    return view


def _free_shape(transform: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(transform.inverse_shape(shape))


def _tiled(part: Tensor, times: int) -> Tensor:
    return part.repeat(times, *([1] * (part.dim() - 1)))
