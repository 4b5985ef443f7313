"""The gated PixelCNN: masked convolutions over the rows above and the pixels to the left."""

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
    Inputs,
    arrays,
    as_output,
)
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Output


class PixelCNN(Autoregressive):
    r"""Convolutions of an image that see the pixels before only, row by row, without a blind spot.

    A vertical stack v sees the rows above, a horizontal one h the pixels to the left too:

    \[ a = K_v * v, \quad v' = \tanh(a_1 + c A) \odot \sigma(a_2 + c B), \quad
       b = K_h * h + a M, \quad h' = h + R\,[\tanh(b_1 + c C) \odot \sigma(b_2 + c D)] \]

    Masks are shifts: a convolution ends in its own row or column, and the first layer is given the
    image moved down by a row and right by a pixel.

    Args:
        features: height and width of the images.
        output: the family of each conditional; bits when None.
        channels: channels of each stack.
        layers: number of layers.
        first: size of the first convolution, odd.
        kernel: size of the later ones, odd.
        context: number of context features.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a shape that is no height and width, sizes that are no whole numbers or even.
        TypeError: an output that is none.

    Cost:
        One pass for a density. A draw computes the vertical stack once a row and the horizontal one
        once a pixel, from the rows and columns that it keeps: the products of about one pass.

    References:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional image
        generation with PixelCNN decoders. NeurIPS 2016. https://arxiv.org/abs/1606.05328

        Ramachandran et al.: Fast generation for convolutional autoregressive models. 2017.
        https://arxiv.org/abs/1704.06001

    Example:
        >>> PixelCNN((4, 4), channels=8, layers=1)().log_prob(jnp.ones((5, 4, 4), int)).shape
        (5,)
    """

    weights: dict[str, Array]
    output: Output = eqx.field(static=True)
    about: checks.About = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    sizes: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        features: Sequence[int],
        output: Output | None = None,
        channels: int = 32,
        layers: int = 7,
        first: int = 7,
        kernel: int = 3,
        context: int = 0,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.whole("channels", channels)
        self.layers = flow_checks.whole("layers", layers)
        self.sizes = checks.check_kernel("first", first), checks.check_kernel("kernel", kernel)
        self.about = checks.about(checks.check_image(features), None, context)
        self.output = as_output(output)
        sizes = self.output.inputs, self.output.size, channels, layers, self.sizes, context
        self.weights = arrays(autoregressive_weights.pixelcnn(seed, *sizes))

    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals, by one pass."""
        height, width = self.about.event_shape
        x = inputs.reshape(len(inputs), height, width, -1)
        v = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        h = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]

        def layer(stacks: Any, own: dict[str, Array]) -> tuple[Any, None]:
            v, h = stacks
            above, beside = given(own, context)
            reach, size = own["vertical"].shape[:2]
            sides = ((0, 0), (reach - 1, 0), (size // 2, size // 2), (0, 0))
            a = convolved(jnp.pad(v, sides), own["vertical"]) + own["vertical_bias"]
            left = jnp.pad(h, ((0, 0), (0, 0), (reach - 1, 0), (0, 0)))
            b = convolved(left, own["horizontal"][None]) + a @ own["across"] + beside
            return (gated(a + above), gated(b) @ own["residual"] + own["residual_bias"]), None

        def later(stacks: Any, own: dict[str, Array]) -> tuple[Any, None]:
            (v, h), _ = layer(stacks, own)
            return (v, h + stacks[1]), None

        (v, h), _ = layer((v, h), self._layer(0))
        if self.layers > 1:
            rest = {name: self.weights[name] for name in self._names()}
            (v, h), _ = lax.scan(later, (v, h), rest)
        return self._end(h).reshape(len(x), height * width, -1)

    def start(self, rows: int, context: Context) -> Any:
        """Return an empty canvas, the rows and columns that convolutions see, and the context."""
        w, (height, width), (first, kernel) = self.weights, self.about.event_shape, self.sizes
        channels, dtype, margin = len(w["mix"]), w["mix"].dtype, first // 2 + 1

        def zeros(*shape: int) -> Array:
            return jnp.zeros((rows, *shape), dtype)

        reach, number = kernel // 2, self.layers - 1
        return {
            "canvas": zeros(height + margin, width + 2 * margin, self.output.inputs),
            "lines": (zeros(reach, width + 2 * (kernel // 2), channels),) * number,
            "left": (zeros(reach, channels),) * number,
            "row": (zeros(width, 2 * channels),) * self.layers,
            "context": zeros(0) if context is None else context,
        }

    def step(self, kept: Any, i: Array, before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of pixel i; the first one of a row computes the vertical stack."""
        width, margin = self.about.event_shape[1], self.sizes[0] // 2 + 1
        place, zero = jnp.maximum(i - 1, 0), jnp.zeros((), i.dtype)
        corner = zero, place // width + margin, place % width + margin, zero
        canvas = lax.dynamic_update_slice(kept["canvas"], before[:, None, None], corner)
        row, column = i // width, i % width
        kept = kept | {"canvas": canvas}
        kept = lax.cond(column == 0, lambda k: self._begin(k, row), lambda k: k, kept)
        # the columns before this one in its row: those of the canvas end one pixel to the left
        begin = zero, row + margin, column, zero
        seen = lax.dynamic_slice(canvas, begin, (len(canvas), 1, 2 * margin, canvas.shape[3]))
        h: Any = None
        seen, left = seen[:, 0, :margin], []
        for number in range(self.layers):
            own = self._layer(number)
            if number:
                seen = jnp.concatenate([kept["left"][number - 1], h[:, None]], 1)
                left.append(seen[:, 1:])
            b = jnp.tensordot(seen, own["horizontal"], 2)
            b = b + lax.dynamic_index_in_dim(kept["row"][number], column, 1, False)
            out = gated(b) @ own["residual"] + own["residual_bias"]
            h = out if h is None else out + h
        return self._end(h), kept | {"left": tuple(left)}

    def _begin(self, kept: Any, row: Array) -> Any:
        """Return what is kept with the vertical stack of a new row, and nothing to the left."""
        width, margin = self.about.event_shape[1], self.sizes[0] // 2 + 1
        context = kept["context"] if kept["context"].shape[1] else None
        above = lax.dynamic_slice_in_dim(kept["canvas"], row, margin, 1)
        inset = margin - self.sizes[0] // 2
        above, lines, rows = above[:, :, inset : above.shape[2] - inset], [], []
        for number in range(self.layers):
            own = self._layer(number)
            of_v, of_h = given(own, context)
            if number:
                half = self.sizes[1] // 2
                line = jnp.pad(above, ((0, 0), (0, 0), (half, half), (0, 0)))
                above = jnp.concatenate([kept["lines"][number - 1], line], 1)
                lines.append(above[:, 1:])
            a = convolved(above, own["vertical"]) + own["vertical_bias"]
            rows.append((a @ own["across"] + of_h).reshape(len(a), width, -1))
            above = gated(a + of_v)
        left = jax.tree.map(jnp.zeros_like, kept["left"])
        return kept | {"lines": tuple(lines), "row": tuple(rows), "left": left}

    def _names(self) -> list[str]:
        first = [name for name in self.weights if name.startswith("first_")]
        return [name.removeprefix("first_") for name in first]

    def _layer(self, number: int) -> dict[str, Array]:
        if number == 0:
            return {name: self.weights[f"first_{name}"] for name in self._names()}
        return {name: self.weights[name][number - 1] for name in self._names()}

    def _end(self, h: Any) -> Array:
        w = self.weights
        mixed = jax.nn.relu(h) @ w["mix"] + w["mix_bias"]
        return jax.nn.relu(mixed) @ w["out"] + w["bias"]


def convolved(x: Float[Array, "rows height width inputs"], kernel: Array) -> Array:
    """Return the convolution of images with a kernel, without a margin."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def gated(a: Array) -> Array:
    """Return the first half of the channels, gated by the second one."""
    signal, gate = jnp.split(a, 2, -1)
    return jnp.tanh(signal) * jax.nn.sigmoid(gate)


def given(own: dict[str, Array], context: Context) -> tuple[Any, Array]:
    """Return what the context adds to the gates of the vertical and the horizontal stack."""
    bias = own["horizontal_bias"]
    if context is None:
        return 0.0, bias
    above, beside = (context @ own[f"{name}_context"] for name in ("vertical", "horizontal"))
    return above[:, None, None], bias + beside[:, None, None]
