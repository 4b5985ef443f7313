"""Which path a program climbs: one with its discrete latents summed out, or one that draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from deepgen_ppl import checks
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.evidence_checks import check_guide_sites, check_latents, check_way
from deepgen_ppl.numpyro.data import Inputs, as_key
from deepgen_ppl.numpyro.discrete import read_coordinates
from deepgen_ppl.numpyro.joint import Joint, Layout, differing_supports, unconstrained
from deepgen_ppl.numpyro.mixed import MixedPath
from deepgen_ppl.numpyro.path import Path
from deepgen_ppl.numpyro.probes import check_rows_independent, points
from deepgen_ppl.numpyro.program import read, read_pair, run
from deepgen_ppl.numpyro.structure import Pair, Program, autoguides, learned

_WIDEST = 2**22  # numbers of one array of one position, above which nothing is summed out


def read_any(
    model: Callable[..., Any],
    *data: Any,
    discrete: str = "auto",
    guide: Any = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    verb: str = "ais",
    seed: int | Array = 0,
) -> tuple[Path | MixedPath, dict[str, Any]]:
    """Read the path of a program on which its discrete latents are summed out or drawn.

    Args:
        model: A NumPyro model.
        *data: Its data, with rows on the leading axis.
        discrete: `"sum"` over the discrete latents, `"gibbs"` to draw them, or `"auto"`, which
            draws them where they cannot be summed out.
        guide: A guide, or a `Fit`; None starts at the prior.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        verb: Who asks, for the messages.
        seed: Seed of the probes.

    Returns:
        The path, and what it does with discrete latents and why.

    Raises:
        ValueError: What `read_path` raises, or discrete latents without a finite support.

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> def model():
        ...     x = numpyro.sample("x", dist.Bernoulli(0.5).expand([40]).to_event(1))
        ...     numpyro.factor("energy", 0.1 * x.sum() ** 2)
        >>> read_any(model)[1]["discrete_reason"]
        'no continuous latent'
    """
    from deepgen_ppl.numpyro.infer.fit import Fit

    check_way(discrete)
    if isinstance(guide, Fit):
        params = guide.params if params is None else params
        guide = guide.guide
    values = learned(params)
    options: dict[str, Any] = dict(model_kwargs=model_kwargs, params=values, seed=seed)
    program = read(model, data, **options)
    sites = {name: site for name, site in program.latents.items() if site.is_discrete}
    if not sites:
        path = read_path(model, *data, guide=guide, verb=verb, **options)
        return path, {}
    why = "asked for"
    if discrete == "auto":
        why = _unsummable(program, guide, data, options)
        discrete = "gibbs" if why else "sum"
    if discrete == "sum":
        path = read_path(model, *data, guide=guide, verb=verb, **options)
        too_wide = _too_wide(path) if not why else ""
        if not too_wide:
            return path, {"discrete": "sum", "discrete_reason": why or "all values fit in memory"}
        why = too_wide
    path = read_mixed(model, guide, data, verb, options)
    return path, {"discrete": "gibbs", "discrete_reason": why}


def read_path(
    model: Callable,
    *data: Any,
    guide: Any = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    by_rows: bool = True,
    verb: str = "ais",
    seed: int | Array = 0,
) -> Path:
    """Read the path from the prior, or from a fitted guide, to the joint density of a program.

    Args:
        model: A NumPyro model with continuous latents; discrete ones of finite support are summed
            out.
        *data: Its data, with rows on the leading axis.
        guide: A guide of the continuous latents, or a `Fit`; None starts at the prior.
        params: Learned values by name, or a `Fit`; those of `guide` where that is a fit.
        model_kwargs: Constants passed by name to model and guide.
        by_rows: Whether to look for a path for each row at all.
        verb: Who asks, for the messages.
        seed: Seed of the probes.

    Returns:
        The path, by rows where every site of model and guide is local to the data plate and rows
        do not touch each other.

    Raises:
        ValueError: No continuous latent, an improper prior, a discrete latent without finite
            support, a guide that is a point, draws discrete sites or has another support than the
            model, or parameters without a value.

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> path = read_path(model, np.zeros(5))
        >>> z = path.sample(random.key(0), 3)
        >>> z.shape, path.log_densities(z)[1].shape
        ((3, 5, 1), (3, 5))
    """
    from deepgen_ppl.numpyro.infer.fit import Fit
    from deepgen_ppl.numpyro.infer.importance import check_learned

    if isinstance(guide, Fit):
        params = guide.params if params is None else params
        guide = guide.guide
    values = learned(params)
    options: dict[str, Any] = dict(model_kwargs=model_kwargs, params=values, seed=seed)
    pair = read_pair(model, guide, data, prior=True, enumerated=True, **options)
    _check(pair, verb)
    check_learned(pair, values)
    inputs, key = pair.inputs(data), as_key(seed)
    checks.check_points(points(pair, values, inputs, key))
    known = {*pair.params, *(name for program in pair.programs for name in program.state)}
    values = jax.tree.map(jnp.asarray, {n: v for n, v in values.items() if n in known})
    local = by_rows and pair.local and check_rows_independent(pair, values, inputs, key)
    rows = pair.model.data_plates[0] if local else None
    path = Path(pair, values, inputs, rows, Joint(pair, values, inputs, local).layout())
    _check_guide(path, verb)
    return path


def _unsummable(
    program: Program, guide: Any, data: tuple[Any, ...], options: Mapping[str, Any]
) -> str:
    """Say why discrete latents cannot be summed out, as far as reading the program tells."""
    sites = program.latents
    discrete = [name for name, site in sites.items() if site.is_discrete]
    if len(discrete) == len(sites):
        return "no continuous latent"
    wide = [name for name in discrete if not sites[name].enumerable]
    if wide:
        return f"the language cannot list all values of {checks.quote(wide)} at once"
    if guide is not None:
        proposal = read(guide, data, role="guide", data_plates=program.data_plates, **options)
        drawn = [name for name in discrete if name in proposal.latents]
        if drawn:
            return f"the guide draws {checks.quote(drawn)}"
    return ""


def _too_wide(path: Path) -> str:
    """Say why discrete latents cannot be summed out, if tracing the density tells so."""
    z = jax.ShapeDtypeStruct(path.shape, jnp.result_type(float))
    try:
        jaxpr = jax.make_jaxpr(lambda p, i, z: path.at(p, i).log_densities(z))(
            path.params, path.inputs, z
        )
    except ValueError as error:
        if "dimensions at once" not in str(error):
            raise
        return "they need more dimensions at once than the language has"
    given = max((leaf.size for leaf in jax.tree.leaves((path.params, path.inputs))), default=1)
    rows = path.num_rows or 1
    largest = max((v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars), default=0) // rows
    if largest > max(_WIDEST, 16 * given):
        return f"summing them out takes an array of {largest:,} numbers"
    return ""


def read_mixed(
    model: Callable[..., Any],
    guide: Any,
    data: tuple[Any, ...],
    verb: str,
    options: dict[str, Any],
    by_rows: bool = True,
) -> MixedPath:
    """Read the path of a program on which its discrete latents are drawn.

    Args:
        model: A NumPyro model.
        guide: A guide, or None.
        data: The data.
        verb: Who asks, for the messages.
        options: Learned values `params`, `model_kwargs` and `seed`.
        by_rows: Whether to look for a path for each row at all.

    Raises:
        ValueError: What `read_any` raises.
    """
    from deepgen_ppl.numpyro.infer.importance import check_learned

    pair = read_pair(model, guide, data, prior=True, partial=True, **options)
    latents, plates = pair.model.latents, pair.model.plates.values()
    continuous = [name for name, site in latents.items() if not site.is_discrete]
    check_latents(
        verb,
        continuous,
        [name for name in latents if name not in continuous],
        improper=[name for name, site in latents.items() if site.improper],
        subsampled=[plate.name for plate in plates if plate.subsampled],
        drawn=True,
    )
    if pair.guide is not None:
        own = pair.guide.latents
        check_guide_sites(verb, missing=[name for name in continuous if name not in own])
    check_learned(pair, options["params"])
    inputs, key = pair.inputs(data), as_key(options["seed"])
    checks.check_points(points(pair, options["params"], inputs, key))
    known = {*pair.params, *(name for program in pair.programs for name in program.state)}
    values = {n: v for n, v in options["params"].items() if n in known}
    values = jax.tree.map(jnp.asarray, values)
    found = read_coordinates(pair.model, values, inputs, "discrete='gibbs'")
    own_supports = any(len(place.support) > 1 for place in found.places.values())
    local = by_rows and pair.local and not own_supports
    local = local and check_rows_independent(pair, values, inputs, key)
    rows = pair.model.data_plates[0] if local else None
    layout, coordinates = _lay_out(pair, values, inputs, found, local)
    if pair.guide is not None:
        free = [name for name in continuous if not latents[name].support]
        supports = differing_supports(pair.model, pair.guide, layout.shapes)
        moving = free if autoguides(pair.guide.fn) else []
        check_guide_sites(verb, supports=supports, moving=moving)
    return MixedPath(pair, values, inputs, rows, layout, coordinates)


def _lay_out(
    pair: Pair, params: Mapping[str, Any], inputs: Inputs, found: Coordinates, by_rows: bool
) -> tuple[Layout, Coordinates]:
    """Return where continuous and discrete sites stand in a position.

    Args:
        pair: Model and guide.
        params: Constrained parameters and mutable state.
        inputs: Inputs at all rows.
        found: The discrete latents of all rows.
        by_rows: Whether there is a position for each row.
    """
    program = pair.guide or pair.model

    def draw(params: Any, inputs: Inputs) -> dict[str, Array]:
        return unconstrained(run(program, inputs, params, random.key(0)))

    shapes, axes = {}, {}
    for name, value in jax.eval_shape(draw, dict(params), inputs).items():
        axes[name] = _row_axis(program, name) if by_rows else None
        shapes[name] = tuple(size for i, size in enumerate(value.shape) if i != axes[name])
    layout = Layout(shapes, axes)
    if not by_rows:
        return layout, found
    own = {}
    for name in found.places:
        axis, shape = _row_axis(pair.model, name), pair.model.sites[name].shape
        own[name] = tuple(size for i, size in enumerate(shape) if i != axis)
    return layout, Coordinates.of({n: p.support for n, p in found.places.items()}, own)


def _row_axis(program: Program, name: str) -> int:
    plates = program.sites[name].plates
    return next(i for i, plate in enumerate(plates) if plate in program.data_plates)


def _check(pair: Pair, verb: str) -> None:
    latents, plates = pair.model.latents, pair.model.plates.values()
    check_latents(
        verb,
        continuous=[n for n, site in latents.items() if not site.is_discrete],
        discrete=[n for n, site in latents.items() if site.is_discrete],
        endless=[n for n, s in latents.items() if s.is_discrete and not s.enumerable],
        improper=[n for n, site in latents.items() if site.improper],
        subsampled=[plate.name for plate in plates if plate.subsampled],
    )


def _check_guide(path: Path, verb: str) -> None:
    """Refuse a guide of discrete sites, or of sets of values that are not the model's."""
    guide = path.pair.guide
    if guide is None:
        return
    discrete = [name for name, site in guide.latents.items() if site.is_discrete]
    free = [n for n, s in path.pair.model.latents.items() if not s.is_discrete and not s.support]
    check_guide_sites(
        verb,
        discrete,
        differing_supports(path.pair.model, guide, path.layout.shapes),
        free if autoguides(guide.fn) else [],
    )
