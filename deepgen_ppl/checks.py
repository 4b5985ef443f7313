"""Checks of what a user hands to a verb: the bad-input errors, in the same words on both wings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def quote(names: Iterable[str]) -> str:
    """Return names quoted and joined: `'a', 'b'`.

    Example:
        >>> quote(["a", "b"])
        "'a', 'b'"
    """
    return ", ".join(f"'{name}'" for name in names)


def check_guide(guide: object) -> None:
    """Refuse a guide that is no program, such as data in its place.

    Raises:
        TypeError: it is neither None nor callable, or it is a class.
    """
    if isinstance(guide, type):
        raise TypeError(
            f"the guide is the class {guide.__name__}: pass an object, {guide.__name__}(model)."
        )
    if guide is not None and not callable(guide):
        raise TypeError(
            f"the guide must be a program or None, not {type(guide).__name__}. The model comes "
            "first, then the guide, then the data; without latents the guide is None."
        )


def check_steps(num_steps: object) -> None:
    """Refuse a number of steps that is no positive whole number.

    Raises:
        ValueError: naming what was given.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer):
        raise ValueError(f"num_steps must be a whole number, got {num_steps!r}.")
    if num_steps < 1:
        raise ValueError(f"num_steps must be positive, got {num_steps}.")


def check_particles(num_particles: object, batch_size: object = None) -> None:
    """Refuse numbers of particles, or of rows in a chunk, that are no positive whole numbers.

    Raises:
        ValueError: naming what was given.
    """
    for name, value in (("num_particles", num_particles), ("batch_size", batch_size)):
        if name == "batch_size" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} must be a whole number, got {value!r}.")
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}.")


def check_target(target_accept_prob: float | None) -> None:
    """Refuse a target acceptance rate outside (0, 1).

    Raises:
        ValueError: naming what was given.
    """
    if target_accept_prob is not None and not 0.0 < target_accept_prob < 1.0:
        raise ValueError(
            f"target_accept_prob must lie between 0 and 1, got {target_accept_prob!r}: for "
            "example 0.8, or 0.95 for smaller steps."
        )


def check_positive(**numbers: float) -> None:
    """Refuse options that are no positive finite numbers.

    Args:
        **numbers: values by the option's name.

    Raises:
        ValueError: naming the option and its value.

    Example:
        >>> check_positive(step_size=0.1, max_num_steps=64)
    """
    for name, value in numbers.items():
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a positive number, got {value!r}.")


def check_adaptation(adaptation: Mapping[str, object], size: int) -> dict[str, np.ndarray]:
    """Return what an earlier run learnt, checked against the model.

    Args:
        adaptation: `posterior.adaptation` of a vectorised kernel.
        size: number of unconstrained latent numbers of this model.

    Raises:
        ValueError: it lacks a step size, or its root is of another size.

    Example:
        >>> sorted(check_adaptation({"step_size": 0.5, "root": np.ones(3)}, 3))
        ['root', 'step_size']
    """
    found = {name: np.asarray(value) for name, value in adaptation.items()}
    if "step_size" not in found:
        raise ValueError(
            f"adaptation has {sorted(found)} and no step_size: pass the `adaptation` of a "
            "posterior that a vectorised kernel drew."
        )
    root = found.get("root")
    if root is not None and root.shape not in ((size,), (size, size)):
        raise ValueError(
            f"adaptation is that of another model: its root has shape {root.shape}, and this "
            f"model has {size} unconstrained latent numbers."
        )
    return found


def check_ladder(
    adaptation: Mapping[str, object], num_temperatures: int, size: int
) -> dict[str, np.ndarray]:
    """Return what an earlier run of parallel tempering learnt, checked against this one.

    Args:
        adaptation: `posterior.adaptation` of that run.
        num_temperatures: number of temperatures of this one.
        size: number of unconstrained continuous latent numbers of the model.

    Raises:
        ValueError: it is that of another kernel, of another ladder, or of another model.

    Example:
        >>> known = {"temperatures": [0, 1], "step_sizes": [1, 1], "roots": np.ones((2, 3, 3))}
        >>> sorted(check_ladder(known, 2, 3))
        ['roots', 'step_sizes', 'temperatures']
    """
    shapes = {"temperatures": (), "step_sizes": (), "roots": (size, size)}
    if any(name not in adaptation for name in shapes):
        raise ValueError(
            f"adaptation has {sorted(adaptation)}; ParallelTempering begins with the `adaptation` "
            "of a posterior that it drew itself."
        )
    found = {name: np.asarray(adaptation[name]) for name in shapes}
    for name, shape in shapes.items():
        if found[name].shape != (num_temperatures, *shape):
            raise ValueError(
                f"adaptation is that of another ladder or model: its {name} have shape "
                f"{found[name].shape}, and this one has {num_temperatures} temperatures and {size} "
                "unconstrained latent numbers."
            )
    return found


def stopped(
    role: str, done: Sequence[str], shapes: Mapping[str, Sequence[int]], error: Exception
) -> Exception:
    """Say where a program stopped with an error of the language: after which site, at which data.

    Args:
        role: "model" or "guide".
        done: names of the sites it passed.
        shapes: shape of each data array by argument name.
        error: what it raised.

    Returns:
        The exception to raise from `error`, a TypeError where that was one.

    Example:
        >>> stopped("model", ["mu"], {"x": (3,)}, ValueError("20 against 3"))
        ValueError("the model stops after its site 'mu' (data x: (3,)): 20 against 3")
    """
    where = f"after its site '{done[-1]}'" if done else "before its first site"
    given = ", ".join(f"{name}: {tuple(shape)}" for name, shape in shapes.items()) or "none"
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"the {role} stops {where} (data {given}): {error}")


def check_patience(patience: int | None, has_validation: bool) -> None:
    """Refuse a patience that has nothing to count, or that is not positive.

    Raises:
        ValueError: `patience` without validation data, or below one.
    """
    if patience is not None and not has_validation:
        raise ValueError("patience counts validations: pass validation_data too, or drop patience.")
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be positive, got {patience}.")


def check_subsampling(plates: Mapping[str, tuple[int, int]], batch_size: int | None) -> None:
    """Refuse `batch_size` together with plates that subsample by themselves.

    Args:
        plates: (size, subsample_size) of each plate that subsamples, by name.
        batch_size: rows per minibatch.

    Raises:
        ValueError: both are asked.
    """
    if batch_size is None or not plates:
        return
    name, (size, subsample_size) = next(iter(plates.items()))
    raise ValueError(
        f"plate '{name}' subsamples by itself (size {size}, subsample_size {subsample_size}) and "
        f"batch_size={batch_size} is given too. Use one of them: drop subsample_size or batch_size."
    )


def check_outside(sites: Sequence[str], batch_size: int, num_rows: int) -> None:
    """Refuse minibatches of a model whose sites depend on the rows outside any data plate.

    Raises:
        ValueError: `sites` is not empty.
    """
    if sites:
        raise ValueError(
            f"batch_size={batch_size}: {quote(sites)} depend on the data rows but stand outside "
            f"any plate that follows the data ({num_rows} rows), so a minibatch cannot be scaled. "
            "Put them inside `with plate('data', len(x)):`, or drop batch_size."
        )


def check_pair(
    model_latents: Mapping[str, Sequence[int]],
    model_observed: Iterable[str],
    guide_latents: Mapping[str, Sequence[int]] | None,
    guide_observed: Iterable[str] = (),
    enumerated: Iterable[str] = (),
) -> None:
    """Refuse a model and a guide whose sites do not match, in either direction.

    Args:
        model_latents: shape of each latent site of the model, by name.
        model_observed: names of the model's observed sites.
        guide_latents: shape of each site the guide samples (auxiliary ones left out), by name;
            None without a guide.
        guide_observed: names of sites the guide conditions on.
        enumerated: model latents that are summed out and need no guide site.

    Raises:
        ValueError: the sites or their shapes do not match.
    """
    model_observed = tuple(model_observed)
    if guide_latents is None:
        if model_latents:
            raise ValueError(
                "guide=None means no latent sites (maximum likelihood), but the model samples "
                f"{quote(model_latents)}. Pass a guide, for example an autoguide of the language."
            )
        return
    for name in guide_observed:
        where = "which the model lacks" if name not in model_latents else "a latent of the model"
        where = "which the model observes too" if name in model_observed else where
        raise ValueError(
            f"the guide conditions on site '{name}', {where}. A guide samples the model's latent "
            "sites and observes nothing."
        )
    twice = [name for name in guide_latents if name in model_observed]
    if twice:
        raise ValueError(
            f"the guide samples {quote(twice)}, which the model observes. Remove them from the "
            "guide, or pass None for their data."
        )
    extra = [name for name in guide_latents if name not in model_latents]
    if extra:
        raise ValueError(
            f"the guide samples {quote(extra)}, which the model lacks (its latent sites: "
            f"{quote(model_latents) or 'none'}). Remove them, or mark them "
            "infer={'is_auxiliary': True}."
        )
    missing = [n for n in model_latents if n not in guide_latents and n not in set(enumerated)]
    if missing:
        raise ValueError(
            f"the model samples {quote(missing)}, which the guide lacks (its sites: "
            f"{quote(guide_latents) or 'none'}). Sample them in the guide, or observe them."
        )
    for name, shape in guide_latents.items():
        if tuple(shape) != tuple(model_latents[name]):
            raise ValueError(
                f"site '{name}' has shape {tuple(model_latents[name])} in the model and "
                f"{tuple(shape)} in the guide."
            )


def check_enumerable(sites: Iterable[str]) -> None:
    """Refuse to sum out discrete latents of infinite support that the guide lacks.

    Raises:
        ValueError: naming them.
    """
    sites = tuple(sites)
    if sites:
        raise ValueError(
            f"the guide lacks the discrete {quote(sites)}, which has no finite support to sum "
            "over. Sample it in the guide, or marginalise it by hand."
        )


def check_summed(latents: Mapping[str, bool], drawn: Iterable[str]) -> None:
    """Refuse what an exact marginal cannot sum out.

    Args:
        latents: whether each latent site of the model is discrete.
        drawn: sites of the guide.

    Raises:
        ValueError: the guide draws discrete ones, or lacks others, or there is none, naming them.
    """
    drawn = set(drawn)
    both = [name for name, discrete in latents.items() if discrete and name in drawn]
    left = [name for name, discrete in latents.items() if not discrete and name not in drawn]
    if both:
        raise ValueError(
            f"ExactMarginal sums the discrete latents out, and the guide draws {quote(both)}. "
            "Leave them out of the guide (block them from an autoguide)."
        )
    if left:
        raise ValueError(
            f"ExactMarginal sums over discrete latents, and {quote(left)} "
            f"{'is' if len(left) == 1 else 'are'} continuous: pass a guide that draws them."
        )
    if not any(latents.values()):
        raise ValueError("ExactMarginal needs a discrete latent to sum out. Use dg.ELBO().")


def check_apart(site: str | None, batch_size: int) -> None:
    """Refuse minibatches of a model whose discrete latents join rows.

    Args:
        site: a site whose terms do, None where none does.
        batch_size: rows per minibatch.

    Raises:
        ValueError: naming it.
    """
    if site is not None:
        raise ValueError(
            f"batch_size={batch_size}: site '{site}' joins discrete latents of several rows, or of "
            "rows and what is outside the data plate, so the log evidence is no sum over rows. "
            "Drop batch_size."
        )


def check_local(sites: Sequence[str], batch_size: int) -> None:
    """Refuse minibatches under a guide that draws per-row latents for all rows at once.

    Raises:
        ValueError: `sites` is not empty.
    """
    if sites:
        raise ValueError(
            f"batch_size={batch_size}: the guide draws {quote(sites)} for all rows at once, but "
            "the model has one per row. Draw them inside the data plate (AutoNormal, or an "
            "amortised guide), or drop batch_size."
        )


def check_known(given: Iterable[str], known: Iterable[str], *, guide: bool = True) -> None:
    """Refuse values for parameters that neither model nor guide has.

    Args:
        given: names the values were given under.
        known: names of the parameters and of mutable state.
        guide: whether there is a guide, which may have some.

    Raises:
        ValueError: naming them.
    """
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        where = "neither the model nor the guide has (their" if guide else "the model lacks (its"
        cure = "leave them out" if guide else "pass the Fit itself where they are its guide's"
        raise ValueError(
            f"params holds {quote(unknown)}, which {where} parameters: {quote(known) or 'none'}). "
            f"Correct the names, or {cure}."
        )


def check_points(sites: Sequence[str]) -> None:
    """Refuse to weigh draws from a guide that is a point, as a MAP guide is.

    Args:
        sites: continuous latents that the guide gives one value only.

    Raises:
        ValueError: naming them.
    """
    if sites:
        raise ValueError(
            f"the guide puts all its mass on one point of {quote(sites)}: its draws have no "
            "density to weigh. fit.posterior() gives the point; for a posterior around it fit "
            "AutoLaplaceApproximation, AutoNormal or another guide with a density."
        )
