"""Bad-input errors of programs with energies, in the same words on both wings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from deepgen_ppl.checks import quote
from deepgen_ppl.loop import NonFiniteError

POSITIVE = ("auto", "exact", "sampled")
SCORE_METHODS = ("exact", "sliced", "denoising")


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a word that is none of those that are known.

    Raises:
        ValueError: naming them.

    Example:
        >>> check_choice("positive", "exact", POSITIVE)
    """
    if value not in known:
        raise ValueError(f"{name}={value!r}: pass one of {', '.join(map(repr, known))}.")


def check_count(name: str, value: object) -> None:
    """Refuse a number that is no positive whole number.

    Raises:
        ValueError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")


def check_visible(observed: Collection[str], factors: Collection[str]) -> None:
    """Refuse an energy of arguments that no site samples.

    Raises:
        ValueError: naming the factors, and the cure.
    """
    if observed:
        return
    what = f"its factors ({quote(factors)})" if factors else "it"
    raise ValueError(
        f"the model has no observed site: {what} may score an argument, but there is nothing to "
        "sample, and nothing that counts in a normaliser. Give the visible variables a base "
        "distribution, which counts in the density: "
        "x = sample('x', dist.Normal(0, 1).expand([D]).to_event(1), obs=x), and let the factor "
        "take that value."
    )


def check_negative(
    negative: Sequence[str] | None,
    observed: Mapping[str, bool],
) -> tuple[str, ...]:
    """Return the observed sites that the negative phase draws.

    Args:
        negative: the sites that are asked for, None for those of the data plate.
        observed: observed sites, and whether each stands in the data plate (or there is none).

    Raises:
        ValueError: an unknown site, or none at all.

    Example:
        >>> check_negative(None, {"x": True, "covariate": False})
        ('x',)
    """
    if negative is None:
        names = tuple(name for name, local in observed.items() if local)
        if not names:
            raise ValueError(
                f"none of the observed sites ({quote(observed)}) stands in the data plate. Write "
                "it as plate('data', len(x)), or name the sites to draw: negative=['x']."
            )
        return names
    if isinstance(negative, str) or not negative:
        raise ValueError(f"negative must be a list of site names, got {negative!r}.")
    unknown = [name for name in negative if name not in observed]
    if unknown:
        raise ValueError(
            f"negative names {quote(unknown)}, which the model does not observe; it observes "
            f"{quote(observed)}."
        )
    return tuple(negative)


def check_shared(names: Collection[str]) -> None:
    """Refuse latents that the rows share: a chain is one row's.

    Raises:
        ValueError: naming them.
    """
    if names:
        raise ValueError(
            f"the latent sites {quote(names)} stand outside of the data plate, and every row of "
            "the data is a draw of its own. Put them into the plate, or make them parameters."
        )


def check_guide_factors(factors: Collection[str]) -> None:
    """Refuse a guide that has factors: its density would not be known.

    Raises:
        ValueError: naming them.

    Example:
        >>> check_guide_factors([])
    """
    if factors:
        raise ValueError(
            f"the guide has factor statements ({quote(factors)}), so its draws are not from the "
            "density it would be given. Move the factors to the model; a guide must be normalised."
        )


def check_hidden(hidden: Mapping[str, bool], enumerable: Collection[str], positive: str) -> str:
    """Return how hidden sites are dealt with in the positive phase.

    Args:
        hidden: hidden sites that the guide lacks, and whether each is discrete.
        enumerable: those of them that have finitely many values.
        positive: "auto", "exact" or "sampled".

    Raises:
        ValueError: they are to be summed out and cannot be.

    Example:
        >>> check_hidden({"h": True}, ["h"], "auto")
        'exact'
    """
    check_choice("positive", positive, POSITIVE)
    endless = [name for name in hidden if name not in enumerable]
    if positive == "exact" and endless:
        raise ValueError(
            f"positive='exact': the hidden sites {quote(endless)} cannot be summed out. Pass "
            "positive='sampled', or a guide over them."
        )
    if positive == "auto":
        return "sampled" if endless else "exact"
    return positive


def check_support(name: str, inside: np.ndarray, values: np.ndarray, support: object) -> None:
    """Refuse data outside the support of their base distribution.

    Args:
        name: the site.
        inside: whether each row lies inside.
        values: the rows.
        support: the support.

    Raises:
        ValueError: naming rows and values.
    """
    flat: np.ndarray = np.all(np.asarray(inside).reshape(np.shape(inside)[0], -1), axis=1)
    if flat.all():
        return
    bad = np.flatnonzero(~flat)
    first = np.asarray(values).reshape(len(flat), -1)[bad[0]]
    shown = ", ".join(f"{v:g}" for v in first[:4]) + (", ..." if len(first) > 4 else "")
    rows = ", ".join(map(str, bad[:6])) + (", ..." if len(bad) > 6 else "")
    raise ValueError(
        f"site '{name}': the data of rows {rows} lie outside the support {support} of its base "
        f"distribution (the first: {shown}), where the density is zero. Choose a base that covers "
        "the data, or rescale them."
    )


def unnormalised_warning(factors: Collection[str], params: Collection[str]) -> str:
    """Return the warning of maximising a density whose normaliser moves with its parameters.

    Args:
        factors: factors that depend on parameters and on sample sites.
        params: the parameters.

    Example:
        >>> unnormalised_warning(["energy"], ["net"])[:42]
        "the factor 'energy' depends on the paramet"
    """
    return (
        f"the factor {quote(factors)} depends on the parameters ({quote(list(params)[:3])}) and on "
        "sample sites, so the model's normaliser moves with the parameters and svi does not "
        "account for it: the fit is no maximum of the likelihood. Use dg.contrastive, "
        "dg.score_matching or dg.noise_contrastive; where the factor is normalised, filter this "
        "warning."
    )


def non_finite_energy(step: int, chain: int | None, rows: Any, fit: Any) -> NonFiniteError:
    """Return the error of an energy that is not finite.

    Args:
        step: the step, counted from 0, whose update was not applied.
        chain: the first chain whose energy is not finite; None where it is that of the data.
        rows: data rows whose energy is not finite, or the rows of the batch.
        fit: the fit of the last finite state.

    Example:
        >>> print(str(non_finite_energy(3, 7, None, None))[:47])
        step 3: the energy of chain 7 is not finite. Th
    """
    listed = [] if rows is None else [int(r) for r in np.atleast_1d(rows)[:6]]
    where = f"the energy of chain {chain} is not finite"
    if chain is None:
        which = f" (rows {', '.join(map(str, listed))})" if listed else ""
        where = f"the energy of the data{which} or its gradient is not finite"
    error = NonFiniteError(
        f"step {step}: {where}. The parameters of the step before are in the exception's `.fit`. "
        "Let the energy fall off where chains run away (a base of lighter tails), lower the "
        "learning rate, or pass clip_norm=.",
        step,
        None if chain is not None else np.asarray(listed),
        None,
    )
    error.fit = fit
    return error


def check_noise_levels(levels: Any) -> np.ndarray:
    """Return the noise levels from the largest to the smallest.

    Raises:
        ValueError: one is not positive, or there is none.

    Example:
        >>> check_noise_levels([0.1, 1.0]).tolist()
        [1.0, 0.1]
    """
    found = np.sort(np.atleast_1d(np.asarray(levels, float)).ravel())[::-1]
    if not found.size or not np.all(np.isfinite(found)) or not np.all(found > 0):
        raise ValueError(f"noise_levels must be positive numbers, got {levels!r}.")
    return found.copy()


def check_noisy_method(method: str) -> None:
    """Refuse another method for an energy of several noise levels.

    Raises:
        ValueError: naming the one that fits.
    """
    if method != "denoising":
        raise ValueError(
            f"method={method!r}: an energy of several noise levels is matched at all of them: pass "
            "method='denoising'."
        )


def check_real(names: Mapping[str, bool], verb: str) -> None:
    """Refuse discrete visible sites where densities are differentiated.

    Args:
        names: sites, and whether each is discrete.
        verb: what was called.

    Raises:
        ValueError: naming them.
    """
    discrete = [name for name, is_discrete in names.items() if is_discrete]
    if discrete:
        raise ValueError(
            f"{verb} takes the derivative of the log density with respect to the data, and "
            f"{quote(discrete)} is discrete. Use dg.contrastive or dg.noise_contrastive."
        )


def refuse_sampler(sampler: object) -> None:
    """Refuse what is no vectorised kernel.

    Raises:
        ValueError: naming those that are.
    """
    raise ValueError(
        f"sampler={sampler!r}: chains of contrastive are moved by 'gibbs', 'gibbs_with_gradients', "
        "'discrete_langevin', 'langevin', 'mala', 'hmc', 'chees', 'rwm', 'tempering', or the "
        "options of one, as MALA(step_size=0.1); None takes an energy's own chain, or one that "
        "fits the sites."
    )


def refuse_kind(sampler: object, kind: str, others: str) -> None:
    """Refuse a kernel of sites that the model has not.

    Raises:
        ValueError: naming kernels that fit.
    """
    raise ValueError(
        f"sampler={sampler!r} moves {kind} sites, and there are none to draw. Pass {others}, or "
        "None."
    )


def check_no_hidden(hidden: Collection[str]) -> None:
    """Refuse hidden sites where densities are differentiated.

    Raises:
        ValueError: naming them.
    """
    if hidden:
        raise ValueError(
            f"score_matching takes the density of the visible sites alone, and {quote(hidden)} are "
            "hidden. Sum them out in the factor, as the free energy of an RBM does, or use "
            "dg.contrastive."
        )


def noise_distribution(noise: Any) -> Any:
    """Return the distribution that noise is, or gives where it is called; else a TypeError."""
    found = noise() if callable(noise) and not hasattr(noise, "log_prob") else noise
    if not (hasattr(found, "sample") and hasattr(found, "log_prob")):
        raise TypeError(
            f"noise must be a distribution, or a module that gives one, not "
            f"{type(found).__name__}: it is drawn from and scored."
        )
    return found


def check_noise_shape(noise: Sequence[int], data: Sequence[int]) -> None:
    """Refuse noise of another shape than a row of the data.

    Raises:
        ValueError: naming both.

    Example:
        >>> check_noise_shape((2,), (2,))
    """
    if tuple(noise) != tuple(data):
        raise ValueError(
            f"a draw of the noise has shape {tuple(noise)}, a row of the data {tuple(data)}. Give "
            "the noise the event shape of the data: dist.Normal(0, 1).expand([D]).to_event(1)."
        )
