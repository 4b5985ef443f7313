"""The moves of the discrete sites of all chains, compiled once: what a discrete kernel runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from deepgen_ppl import blocks as blocks_
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs
from deepgen_ppl.numpyro.discrete import Discrete
from deepgen_ppl.numpyro.kernels import gibbs
from deepgen_ppl.numpyro.kernels import gibbs_with_gradients as gradients_
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs
from deepgen_ppl.numpyro.structure import Program


class Sweeps:
    """The discrete kernel of all chains on one program.

    Args:
        program: The model.
        coordinates: Its discrete latents.
        args: Its parameters and inputs.
        kernel: The kernel's options.
        split: Continuous positions to sites.
        width: Number of points that are evaluated at once.

    Attributes:
        blocks: Coordinates that move at once.
        gradient: Whether differences are told by the gradient.
    """

    def __init__(
        self,
        program: Program,
        coordinates: discrete_.Coordinates,
        args: tuple[Any, Inputs],
        kernel: Any,
        split: Callable[[Array], dict[str, Array]],
        width: int,
    ) -> None:
        self.program, self.coordinates, self.args = program, coordinates, args
        self.kernel, self.split, self.width = kernel, split, width
        self.gradient = False

    @property
    def blocks(self) -> blocks_.Blocks:
        """Coordinates that move at once."""
        return self._blocks

    @blocks.setter
    def blocks(self, blocks: blocks_.Blocks) -> None:
        self._blocks = blocks
        self.table = gibbs.table(blocks, self.coordinates.cardinality, self.num_terms)

    def prepare(self, x: np.ndarray, z: np.ndarray) -> dict[str, Any]:
        """Find the blocks and choose how differences are told.

        Args:
            x: Starting coordinates of all chains.
            z: Starting positions of the continuous sites.
        """

        def evaluate_(rows: np.ndarray, point: int) -> np.ndarray:
            index = point * len(z) // 8
            return self.terms(rows.astype(np.int32), np.repeat(z[index][None], len(rows), 0))

        cardinality, groups = self.coordinates.cardinality, self.coordinates.groups
        self.num_terms = evaluate_(x[:1], 0).shape[1]
        self.blocks = blocks_.find_blocks(evaluate_, cardinality, groups)
        return {} if isinstance(self.kernel, Gibbs) else self._choose_differences(x, z)

    def terms(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the terms of the log density at some points, on the host."""

        def batch(args: Any, x: Array, z: Array) -> Array:
            return self._density(args, x, z)

        found, width = [], self.width
        for first in range(0, len(x), width):
            rows = np.minimum(np.arange(first, first + width), len(x) - 1)
            call = (self.args, jnp.asarray(x[rows]), jnp.asarray(z[rows]))
            options: dict = {"static": (self.static, width), "once": True}
            run = compiled(self.program.fn, "discrete terms", batch, *call, **options)
            found.append(np.asarray(run(*call))[: len(x) - first])
        return np.concatenate(found)

    @property
    def static(self) -> Any:
        """What compiled code depends on beside the program, its shapes and the kernel's options."""
        return self.coordinates.key

    def view(self, args: tuple[Any, Inputs]) -> Discrete:
        """Return the discrete view of the model; parameters and inputs may be traced."""
        return Discrete(self.program, self.coordinates, *args)

    def _density(self, args: Any, x: Array, z: Array) -> Array:
        """Return the terms at coordinates with further leading axes, for each chain's z."""
        view = self.view(args)
        held = jax.vmap(lambda z: view.hold(self.split(z)))(z)
        chains = jax.vmap(view.terms)
        for _ in range(x.ndim - 2):
            chains = jax.vmap(chains, (0, None))
        return chains(x, held)

    def _gains(self, args: Any, table: Any, x: Array, z: Array) -> tuple[Array, Array]:
        if self.gradient:
            view = self.view(args)
            return jax.vmap(lambda x, z: view.gains(x, self.split(z)))(x, z)
        terms = partial(self._density, args, z=z)
        state = gibbs.init(x, terms)
        options = {"num_values": self.coordinates.num_values}
        return state.terms.sum(-1), gibbs.conditionals(state, terms, table, **options)

    def begin(self, args: Any, table: Any, x: Array, z: Array) -> Any:
        """Return the state of the discrete kernel at given points."""
        if isinstance(self.kernel, Gibbs):
            return gibbs.init(x, partial(self._density, args, z=z))
        return gradients_.init(x, partial(self._gains, args, table, z=z))

    def moved(
        self, args: Any, table: Any, key: Array, state: Any, z: Array, number: Array
    ) -> tuple[Any, dict[str, Array]]:
        """Return the state after the discrete moves, and its statistics."""
        kernel = self.kernel
        if not isinstance(kernel, Gibbs):
            gains = partial(self._gains, args, table, z=z)
            state, info = kernel.bind(self.coordinates.size)(key, state, gains, table.cardinality)
            seen = {"lp": state.log_density, "acceptance_rate": info.acceptance}
            return state, {**seen, "discrepancy": jnp.zeros_like(info.acceptance)}
        terms = partial(self._density, args, z=z)
        options: dict = {"num_values": self.coordinates.num_values, "scan": kernel.scan}
        options["check"] = number % discrete_.CHECKED_EVERY == 0

        def sweep(carry: tuple[Any, Array], key: Array) -> tuple[Any, None]:
            state, info = gibbs.step(key, carry[0], terms, table, **options)
            return (state, jnp.maximum(carry[1], info.discrepancy)), None

        worst = jnp.zeros(len(state.position), state.terms.dtype)
        keys = random.split(key, kernel.num_discrete_steps)
        (state, worst), _ = lax.scan(sweep, (state, worst), keys)
        seen = {"lp": state.terms.sum(-1), "acceptance_rate": jnp.ones_like(worst)}
        return state, {**seen, "discrepancy": worst}

    @property
    def small(self) -> Any:
        """The smallest type that holds the numbers of values."""
        return np.int8 if self.coordinates.num_values < 128 else np.int32

    def _choose_differences(self, x: np.ndarray, z: np.ndarray) -> dict[str, Any]:
        """Take the gradient where it tells the differences well, or where it is asked for."""
        wish, points = self.kernel.differences, (jnp.asarray(x[:4]), jnp.asarray(z[:4]))

        def gains(gradient: bool) -> np.ndarray:
            self.gradient = gradient
            run = jax.jit(partial(self._gains, self.args, self.table))
            return np.asarray(run(*points)[1])

        reason = "asked for"
        if wish != "exact":
            try:
                linear = gains(True)
            except Exception as error:  # whatever a program says to real numbers
                if wish == "gradient":
                    discrete_.refuse_real_numbers(error)
                linear, reason = None, f"no gradient: {type(error).__name__}: {str(error)[:80]}"
            if wish == "auto" and linear is not None:
                share = discrete_.told(gains(False), linear)
                wish = "gradient" if share > discrete_.LEAST_TOLD else "exact"
                reason = f"the gradient tells {share:.2f} of the differences (correlation)"
        self.gradient = wish == "gradient"
        how = "gradient" if self.gradient else "exact"
        return {"differences": how, "differences_reason": reason}
