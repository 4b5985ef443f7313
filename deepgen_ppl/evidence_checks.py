"""What the verbs of the evidence refuse: models, guides and numbers they can make nothing of."""

from collections.abc import Mapping, Sequence

import numpy as np

from deepgen_ppl.checks import quote
from deepgen_ppl.data_checks import PASS_NONE
from deepgen_ppl.evidence import some


def check_latents(
    verb: str,
    continuous: Sequence[str],
    discrete: Sequence[str] = (),
    endless: Sequence[str] = (),
    improper: Sequence[str] = (),
    subsampled: Sequence[str] = (),
    drawn: bool = False,
) -> None:
    """Refuse a model on whose latents no path to the posterior, or no evidence, exists.

    Args:
        verb: who asks.
        continuous: names of its continuous latents.
        discrete: names of its discrete latents.
        endless: those of them without a finite support.
        improper: latents whose prior has no integral.
        subsampled: plates that subsample.
        drawn: whether discrete latents are drawn, so that no continuous one is needed.

    Raises:
        ValueError: naming the sites and the cure.

    Example:
        >>> check_latents("ais", ["mu"])
        >>> check_latents("ais", [])
        Traceback (most recent call last):
        ...
        ValueError: ais needs a continuous latent site; the model's latent sites are none. Where ...
    """
    if improper:
        raise ValueError(
            f"the evidence is undefined: the prior of {quote(improper)} is improper, so the joint "
            "density has no meaningful integral. Give it a proper prior; mcmc draws from the "
            "posterior without one."
        )
    if endless:
        drawing = (
            ""
            if verb in ("bridge", "mcmc")
            else (
                "Draw them with discrete='gibbs' if their values can be listed one by one. Else m"
            )
        )
        raise ValueError(
            f"the discrete latents {quote(endless)} have no finite support to sum over. "
            f"{drawing or 'M'}arginalise them by hand, or use importance."
        )
    if not continuous and not (drawn and discrete):
        raise ValueError(
            f"{verb} needs a continuous latent site; the model's latent sites are "
            f"{quote(discrete) or 'none'}. "
            + ("Draw them with discrete='gibbs', or use importance." if discrete else PASS_NONE)
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
    missing: Sequence[str] = (),
) -> None:
    """Refuse a guide that cannot be the start of a path.

    Args:
        verb: who asks.
        discrete: discrete sites that the guide draws.
        supports: supports in model and guide of the sites where they differ.
        moving: sites whose support depends on other sites, under an autoguide.
        missing: continuous sites that the guide does not draw.

    Raises:
        ValueError: naming the sites and the cure.

    Example:
        >>> check_guide_sites("ais")
    """
    if discrete:
        raise ValueError(
            f"the guide draws the discrete sites {quote(discrete)}, which {verb} sums out. Use a "
            "guide of the continuous sites only, None to start at the prior, or discrete='gibbs' "
            "to draw them."
        )
    if missing:
        raise ValueError(
            f"the guide lacks the continuous sites {quote(missing)} of the model. Let it draw "
            "them, or use None to start at the prior."
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


def check_way(discrete: object) -> None:
    """Refuse a way to treat discrete latents that is none.

    Raises:
        ValueError: naming it.

    Example:
        >>> check_way("gibbs")
    """
    if discrete not in ("auto", "sum", "gibbs"):
        raise ValueError(f"discrete must be 'auto', 'sum' or 'gibbs', not {discrete!r}.")


def check_start(start: object, guided: bool) -> None:
    """Refuse a start of a path that is none, or a guide's where there is no guide.

    Args:
        start: What was asked for.
        guided: Whether there is a guide.

    Raises:
        ValueError: naming what was given.

    Example:
        >>> check_start("prior", False)
    """
    if start not in ("prior", "guide"):
        raise ValueError(f"start must be 'prior' or 'guide', not {start!r}.")
    if start == "guide" and not guided:
        raise ValueError("start='guide' needs a guide: pass one, or a Fit, as second argument.")


def check_counts(**counts: object) -> None:
    """Refuse numbers of chains, temperatures and the like that are no positive whole numbers.

    Args:
        **counts: the numbers by name; None where the choice is left open.

    Raises:
        ValueError: naming what was given.

    Example:
        >>> check_counts(num_chains=64, batch_size=None)
    """
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}.")


def check_fraction(fraction: float, num_particles: int, num_islands: int) -> None:
    """Refuse an effective fraction outside (0, 1), and particles that do not fill the islands.

    Raises:
        ValueError: naming what was given.

    Example:
        >>> check_fraction(0.8, 1024, 8)
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction!r}: for example 0.8.")
    if num_islands < 2 or num_particles % num_islands or num_particles < 2 * num_islands:
        raise ValueError(
            f"num_particles={num_particles} must be a multiple of num_islands={num_islands}, which "
            "must be at least 2: the islands' spread gives the standard error."
        )


def check_simulated(
    observed: Sequence[str], arguments: Sequence[str], factors: Sequence[str]
) -> None:
    """Refuse to simulate the data of a model that does not say how they are drawn.

    Args:
        observed: its observed sites.
        arguments: those of them whose values are a data argument as it is.
        factors: its factors.

    Raises:
        ValueError: naming the sites and the cure.

    Example:
        >>> check_simulated(["x"], ["x"], [])
    """
    other = [name for name in observed if name not in arguments]
    if factors or not observed:
        raise ValueError(
            f"simulate=True needs a model whose data are observed sites; it has "
            f"{quote(observed) or 'none'} and the factors {quote(factors) or 'none'}, from which "
            "nothing can be drawn. Use simulate=False."
        )
    if other:
        raise ValueError(
            f"simulate=True needs observed sites whose values are data arguments as they are; "
            f"{quote(other)} is none of them. Pass what it observes as a data argument."
        )


def refuse_start(site: str | None, value: float, rows: Sequence[int] = ()) -> None:
    """Refuse a joint density that is NaN, or zero wherever the reference draws.

    Args:
        site: first site whose log density is not finite, None where it is not known.
        value: that log density.
        rows: rows of the data where it is so.

    Raises:
        ValueError: always.
    """
    where = f" in row {some(np.asarray(rows))}" if len(rows) else ""
    what = f"the log density of site '{site}' is" if site else "the log density is"
    least = "at draws" if np.isnan(value) else "at all draws"
    raise ValueError(
        f"{what} {value} {least} of the reference{where}. Check the data against the supports and "
        "the learned parameters, or start at a fitted guide with guide=."
    )
