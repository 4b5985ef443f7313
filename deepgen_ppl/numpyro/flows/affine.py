"""Elementwise affine and additive maps, whose parameters a network gives."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepgen_ppl import flow_checks


@dataclass(frozen=True)
class Affine:
    r"""Scale and shift, \( y = a\,x + t \), with linear scales that stay above a least one.

    \[ a(r) = \begin{cases} 1 + r & r \ge 0 \\
       \varepsilon + (1 - \varepsilon)\,e^{r} & r < 0 \end{cases} \]

    of the network's output r. Exponentials of outputs that grow make training jump; linear scales
    do not, and so need no limit above.

    Args:
        least: the least scale \(\varepsilon\), between 0 and 1.

    Raises:
        ValueError: the least scale does not lie between 0 and 1.

    Example:
        >>> Affine().push(jnp.ones(2), jnp.zeros((2, 2)))[0].tolist()
        [1.0, 1.0]
    """

    least: float = 0.15

    def __post_init__(self) -> None:
        flow_checks.fraction("least", self.least)

    @property
    def size(self) -> int:
        """Parameters of each feature: output of the scale, and shift."""
        return 2

    def push(
        self, x: Float[Array, "*batch D"], params: Float[Array, "*batch 2 D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map x to y, with the log derivative."""
        scale = self._scale(params[..., 0, :])
        return x * scale + params[..., 1, :], jnp.log(scale)

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch 2 D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        scale = self._scale(params[..., 0, :])
        return (y - params[..., 1, :]) / scale, -jnp.log(scale)

    def _scale(self, raw: Array) -> Array:
        # not by `elu`: its `expm1` takes several times the time of `exp`
        below = self.least + (1.0 - self.least) * jnp.exp(jnp.minimum(raw, 0.0))
        return jnp.where(raw > 0.0, 1.0 + raw, below)


@dataclass(frozen=True)
class Additive:
    r"""A shift, \( y = x + t \), which keeps volumes.

    Example:
        >>> Additive().pull(jnp.ones(2), jnp.ones((1, 2)))[0].tolist()
        [0.0, 0.0]
    """

    @property
    def size(self) -> int:
        """Parameters of each feature: the shift."""
        return 1

    def push(
        self, x: Float[Array, "*batch D"], params: Float[Array, "*batch 1 D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map x to y, with the log derivative."""
        return x + params[..., 0, :], jnp.zeros_like(x)

    def pull(
        self, y: Float[Array, "*batch D"], params: Float[Array, "*batch 1 D"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """Map y to x, with the log derivative of that map."""
        return y - params[..., 0, :], jnp.zeros_like(y)
