"""Convolutional and residual networks: their sizes and initial weights, equal on both wings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepgen_ppl import flow_checks


def shape_of(image: Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels of images of a shape.

    Raises:
        ValueError: neither (height, width) nor (height, width, channels).

    Example:
        >>> shape_of((28, 28)), shape_of((32, 32, 3))
        ((28, 28, 1), (32, 32, 3))
    """
    sized = isinstance(image, Sequence) and not isinstance(image, str) and len(image) in (2, 3)
    if not sized:
        raise ValueError(
            f"image must be (height, width) or (height, width, channels), got {image!r}."
        )
    sizes = [flow_checks.whole("each size in image", size) for size in image]
    height, width, channels = sizes if len(sizes) == 3 else (*sizes, 1)
    return height, width, channels


def scales(image: Sequence[int], number: int) -> list[tuple[int, int]]:
    """Return height and width at each scale, each half of the one before, rounded up.

    Example:
        >>> scales((28, 27), 2)
        [(28, 27), (14, 14), (7, 7)]
    """
    found = [shape_of(image)[:2]]
    for _ in range(number):
        height, width = found[-1]
        found.append((-(-height // 2), -(-width // 2)))
    return found


def check_sizes(activation: str, blocks: int, context: int, **sizes: int) -> None:
    """Refuse an unknown activation, and sizes that are no whole numbers.

    Args:
        activation: name of the activation.
        blocks: residual blocks, which may be none.
        context: number of context features, which may be none.
        **sizes: numbers that are at least one, by name.

    Raises:
        ValueError: naming the value.

    Example:
        >>> check_sizes("relu", 0, 0, outputs=0)
        Traceback (most recent call last):
        ...
        ValueError: outputs must be a whole number of at least 1, got 0.
    """
    flow_checks.choice("activation", activation, flow_checks.ACTIVATIONS)
    for name, size in sizes.items():
        flow_checks.whole(name, size)
    flow_checks.whole("blocks", blocks, 0)
    flow_checks.whole("context", context, 0)


def check_scales(image: Sequence[int], channels: Sequence[int]) -> None:
    """Refuse what is no shape of images, and channels that name no scale.

    Raises:
        ValueError: naming the value.

    Example:
        >>> check_scales((8, 8), ())
        Traceback (most recent call last):
        ...
        ValueError: channels must name at least one scale, such as (16, 32), got ().
    """
    shape_of(image)
    if not isinstance(channels, Sequence) or isinstance(channels, str) or not channels:
        raise ValueError(
            f"channels must name at least one scale, such as (16, 32), got {channels!r}."
        )
    for size in channels:
        flow_checks.whole("each size in channels", size)


class Drawn:
    """Draws weights and biases one after the other, uniform on one over the root of the inputs.

    Args:
        seed: seed of the draws, or a NumPy generator.

    Example:
        >>> drawn = Drawn(0)
        >>> drawn.add("last", (3,), 2)
        >>> {name: value.shape for name, value in drawn.found.items()}
        {'last': (3, 2), 'last_bias': (2,)}
    """

    def __init__(self, seed: int | np.random.Generator) -> None:
        self.rng = np.random.default_rng(seed)
        self.found: dict[str, np.ndarray] = {}

    def add(self, name: str, inputs: Sequence[int], outputs: int, bias: bool = True) -> None:
        """Draw a weight of shape (*inputs, outputs), and its bias."""
        bound = 1.0 / max(int(np.prod(inputs)), 1) ** 0.5
        self.found[name] = self.rng.uniform(-bound, bound, (*inputs, outputs))
        if bias:
            self.found[f"{name}_bias"] = self.rng.uniform(-bound, bound, outputs)

    def residual(self, name: str, inputs: Sequence[int], outputs: int) -> None:
        """Draw the two layers of a residual block, the second zero: it begins as the identity."""
        self.add(f"{name}_in", inputs, outputs)
        self.found[f"{name}_out"] = np.zeros((*inputs[:-1], outputs, inputs[-1]))
        self.found[f"{name}_out_bias"] = np.zeros(inputs[-1])


def encoder(
    seed: Any, image: Sequence[int], outputs: int, channels: Sequence[int], blocks: int,
    context: int, activation: str = "relu",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the weights of a convolutional network from images to features.

    Args:
        seed: seed of the draws, or a NumPy generator.
        image: shape of the images.
        outputs: number of features.
        channels: channels at each scale.
        blocks: residual blocks at each scale.
        context: number of context features.
        activation: name of the network's activation.

    Raises:
        ValueError: a shape or sizes that are none, or the activation is unknown.

    Example:
        >>> found = encoder(0, (8, 8), 5, (4, 6), 0, 0)
        >>> found["conv_1"].shape, found["last"].shape
        ((3, 3, 4, 6), (24, 5))
    """
    check_sizes(activation, blocks, context, outputs=outputs)
    check_scales(image, channels)
    drawn, before = Drawn(seed), shape_of(image)[2]
    for number, size in enumerate(channels):
        drawn.add(f"conv_{number}", (3, 3, before), size)
        for block in range(blocks):
            drawn.residual(f"block_{number}_{block}", (3, 3, size), size)
        before = size
    height, width = scales(image, len(channels))[-1]
    drawn.add("last", (height * width * before,), outputs)
    if context:
        drawn.add("from_context", (context,), channels[0], bias=False)
    return drawn.found


def decoder(
    seed: Any, inputs: int, image: Sequence[int], outputs: int, channels: Sequence[int],
    blocks: int, context: int, activation: str = "relu",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the weights of a convolutional network from features to images.

    Args:
        seed: seed of the draws, or a NumPy generator.
        inputs: number of features.
        image: shape of the images.
        outputs: outputs of each pixel and channel.
        channels: channels at each scale, the coarsest first.
        blocks: residual blocks at each scale.
        context: number of context features.
        activation: name of the network's activation.

    Raises:
        ValueError: a shape or sizes that are none, or the activation is unknown.

    Example:
        >>> found = decoder(0, 5, (8, 8), 2, (6, 4), 0, 0)
        >>> found["first"].shape, found["conv_1"].shape
        ((5, 24), (3, 3, 4, 2))
    """
    check_sizes(activation, blocks, context, inputs=inputs, outputs=outputs)
    check_scales(image, channels)
    drawn = Drawn(seed)
    height, width = scales(image, len(channels))[-1]
    drawn.add("first", (inputs,), height * width * channels[0])
    after = (*channels[1:], shape_of(image)[2] * outputs)
    for number, (before, size) in enumerate(zip(channels, after, strict=True)):
        for block in range(blocks):
            drawn.residual(f"block_{number}_{block}", (3, 3, before), before)
        drawn.add(f"conv_{number}", (3, 3, before), size)
    if context:
        drawn.add("from_context", (context,), height * width * channels[0], bias=False)
    return drawn.found


def residual(
    seed: Any, inputs: int, outputs: int, units: int, blocks: int, context: int,
    activation: str = "relu",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the weights of a perceptron of residual blocks.

    Args:
        seed: seed of the draws, or a NumPy generator.
        inputs: number of inputs.
        outputs: number of outputs.
        units: units of every layer.
        blocks: number of blocks.
        context: number of context features.
        activation: name of the network's activation.

    Raises:
        ValueError: sizes that are none, or the activation is unknown.

    Example:
        >>> sorted(residual(0, 3, 2, 8, 1, 0))[:3]
        ['block_0_in', 'block_0_in_bias', 'block_0_out']
    """
    check_sizes(activation, blocks, context, inputs=inputs, outputs=outputs, units=units)
    drawn = Drawn(seed)
    drawn.add("first", (inputs,), units)
    for block in range(blocks):
        drawn.residual(f"block_{block}", (units,), units)
    drawn.add("last", (units,), outputs)
    if context:
        drawn.add("from_context", (context,), units, bias=False)
    return drawn.found
