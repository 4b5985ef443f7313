"""The verb `em`: expectation maximisation of mixtures and classifiers, from several starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from tqdm.auto import tqdm

from deepgen_ppl.checks import check_positive, check_steps
from deepgen_ppl.expectation import Climbed, best, climb
from deepgen_ppl.mixtures import Layout, check_climb, check_names
from deepgen_ppl.moments import Values
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer.fit import Fit
from deepgen_ppl.numpyro.programs import assignments, components

_MOST_ITERATIONS = 30  # of L-BFGS in one M step; any rise of its objective makes EM rise


def em(
    model: Any,
    *data: Any,
    num_steps: int = 500,
    num_starts: int = 5,
    tolerance: float = 1e-6,
    params: Any = None,
    progress: bool = True,
    seed: int = 0,
) -> Fit:
    r"""Fit a mixture or a naive Bayes classifier by expectation maximisation.

    $$r_{nk} = p(z_n = k \mid x_n, \theta), \qquad
      \theta \leftarrow \arg\max_\theta \sum_{nk} r_{nk} \log p(x_n, z_n = k \mid \theta)
      + \log p(\theta)$$

    The E step normalises the program's own log densities; the M step is in closed form for named
    families without priors, and climbs by L-BFGS otherwise. With priors the highest point of the
    posterior density is sought, in the sites' own coordinates. Starts are k-means++ groups, or the
    labelled rows of a classifier; the highest run wins, one without collapsed components where
    there is one. With all rows labelled the first step is the answer.

    Args:
        model: a `mixture` or `naive_bayes` program.
        *data: its data.
        num_steps: most steps of a start.
        num_starts: number of starts.
        tolerance: least rise of the objective, in nats a row, that keeps a start going.
        params: values to start from instead, by name, or a `Fit` of points.
        progress: whether to show a bar.
        seed: seed of the starts.

    Returns:
        The fit: learned values by name, `losses` (the negative objective per row, of each step of
        the winning start: none is above the one before), `stopped`, and a guide without
        assignments. With priors its values are called `loc_point` and so on, the guide's.

    Raises:
        TypeError: a program of another kind.
        ValueError: data that do not suit the components, by site, row and value; labels outside the
            classes; values of parameters that the model lacks.
        FloatingPointError: a row of no density under any component.

    Warns:
        UserWarning: components collapsed in every start.

    Cost:
        K log densities of each row a step. The E step is compiled once for a model and shapes.

    References:
        Dempster, Laird, Rubin: Maximum likelihood from incomplete data via the EM algorithm. JRSS
        B 39, 1977.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.concatenate([np.zeros(30), np.full(70, 9.0)]).astype("float32")
        >>> fit = em(dg.mixture("poisson", 2), x, progress=False)
        >>> [round(float(weight), 2) for weight in sorted(fit.params["weights"])]
        [0.3, 0.7]
    """
    layout = getattr(model, "layout", None)
    if not isinstance(layout, Layout) or not hasattr(model, "assignment"):
        raise TypeError(
            "em fits what dg.mixture and dg.naive_bayes make. For another program with discrete "
            "latents use svi(model, guide, *data, loss=TraceEnum_ELBO())."
        )
    check_steps(num_steps)
    check_positive(tolerance=tolerance, num_starts=num_starts)
    check_climb(layout)
    x, cells, labels = layout.check(*model.named(data))
    start, runs = time.perf_counter(), []
    step = _Step(model, data, x, cells)
    rng = np.random.default_rng(seed)
    count = 1 if params is not None or labels is not None else num_starts
    with tqdm(total=count, disable=not progress, desc="em") as bar:
        for _ in range(count):
            values = step.given(params) if params is not None else step.start(rng, labels)
            report = lambda n, value: bar.set_postfix_str(  # noqa: E731
                f"step {n}, {value:.6g} nats a row", refresh=False
            )
            runs.append(step.climb(values, num_steps, tolerance, report))
            bar.update()
    return step.fit(best(runs), len(runs), time.perf_counter() - start, seed)


class _Step:
    """The steps of EM on one model and data."""

    def __init__(self, model: Any, data: tuple, x: np.ndarray, cells: Any) -> None:
        self.model, self.layout, self.data = model, model.layout, data
        self.x, self.cells = x, cells
        self.table = assignments.Table(model, data)
        self.named = self.layout.parameters(x.shape)

    def start(self, rng: np.random.Generator, labels: Any) -> Values:
        """Return the parameters that an M step makes of responsibilities to begin with."""
        groups = self.layout.start(self.x, self.cells, labels, rng)
        blank = {name: components.starting_value(p) for name, p in self.named.items()}
        values = blank | self.layout.maximise_components(self.x, self.cells, groups, None)
        values |= self.layout.maximise_weights(groups)
        return values if self.layout.closed else self._ascend(groups, values)

    def given(self, params: Any) -> Values:
        """Return parameters that the user gives."""
        known = assignments.learned(params)
        check_names(
            {n.removesuffix("_point"): v for n, v in known.items()},
            [*self.named, "weights", "sticks"], "params=",
        )  # fmt: skip
        found = assignments.points(known, self.table.program)
        return {name: np.asarray(value, float) for name, value in found.items()}

    def climb(self, values: Values, num_steps: int, tolerance: float, report: Any) -> Climbed:
        """Run EM from one start."""
        return climb(
            self.table.expect, self._maximise, values, num_steps=num_steps, tolerance=tolerance,
            floor=self.layout.floor, report=report,
        )  # fmt: skip

    def fit(self, found: Climbed, count: int, seconds: float, seed: int) -> Fit:
        """Return what EM found as a fit."""
        program, kept = self.table.program, jax.dtypes.canonicalize_dtype(float)
        values = {name: np.asarray(v, kept) for name, v in found.values.items()}
        latent = any(not site.is_discrete for site in program.latents.values())
        guide = assignments.point_guide(program, values) if latent else assignments.nothing
        losses = -np.asarray(found.objective) / len(self.x)
        steps = np.arange(len(losses))
        history = {"step": steps, "loss": losses, "seconds": seconds * steps / max(steps[-1], 1)}
        return Fit(
            {assignments.point_name(program, name): value for name, value in values.items()},
            losses, history, seconds, 0.0, self.model, guide,
            reason=f"expectation maximisation, the highest of {count} starts",
            seed=seed, stopped=" ".join(filter(None, (found.stopped, found.collapsed))),
            data=self.data,
        )  # fmt: skip

    def _maximise(self, responsibilities: Float[np.ndarray, "N K"], old: Values) -> Values:
        values = dict(old) | self.layout.maximise_weights(responsibilities)
        values |= self.layout.maximise_components(self.x, self.cells, responsibilities, old)
        if self.layout.closed:
            return values
        values = {**values, **{n: old[n] for n in self.named}}  # climb from where the last one was
        return self._ascend(responsibilities, values)

    def _ascend(self, responsibilities: Float[np.ndarray, "N K"], values: Values) -> Values:
        """Raise the expected log joint density over the components' parameters, by L-BFGS."""
        from scipy.optimize import minimize

        moving = {name: values[name] for name in self.named}
        fixed = {n: jnp.asarray(v, float) for n, v in values.items() if n not in moving}
        transforms = {n: biject_to(components.support(p)) for n, p in self.named.items()}
        free = {n: transforms[n].inv(jnp.asarray(v, float)) for n, v in moving.items()}
        flat, unravel = ravel_pytree(free)

        def cost(flat: Array, given: Mapping[str, Array], weights: Array, inputs: Inputs) -> Any:
            placed = {n: transforms[n](v) for n, v in unravel(flat).items()}
            rows, shared = self.table.fn({**given, **placed}, inputs)
            kept = jnp.where(weights > 0, rows, 0.0)
            return -(jnp.sum(weights * kept) + shared) / len(rows)

        args = (fixed, jnp.asarray(responsibilities, float), self.table.inputs)
        slope = jax.value_and_grad(cost)
        run = compiled(self.table.program.fn, "ascent", slope, flat, *args)

        def both(z: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = run(jnp.asarray(z, flat.dtype), *args)
            value = float(value) if np.isfinite(value) else np.inf
            return value, np.nan_to_num(np.asarray(gradient, float))

        options = {"maxiter": _MOST_ITERATIONS}
        found = minimize(both, np.asarray(flat), jac=True, method="L-BFGS-B", options=options)
        placed = unravel(jnp.asarray(found.x, flat.dtype))
        new = {n: np.asarray(transforms[n](v), float) for n, v in placed.items()}
        return {**values, **new}
