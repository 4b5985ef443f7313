"""An energy at each of several noise levels, drawn from by annealed Langevin steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import energies
from deepgen_ppl.energy_checks import check_count, check_noise_levels
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.flow_checks import whole
from deepgen_ppl.pyro.programs.energy.ready import Energy, generator_of, replaced


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
        >>> from deepgen_ppl.pyro.nets import MLP
        >>> net = MLP(2, 1, (16,), context=1, activation="silu")
        >>> energy = NoiseConditionalEnergy(net, 2, np.geomspace(4.0, 0.1, 8))
        >>> energy.draws(5, num_steps=10).shape
        torch.Size([5, 2])
    """

    log_z: Evidence | None

    def __init__(
        self,
        net: Callable[..., Any],
        features: int | Sequence[int],
        levels: Sequence[float],
        *,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
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
        own: Any = dist.Normal(torch.tensor(0.0), width).expand(self.shape)
        return own.to_event(len(self.shape))

    def at(self, level: float) -> NoiseConditionalEnergy:
        """Return the energy at one level.

        Args:
            level: deviation of the noise.
        """
        levels = tuple(check_noise_levels([level]).tolist())
        return replaced(self, levels=levels, log_z=None)

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log density at the smallest level, but for log Z.

        Args:
            x: values.
        """
        return self.log_density(x, self.levels[-1])

    def log_density(
        self, x: Float[Tensor, "*batch *event"], level: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch"]:
        """Return the log density at a level of each value, but for a constant of each level.

        Args:
            x: values.
            level: deviations of the noise.
        """
        energies.check_event(tuple(x.shape), self.shape, type(self).__name__)
        batch = x.shape[: x.dim() - len(self.shape)]
        level = torch.as_tensor(level, dtype=x.dtype, device=x.device).expand(batch)
        axes = tuple(range(-len(self.shape), 0))
        width = (self.scale**2 + level**2).sqrt().reshape(*batch, *(1,) * len(axes))
        scaled = x / width
        found = self.net(scaled, level.log()[..., None]).reshape(batch)
        return -0.5 * (scaled**2).sum(axes) - self.scale / level * found

    def score(
        self, x: Float[Tensor, "*batch *event"], level: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch *event"]:
        r"""Return the slope of the log density at a level, \(\nabla_x \log p_{\sigma}(x)\).

        Args:
            x: values.
            level: deviations of the noise.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(self.log_density(x, level).sum(), x)[0]

    def draws(
        self,
        num_chains: int = 100,
        *,
        num_steps: int = 100,
        step_size: float = 0.2,
        denoise: bool = False,
        seed: int = 0,
    ) -> Float[Tensor, "chain ..."]:
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
        generator, width = generator_of(self, seed), math.hypot(self.scale, self.levels[0])
        like = {"generator": generator, "device": generator.device}
        x = width * torch.randn((num_chains, *self.shape), **like)
        for level in self.levels:
            alpha = step_size * level**2
            for _ in range(num_steps):
                noise = torch.randn(x.shape, **like)
                x = x + 0.5 * alpha * self.score(x, level) + math.sqrt(alpha) * noise
        last = self.levels[-1]
        return x + last**2 * self.score(x, last) if denoise else x
