"""The components of mixtures and naive Bayes as Pyro statements: parameters, priors, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from deepgen_ppl import conjugate
from deepgen_ppl.families import Parameter, family
from deepgen_ppl.mixtures import Layout, Part, check_columns, check_joint, check_names
from deepgen_ppl.moments import Cells, Values
from deepgen_ppl.pyro.data import to_tensor

_SUPPORTS = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit": constraints.unit_interval,
    "simplex": constraints.simplex,
    "correlation": constraints.corr_cholesky,
}


@dataclass(frozen=True)
class Native:
    """Components of any Pyro distribution of single numbers, independent over columns."""

    make: Any
    supports: dict[str, Any]
    fixed: dict[str, np.ndarray]
    name: str = "native"
    joint: bool = False

    @property
    def closed(self) -> bool:
        """Whether there is nothing to learn."""
        return not self.supports

    def parameters(self, num_components: int, event: tuple[int, ...]) -> dict[str, Parameter]:
        """Return its own arguments, one for each component and column."""
        return {n: Parameter((num_components, *event), s) for n, s in self.supports.items()}

    def maximise(
        self, x: np.ndarray, weights: np.ndarray, cells: Cells, old: Values | None
    ) -> Values:
        """Have no closed form: what is to be learned is left to gradients."""
        return {}

    def trouble(self, x: np.ndarray, cells: Cells) -> str:
        """Leave it to the distribution."""
        return ""


def families(components: Any, **options: Any) -> tuple[Any, int | None]:
    """Return the family that is meant, and the number of components where they are fixed ones.

    Args:
        components: a name, a class of Pyro's distributions, or a list of such distributions.
        **options: of a named family.

    Raises:
        TypeError: none of these.
        ValueError: an unknown name, options of a native distribution, or a list of several classes.
    """
    if isinstance(components, str):
        return family(components, **options), None
    given = {name: value for name, value in options.items() if value is not None}
    if given:
        raise ValueError(f"{next(iter(given))}= goes with named components only.")
    if isinstance(components, type) and issubclass(components, torch.distributions.Distribution):
        return Native(components, _arguments(components), {}), None
    if isinstance(components, Sequence) and components:
        kinds = {type(c) for c in components}
        if len(kinds) == 1 and issubclass(
            made := kinds.pop(), torch.distributions.Distribution
        ):  # fmt: skip
            names = _arguments(made)
            fixed = {n: np.stack([np.asarray(getattr(c, n)) for c in components]) for n in names}
            return Native(made, {}, fixed), len(components)
        raise ValueError("a list of components must be distributions of one class.")
    raise TypeError(
        "components must be a name such as 'gaussian', a distribution class such as dist.Gamma, or "
        f"a list of distributions, not {components!r}."
    )


def conjugates(
    parts: Sequence[Part], priors: Mapping[str, Any] | None
) -> dict[str, conjugate.Pair]:
    """Return the priors that are their family's conjugate one, as numbers by name."""
    found: dict[str, conjugate.Pair] = {}
    if priors is None:
        return found
    for part in parts:
        kind = part.family.name
        if kind not in conjugate.KINDS:
            continue
        short = "rate" if kind == "poisson" else "probs"
        name = part.prefix + short
        if name in priors and type(priors[name]).__name__ != conjugate.KINDS[kind]:
            continue
        shape = (getattr(part.family, "num_states", 1),)
        parameter = Parameter(shape, "simplex" if kind == "categorical" else "unit")
        parameter = Parameter(shape, "positive") if kind == "poisson" else parameter
        prior = priors[name] if name in priors else _weak(part, short, name, parameter)
        keys = {"Beta": ("concentration1", "concentration0"), "Gamma": ("concentration", "rate")}
        names = keys.get(conjugate.KINDS[kind], ("concentration",))
        found[name] = conjugate.Pair(*(np.asarray(getattr(prior, n), float) for n in names))
    return found


def declare(layout: Layout, priors: Mapping[str, Any] | None, x: Tensor) -> dict[str, Tensor]:
    """State the parameters of the components: learned points, or latent sites with priors.

    Args:
        layout: the parts.
        priors: priors by name; None for points.
        x: the data, whose shape the parameters follow and whose spread they start at.
    """
    known = layout.parameters(tuple(x.shape))
    check_names(priors or {}, list(known), "priors=")
    values: dict[str, Any] = {}
    plate = None if priors is None else pyro.plate("component", layout.num_components)
    for part in layout.parts:
        check_columns(part.columns, tuple(x.shape))
        event = tuple(part.of(x).shape)[1:]
        for short, parameter in part.family.parameters(layout.num_components, event).items():
            name = part.prefix + short
            if priors is None or plate is None:
                values[name] = _point(name, short, parameter, part.of(x))
            else:
                prior = priors.get(name)
                prior = _weak(part, short, name, parameter) if prior is None else prior
                values[name] = _latent(name, parameter, prior, plate)
    return values


def weights(layout: Layout) -> Tensor:
    """State the weights of the components."""
    size = layout.num_components
    if layout.weights == "fixed":
        return torch.tensor(layout.fixed)
    if layout.weights == "point":
        even = torch.full((size,), 1.0 / size)
        return pyro.param("weights", even, constraint=constraints.simplex)
    if layout.weights == "dirichlet":
        prior = dist.Dirichlet(torch.full((size,), layout.concentration))
        return pyro.sample("weights", prior)
    prior = dist.Beta(torch.ones(size - 1), layout.concentration).to_event(1)
    sticks = pyro.sample("sticks", prior)
    one = sticks.new_ones(1)
    left = torch.cat([one, torch.cumprod(1 - sticks, -1)])
    found = torch.cat([sticks, one]) * left
    pyro.deterministic("weights", found, event_dim=1)
    return found


def observe(
    layout: Layout, values: Mapping[str, Tensor], z: Tensor, x: Tensor, mask: Tensor | None
) -> None:
    """State the data of rows whose components are z."""
    for part in layout.parts:
        check_joint(part, mask is not None)
        mine = part.of(x)
        own = {
            name.removeprefix(part.prefix): value
            for name, value in values.items()
            if name.startswith(part.prefix)
        }
        fn = component(part.family, own, z, mine.dim() - 1)
        if mask is not None:
            fn = fn.mask(part.of(mask))
        if not part.family.joint and mine.dim() > 1:
            fn = fn.to_event(1)
        discrete = part.family.name == "categorical"
        pyro.sample(part.site, fn, obs=mine.long() if discrete else mine)


def component(made: Any, values: Mapping[str, Any], z: Tensor, event_dim: int) -> Any:
    """Return the distribution of rows of components z, by column where these are independent."""
    if made.name == "native":
        lead = (1,) * event_dim
        fixed = {n: to_tensor(v).reshape(-1, *lead) for n, v in made.fixed.items()}
        return made.make(**{n: v[z] for n, v in {**fixed, **values}.items()})
    if made.name == "bernoulli":
        return dist.Bernoulli(probs=values["probs"][z])
    if made.name == "categorical":
        return dist.Categorical(probs=values["probs"][z])
    if made.name == "poisson":
        return dist.Poisson(values["rate"][z])
    if made.name == "negative_binomial":
        concentration = values["concentration"][z]
        odds = torch.log(values["mean"][z] / concentration)
        return dist.NegativeBinomial(concentration, logits=odds)
    own = made.covariance != "tied"
    loc, scale = values["loc"][z], values["scale"]
    scale = scale[z] if own else scale
    if event_dim and made.covariance == "spherical":
        scale = scale[..., None] * loc.new_ones(loc.shape[-1])
    if "correlation_tril" in values:
        tril = values["correlation_tril"]
        factor = scale[..., None] * (tril[z] if own else tril)
    else:
        factor = None
    if made.name == "gaussian":
        if factor is not None:
            return dist.MultivariateNormal(loc, scale_tril=factor)
        fn = dist.Normal(loc, scale)
        return fn.to_event(1) if made.joint and event_dim else fn
    degrees = values["df"][z] if "df" in values else loc.new_tensor(made.df)
    if not event_dim:
        return dist.StudentT(degrees, loc, scale)
    if factor is None:
        factor = scale[..., None] * torch.eye(loc.shape[-1], dtype=loc.dtype)
    return dist.MultivariateStudentT(degrees, loc, factor)


def support(parameter: Parameter) -> Any:
    """Return where the values of a parameter live."""
    if not isinstance(parameter.support, str):
        return parameter.support
    return _SUPPORTS[parameter.support]


def starting_value(parameter: Parameter) -> np.ndarray:
    """Return the value of a parameter at the origin of its unconstrained space."""
    transform = transform_to(support(parameter))
    return transform(torch.zeros(transform.inverse_shape(parameter.shape))).numpy()


# ------------------------------------------------------------------------------------- helpers


def _arguments(made: Any) -> dict[str, Any]:
    found = dict(made.arg_constraints)
    if "probs" in found:
        found.pop("logits", None)
    if not found or any(c.event_dim for c in found.values()):
        raise ValueError(
            f"{made.__name__} has no arguments of single numbers that could be learned. Use a "
            "named family, such as 'gaussian' or 'categorical'."
        )
    return found


def _point(name: str, short: str, parameter: Parameter, x: Tensor) -> Tensor:
    """State a learned parameter, which starts at the data's own spread, apart by chance."""

    def start() -> Tensor:
        return _spread(short, parameter, x)

    return pyro.param(name, start, constraint=support(parameter))


def _spread(short: str, parameter: Parameter, x: Tensor) -> Tensor:
    shape, rows = parameter.shape, x.to(torch.get_default_dtype())
    noise = 0.5 + torch.rand(shape, dtype=rows.dtype)
    if short == "loc":
        return rows[torch.randint(len(rows), shape[:1])]
    if short == "scale":
        spread = rows.std(0, unbiased=False) + 1e-3
        alike = tuple(spread.shape) == shape[len(shape) - spread.dim() :] and bool(shape)
        return (spread if alike else spread.mean()) * torch.ones(shape)
    if short in ("rate", "mean"):
        return (rows.mean(0) + 0.1) * noise
    if parameter.support == "unit":
        return noise / 2
    if parameter.support == "simplex":
        return noise / noise.sum(-1, keepdim=True)
    if short == "df":
        return torch.full(shape, 10.0)
    if parameter.support == "correlation":
        return torch.eye(shape[-1]).expand(shape).clone()
    transform = transform_to(support(parameter))
    return transform(0.2 * torch.randn(transform.inverse_shape(shape)))


def _latent(name: str, parameter: Parameter, prior: Any, plate: Any) -> Tensor:
    """State a latent parameter, each component's in the plate of the components."""
    shape = parameter.shape
    batch = shape[: len(shape) - prior.event_dim]
    if not parameter.own:
        return pyro.sample(name, prior.expand(batch).to_event(len(batch)))
    with plate:
        return pyro.sample(name, prior.expand(batch).to_event(len(batch) - 1))


def _weak(part: Part, short: str, name: str, parameter: Parameter) -> Any:
    """Return a weak prior, for columns of mean near 0 and spread near 1, or for counts."""
    if part.family.name == "native":
        raise ValueError(
            f"priors= lacks '{name}': the parameters of {part.family.make.__name__} components "
            "have no prior that would suit all data."
        )
    if parameter.support == "correlation":
        return dist.LKJCholesky(parameter.shape[-1], 2.0)
    if parameter.support == "simplex":
        return dist.Dirichlet(torch.ones(parameter.shape[-1]))
    if parameter.support == "unit":
        return dist.Beta(1.0, 1.0)
    weak = {
        "loc": dist.Normal(0.0, 3.0),
        "scale": dist.LogNormal(0.0, 1.0),
        "df": dist.Gamma(2.0, 0.1),
        "rate": dist.Gamma(1.0, 0.1),
        "mean": dist.Gamma(1.0, 0.1),
        "concentration": dist.Gamma(2.0, 0.1),
    }
    return weak[short]
