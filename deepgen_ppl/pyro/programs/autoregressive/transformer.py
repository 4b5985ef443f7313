"""A causal transformer with rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.pyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.pyro.programs.autoregressive.outputs import Output

STACKED = ("attend", "join", "up", "up_bias", "down", "down_bias",
           "scale_attend", "shift_attend", "scale_up", "shift_up")  # fmt: skip


class Transformer(Autoregressive):
    r"""Layers of attention over what came before, positions turned into queries and keys.

    Position d holds the feature before d (a learned vector at first), and each layer adds to it

    \[ \mathrm{softmax}\!\left(\frac{(R_d q_d)^\top (R_e k_e)}{\sqrt{m}}\right)_{e \le d} v_e
       \quad\text{and}\quad W_2\,\mathrm{gelu}(W_1 y), \]

    both of normalised values, where \(R_d\) turns pairs of numbers by angles in proportion to d.
    The context is added at every position.

    Args:
        features: number of features D, or the shape of an event, read row by row.
        output: the family of each conditional; bits when None.
        width: numbers at each position, a multiple of twice the heads.
        layers: number of layers.
        heads: heads of attention.
        context: number of context features.
        order: which feature comes when, a permutation; the order they stand in when None.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: sizes that are no whole numbers, a width that heads do not divide, or an order
            that is no permutation.
        TypeError: an output that is none.

    Cost:
        One pass for a density, D^2 in time and memory; a draw keeps keys and values, so that each
        of its D steps computes one position.

    References:
        Vaswani et al.: Attention is all you need. NeurIPS 2017. https://arxiv.org/abs/1706.03762

        Su, Lu, Pan, Murtadha, Wen, Liu: RoFormer, enhanced transformer with rotary position
        embedding. 2021. https://arxiv.org/abs/2104.09864

    Example:
        >>> net = Transformer(3, width=8, layers=1, heads=2)
        >>> net().log_prob(torch.tensor([1.0, 0.0, 1.0])).shape
        torch.Size([])
    """

    def __init__(
        self,
        features: Features,
        output: Output | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 0,
        *,
        order: Sequence[int] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        checks.check_heads(width, heads)
        flow_checks.whole("layers", layers)
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.output.inputs, self.output.size, width, layers, context
        self.weights, self.heads = arrays(autoregressive_weights.transformer(seed, *sizes)), heads

    def parallel(self, inputs: Inputs, context: Context) -> Float[Tensor, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        w, (rows, number, _) = self.weights, inputs.shape
        first = w["start"].expand(rows, 1, len(w["start"]))
        y = torch.cat([first, inputs[:, :-1] @ w["embed"]], 1)
        y = y + self._add(rows, context)[:, None]
        turns = [turn[:, None] for turn in self._turns(y)]
        later = torch.ones(number, number, dtype=torch.bool, device=y.device).triu(1)
        for layer in range(len(w["attend"])):
            own = {name: w[name][layer] for name in STACKED}
            q, k, v = self._queries(own, y)
            q, k = turned(q, *turns), turned(k, *turns)
            scores = torch.einsum("rdhm,rehm->rhde", q, k) / q.shape[-1] ** 0.5
            shares = scores.masked_fill(later, -math.inf).softmax(-1)
            y = self._rest(own, y, torch.einsum("rhde,rehm->rdhm", shares, v))
        return self._end(y)

    def start(self, rows: int, context: Context) -> Any:
        """Return no keys and values of any layer, and what the context adds."""
        layers, width, _ = self.weights["attend"].shape
        add = self._add(rows, context)
        room = add.new_zeros(rows, 0, self.heads, width // self.heads)
        return ((room, room),) * layers, add

    def step(self, kept: Any, i: int, before: Float[Tensor, "rows inputs"]) -> Any:
        """Return the parameters of feature i, and keys and values with those of its position."""
        w, (rooms, add), found = self.weights, kept, []
        y = (before @ w["embed"] if i else w["start"]) + add
        turns = [turn[i] for turn in self._turns(y)]
        for number, (keys, values) in enumerate(rooms):
            own = {name: w[name][number] for name in STACKED}
            q, k, v = self._queries(own, y)
            q, k = turned(q, *turns), turned(k, *turns)
            keys, values = torch.cat([keys, k[:, None]], 1), torch.cat([values, v[:, None]], 1)
            scores = torch.einsum("rhm,rehm->rhe", q, keys) / q.shape[-1] ** 0.5
            y = self._rest(own, y, torch.einsum("rhe,rehm->rhm", scores.softmax(-1), values))
            found.append((keys, values))
        return self._end(y), (tuple(found), add)

    def _add(self, rows: int, context: Context) -> Float[Tensor, "rows width"]:
        w = self.weights
        if context is None:
            return w["start"].new_zeros(rows, len(w["start"]))
        return context @ w["context"]

    def _turns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        size = self.weights["attend"].shape[1] // self.heads
        found = autoregressive_weights.rotations(self.about.features, size)
        cosines, sines = (torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in found)
        return cosines, sines

    def _queries(self, own: dict[str, Tensor], y: Tensor) -> tuple[Tensor, ...]:
        found = normalised(y, own["scale_attend"], own["shift_attend"]) @ own["attend"]
        return found.reshape(*y.shape[:-1], 3 * self.heads, -1).chunk(3, -2)

    def _rest(self, own: dict[str, Tensor], y: Tensor, attended: Tensor) -> Tensor:
        y = y + attended.reshape(y.shape) @ own["join"]
        up = normalised(y, own["scale_up"], own["shift_up"]) @ own["up"] + own["up_bias"]
        return y + functional.gelu(up, approximate="tanh") @ own["down"] + own["down_bias"]

    def _end(self, y: Tensor) -> Tensor:
        w = self.weights
        return normalised(y, w["scale_out"], w["shift_out"]) @ w["out"] + w["bias"]


def normalised(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return values of mean 0 and variance 1 on the last axis, scaled and shifted."""
    return functional.layer_norm(y, y.shape[-1:], scale, shift, 1e-5)


def turned(a: Float[Tensor, "*batch heads size"], cosines: Tensor, sines: Tensor) -> Tensor:
    """Return vectors whose first and second halves are turned, number by number."""
    left, right = a.chunk(2, -1)
    return torch.cat([left * cosines - right * sines, left * sines + right * cosines], -1)
