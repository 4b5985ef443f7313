"""The components of mixtures and naive Bayes as NumPyro statements: parameters, priors, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.distributions import biject_to, constraints

from deepgen_ppl import conjugate
from deepgen_ppl.families import Parameter, family
from deepgen_ppl.mixtures import Layout, Part, check_columns, check_joint, check_names
from deepgen_ppl.moments import Cells, Values

_SUPPORTS = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit": constraints.unit_interval,
    "simplex": constraints.simplex,
    "correlation": constraints.corr_cholesky,
}
_EVENT_DIMS = {"simplex": 1, "correlation": 2}


@dataclass(frozen=True)
class Native:
    """Components of any NumPyro distribution of single numbers, independent over columns."""

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
        components: a name, a class of NumPyro's distributions, or a list of such distributions.
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
    if isinstance(components, type) and issubclass(components, dist.Distribution):
        return Native(components, _arguments(components), {}), None
    if isinstance(components, Sequence) and components:
        kinds = {type(c) for c in components}
        if len(kinds) == 1 and issubclass(made := kinds.pop(), dist.Distribution):
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


def declare(layout: Layout, priors: Mapping[str, Any] | None, x: Array) -> dict[str, Array]:
    """State the parameters of the components: learned points, or latent sites with priors.

    Args:
        layout: the parts.
        priors: priors by name; None for points.
        x: the data, whose shape the parameters follow and whose spread they start at.
    """
    known = layout.parameters(jnp.shape(x))
    check_names(priors or {}, list(known), "priors=")
    values: dict[str, Any] = {}
    plate = None if priors is None else numpyro.plate("component", layout.num_components)
    for part in layout.parts:
        check_columns(part.columns, jnp.shape(x))
        event = jnp.shape(part.of(x))[1:]
        for short, parameter in part.family.parameters(layout.num_components, event).items():
            name = part.prefix + short
            if priors is None or plate is None:
                values[name] = _point(name, short, parameter, part.of(x))
            else:
                prior = priors.get(name)
                prior = _weak(part, short, name, parameter) if prior is None else prior
                values[name] = _latent(name, parameter, prior, plate)
    return values


def weights(layout: Layout) -> Array:
    """State the weights of the components."""
    size = layout.num_components
    if layout.weights == "fixed":
        return jnp.asarray(layout.fixed, jnp.result_type(float))
    if layout.weights == "point":
        even = jnp.full(size, 1.0 / size)
        return jnp.asarray(numpyro.param("weights", even, constraint=constraints.simplex))
    if layout.weights == "dirichlet":
        prior = dist.Dirichlet(jnp.full(size, layout.concentration))
        return jnp.asarray(numpyro.sample("weights", prior))
    prior = dist.Beta(jnp.ones(size - 1), layout.concentration).to_event(1)
    sticks = jnp.asarray(numpyro.sample("sticks", prior))
    left = jnp.concatenate([jnp.ones(1), jnp.cumprod(1 - sticks)])
    found = jnp.concatenate([sticks, jnp.ones(1)]) * left
    numpyro.deterministic("weights", found)
    return found


def observe(
    layout: Layout, values: Mapping[str, Array], z: Array, x: Array, mask: Array | None
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
        fn = component(part.family, own, z, jnp.ndim(mine) - 1)
        if mask is not None:
            fn = fn.mask(part.of(mask))
        if not part.family.joint and jnp.ndim(mine) > 1:
            fn = fn.to_event(1)
        discrete = part.family.name == "categorical"
        numpyro.sample(part.site, fn, obs=mine.astype(int) if discrete else mine)


def component(made: Any, values: Mapping[str, Any], z: Array, event_dim: int) -> Any:
    """Return the distribution of rows of components z, by column where these are independent."""
    if made.name == "native":
        lead = (1,) * event_dim
        fixed = {n: jnp.asarray(v).reshape(-1, *lead) for n, v in made.fixed.items()}
        return made.make(**{n: jnp.asarray(v)[z] for n, v in {**fixed, **values}.items()})
    if made.name == "bernoulli":
        return dist.Bernoulli(probs=values["probs"][z])
    if made.name == "categorical":
        return dist.Categorical(probs=values["probs"][z])
    if made.name == "poisson":
        return dist.Poisson(values["rate"][z])
    if made.name == "negative_binomial":
        concentration = values["concentration"][z]
        odds = jnp.log(values["mean"][z] / concentration)
        return dist.NegativeBinomialLogits(concentration, logits=odds)
    own = made.covariance != "tied"
    loc, scale = values["loc"][z], values["scale"]
    scale = scale[z] if own else scale
    if event_dim and made.covariance == "spherical":
        scale = scale[..., None] * jnp.ones(loc.shape[-1])
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
    degrees = values["df"][z] if "df" in values else jnp.asarray(made.df, jnp.result_type(float))
    if not event_dim:
        return dist.StudentT(degrees, loc, scale)
    if factor is None:
        factor = scale[..., None] * jnp.eye(loc.shape[-1])
    return dist.MultivariateStudentT(degrees, loc, factor)


def support(parameter: Parameter) -> Any:
    """Return where the values of a parameter live."""
    if not isinstance(parameter.support, str):
        return parameter.support
    return _SUPPORTS[parameter.support]


def starting_value(parameter: Parameter) -> np.ndarray:
    """Return the value of a parameter at the origin of its unconstrained space."""
    transform = biject_to(support(parameter))
    shape = transform.inverse_shape(parameter.shape)
    return np.asarray(transform(jnp.zeros(shape)))


# ------------------------------------------------------------------------------------- helpers


def _arguments(made: Any) -> dict[str, Any]:
    found = dict(made.arg_constraints)
    if "probs" in found:
        found.pop("logits", None)
    if not found or any(getattr(c, "event_dim", 0) for c in found.values()):
        raise ValueError(
            f"{made.__name__} has no arguments of single numbers that could be learned. Use a "
            "named family, such as 'gaussian' or 'categorical'."
        )
    return found


def _point(name: str, short: str, parameter: Parameter, x: Array) -> Array:
    """State a learned parameter, which starts at the data's own spread, apart by chance."""

    def start(key: Array) -> Array:
        return _spread(key, short, parameter, x)

    return jnp.asarray(numpyro.param(name, start, constraint=support(parameter)))


def _spread(key: Array, short: str, parameter: Parameter, x: Array) -> Array:
    shape, noise = parameter.shape, random.uniform(key, parameter.shape, minval=0.5, maxval=1.5)
    rows = jnp.asarray(x, jnp.result_type(float))
    if short == "loc":
        return rows[random.randint(key, shape[:1], 0, len(rows))]
    if short == "scale":
        spread = jnp.std(rows, 0) + 1e-3
        alike = spread.shape == shape[len(shape) - spread.ndim :] and bool(shape)
        return (spread if alike else jnp.mean(spread)) * jnp.ones(shape)
    if short in ("rate", "mean"):
        return (jnp.mean(rows, 0) + 0.1) * noise
    if parameter.support == "unit":
        return noise / 2
    if parameter.support == "simplex":
        return noise / noise.sum(-1, keepdims=True)
    if short == "df":
        return jnp.full(shape, 10.0)
    if parameter.support == "correlation":
        return jnp.broadcast_to(jnp.eye(shape[-1]), shape)
    transform = biject_to(support(parameter))
    return transform(0.2 * random.normal(key, transform.inverse_shape(shape)))


def _latent(name: str, parameter: Parameter, prior: Any, plate: Any) -> Array:
    """State a latent parameter, each component's in the plate of the components."""
    shape = parameter.shape
    batch = shape[: len(shape) - prior.event_dim]
    if not parameter.own:
        fn = prior.expand(batch).to_event(len(batch))
        return jnp.asarray(numpyro.sample(name, fn))
    with plate:
        fn = prior.expand(batch).to_event(len(batch) - 1)
        return jnp.asarray(numpyro.sample(name, fn))


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
        return dist.Dirichlet(jnp.ones(parameter.shape[-1]))
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
