"""What is refused of objectives: options out of range, and pairs that they do not fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from deepgen_ppl import checks
from deepgen_ppl.schedules import KLAnnealing

ESTIMATORS = ("standard", "stl", "dreg")


def check_particles(num_particles: int) -> None:
    """Refuse a number of particles that is not positive."""
    if num_particles < 1:
        raise ValueError(f"num_particles must be positive, got {num_particles}.")


def check_elbo(kl: str, estimator: str, beta: Any, free_bits: float, mmd: float) -> None:
    """Refuse options of an ELBO that are out of range or do not go together.

    Raises:
        TypeError: `beta` is neither a number nor a `KLAnnealing`.
        ValueError: any other.

    Example:
        >>> check_elbo("analytic", "stl", 1.0, 0.0, 0.0)
        Traceback (most recent call last):
        ...
        ValueError: estimator='stl' drops the score of a sampled KL, and kl='analytic' has none. ...
    """
    if kl not in ("sample", "analytic"):
        raise ValueError(f"kl must be 'sample' or 'analytic', got {kl!r}.")
    if estimator == "dreg":
        raise ValueError(
            "estimator='dreg' is one of importance-weighted bounds, dg.IWAE(estimator='dreg'); "
            "its like for the ELBO is estimator='stl'."
        )
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be 'standard' or 'stl', got {estimator!r}.")
    if kl == "analytic" and estimator == "stl":
        raise ValueError(
            "estimator='stl' drops the score of a sampled KL, and kl='analytic' has none. Use one "
            "of the two."
        )
    if isinstance(beta, bool) or not isinstance(beta, int | float | KLAnnealing):
        raise TypeError(f"beta must be a number or a dg.KLAnnealing, got {beta!r}.")
    if not isinstance(beta, KLAnnealing) and not beta >= 0:
        raise ValueError(f"beta must not be negative, got {beta}.")
    for name, value in (("free_bits", free_bits), ("mmd", mmd)):
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}.")


def check_estimator(estimator: str) -> None:
    """Refuse an unknown estimator of an importance-weighted bound."""
    if estimator not in ESTIMATORS:
        names = ", ".join(map(repr, ESTIMATORS))
        raise ValueError(f"estimator must be one of {names}, got {estimator!r}.")


def check_reparametrised(estimator: str, has_guide: bool, scored: Sequence[str]) -> None:
    """Refuse estimators that follow draws where draws cannot be followed.

    Args:
        estimator: its name.
        has_guide: whether there is a guide.
        scored: latent sites of the guide whose draws carry no gradient.
    """
    if not has_guide:
        raise ValueError(
            f"estimator='{estimator}' is one for guides, and there is none. Pass a guide, or drop "
            "the option."
        )
    if scored:
        raise ValueError(
            f"estimator='{estimator}' follows the draws of a guide, but those of "
            f"{checks.quote(scored)} carry no gradient. Use estimator='standard', which has a "
            "score function with leave-one-out baselines (VIMCO)."
        )


def check_one_kind(estimator: str, shared: Collection[str], local: Collection[str]) -> None:
    """Refuse a guide of shared and local latents for bounds by row.

    Args:
        estimator: its name.
        shared: latents outside the data plates.
        local: latents inside.
    """
    if shared and local:
        raise ValueError(
            f"estimator='{estimator}' weighs draws by row, but the guide draws "
            f"{checks.quote(shared)} for all rows and {checks.quote(local)} for each. Use "
            "estimator='standard' or dg.ELBO(estimator='stl')."
        )


def check_parts(option: str, has_guide: bool, local: Collection[str]) -> None:
    """Refuse options of an ELBO that need latents local to the data plate where there are none.

    Args:
        option: the option, as it was given.
        has_guide: whether there is a guide.
        local: latents of guide and model inside the data plates.
    """
    if not has_guide or not local:
        raise ValueError(
            f"{option} needs latents of a guide in the data plate, one for each datum. Put them "
            "into `with plate('data', len(x))`, or drop the option."
        )


def check_continuous(option: str, names: Collection[str]) -> None:
    """Refuse an option that moves draws where draws are discrete.

    Args:
        option: the option, as it was given.
        names: local latents whose draws carry no gradient.
    """
    if names:
        raise ValueError(
            f"{option} moves the draws of the guide, but those of {checks.quote(names)} carry no "
            "gradient. Drop the option, or relax the distribution."
        )


def check_vectorised(names: Collection[str]) -> None:
    """Refuse sequential plates, whose sites have a name of their own for each row.

    Args:
        names: sequential data plates.
    """
    if names:
        raise ValueError(
            f"{checks.quote(names)} runs row by row, so a latent has no axis of rows. Write it as "
            "`with plate(...)` to use options of dg.ELBO."
        )
