"""Networks of images, convolutional, and of vectors, residual; for encoders, decoders, contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepgen_ppl import image_networks
from deepgen_ppl.numpyro.nets import ACTIVATIONS


class ConvEncoder(eqx.Module):
    r"""A convolutional network from images to features, on batches of any shape.

    At each scale a convolution of 3 x 3 pixels halves height and width (rounded up), then come
    residual blocks \(h + K_2 * a(K_1 * h)\), which begin as the identity; a linear layer ends it.
    The context enters after the first convolution, by its own product.

    Args:
        image: shape of the images, (height, width) or (height, width, channels).
        outputs: number of features.
        channels: channels at each scale, the finest first.
        blocks: residual blocks at each scale.
        context: number of context features.
        activation: as of `MLP`.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a shape or sizes that are none, or the activation is unknown.

    References:
        He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016.
        https://arxiv.org/abs/1512.03385

    Example:
        >>> ConvEncoder((8, 8), 5, (4, 8))(jnp.ones((3, 8, 8))).shape
        (3, 5)
    """

    weights: dict[str, Array]
    image: tuple[int, ...] = eqx.field(static=True)
    scales: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        image: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (16, 32),
        blocks: int = 0,
        context: int = 0,
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        sizes = image, outputs, channels, blocks, context
        drawn = image_networks.encoder(seed, *sizes, activation)
        self.weights = {name: jnp.asarray(w, float) for name, w in drawn.items()}
        self.image, self.scales, self.blocks = tuple(image), len(channels), blocks
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "*batch height width ..."],
        context: Float[Array, "*#batch context"] | None = None,
    ) -> Float[Array, "*batch outputs"]:
        """Return the features of images."""
        lead = x.shape[: x.ndim - len(self.image)]
        h = jnp.reshape(x, (-1, *image_networks.shape_of(self.image)))
        h = h.astype(self.weights["last"].dtype)
        activation = ACTIVATIONS[self.activation]
        for scale in range(self.scales):
            h = _convolved(h, self.weights, f"conv_{scale}", 2)
            if scale == 0 and "from_context" in self.weights and context is not None:
                added = context @ self.weights["from_context"]
                added = jnp.broadcast_to(added, (*lead, added.shape[-1]))
                h = h + added.reshape(len(h), 1, 1, -1)
            h = activation(h)
            for block in range(self.blocks):
                h = _block(h, self.weights, f"block_{scale}_{block}", activation)
        h = h.reshape(*lead, -1)
        return h @ self.weights["last"] + self.weights["last_bias"]


class ConvDecoder(eqx.Module):
    r"""A convolutional network from features to images, on batches of any shape.

    A linear layer makes the coarsest scale; at each scale come residual blocks, then every pixel is
    repeated in both directions and a convolution of 3 x 3 pixels follows. It undoes the shapes of
    `ConvEncoder`. The context enters in the first layer, by its own product.

    Args:
        inputs: number of features.
        image: shape of the images, (height, width) or (height, width, channels).
        outputs: outputs of each pixel and channel, on the last axis, as many as a likelihood takes.
        channels: channels at each scale, the coarsest first.
        blocks: residual blocks at each scale.
        context: number of context features.
        activation: as of `MLP`.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a shape or sizes that are none, or the activation is unknown.

    Example:
        >>> ConvDecoder(5, (8, 8), 2, (8, 4))(jnp.ones((3, 5))).shape
        (3, 8, 8, 2)
    """

    weights: dict[str, Array]
    image: tuple[int, ...] = eqx.field(static=True)
    scales: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        image: Sequence[int],
        outputs: int = 1,
        channels: Sequence[int] = (32, 16),
        blocks: int = 0,
        context: int = 0,
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        sizes = inputs, image, outputs, channels, blocks, context
        drawn = image_networks.decoder(seed, *sizes, activation)
        self.weights = {name: jnp.asarray(w, float) for name, w in drawn.items()}
        self.image, self.scales, self.blocks = tuple(image), len(channels), blocks
        self.outputs, self.activation = outputs, activation

    def __call__(
        self,
        z: Float[Array, "*batch inputs"],
        context: Float[Array, "*#batch context"] | None = None,
    ) -> Float[Array, "*batch height width ... outputs"]:
        """Return the numbers of each pixel."""
        activation = ACTIVATIONS[self.activation]
        h = z @ self.weights["first"] + self.weights["first_bias"]
        if "from_context" in self.weights and context is not None:
            h = h + context @ self.weights["from_context"]
        lead, sizes = h.shape[:-1], image_networks.scales(self.image, self.scales)
        h = activation(h).reshape(-1, *sizes[-1], self.weights["conv_0"].shape[2])
        for scale in range(self.scales):
            for block in range(self.blocks):
                h = _block(h, self.weights, f"block_{scale}_{block}", activation)
            height, width = sizes[self.scales - 1 - scale]
            h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)[:, :height, :width]
            h = _convolved(h, self.weights, f"conv_{scale}")
            h = activation(h) if scale < self.scales - 1 else h
        return h.reshape(*lead, *self.image, self.outputs)


class ResidualMLP(eqx.Module):
    r"""A perceptron of residual blocks, on batches of any shape.

    \[ h_0 = x W + c W_c + b, \quad h_l = h_{l-1} + U_l\, a(V_l\, a(h_{l-1}) + b_l) + c_l, \quad
       y = a(h_L) W' + b' \]

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        units: units of every layer.
        blocks: number of blocks, each the identity at first.
        context: number of context features.
        activation: as of `MLP`.
        seed: seed of the initial weights, or a NumPy generator.

    Raises:
        ValueError: a size is no whole number, or the activation is unknown.

    References:
        He, Zhang, Ren, Sun: Identity mappings in deep residual networks. ECCV 2016.
        https://arxiv.org/abs/1603.05027

    Example:
        >>> ResidualMLP(3, 2, 16)(jnp.ones((5, 3))).shape
        (5, 2)
    """

    weights: dict[str, Array]
    blocks: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: int = 128,
        blocks: int = 2,
        context: int = 0,
        *,
        activation: str = "relu",
        seed: int | np.random.Generator = 0,
    ) -> None:
        sizes = inputs, outputs, units, blocks, context
        drawn = image_networks.residual(seed, *sizes, activation)
        self.weights = {name: jnp.asarray(w, float) for name, w in drawn.items()}
        self.blocks, self.activation = blocks, activation

    def __call__(
        self,
        x: Float[Array, "*batch inputs"],
        context: Float[Array, "*#batch context"] | None = None,
    ) -> Float[Array, "*batch outputs"]:
        """Return the outputs at inputs and context."""
        activation = ACTIVATIONS[self.activation]
        h = x @ self.weights["first"] + self.weights["first_bias"]
        if "from_context" in self.weights and context is not None:
            h = h + context @ self.weights["from_context"]
        for block in range(self.blocks):
            own = f"block_{block}"
            inner = activation(h) @ self.weights[f"{own}_in"] + self.weights[f"{own}_in_bias"]
            inner = activation(inner) @ self.weights[f"{own}_out"]
            h = h + inner + self.weights[f"{own}_out_bias"]
        return activation(h) @ self.weights["last"] + self.weights["last_bias"]


def _convolved(
    x: Float[Array, "rows height width inputs"], weights: dict[str, Array], name: str, step: int = 1
) -> Float[Array, "rows h w outputs"]:
    """Return the convolution of images with a kernel of 3 x 3 pixels, zeros around them."""
    found = lax.conv_general_dilated(
        x,
        weights[name],
        (step, step),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return found + weights[f"{name}_bias"]


def _block(
    h: Array, weights: dict[str, Array], name: str, activation: Callable[[Array], Array]
) -> Array:
    """Return images after a residual block."""
    inner = activation(_convolved(h, weights, f"{name}_in"))
    return h + _convolved(inner, weights, f"{name}_out")
