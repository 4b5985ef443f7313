"""Chains of the negative phase at several temperatures, the hottest at the sites' own densities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pyro.poutine import block
from torch import Tensor
from torch.utils._pytree import tree_map

from deepgen_ppl.pyro.discrete import Discrete
from deepgen_ppl.pyro.infer.annealed import swapping
from deepgen_ppl.pyro.infer.negative import Data, Moved, OwnChains, Values, first_step
from deepgen_ppl.pyro.infer.program_chains import ProgramChains, seen_at
from deepgen_ppl.pyro.kernels import tempering
from deepgen_ppl.pyro.kernels.tempering import Spacing
from deepgen_ppl.pyro.parameters import Param, installed, private_store
from deepgen_ppl.pyro.pointwise import over
from deepgen_ppl.pyro.structure import Program
from deepgen_ppl.pyro.unconstrained import Potential


class Tuning(NamedTuple):
    """What the moves of all temperatures are steered by.

    Attributes:
        spacing: the ladder.
        log_step: logarithm of the step size of each temperature but the hottest.
    """

    spacing: Spacing
    log_step: Float[Tensor, " T-1"]


class TemperedChains(ProgramChains):
    r"""Chains on a ladder of densities between the free sites' own and the program's.

    \[ \log p_\beta = \log q + \beta (\log p^* - \log q), \qquad
       0 = \beta_0 < \dots < \beta_{T-1} = 1 \]

    with q the density of the latent sites without factors and observed sites. At each step the
    hottest chains are drawn anew, neighbours propose to swap, and all others are moved. The ladder
    follows the rejections, that all neighbours refuse equally often. Each chain of the pool is such
    a ladder, and only its coldest rung is a draw.

    Args:
        num_temperatures: number T of temperatures.
        program: as `ProgramChains` has it, like what follows.
        *args: further arguments of `ProgramChains`.
    """

    def __init__(self, num_temperatures: int, program: Program, *args: Any) -> None:
        self.num_temperatures = num_temperatures
        hidden = [*program.observed, *program.factors]
        sites = {name: site for name, site in program.sites.items() if name not in hidden}
        self.own = replace(program, fn=block(program.fn, hide=hidden), sites=sites)
        super().__init__(program, *args)

    @property
    def tuning(self) -> Tuning:
        """What the first moves are steered by."""
        num = self.num_temperatures
        return Tuning(Spacing.first(num), first_step(self.continuous).repeat(num - 1))

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base."""
        cold = super().start(params, data, rows, at_data)
        shape = len(rows), self.num_temperatures - 1
        hot = super().start(params, data, rows.repeat_interleave(shape[1]), False)
        hot = tree_map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), hot)
        return tree_map(lambda a, b: torch.cat([a, b[:, None]], 1), hot, cold)

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Draw the hottest chains, let neighbours swap, and move the others, time after time."""
        num, total = self.num_temperatures, torch.zeros(len(rows))
        worst = torch.zeros(())
        for _ in range(num_steps):
            hot = super().start(params, data, rows, False)
            state = tree_map(
                lambda leaf, new: torch.cat([new[:, None], leaf[:, 1:]], 1), state, hot
            )
            state, tuning = self._swapped((params, data, rows), state, tuning)
            warm = tree_map(lambda leaf: leaf[:, 1:].flatten(0, 1), state)
            at = rows.repeat_interleave(num - 1), tuning.spacing.betas[1:].repeat(len(rows))
            found = super().move(params, data, at, warm, tuning.log_step, 1)
            state = tree_map(
                lambda leaf, new: torch.cat([leaf[:, :1], new.reshape(leaf[:, 1:].shape)], 1),
                state, found.state,
            )  # fmt: skip
            tuning = tuning._replace(log_step=found.tuning)
            total = total + found.acceptance.reshape(-1, num - 1)[:, -1]
            worst = torch.maximum(worst, found.discrepancy)
        return Moved(state, tuning, total / num_steps, worst)

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the unnormalised log density of each coldest chain, where it lives."""
        return super().log_prob(params, data, rows, _coldest(state))

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return the positions of the coldest chains' continuous sites."""
        return super().place(_coldest(state))

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the value of each site in the coldest chains."""
        return super().values(params, data, rows, _coldest(state))

    # ------------------------------------------------------------------------------- helpers

    def _read_beside(self, params: Values, data: Data) -> None:
        """Read the density of the latent sites alone, at one row."""
        if self.coordinates is None:
            self.alone: Any = Potential(self.own, params, data)
        else:
            self.alone = Discrete(self.own, self.coordinates, params, data)

    def _rows_of(self, data: Data, rows: Any) -> Any:
        """Return the arrays of some rows, with inverse temperatures where they are given."""
        if not isinstance(rows, tuple):
            return super()._rows_of(data, rows)
        return super()._rows_of(data, rows[0]), rows[1]

    def _view(self, params: Values, data: Data, row: Any) -> Any:
        """Return the density of a row, or of a row and its inverse temperature."""
        if not isinstance(row, tuple):
            return super()._view(params, data, row)
        row, beta = row
        alone = seen_at(self.alone, params, self._row(data, row))
        return Between(alone, super()._view(params, data, row), beta)

    def _anywhere(self, rows: Tensor) -> Any:
        """Return rows and inverse temperatures."""
        return rows, torch.full(rows.shape, 0.7)

    def _swapped(self, args: tuple[Any, ...], state: Any, tuning: Tuning) -> tuple[Any, Tuning]:
        """Let neighbours swap, and move the ladder towards equal rejections."""
        params, data, rows = args
        num = self.num_temperatures

        def ratio(point: tuple[Tensor, Tensor, Any]) -> Tensor:
            x, z, row = point
            between = self._view(params, data, row)
            at = self._split(z)
            return between.gain(at) if self.coordinates is None else between.gain(at, x)

        every = self._rows_of(data, (rows.repeat_interleave(num), torch.ones(num * len(rows))))
        flat = tree_map(lambda leaf: leaf.flatten(0, 1), state)
        with private_store(), torch.no_grad():
            ratios = over(ratio, (*flat, every)).reshape(-1, num).mT
        spacing = tuning.spacing
        log_rates = tempering.log_rates(ratios, spacing.betas)
        turn = tempering.exchange(int(spacing.number), log_rates)
        order, chain = turn.order.mT, torch.arange(len(rows))[:, None]
        moved = tree_map(lambda leaf: leaf[chain, order], state)
        return moved, tuning._replace(spacing=spacing.after(turn))


class TemperedOwnChains(OwnChains):
    """The chain that a ready energy brings along, on a ladder down to independent units.

    Args:
        energy: the ready energy, which has a path.
        params: its parameters, as its program was read.
        num_temperatures: number T of temperatures.
        rates: natural parameters of the independent units.
    """

    def __init__(
        self, energy: Any, params: Iterable[Param], num_temperatures: int, rates: Any
    ) -> None:
        super().__init__(energy, params)
        self.num_temperatures, self.rates = num_temperatures, rates
        self.tuning: Any = Tuning(Spacing.first(num_temperatures), torch.zeros(0))

    def start(self, params: Values, data: Data, rows: Tensor, at_data: bool) -> Any:
        """Return the state of chains that set out from the data rows, or from the base rate."""
        num = self.num_temperatures - 1
        own = super().start(params, data, rows, at_data)
        with installed(self.params, params), torch.no_grad():
            hot = self.energy.path_from(self.rates).start(None, len(rows) * num)
            return tree_map(
                lambda a, b: torch.cat([a.reshape(-1, num, *a.shape[1:]), b[:, None]], 1),
                hot, self.energy.to_path(own),
            )  # fmt: skip

    def move(
        self, params: Values, data: Data, rows: Tensor, state: Any, tuning: Any, num_steps: int
    ) -> Moved:
        """Let neighbours swap, and run the energy's sweeps at all temperatures, time after time."""
        spacing: Spacing = tuning.spacing
        with installed(self.params, params), torch.no_grad():
            path = self.energy.path_from(self.rates)
            found = [
                tree_map(lambda leaf, t=t: leaf[:, t], state) for t in range(self.num_temperatures)
            ]
            for _ in range(num_steps):
                found, spacing = swapping(path, found, spacing, None)
            state = tree_map(lambda *leaves: torch.stack(leaves, 1), *found)
        ones = torch.ones(len(rows))
        return Moved(state, tuning._replace(spacing=spacing), ones, ones.new_zeros(()))

    def log_prob(
        self, params: Values, data: Data, rows: Tensor, state: Any
    ) -> Float[Tensor, " chain"]:
        """Return the log density by which each coldest chain counts, as the energy has it."""
        return super().log_prob(params, data, rows, self._own(params, state))

    def place(self, state: Any) -> Float[Tensor, "chain D"]:
        """Return nothing: these chains live where their own moves keep them."""
        return super().place(_coldest(state))

    def values(self, params: Values, data: Data, rows: Tensor, state: Any) -> dict[str, Tensor]:
        """Return the visible values of the coldest chains."""
        return super().values(params, data, rows, self._own(params, state))

    def _own(self, params: Values, state: Any) -> Any:
        with installed(self.params, params), torch.no_grad():
            return self.energy.from_path(_coldest(state))


class Between:
    """The density of a program at an inverse temperature, as the kernels ask for it.

    Args:
        own: density of the latent sites alone.
        whole: density of the program.
        beta: inverse temperature above 0.
    """

    def __init__(self, own: Any, whole: Any, beta: Any) -> None:
        self.own, self.whole, self.beta = own, whole, beta
        self.hold = whole.hold if isinstance(whole, Discrete) else None

    def energy(self, *point: Any) -> Float[Tensor, ""]:
        """Return the potential energy."""
        return self._rest(self.own.energy(*point)) + self.beta * self.whole.energy(*point)

    def gain(self, *point: Any) -> Float[Tensor, ""]:
        """Return by how much the log density of the program exceeds the sites' own."""
        return self.own.energy(*point) - self.whole.energy(*point)

    def terms(self, x: Tensor, held: Any) -> Float[Tensor, " T"]:
        """Return the terms of the log density."""
        own, whole = (density.terms(x, held) for density in (self.own, self.whole))
        return torch.cat([self._rest(own), self.beta * whole])

    def gains(self, x: Tensor, z: Any) -> tuple[Tensor, Tensor]:
        """Return the log density, and about what each value of each coordinate adds to it."""
        own, whole = (density.gains(x, z) for density in (self.own, self.whole))
        return tree_map(lambda a, b: self._rest(a) + self.beta * b, own, whole)

    def _rest(self, own: Tensor) -> Tensor:
        """Return the part of the sites' own density; none at the top, be it infinite."""
        return torch.where(self.beta < 1.0, (1.0 - self.beta) * own, 0.0)


def _coldest(state: Any) -> Any:
    return tree_map(lambda leaf: leaf[:, -1], state)
