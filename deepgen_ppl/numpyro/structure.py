"""What a native program is made of: its sites, plates and parameters, as one trace shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jax.core import Tracer
from numpyro.distributions import constraints
from numpyro.handlers import trace
from numpyro.infer.autoguide import AutoGuide

from deepgen_ppl import checks
from deepgen_ppl.data_checks import learned_values
from deepgen_ppl.numpyro.data import Inputs, argument_names, as_arguments, as_inputs, bare
from deepgen_ppl.numpyro.handlers import reader, split_seed
from deepgen_ppl.numpyro.messages import base, is_factor, is_improper


class Site(NamedTuple):
    """One sample or deterministic site of a program.

    Attributes:
        name: its name.
        role: "latent", "observed", "factor" or "deterministic".
        batch_shape: shape of independent draws, at the rows that were read.
        event_shape: shape of one draw.
        plates: plate name of each batch axis, left to right, None for an axis without plate.
        support: constraint of its values; None where it depends on other values.
        is_discrete: whether the support is discrete.
        reparametrised: whether draws carry gradients.
        auxiliary: whether it exists only in a guide, for others to build on.
        enumerable: whether its support is finite and can be summed over.
        improper: whether its density is flat and has no integral, so that nothing can be drawn.
    """

    name: str
    role: str
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    plates: tuple[str | None, ...]
    support: Any
    is_discrete: bool
    reparametrised: bool
    auxiliary: bool
    enumerable: bool = False
    improper: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch shape and event shape together."""
        return self.batch_shape + self.event_shape


class Plate(NamedTuple):
    """One plate: its name, batch axis (negative), size, and how it relates to the data."""

    name: str
    dim: int
    size: int
    subsampled: bool
    follows_data: bool


@dataclass(frozen=True, eq=False)
class Program:
    """One native program read at one data shape.

    Attributes:
        fn: the program without what `functools.partial` bound to it.
        role: "model" or "guide".
        bound: positional and keyword arguments bound to it (`model_kwargs` among the latter).
        arguments: names of the data arguments.
        sites: its sites by name, in order.
        plates: its plates by name.
        data_plates: names of the plates that follow the data rows.
        params: abstract value (a pytree) of each parameter by name.
        transforms: bijection from the real numbers for each constrained parameter.
        tables: axis of the rows in each parameter whose shape follows them.
        state: names of mutable state (batch-norm statistics and the like).
        num_rows: rows of the data it was read at; None where arrays disagree.
        outside: sites outside the data plates whose density depends on the data rows.
        fixed: latent sites and parameters whose value a handler inside the program fixes.
    """

    fn: Callable
    role: str
    bound: tuple[tuple, dict]
    arguments: tuple[str, ...]
    sites: dict[str, Site]
    plates: dict[str, Plate]
    data_plates: tuple[str, ...]
    params: dict[str, Any]
    transforms: dict[str, Any]
    tables: dict[str, int]
    state: tuple[str, ...]
    num_rows: int | None
    outside: tuple[str, ...] = ()
    fixed: frozenset[str] = field(default_factory=frozenset)

    def named(self, role: str) -> dict[str, Site]:
        """Return the sites of one role by name, in order."""
        return {name: site for name, site in self.sites.items() if site.role == role}

    @property
    def latents(self) -> dict[str, Site]:
        """Its latent sites."""
        return self.named("latent")

    @property
    def observed(self) -> dict[str, Site]:
        """Its observed sites."""
        return self.named("observed")

    @property
    def factors(self) -> dict[str, Site]:
        """Its factor statements."""
        return self.named("factor")

    @property
    def local(self) -> bool:
        """Whether every site with a density stands in a data plate."""
        return bool(self.data_plates) and all(
            set(site.plates) & set(self.data_plates)
            for site in self.sites.values()
            if site.role != "deterministic"
        )

    def inputs(self, data: Sequence) -> Inputs:
        """Return data as device arrays, together with the bound arguments."""
        return Inputs(as_inputs(tuple(data)), **{self.role: as_inputs(self.bound)})


class Pair(NamedTuple):
    """A model and its guide, read at one data shape.

    Attributes:
        model: the model.
        guide: the guide; None for no latents, or to draw latents from the prior.
        local: whether every site of both stands in a data plate, so that weights are per row.
        enumerated: discrete latents that the guide lacks and that are summed out.
    """

    model: Program
    guide: Program | None
    local: bool
    enumerated: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        """Model and guide, without a missing guide."""
        return (self.model,) if self.guide is None else (self.model, self.guide)

    @property
    def data_plates(self) -> tuple[str, ...]:
        """Names of the plates that follow the data, of both."""
        return tuple(dict.fromkeys(p for program in self.programs for p in program.data_plates))

    @property
    def params(self) -> dict[str, Any]:
        """Abstract parameters of both; the guide's stand where names agree."""
        return {name: v for program in self.programs for name, v in program.params.items()}

    @property
    def transforms(self) -> dict[str, Any]:
        """Bijections of the constrained parameters of both."""
        return {name: t for program in self.programs for name, t in program.transforms.items()}

    @property
    def scored(self) -> bool:
        """Whether the guide has draws without gradients, which need the score function."""
        sites = () if self.guide is None else self.guide.sites.values()
        return any(site.role == "latent" and not site.reparametrised for site in sites)

    @property
    def per_datum(self) -> int:
        """Number by which losses are divided: the rows where a data plate exists, else 1."""
        rows = self.model.num_rows or 1
        own = any(p.subsampled and p.size == rows for p in self.model.plates.values())
        return rows if self.data_plates or own else 1

    def inputs(self, data: Sequence) -> Inputs:
        """Return data as device arrays, together with what is bound to model and guide."""
        guide = ((), {}) if self.guide is None else as_inputs(self.guide.bound)
        return Inputs(as_inputs(tuple(data)), as_inputs(self.model.bound), guide)

    def unconstrain(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Map constrained parameters to the real numbers; mutable state is left out."""
        found = {name: params[name] for name in self.params}
        return {n: self.transforms[n].inv(v) if n in self.transforms else v
                for n, v in found.items()}  # fmt: skip

    def constrain(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Map unconstrained parameters to their constrained values."""
        return {n: self.transforms[n](v) if n in self.transforms else v for n, v in params.items()}


def learned(params: Any) -> dict[str, Any]:
    """Return parameter values from None, a mapping, or a `Fit`."""
    return {} if params is None else dict(learned_values(params))


def execute(fn: Callable, inputs: Inputs, role: str) -> Any:
    """Call a program on its inputs; handlers stand around the call."""
    args, kwargs = as_arguments(inputs.model if role == "model" else inputs.guide)
    return fn(*args, *as_arguments(inputs.data), **kwargs)


def autoguides(fn: Any) -> list[AutoGuide]:
    """Find the autoguides in a guide: itself, below handlers, or in a function's closure."""
    fn = bare(fn) if callable(fn) else fn
    if isinstance(fn, AutoGuide):
        return [fn]
    if not inspect.isfunction(fn):
        return []
    found = inspect.getclosurevars(fn)
    values = (*found.nonlocals.values(), *found.globals.values())
    return [value for value in values if isinstance(value, AutoGuide)]


class Reading(NamedTuple):
    """What one abstract trace shows."""

    sites: dict[str, Site]
    plates: dict[str, tuple[int, int, int | None]]  # dim, size, subsample size
    params: dict[str, Any]
    constraints: dict[str, Any]
    state: tuple[str, ...]
    dtypes: dict[str, Any]
    integers: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # of observed values
    fixed: frozenset[str]


def _site(msg: dict, fixed: frozenset[str]) -> Site:
    name, frames = msg["name"], msg["cond_indep_stack"]
    if msg["type"] == "deterministic":
        ndim, batch_ndim = jnp.ndim(msg["value"]), max((-f.dim for f in frames), default=0)
        shape = jnp.shape(msg["value"])
        batch, event = shape[: min(batch_ndim, ndim)], shape[min(batch_ndim, ndim) :]
        names = _plates(batch, frames)
        return Site(name, "deterministic", batch, event, names, None, False, True, False)
    fn = msg["fn"]
    given = msg["is_observed"] or name in fixed
    role = "factor" if is_factor(fn) else "observed" if given else "latent"
    support = fn.support
    leaves = jax.tree.leaves(support)
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    batch, event = tuple(fn.batch_shape), tuple(fn.event_shape)
    return Site(
        name,
        role,
        batch,
        event,
        _plates(batch, frames),
        None if traced else support,
        bool(support is not None and support.is_discrete),
        bool(fn.has_rsample),
        bool(msg["infer"].get("is_auxiliary", False)) and role == "latent",
        # NumPyro lists no products of supports, whatever `to_event` says of itself.
        bool(fn.has_enumerate_support) and base(fn).event_dim == fn.event_dim,
        is_improper(fn),
    )


def _plates(batch: tuple[int, ...], frames: Sequence) -> tuple[str | None, ...]:
    names: list[str | None] = [None] * len(batch)
    for frame in frames:
        if -frame.dim <= len(batch):
            names[frame.dim] = frame.name
    return tuple(names)


def read_once(
    fn: Callable,
    inputs: Inputs,
    role: str,
    handler: Callable[[Callable], Callable] = lambda run: run,
    abstract: bool = True,
) -> Reading:
    """Trace a program, abstractly unless told, and note its sites, plates and parameters."""
    noted: dict[str, Any] = {}

    def run(inputs: Inputs) -> dict:
        marked = reader(lambda: execute(fn, inputs, role))
        key = random.key(0)
        with trace() as seen, split_seed(shared=key, local=key, stand_in=True):
            try:
                handler(marked)()
            except Exception as error:
                if type(error) not in (ValueError, TypeError, AssertionError, IndexError):
                    raise  # JAX's own errors explain themselves
                bound = inputs.model if role == "model" else inputs.guide
                names = argument_names(fn, len(bound[0]), len(inputs.data))
                arrays = zip(names, inputs.data, strict=True)
                shapes = {name: x.shape for name, x in arrays if hasattr(x, "shape")}
                raise checks.stopped(role, marked.done, shapes, error) from error
        fixed = frozenset(marked.fixed)
        noted["sites"] = {
            name: _site(msg, fixed)
            for name, msg in seen.items()
            if msg["type"] in ("sample", "deterministic")
        }
        plates = {
            frame.name: (frame.dim, frame.size, None)
            for msg in seen.values()
            for frame in msg.get("cond_indep_stack", ())
        }
        for name, msg in seen.items():
            if msg["type"] == "plate":
                dim = plates[name][0] if name in plates else 0
                plates[name] = (dim, *msg["args"])
        noted["plates"] = plates
        noted["constraints"] = {
            name: msg["kwargs"].get("constraint", constraints.real)
            for name, msg in seen.items()
            if msg["type"] == "param"
        }
        samples = {name: msg for name, msg in seen.items() if msg["type"] == "sample"}
        noted["dtypes"] = {name: jnp.result_type(m["value"]) for name, m in samples.items()}
        noted["integers"] = {
            name: noted["dtypes"][name]
            for name, msg in samples.items()
            if msg["is_observed"]
            and isinstance(msg["value"], jax.Array)
            and not jnp.issubdtype(noted["dtypes"][name], jnp.floating)
            and not isinstance(msg["fn"], dist.Delta | dist.Unit)
            and not is_factor(msg["fn"])
            and not noted["sites"][name].is_discrete
        }
        noted["shapes"] = {
            name: jnp.shape(msg["value"])
            for name, msg in samples.items()
            if msg["is_observed"] and not is_factor(msg["fn"])
        }
        noted["fixed"], noted["state"] = fixed, tuple(marked.mutable)
        return {
            name: msg["value"]
            for name, msg in seen.items()
            if msg["type"] == "param" and name not in fixed and msg["value"] is not None
        }

    noted["params"] = jax.eval_shape(run, inputs) if abstract else run(inputs)
    return Reading(**noted)


def site_log_prob(msg: dict) -> Array:
    """Return a sample site's log density, scaled by its handlers' scale, of its batch shape."""
    fn, value = msg["fn"], msg["value"]
    extra = (msg["intermediates"],) if msg["intermediates"] else ()
    log_prob = fn.log_prob(value, *extra)
    return log_prob if msg["scale"] is None else msg["scale"] * log_prob
