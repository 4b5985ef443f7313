"""A model run forwards over many simulations at once, and the likelihood of what it simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.probes import check_rows_independent
from deepgen_ppl.numpyro.structure import Pair, Program
from deepgen_ppl.numpyro.unconstrained import row_axis
from deepgen_ppl.trials import LOG_LIKELIHOOD


class Simulated:
    """The model, run forwards over many simulations at once.

    Args:
        program: The model.
        values: Its parameters.
        data: Data of the shapes that are simulated.
    """

    def __init__(self, program: Program, values: dict[str, Any], data: Sequence[Any]) -> None:
        self.program, self.values = program, values
        self.given, self.inputs = data, program.inputs(data)
        kinds = jax.Array | np.ndarray | np.generic
        self.data = [np.asarray(x) if isinstance(x, kinds) else x for x in data]
        self.arguments = program.arguments

    def as_given(self, i: int, value: np.ndarray) -> Any:
        """Return a data argument as the user passed it, an array of NumPy or JAX."""
        return jnp.asarray(value) if isinstance(self.given[i], jax.Array) else value

    def has_own_rows(self) -> bool:
        """Tell whether rows are simulations of their own."""
        program = self.program
        pair = Pair(program, None, program.local)
        key = random.key(0)
        return program.local and check_rows_independent(pair, self.values, self.inputs, key)

    def plates(self, by_row: bool) -> dict[str, tuple[str | None, ...]]:
        """Return the plates of each site's leading dimensions, and those of the log likelihood."""
        found = {name: site.plates for name, site in self.program.sites.items()}
        return found | {LOG_LIKELIHOOD: self.program.data_plates[:1] if by_row else ()}

    def observe(self, data: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the values of the observed sites at some data."""
        program = self.program

        def values(params: Any, inputs: Inputs) -> dict[str, Any]:
            key, options = random.key(0), {"redraw": (), "stand_in": True}
            found = program_.simulate(program, params, inputs, key, **options)
            return {name: found[name] for name in program.observed}

        args = (self.values, program.inputs(data))
        run = compiled(
            program.fn, "sbc observed", values, *args, static=tuple(program.sites), once=True
        )
        return {name: np.asarray(value) for name, value in run(*args).items()}

    def simulate(
        self, num: int, seed: int, back: Mapping[int, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return draws (num, ...) of all sites, at data arguments of each simulation if given."""
        program = self.program

        def one(draw: Any, key: Array, params: Any, inputs: Any) -> dict[str, Array]:
            return program_.simulate(program, params, replaced(inputs, draw), key)

        draws = {"draw number": np.arange(num), **named(back or {})}
        args = (self.values, self.inputs)
        static = (*sorted(draws), *program.sites)
        return evaluate.over_draws(
            program.fn, "sbc draw", one, draws, args, seed, static=static, once=True
        )

    def log_likelihood(
        self, by_row: bool
    ) -> Callable[[dict[str, np.ndarray], Sequence[Any]], np.ndarray]:
        """Return the function from draws and data to the log likelihood, of each row if asked."""
        program = self.program

        def one(draw: Any, key: Array, params: Any, inputs: Any) -> dict[str, Array]:
            return {"value": data_log_likelihood(program, params, draw, inputs, by_row)}

        def of_draws(draws: dict[str, np.ndarray], data: Sequence[Any]) -> np.ndarray:
            args = (self.values, program.inputs(data))
            static = (by_row, *program.sites)
            name = "sbc log likelihood"
            return evaluate.over_draws(program.fn, name, one, draws, args, static=static)["value"]

        return of_draws


def named(back: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """Return simulated data arguments by name."""
    return {f"data {i}": value for i, value in back.items()}


def replaced(inputs: Inputs, draw: Mapping[str, Array]) -> Inputs:
    """Return inputs with the data arguments of one simulation."""
    data = [
        jnp.asarray(draw[f"data {i}"], value.dtype) if f"data {i}" in draw else value
        for i, value in enumerate(inputs.data)
    ]
    return inputs._replace(data=tuple(data))


def data_log_likelihood(
    program: Program, params: Mapping[str, Any], latents: Mapping[str, Array], inputs: Inputs,
    by_row: bool,
) -> Array:  # fmt: skip
    """Return log p(y | latents), of each row if asked."""
    given = {name: latents[name] for name in program.latents}
    found = program_.log_probs(program, params, given, inputs)
    total = jnp.zeros(())
    for name, site in program.observed.items():
        axis = row_axis(program, site) if by_row else None
        each = found[name] if axis is None else jnp.moveaxis(found[name], axis, 0)
        total += jnp.sum(each, axis=tuple(range(0 if axis is None else 1, each.ndim)))
    return total
