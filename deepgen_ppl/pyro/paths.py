"""Which path a program climbs: one with its discrete latents summed out, or one that draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.utils._python_dispatch import TorchDispatchMode

from deepgen_ppl import checks
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.evidence_checks import check_guide_sites, check_latents, check_way
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro.discrete import read_coordinates
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.parameters import (
    forked_rng,
    given,
    installed,
    private_store,
    resolve,
)
from deepgen_ppl.pyro.path import Path, quiet
from deepgen_ppl.pyro.probes import check_rows_independent, points
from deepgen_ppl.pyro.program import Pair, Program, call, read, read_pair

_WIDEST = 2**22  # numbers of one array of one position, above which nothing is summed out


class TooWide(Exception):
    """Summing discrete latents out takes an array that is too large."""


class Narrow(TorchDispatchMode):
    """Stop where an array is made that is much larger than those of a program.

    Arrays of enumerated values grow by a factor at a time, so that the first one above the limit is
    no danger.

    Args:
        program: The program; where it is local to the data plate, sizes are those of a row.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.rows = (program.num_rows or 1) if program.local else 1
        sizes = [math.prod(site.shape) for site in program.sites.values()]
        given = max((*sizes, *(p.leaf.numel() for p in program.params.values())), default=1)
        self.most = max(_WIDEST * self.rows, 16 * given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it makes."""
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.numel() > self.most:
            size = found.numel() // self.rows
            raise TooWide(f"summing them out takes an array of {size:,} numbers")
        return found


def read_any(
    model: Callable[..., Any],
    *data: Any,
    discrete: str = "auto",
    guide: Any = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    verb: str = "ais",
    seed: int = 0,
) -> tuple[Path | MixedPath, dict[str, Any]]:
    """Read the path of a program on which its discrete latents are summed out or drawn.

    Args:
        model: A Pyro model.
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
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Bernoulli(0.5).expand([40]).to_event(1))
        ...     pyro.factor("energy", 0.1 * x.sum() ** 2)
        >>> read_any(model)[1]["discrete_reason"]
        'no continuous latent'
    """
    from deepgen_ppl.pyro.infer.fit import Fit

    check_way(discrete)
    if isinstance(guide, Fit):
        params = guide.params if params is None else params
        guide = guide.guide
    options: dict[str, Any] = dict(model_kwargs=model_kwargs, params=given(params), seed=seed)
    with private_store():
        program = read(model, data, **options)
    if not any(site.is_discrete for site in program.latents.values()):
        return read_path(model, *data, guide=guide, verb=verb, **options), {}
    why = "asked for"
    if discrete == "auto":
        why = _unsummable(program, guide, data, options)
        discrete = "gibbs" if why else "sum"
    if discrete == "sum":
        if why:
            path = read_path(model, *data, guide=guide, verb=verb, **options)
            return path, {"discrete": "sum", "discrete_reason": why}
        try:
            with Narrow(program):
                path = read_path(model, *data, guide=guide, verb=verb, **options)
                path.single(path.sample(torch.Generator(path.device).manual_seed(0), 1)[0])
            return path, {"discrete": "sum", "discrete_reason": "all values fit in memory"}
        except TooWide as error:
            why = str(error)
        except ValueError as error:
            if "dimensions" not in str(error):
                raise
            why = "they need more dimensions at once than the language has"
    path = read_mixed(model, guide, data, verb, options)
    return path, {"discrete": "gibbs", "discrete_reason": why}


def read_path(
    model: Callable[..., Any],
    *data: Any,
    guide: Any = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    by_rows: bool = True,
    verb: str = "ais",
    seed: int = 0,
) -> Path:
    """Read the path from the prior, or from a fitted guide, to the joint density of a program.

    Args:
        model: A Pyro model with continuous latents; discrete ones of finite support are summed
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
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0, 1))
        ...         pyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> path = read_path(model, torch.zeros(5))
        >>> z = path.sample(torch.Generator().manual_seed(0), 3)
        >>> z.shape, path.log_densities(z)[1].shape
        (torch.Size([3, 5, 1]), torch.Size([3, 5]))
    """
    from deepgen_ppl.pyro.infer.fit import Fit

    if isinstance(guide, Fit):
        params = guide.params if params is None else params
        guide = guide.guide
    learned = given(params)
    pair = read_pair(model, guide, data, model_kwargs=model_kwargs, params=learned, seed=seed,
                     prior=True, enumerated=True)  # fmt: skip
    tensors = data_.to_tensors(data, data_.device_of(pair.modules))
    values = resolve(pair.params, learned)
    _check(pair, values, tensors, verb)
    with handlers.validation(False):
        checks.check_points(points(pair, values, tensors, mix(seed, 3)))
        local = by_rows and pair.local
        local = local and check_rows_independent(pair, values, tensors, mix(seed, 1))
    path = Path(pair, values, tensors, local)
    if pair.guide is not None and any(site.auxiliary for site in pair.guide.latents.values()):
        check_guide_sites(verb, moving=path.moving)
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
        with private_store():
            proposal = read(guide, data, role="guide", data_plates=program.data_plates, **options)
        drawn = [name for name in discrete if name in proposal.latents]
        if drawn:
            return f"the guide draws {checks.quote(drawn)}"
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
        model: A Pyro model.
        guide: A guide, or None.
        data: The data.
        verb: Who asks, for the messages.
        options: Learned values `params`, `model_kwargs` and `seed`.
        by_rows: Whether to look for a path for each row at all.

    Raises:
        ValueError: What `read_any` raises.
    """
    seed, learned = options["seed"], options["params"]
    pair = read_pair(model, guide, data, prior=True, partial=True, **options)
    tensors = data_.to_tensors(data, data_.device_of(pair.modules))
    values = resolve(pair.params, learned)
    _check(pair, values, tensors, verb, drawn=True)
    found = read_coordinates(pair.model, values, tensors, "discrete='gibbs'")
    with handlers.validation(False):
        checks.check_points(points(pair, values, tensors, mix(seed, 3)))
        local = by_rows and pair.local
        local = local and all(len(place.support) == 1 for place in found.places.values())
        local = local and check_rows_independent(pair, values, tensors, mix(seed, 1))
    path = MixedPath(pair, values, tensors, local, _own(pair, found) if local else found)
    if pair.guide is not None and any(site.auxiliary for site in pair.guide.latents.values()):
        check_guide_sites(verb, moving=path.moving)
    return path


def _own(pair: Pair, found: Coordinates) -> Coordinates:
    """Return the discrete latents of one row."""
    shapes = {}
    for name in found.places:
        site = pair.model.sites[name]
        axis = site.plates.index(site.row_plate)
        shapes[name] = tuple(size for i, size in enumerate(site.shape) if i != axis)
    return Coordinates.of({n: place.support for n, place in found.places.items()}, shapes)


def _look(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sample messages of one run of the guide, and of the model at its values."""
    guide = {}
    with (
        quiet(pair),
        torch.no_grad(),
        forked_rng(0),
        installed(pair.params.values(), params) as answers,
    ):
        if pair.guide is not None:
            guide = call(pair.guide, data, answers).sites
        values = {name: msg["value"] for name, msg in guide.items()}
        around = (answers, handlers.replay(values), handlers.feasible())
        return guide, call(pair.model, data, *around).sites


def _check(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], verb: str, drawn: bool = False
) -> None:
    """Refuse latents that no path leads to; where discrete ones are not drawn, they are summed."""
    latents = pair.model.latents
    guide, model = _look(pair, params, data)
    check_latents(
        verb,
        continuous=[n for n, site in latents.items() if not site.is_discrete],
        discrete=[n for n, site in latents.items() if site.is_discrete],
        endless=[n for n, s in latents.items() if s.is_discrete and not (s.enumerable or drawn)],
        improper=[n for n in latents if messages.is_improper(model[n]["fn"])],
        subsampled=[plate.name for plate in pair.model.plates.values() if plate.subsampled],
        drawn=drawn,
    )
    own = {n: m["fn"] for n, m in guide.items() if n in latents}
    discrete = [n for n in own if latents[n].is_discrete]
    continuous = [n for n, site in latents.items() if not site.is_discrete]
    missing = [n for n in continuous if n not in own] if pair.guide is not None else []
    differing = {
        n: (str(model[n]["fn"].support), str(fn.support))
        for n, fn in own.items()
        if n not in discrete and not messages.is_delta(fn) and _differ(model[n]["fn"], fn)
    }
    check_guide_sites(verb, () if drawn else discrete, differing, missing=missing)


def _differ(one: Any, other: Any) -> bool:
    """Tell whether values spread over one support leave the other, or the other way round."""
    with forked_rng(0):
        for own, theirs in ((one, other), (other, one)):
            transform = biject_to(own.support)
            shape = transform.inverse_shape(own.batch_shape + own.event_shape)
            values = transform(3.0 * torch.randn(16, *shape))
            if not bool(theirs.support.check(values).all()):
                return True
    return False
