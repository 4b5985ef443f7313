"""The moves of the discrete sites of all chains, traced once: what a discrete kernel runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import blocks as blocks_
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.pyro.discrete import Discrete
from deepgen_ppl.pyro.graphs import Traced
from deepgen_ppl.pyro.kernels import gibbs
from deepgen_ppl.pyro.kernels import gibbs_with_gradients as gradients_
from deepgen_ppl.pyro.kernels.gibbs import Gibbs, Moves
from deepgen_ppl.pyro.pointwise import one_by_one, vmap

_CHECKED = 8


class Sweeps:
    """The discrete kernel of all chains on one program.

    Args:
        view: The discrete view of the model.
        kernel: The kernel's options.
        split: Continuous positions to sites.

    Attributes:
        blocks: Coordinates that move at once.
        small: The smallest type that holds the numbers of values.
    """

    def __init__(
        self, view: Discrete, kernel: Any, split: Callable[[Tensor], dict[str, Tensor]]
    ) -> None:
        self.view, self.kernel, self.split = view, kernel, split
        self.coordinates = view.coordinates
        self.num_values = self.coordinates.num_values
        self.small = np.int8 if self.num_values < 128 else np.int64
        self.gradient = False

    @property
    def blocks(self) -> blocks_.Blocks:
        """Coordinates that move at once."""
        return self._blocks

    @blocks.setter
    def blocks(self, blocks: blocks_.Blocks) -> None:
        self._blocks = blocks
        found = gibbs.table(blocks, self.coordinates.cardinality, self.num_terms)
        self.table = gibbs.Table(*(part.to(self.device) for part in found))

    def prepare(self, x: Tensor, z: Tensor) -> dict[str, Any]:
        """Trace the density, find the blocks and choose how differences are told.

        Args:
            x: Starting coordinates of all chains.
            z: Starting positions of the continuous sites.
        """
        rows, reason = self._mapped(x, z)
        self._rows = Traced(rows) if not reason else rows
        self.num_terms, self.device = self._rows(x, z).shape[1], x.device

        def evaluate(points: np.ndarray, number: int) -> np.ndarray:
            index, found = number * len(x) // 8, []
            for first in range(0, len(points), len(x)):
                take = np.minimum(np.arange(first, first + len(x)), len(points) - 1)
                own = z[index : index + 1].expand(z.shape)
                terms = self._rows(torch.as_tensor(points[take], device=x.device), own)
                found.append(terms.cpu().numpy()[: len(points) - first])
            return np.concatenate(found)

        with torch.no_grad():
            cardinality, groups = self.coordinates.cardinality, self.coordinates.groups
            self.blocks = blocks_.find_blocks(evaluate, cardinality, groups)
        moves = Moves.of(self._density(rows), self.table.cardinality, self.num_values)
        self._moves = moves if reason else Moves(*map(Traced, moves))
        attrs: dict[str, Any] = {"compiled": "eager", "compiled_reason": reason}
        if not reason:
            attrs = {"compiled": self._rows.compiled, "compiled_reason": self._rows.reason}
        if not isinstance(self.kernel, Gibbs):
            attrs |= self._choose_differences(x, z)
        return attrs

    def begin(self, x: Tensor, z: Tensor) -> Any:
        """Return the state of the discrete kernel at given points."""
        if isinstance(self.kernel, Gibbs):
            return gibbs.init(x, lambda x: self._rows(x, z))
        return gradients_.init(x, lambda x: self._gains(x, z))

    def moved(
        self, generator: torch.Generator, state: Any, z: Tensor, number: int
    ) -> tuple[Any, dict[str, Tensor]]:
        """Return the state after the discrete moves, and its statistics."""
        kernel = self.kernel
        if not isinstance(kernel, Gibbs):
            gains, cardinality = (lambda x: self._gains(x, z)), self.table.cardinality
            move = kernel.bind(self.coordinates.size)
            state, info = move(generator, state, gains, cardinality)
            worst = torch.zeros_like(info.acceptance)
            seen = {"lp": state.log_density, "acceptance_rate": info.acceptance}
            return state, {**seen, "discrepancy": worst}
        moves = Moves(*(_given(move, z) for move in self._moves))
        options: dict = {"num_values": self.num_values, "scan": kernel.scan, "moves": moves}
        options["check"] = number % discrete_.CHECKED_EVERY == 0
        worst = torch.zeros_like(state.terms[..., 0])
        for _ in range(kernel.num_discrete_steps):
            state, info = gibbs.step(
                generator, state, lambda x: self._rows(x, z), self.table, **options
            )
            worst = torch.maximum(worst, info.discrepancy)
        seen = {"lp": state.terms.sum(-1), "acceptance_rate": torch.ones_like(worst)}
        return state, {**seen, "discrepancy": worst}

    def _gains(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.gradient:
            return self._slopes(x, z)
        state = gibbs.GibbsState(x, self._rows(x, z))
        density = self._density(self._rows)
        options: dict = {"num_values": self.num_values}
        return state.terms.sum(-1), gibbs.conditionals(state, density, self.table, z, **options)

    def _point(self, x: Tensor, z: Tensor) -> Tensor:
        return self.view.terms(x, self.view.hold(self.split(z)))

    def _mapped(self, x: Tensor, z: Tensor) -> tuple[Callable[..., Tensor], str]:
        """Return the terms at rows of points, and why they come one by one if they do."""
        rows = slice(0, _CHECKED)
        mapped = vmap(self._point)
        try:
            with torch.no_grad():
                wanted = torch.stack(
                    [self._point(a, b) for a, b in zip(x[rows], z[rows], strict=True)]
                )
                found = mapped(x[rows], z[rows])
            if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise ValueError("the density's control flow depends on its latents")
            return mapped, ""
        except Exception as error:  # control flow, `.item()`, no batching rule
            reason = f"chain by chain; vmap failed: {type(error).__name__}: {str(error)[:120]}"

        def singly(x: Tensor, z: Tensor) -> Tensor:
            return one_by_one(lambda both: self._point(both[0], both[1]), (x, z))

        return singly, reason

    def _density(self, rows: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the terms at coordinates with further leading axes, for each chain's z."""

        def terms(x: Tensor, z: Tensor) -> Tensor:
            lead = x.shape[:-1]
            flat = x.reshape(-1, x.shape[-1])
            own = z.expand((*lead, z.shape[-1])).reshape(len(flat), z.shape[-1])
            return rows(flat, own).reshape((*lead, -1))

        return terms

    def _choose_differences(self, x: Tensor, z: Tensor) -> dict[str, Any]:
        """Take the gradient where it tells the differences well, or where it is asked for."""
        wish, linear = self.kernel.differences, None

        def slopes(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            return self.view.gains(x, self.split(z))

        mapped, reason = vmap(slopes), "asked for"
        self._slopes = Traced(mapped)
        if wish != "exact":
            try:
                linear = mapped(x[:4], z[:4])[1].detach().cpu().numpy()
            except Exception as error:  # whatever a program says to real numbers
                if wish == "gradient":
                    discrete_.refuse_real_numbers(error)
                reason = f"no gradient: {type(error).__name__}: {str(error)[:80]}"
            if wish == "auto" and linear is not None:
                with torch.no_grad():
                    share = discrete_.told(self._gains(x, z)[1][:4].cpu().numpy(), linear)
                wish = "gradient" if share > discrete_.LEAST_TOLD else "exact"
                reason = f"the gradient tells {share:.2f} of the differences (correlation)"
        self.gradient = wish == "gradient"
        how = "gradient" if self.gradient else "exact"
        return {"differences": how, "differences_reason": reason}


def _given(move: Callable[..., Any], z: Tensor) -> Callable[..., Any]:
    return lambda *args: move(*args, z)
