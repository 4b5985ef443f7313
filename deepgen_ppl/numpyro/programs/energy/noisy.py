"""An energy at each of several noise levels, drawn from by annealed Langevin steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax, random
from jaxtyping import Float

from deepgen_ppl import energies
from deepgen_ppl.energy_checks import check_count, check_noise_levels
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.numpyro.data import as_key
from deepgen_ppl.numpyro.programs.energy.ready import Energy, replaced


class NoiseConditionalEnergy(Energy):
    r"""The density of data with noise, at each of several deviations of the noise.

    \[ \log p^*_\sigma(x) = -\frac{|\tilde x|^2}{2} - \frac{s}{\sigma} \, f(\tilde x, \log \sigma),
       \qquad \tilde x = \frac{x}{\sqrt{s^2 + \sigma^2}} \]

    with s the deviation of the data. Slopes of one density say nothing where there are no data;
    those of wide noise lead there, and narrower ones sharpen. Train it by
    `dg.score_matching(energy, x, method="denoising")`, which draws a level for each row, and draw
    from it with `draws`. As an energy it is that of its smallest level; `at` gives another.

    Args:
        net: f, a function of scaled values (*batch, *event) and log levels (*batch, 1), to (*batch)
            or (*batch, 1), such as `MLP(D, 1, context=1, activation="silu")`.
        features: shape of one value, or its length.
        levels: deviations of the noise, as `numpy.geomspace(largest, smallest, number)`; the
            largest of the order of the largest distance between data, the smallest hardly visible.
        scale: s, the deviation of the data, about zero.

    Raises:
        ValueError: levels or a scale that are not positive.

    References:
        Song, Ermon: Generative modeling by estimating gradients of the data distribution. NeurIPS
        2019. https://arxiv.org/abs/1907.05600

        Salimans, Ho: Should EBMs model the energy or the score? 2021.
        https://openreview.net/forum?id=9AS-TF2jRNb

    Example:
        >>> import numpy as np
        >>> from deepgen_ppl.numpyro.nets import MLP
        >>> net = MLP(2, 1, (16,), context=1, activation="silu")
        >>> energy = NoiseConditionalEnergy(net, 2, np.geomspace(4.0, 0.1, 8))
        >>> energy.draws(5, num_steps=10).shape
        (5, 2)
    """

    net: Any
    shape: tuple[int, ...] = eqx.field(static=True)
    levels: tuple[float, ...] = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(
        self,
        net: Callable[..., Any],
        features: int | Sequence[int],
        levels: Sequence[float],
        *,
        scale: float = 1.0,
    ) -> None:
        shape = (features,) if isinstance(features, int) else tuple(features)
        self.net, self.shape = net, tuple(whole("features", n) for n in shape)
        self.levels = tuple(check_noise_levels(levels).tolist())
        (self.scale,) = check_noise_levels([scale]).tolist()
        self.log_z = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return self.shape

    def base(self) -> Any:
        """Return the normal distribution of the deviation of data with the smallest noise."""
        width = math.hypot(self.scale, self.levels[-1])
        return dist.Normal(0.0, width).expand(self.shape).to_event(len(self.shape))

    def at(self, level: float) -> NoiseConditionalEnergy:
        """Return the energy at one level.

        Args:
            level: deviation of the noise.
        """
        levels = tuple(check_noise_levels([level]).tolist())
        return replaced(self, levels=levels, log_z=None)

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density at the smallest level, but for log Z.

        Args:
            x: values.
        """
        return self.log_density(x, self.levels[-1])

    def log_density(
        self, x: Float[Array, "*batch *event"], level: Float[Array, "*#batch"] | float
    ) -> Float[Array, "*batch"]:
        """Return the log density at a level of each value, but for a constant of each level.

        Args:
            x: values.
            level: deviations of the noise.
        """
        x = jnp.asarray(x, float)
        energies.check_event(x.shape, self.shape, type(self).__name__)
        batch = x.shape[: x.ndim - len(self.shape)]
        level = jnp.broadcast_to(jnp.asarray(level, x.dtype), batch)
        axes = tuple(range(-len(self.shape), 0))
        width = jnp.sqrt(self.scale**2 + level**2).reshape(*batch, *(1,) * len(axes))
        scaled = x / width
        found = self.net(scaled, jnp.log(level)[..., None]).reshape(batch)
        return -0.5 * (scaled**2).sum(axes) - self.scale / level * found

    def score(
        self, x: Float[Array, "*batch *event"], level: Float[Array, "*#batch"] | float
    ) -> Float[Array, "*batch *event"]:
        r"""Return the slope of the log density at a level, \(\nabla_x \log p_{\sigma}(x)\).

        Args:
            x: values.
            level: deviations of the noise.
        """
        return jax.grad(lambda x: self.log_density(x, level).sum())(jnp.asarray(x, float))

    def draws(
        self,
        num_chains: int = 100,
        *,
        num_steps: int = 100,
        step_size: float = 0.2,
        denoise: bool = False,
        seed: int | Array = 0,
    ) -> Float[Array, "chain ..."]:
        r"""Return draws by Langevin steps from the largest level to the smallest.

        \[ x \leftarrow x + \tfrac{\alpha}{2} \nabla \log p_\sigma(x) + \sqrt{\alpha} \, \epsilon,
           \quad \alpha = \text{step\_size} \cdot \sigma^2 \]

        They are draws of the data with noise of the smallest level, but for the bias of steps that
        are not tested.

        Args:
            num_chains: number of chains.
            num_steps: steps at each level.
            step_size: their size, in squares of the level.
            denoise: whether to end at the mean of what was there before the smallest noise.
            seed: seed of the chains.

        Raises:
            ValueError: a number that is not positive.

        Cost:
            A gradient for each of levels times num_steps steps, all chains at once.
        """
        check_count("num_chains", num_chains)
        check_count("num_steps", num_steps)
        (step_size,) = check_noise_levels([step_size]).tolist()
        return _descend(self, as_key(seed), num_chains, num_steps, step_size, bool(denoise))


@eqx.filter_jit
def _descend(
    energy: NoiseConditionalEnergy, key: Array, num_chains: int, num_steps: int, step_size: float,
    denoise: bool,
) -> Array:  # fmt: skip
    keys = random.split(key)
    width = math.hypot(energy.scale, energy.levels[0])
    x = width * random.normal(keys[0], (num_chains, *energy.shape))
    levels = jnp.repeat(jnp.asarray(energy.levels, x.dtype), num_steps)

    def step(number: Array, x: Array) -> Array:
        alpha = step_size * levels[number] ** 2
        noise = random.normal(random.fold_in(keys[1], number), x.shape, x.dtype)
        return x + 0.5 * alpha * energy.score(x, levels[number]) + jnp.sqrt(alpha) * noise

    x = lax.fori_loop(0, len(levels), step, x)
    last = energy.levels[-1]
    return x + last**2 * energy.score(x, last) if denoise else x
