"""What is refused of objectives: options out of range, and pairs that they do not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


def check_most(max_states: int) -> None:
    """Refuse a greatest number of states that is not positive."""
    if max_states < 1:
        raise ValueError(f"max_states must be positive, got {max_states}.")


def check_states(sizes: Mapping[str, Sequence[int]], count: int, most: int) -> None:
    """Refuse to sum over more joint states than are asked for.

    Args:
        sizes: number of states of each discrete variable, by site.
        count: number of joint states.
        most: the greatest number.

    Raises:
        ValueError: naming the sites and both numbers.

    Example:
        >>> check_states({"z": [2] * 20}, 2**20, 1024)
        Traceback (most recent call last):
        ...
        ValueError: 'z' has 20 discrete variables with 1048576 joint states, more than ...
    """
    if count <= most:
        return
    told = " and ".join(
        f"'{name}' has {len(own)} discrete variable{'' if len(own) == 1 else 's'}"
        for name, own in sizes.items()
    )
    shown = count if count < 10**12 else f"{float(count):.0e}"
    raise ValueError(
        f"{told} with {shown} joint states, more than max_states={most}. Use dg.ELBO or dg.IWAE "
        "with several particles (the score function), or dg.RelaxedELBO."
    )


def check_summable(
    local: Sequence[str], shared: Sequence[str], others: Sequence[str], outside: bool
) -> None:
    """Refuse to sum over the discrete latents of a guide where that is not the bound.

    Args:
        local: its discrete latents in data plates.
        shared: those that the rows share.
        others: continuous ones whose draws carry no gradient.
        outside: whether terms outside the data plates may depend on draws inside.

    Raises:
        ValueError: naming them.

    Example:
        >>> check_summable([], [], [], False)
        Traceback (most recent call last):
        ...
        ValueError: dg.EnumeratedELBO sums over the discrete latents of a guide, and this ...
    """
    if not local and not shared:
        raise ValueError(
            "dg.EnumeratedELBO sums over the discrete latents of a guide, and this guide has none. "
            "Use dg.ELBO, or dg.ExactMarginal for discrete latents that the model alone has."
        )
    if local and shared:
        raise ValueError(
            f"dg.EnumeratedELBO sums over the discrete latents of each row, or over those that the "
            f"rows share, but the guide has {checks.quote(local)} and {checks.quote(shared)}. Use "
            "dg.ELBO with several particles."
        )
    if local and outside:
        raise ValueError(
            f"dg.EnumeratedELBO sums over {checks.quote(local)} row by row, but a site outside of "
            "the data plate comes after it, so that rows may not be apart. Move it into the plate "
            "or before it, or use dg.ELBO with several particles."
        )
    if others:
        raise ValueError(
            f"dg.EnumeratedELBO follows the continuous draws of the guide, but those of "
            f"{checks.quote(others)} carry no gradient. Use dg.ELBO with several particles."
        )


def check_finite(name: str, finite: bool, kind: str) -> None:
    """Refuse to sum over a site without a finite support.

    Example:
        >>> check_finite("n", False, "Poisson")
        Traceback (most recent call last):
        ...
        ValueError: dg.EnumeratedELBO cannot sum over 'n': Poisson has no finite support. Use ...
    """
    if not finite:
        raise ValueError(
            f"dg.EnumeratedELBO cannot sum over '{name}': {kind} has no finite support. Use "
            "dg.ELBO with several particles."
        )


def check_temperature(temperature: Any) -> None:
    """Refuse temperatures that are not positive.

    Example:
        >>> check_temperature(0.0)
        Traceback (most recent call last):
        ...
        ValueError: temperature must be positive, got 0.0.
    """
    if isinstance(temperature, KLAnnealing):
        ends: tuple[Any, ...] = (temperature.start, temperature.end)
    elif isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise TypeError(f"temperature must be a number or a dg.KLAnnealing, got {temperature!r}.")
    else:
        ends = (temperature,)
    for end in ends:
        if not end > 0:
            raise ValueError(f"temperature must be positive, got {end}.")


def check_relaxable(names: Collection[str]) -> None:
    """Refuse a guide without discrete latents."""
    if not names:
        raise ValueError(
            "dg.RelaxedELBO relaxes the discrete latents of a guide, and this guide has none. Use "
            "dg.ELBO."
        )


def no_relaxation(name: str, kind: str) -> str:
    """Return why a site cannot be relaxed.

    Example:
        >>> no_relaxation("z", "CategoricalLogits")[:43]
        "site 'z' draws from CategoricalLogits, whic"
    """
    return (
        f"site '{name}' draws from {kind}, which has no relaxation: draw bits from a Bernoulli, "
        "one-hot vectors from dg.vae.OneHots, or use dg.ELBO with several particles or "
        "dg.EnumeratedELBO."
    )
