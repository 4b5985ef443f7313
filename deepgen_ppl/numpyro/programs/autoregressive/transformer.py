"""A causal transformer with rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl import autoregressive_weights, flow_checks
from deepgen_ppl.numpyro.programs.autoregressive.module import (
    Autoregressive,
    Context,
    Features,
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Output

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
        >>> net().log_prob(jnp.array([1, 0, 1])).shape
        ()
    """

    weights: dict[str, Array]
    output: Output = eqx.field(static=True)
    about: checks.About = eqx.field(static=True)
    heads: int = eqx.field(static=True)

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
        checks.check_heads(width, heads)
        flow_checks.whole("layers", layers)
        self.about, self.output = checks.about(features, order, context), as_output(output)
        sizes = self.output.inputs, self.output.size, width, layers, context
        self.weights, self.heads = arrays(autoregressive_weights.transformer(seed, *sizes)), heads

    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        w, (rows, number, _) = self.weights, inputs.shape
        first = jnp.broadcast_to(w["start"], (rows, 1, len(w["start"])))
        y = jnp.concatenate([first, inputs[:, :-1] @ w["embed"]], 1)
        y = y + self._add(rows, context)[:, None]
        turns, causal = self._turns(y.dtype), np.tril(np.ones((number, number), bool))

        def layer(y: Array, own: dict[str, Array]) -> tuple[Array, None]:
            q, k, v = self._queries(own, y)
            q, k = (turned(a, *(turn[:, None] for turn in turns)) for a in (q, k))
            scores = jnp.einsum("rdhm,rehm->rhde", q, k) / q.shape[-1] ** 0.5
            shares = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), -1)
            return self._rest(own, y, jnp.einsum("rhde,rehm->rdhm", shares, v)), None

        y, _ = lax.scan(layer, y, {name: w[name] for name in STACKED})
        return self._end(y)

    def start(self, rows: int, context: Context) -> Any:
        """Return room for keys and values of each layer, and what the context adds."""
        layers, width, _ = self.weights["attend"].shape
        add = self._add(rows, context)
        room = jnp.zeros((rows, self.about.features, self.heads, width // self.heads), add.dtype)
        return ((room, room),) * layers, add

    def step(self, kept: Any, i: Array, before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of feature i, and keys and values with those of its position."""
        w, (rooms, add), found = self.weights, kept, []
        y = jnp.where(i > 0, before @ w["embed"], w["start"]) + add
        turns = [lax.dynamic_index_in_dim(turn, i, 0, False) for turn in self._turns(y.dtype)]
        seen = jnp.arange(self.about.features) <= i
        for number, (keys, values) in enumerate(rooms):
            own = {name: w[name][number] for name in STACKED}
            q, k, v = self._queries(own, y)
            q, k = turned(q, *turns), turned(k, *turns)
            keys = lax.dynamic_update_slice_in_dim(keys, k[:, None], i, 1)
            values = lax.dynamic_update_slice_in_dim(values, v[:, None], i, 1)
            scores = jnp.einsum("rhm,rehm->rhe", q, keys) / q.shape[-1] ** 0.5
            shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
            y = self._rest(own, y, jnp.einsum("rhe,rehm->rhm", shares, values))
            found.append((keys, values))
        return self._end(y), (tuple(found), add)

    def _add(self, rows: int, context: Context) -> Float[Array, "rows width"]:
        w = self.weights
        if context is None:
            return jnp.zeros((rows, len(w["start"])), w["start"].dtype)
        return context @ w["context"]

    def _turns(self, dtype: Any) -> tuple[Array, Array]:
        size = self.weights["attend"].shape[1] // self.heads
        cosines, sines = autoregressive_weights.rotations(self.about.features, size)
        return jnp.asarray(cosines, dtype), jnp.asarray(sines, dtype)

    def _queries(self, own: dict[str, Array], y: Array) -> list[Array]:
        found = normalised(y, own["scale_attend"], own["shift_attend"]) @ own["attend"]
        return jnp.split(found.reshape(*y.shape[:-1], 3 * self.heads, -1), 3, -2)

    def _rest(self, own: dict[str, Array], y: Array, attended: Array) -> Array:
        y = y + attended.reshape(y.shape) @ own["join"]
        up = normalised(y, own["scale_up"], own["shift_up"]) @ own["up"] + own["up_bias"]
        return y + jax.nn.gelu(up) @ own["down"] + own["down_bias"]

    def _end(self, y: Array) -> Array:
        w = self.weights
        return normalised(y, w["scale_out"], w["shift_out"]) @ w["out"] + w["bias"]


def normalised(y: Array, scale: Array, shift: Array) -> Array:
    """Return values of mean 0 and variance 1 on the last axis, scaled and shifted."""
    y = y - y.mean(-1, keepdims=True)
    return y * lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-5) * scale + shift


def turned(a: Float[Array, "*batch heads size"], cosines: Array, sines: Array) -> Array:
    """Return vectors whose first and second halves are turned, number by number."""
    left, right = jnp.split(a, 2, -1)
    return jnp.concatenate([left * cosines - right * sines, left * sines + right * cosines], -1)
