"""Climbing from a reference to a posterior: what is refused, and how temperatures are spaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepgen_ppl.checks import quote


def check_latents(
    verb: str,
    continuous: Sequence[str],
    discrete: Sequence[str] = (),
    endless: Sequence[str] = (),
    improper: Sequence[str] = (),
    subsampled: Sequence[str] = (),
) -> None:
    """Refuse a model on whose latents no path to the posterior, or no evidence, exists.

    Args:
        verb: who asks.
        continuous: names of its continuous latents.
        discrete: names of its discrete latents.
        endless: those of them without a finite support.
        improper: latents whose prior has no integral.
        subsampled: plates that subsample.

    Raises:
        ValueError: naming the sites and the cure.

    Example:
        >>> check_latents("ais", ["mu"])
    """
    if improper:
        raise ValueError(
            f"the evidence is undefined: the prior of {quote(improper)} is improper, so the joint "
            "density has no meaningful integral. Give it a proper prior; mcmc draws from the "
            "posterior without one."
        )
    if endless:
        raise ValueError(
            f"the discrete latents {quote(endless)} have no finite support to sum over. "
            "Marginalise them by hand, or use importance."
        )
    if not continuous:
        raise ValueError(
            f"{verb} needs a continuous latent site; the model's latent sites are "
            f"{quote(discrete) or 'none'}. Use importance."
        )
    if subsampled:
        raise ValueError(
            f"plate '{subsampled[0]}' subsamples; {verb} needs all of its elements. Drop "
            "subsample_size."
        )


def check_guide_sites(
    verb: str,
    discrete: Sequence[str] = (),
    supports: Mapping[str, tuple[str, str]] | None = None,
    moving: Sequence[str] = (),
) -> None:
    """Refuse a guide that cannot be the start of a path.

    Args:
        verb: who asks.
        discrete: discrete sites that the guide draws.
        supports: supports in model and guide of the sites where they differ.
        moving: sites whose support depends on other sites, under an autoguide.

    Raises:
        ValueError: naming the sites and the cure.

    Example:
        >>> check_guide_sites("ais")
    """
    if discrete:
        raise ValueError(
            f"the guide draws the discrete sites {quote(discrete)}, which {verb} sums out. Use a "
            "guide of the continuous sites only, or None to start at the prior."
        )
    if moving:
        raise ValueError(
            f"the support of {quote(moving)} depends on other sites, which an autoguide takes as "
            "fixed. Write the guide by hand, or use None to start at the prior."
        )
    for name, (model, guide) in (supports or {}).items():
        raise ValueError(
            f"site '{name}' has support {model} in the model and {guide} in the guide. They must "
            "be the same set, or part of the posterior is out of the guide's reach."
        )
