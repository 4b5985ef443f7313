"""Weights that change from step to step of a training run: plain data, the same on both wings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KLAnnealing:
    r"""A weight of the KL divergence that rises linearly over the first steps of a run.

    $$\beta_t = \beta_0 + (\beta_1 - \beta_0) \min\Bigl(1, \frac{t \bmod P}{r P}\Bigr),
    \qquad P = \text{steps} / \text{cycles},$$

    and \(\beta_1\) from `steps` on. It is a function of the number of the step, so a run that is
    resumed from its checkpoint goes on where it was.

    Args:
        steps: steps after which the weight stays at `end`.
        start: weight \(\beta_0\) of the first step.
        end: weight \(\beta_1\) of the last step.
        cycles: how often the weight starts anew.
        rise: share r of each cycle in which it rises; it rests at `end` for the others.

    Raises:
        ValueError: a number of steps or cycles that is not positive, a negative weight, or a share
            outside (0, 1].

    References:
        Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio: Generating sentences from a continuous
        space. CoNLL 2016. https://arxiv.org/abs/1511.06349
        Fu, Li, Liu, Gao, Celikyilmaz, Carin: Cyclical annealing schedule. NAACL 2019.
        https://arxiv.org/abs/1903.10145

    Example:
        >>> import numpy as np
        >>> KLAnnealing(100)(np.array([0, 25, 50, 100, 500])).tolist()
        [0.0, 0.25, 0.5, 1.0, 1.0]
        >>> KLAnnealing(100, cycles=2, rise=0.5)(np.array([0, 20, 30, 50, 70])).tolist()
        [0.0, 0.8, 1.0, 0.0, 0.8]
    """

    steps: int
    start: float = 0.0
    end: float = 1.0
    cycles: int = 1
    rise: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.cycles < 1:
            raise ValueError(
                f"steps and cycles must be positive, got steps={self.steps}, cycles={self.cycles}."
            )
        if self.start < 0 or self.end < 0:
            raise ValueError(
                f"weights must not be negative, got start={self.start}, end={self.end}."
            )
        if not 0 < self.rise <= 1:
            raise ValueError(f"rise must lie in (0, 1], got {self.rise}.")

    def __call__(self, step: Any) -> Any:
        """Return the weight at the number of a step: an array of NumPy, JAX or torch."""
        period = self.steps / self.cycles
        risen = ((step % period) / (self.rise * period)).clip(0.0, 1.0)
        over = (step >= self.steps) * 1.0
        return self.start + (self.end - self.start) * (over + (1.0 - over) * risen)


Weight = float | KLAnnealing
"""A weight of the KL divergence: a number, or one that changes from step to step."""


def at(weight: Weight, step: Any) -> Any:
    """Return the weight at a step; the one that a run comes to where there is none.

    Example:
        >>> import numpy as np
        >>> float(at(KLAnnealing(10), np.array(5))), at(KLAnnealing(10, end=0.5), None), at(2.0, 5)
        (0.5, 0.5, 2.0)
    """
    return weight(step) if isinstance(weight, KLAnnealing) and step is not None else last(weight)


def last(weight: Weight) -> float:
    """Return the weight that a run comes to.

    Example:
        >>> last(KLAnnealing(10, end=0.5)), last(2.0)
        (0.5, 2.0)
    """
    return weight.end if isinstance(weight, KLAnnealing) else weight
