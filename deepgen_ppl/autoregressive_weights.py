"""Initial weights of autoregressive networks, drawn by NumPy and equal on both wings.

Shapes are those of D features, each an input of E numbers and P outputs, and C context features.
Weights are uniform on one over the root of the number of inputs; the last layer is zero.
"""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def _uniform(rng: np.random.Generator, fan_in: int, *shape: int) -> np.ndarray:
    bound = 1.0 / max(fan_in, 1) ** 0.5
    return rng.uniform(-bound, bound, shape)


def logistic(
    seed: int | np.random.Generator, features: int, inputs: int, outputs: int, context: int
) -> Arrays:
    """Weights of logistic conditionals: `weight` (D, E, D, P), `bias` (D, P), `context` (C, D, P).

    Example:
        >>> {name: value.shape for name, value in logistic(0, 3, 1, 2, 0).items()}
        {'weight': (3, 1, 3, 2), 'bias': (3, 2)}
    """
    rng = np.random.default_rng(seed)
    fan_in = features * inputs + context
    found = {
        "weight": _uniform(rng, fan_in, features, inputs, features, outputs),
        "bias": np.zeros((features, outputs)),
    }
    if context:
        found["context"] = _uniform(rng, fan_in, context, features, outputs)
    return found


def nade(
    seed: int | np.random.Generator,
    features: int,
    inputs: int,
    outputs: int,
    units: int,
    context: int,
) -> Arrays:
    """Weights of NADE with H units: `weight` (D, E, H), `out` (D, H, P), their biases, `context`.

    Example:
        >>> {name: value.shape for name, value in nade(0, 3, 1, 2, 5, 1).items()}
        {'weight': (3, 1, 5), 'hidden': (5,), 'out': (3, 5, 2), 'bias': (3, 2), 'context': (1, 5)}
    """
    rng = np.random.default_rng(seed)
    fan_in = features * inputs + context
    found = {
        "weight": _uniform(rng, fan_in, features, inputs, units),
        "hidden": np.zeros(units),
        "out": np.zeros((features, units, outputs)),
        "bias": np.zeros((features, outputs)),
    }
    if context:
        found["context"] = _uniform(rng, fan_in, context, units)
    return found


def gru(
    seed: int | np.random.Generator,
    inputs: int,
    outputs: int,
    units: int,
    layers: int,
    context: int,
) -> Arrays:
    """Weights of stacked gated recurrent units, the three gates (reset, update, new) side by side.

    Example:
        >>> {name: value.shape for name, value in gru(0, 1, 2, 5, 2, 0).items()}
        {'input_0': (1, 15), 'state_0': (5, 15), 'bias_0': (15,), 'state_bias_0': (15,),
         'input_1': (5, 15), 'state_1': (5, 15), 'bias_1': (15,), 'state_bias_1': (15,),
         'out': (5, 2), 'bias': (2,)}
    """
    rng = np.random.default_rng(seed)
    found: Arrays = {}
    for number in range(layers):
        before = units if number else inputs
        found[f"input_{number}"] = _uniform(rng, units, before, 3 * units)
        found[f"state_{number}"] = _uniform(rng, units, units, 3 * units)
        found[f"bias_{number}"] = _uniform(rng, units, 3 * units)
        found[f"state_bias_{number}"] = _uniform(rng, units, 3 * units)
        if context:
            found[f"context_{number}"] = _uniform(rng, units, context, 3 * units)
    found["out"] = np.zeros((units, outputs))
    found["bias"] = np.zeros(outputs)
    return found


def pixelcnn(
    seed: int | np.random.Generator,
    inputs: int,
    outputs: int,
    channels: int,
    layers: int,
    sizes: tuple[int, int],
    context: int,
) -> Arrays:
    """Weights of gated masked convolutions of F channels, those of layers after the first stacked.

    A vertical convolution of size k holds the k // 2 + 1 rows that end in its own, a horizontal one
    the k // 2 + 1 columns that do. Every gate has 2 F channels, the signal and what gates it.

    Args:
        seed: source of the draws.
        inputs: channels of the input.
        outputs: channels of the output.
        channels: channels F of each stack.
        layers: number of layers, the first one included.
        sizes: size of the first convolution and of the later ones.
        context: number of context features.

    Example:
        >>> drawn = pixelcnn(0, 1, 2, 4, 3, (7, 3), 0)
        >>> drawn["first_vertical"].shape, drawn["vertical"].shape
        ((4, 7, 1, 8), (2, 2, 3, 4, 8))
    """
    rng = np.random.default_rng(seed)

    def block(before: int, size: int, lead: tuple[int, ...]) -> Arrays:
        reach = size // 2 + 1
        found = {
            "vertical": _uniform(
                rng, reach * size * before, *lead, reach, size, before, 2 * channels
            ),
            "vertical_bias": np.zeros((*lead, 2 * channels)),
            "across": _uniform(rng, 2 * channels, *lead, 2 * channels, 2 * channels),
            "horizontal": _uniform(rng, reach * before, *lead, reach, before, 2 * channels),
            "horizontal_bias": np.zeros((*lead, 2 * channels)),
            "residual": _uniform(rng, channels, *lead, channels, channels),
            "residual_bias": np.zeros((*lead, channels)),
        }
        if context:
            found["vertical_context"] = _uniform(rng, context, *lead, context, 2 * channels)
            found["horizontal_context"] = _uniform(rng, context, *lead, context, 2 * channels)
        return found

    first = {f"first_{name}": value for name, value in block(inputs, sizes[0], ()).items()}
    rest = block(channels, sizes[1], (layers - 1,)) if layers > 1 else {}
    end = {
        "mix": _uniform(rng, channels, channels, channels),
        "mix_bias": np.zeros(channels),
        "out": np.zeros((channels, outputs)),
        "bias": np.zeros(outputs),
    }
    return first | rest | end


def transformer(
    seed: int | np.random.Generator,
    inputs: int,
    outputs: int,
    width: int,
    layers: int,
    context: int,
) -> Arrays:
    """Weights of a causal transformer of width M, those of its layers stacked.

    `embed` (E, M), `start` (M), `attend` (layers, M, 3 M) for queries, keys and values, `join`
    (layers, M, M), `up` (layers, M, 4 M) and `down` (layers, 4 M, M), the scales and shifts of the
    normalisations before attention, before the two layers and before `out` (M, P), and `context`.

    Example:
        >>> transformer(0, 1, 2, 8, 3, 0)["attend"].shape
        (3, 8, 24)
    """
    rng = np.random.default_rng(seed)
    found = {
        "embed": rng.normal(0.0, 0.5, (inputs, width)),
        "start": rng.normal(0.0, 0.5, width),
        "attend": _uniform(rng, width, layers, width, 3 * width),
        "join": _uniform(rng, width * 2 * layers, layers, width, width),
        "up": _uniform(rng, width, layers, width, 4 * width),
        "up_bias": np.zeros((layers, 4 * width)),
        "down": _uniform(rng, 4 * width * 2 * layers, layers, 4 * width, width),
        "down_bias": np.zeros((layers, width)),
        "scale_attend": np.ones((layers, width)),
        "shift_attend": np.zeros((layers, width)),
        "scale_up": np.ones((layers, width)),
        "shift_up": np.zeros((layers, width)),
        "scale_out": np.ones(width),
        "shift_out": np.zeros(width),
        "out": np.zeros((width, outputs)),
        "bias": np.zeros(outputs),
    }
    if context:
        found["context"] = _uniform(rng, context, context, width)
    return found


def rotations(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return cosines and sines of rotary positions, shape (length, size / 2).

    Pair j of a head of `size` numbers turns by \(t \cdot 10000^{-2j / \text{size}}\) at position t.

    References:
        Su, Lu, Pan, Murtadha, Wen, Liu: RoFormer, enhanced transformer with rotary position
        embedding. 2021. https://arxiv.org/abs/2104.09864

    Example:
        >>> rotations(2, 4)[0].shape
        (2, 2)
    """
    angles = np.arange(length)[:, None] * 10000.0 ** (-2.0 * np.arange(size // 2) / size)
    return np.cos(angles), np.sin(angles)


def block_size(features: int, inputs: int) -> int:
    """Return how many features NADE takes in one product: about 32 inputs.

    Example:
        >>> block_size(784, 1), block_size(784, 27), block_size(5, 1)
        (32, 1, 5)
    """
    wanted = max(1, min(features, 32 // inputs))
    number = -(-features // wanted)
    return -(-features // number)
