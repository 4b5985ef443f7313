"""Priors and posteriors of discrete codes: bits, and variables of several states, one-hot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from deepgen_ppl import flow_checks


@dataclass(frozen=True)
class BinaryPrior:
    r"""The prior of independent bits, \(p(z) = \prod_j \sigma(b_j)^{z_j} \sigma(-b_j)^{1 - z_j}\).

    Its log odds b are learned, from zero on.

    Example:
        >>> BinaryPrior().own(2)["logits"].tolist()
        [0.0, 0.0]
    """

    name: ClassVar[str] = "binary"

    def own(self, latents: int) -> dict[str, np.ndarray]:
        """Return log odds at first."""
        return {"logits": np.zeros(latents)}


@dataclass(frozen=True)
class CategoricalPrior:
    r"""The prior of independent variables of K states, their one-hot vectors side by side.

    Args:
        states: number K of states; the latents are as many variables as fit.

    Raises:
        ValueError: no whole number of at least 2.

    Example:
        >>> CategoricalPrior(3).own(6)["logits"].shape
        (2, 3)
    """

    name: ClassVar[str] = "categorical"
    states: int = 10

    def __post_init__(self) -> None:
        flow_checks.whole("states", self.states, 2)

    def own(self, latents: int) -> dict[str, np.ndarray]:
        """Return logits at first."""
        return {"logits": np.zeros((variables(latents, self.states), self.states))}


@dataclass(frozen=True)
class BinaryPosterior:
    r"""The posterior of independent bits, whose log odds the encoder gives.

    Train it with `dg.EnumeratedELBO` (few bits), `dg.RelaxedELBO`, or `dg.ELBO` and `dg.IWAE` with
    several particles (score function with leave-one-out baselines).

    Example:
        >>> BinaryPosterior().outputs(5)
        5
    """

    name: ClassVar[str] = "binary"

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return latents

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        return f"{latents} log odds"


@dataclass(frozen=True)
class CategoricalPosterior:
    r"""The posterior of independent variables of K states, one-hot, whose logits the encoder gives.

    Args:
        states: number K of states; the latents are as many variables as fit.

    Raises:
        ValueError: no whole number of at least 2.

    Example:
        >>> CategoricalPosterior(4).parts(8)
        'logits of 2 variables of 4 states'
    """

    name: ClassVar[str] = "categorical"
    states: int = 10

    def __post_init__(self) -> None:
        flow_checks.whole("states", self.states, 2)

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return latents

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        count = variables(latents, self.states)
        return f"logits of {count} variable{'' if count == 1 else 's'} of {self.states} states"


def variables(latents: int, states: int) -> int:
    """Return how many variables of K states latents hold, one-hot.

    Raises:
        ValueError: no whole number of them.

    Example:
        >>> variables(12, 4)
        3
    """
    if latents % states:
        raise ValueError(
            f"latents={latents} is no multiple of states={states}: latents holds the one-hot "
            f"vectors of all variables side by side, such as {states * max(latents // states, 1)}."
        )
    return latents // states


def check_match(posterior: Any, prior: Any, latents: int) -> None:
    """Refuse a prior and a posterior of which only one is discrete, or of other states.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_match(BinaryPosterior(), CategoricalPrior(2), 4)
        Traceback (most recent call last):
        ...
        ValueError: posterior 'binary' draws codes that prior 'categorical' has no ...
    """
    kinds = ("binary", "categorical")
    ours, theirs = posterior.name, getattr(prior, "name", None)
    for axis in (posterior, prior):
        if isinstance(axis, CategoricalPrior | CategoricalPosterior):
            variables(latents, axis.states)
    if not isinstance(theirs, str) or (ours not in kinds and theirs not in kinds):
        return
    if ours != theirs:
        cure = f"prior={ours!r}" if ours in kinds else f"posterior={theirs!r}"
        raise ValueError(
            f"posterior {ours!r} draws codes that prior {theirs!r} has no probability for. Take "
            f"{cure}."
        )
    if ours == "categorical" and posterior.states != prior.states:
        raise ValueError(
            f"the posterior has variables of {posterior.states} states, the prior of "
            f"{prior.states}: give both the same states."
        )
