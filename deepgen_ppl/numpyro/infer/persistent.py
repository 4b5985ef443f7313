"""The driver of BlackJAX's kernels that keep their momentum: compiled once, draws on the host."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from tqdm.auto import tqdm

from deepgen_ppl import mixing
from deepgen_ppl.numpyro.compilation import Build
from deepgen_ppl.numpyro.data import Inputs, as_key
from deepgen_ppl.numpyro.infer.ensemble import Ensemble
from deepgen_ppl.numpyro.infer.space import Space
from deepgen_ppl.numpyro.kernels.blackjax import MCLMC, MEADS

_TRIES = 100


def sample(
    kernel: MEADS | MCLMC,
    space: Space,
    inputs: Inputs,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    strategy: Any,
    progress: bool = True,
    seed: int | Array = 0,
    warn: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any], np.ndarray | None]:
    """Run all chains of a kernel of BlackJAX.

    Args:
        kernel: The kernel's options.
        space: What the chains walk on.
        inputs: Inputs of the program.
        lengths: Draws of warm-up, draws after it, and the thinning of these.
        num_chains: Number of chains.
        strategy: A starting strategy; uniform on (-2, 2) without one.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
        warn: Whether to warn of chains that have not mixed, or are biased.

    Returns:
        Draws (chain, draw, ...), statistics (chain, draw), how it ran, and the chains' groups.

    Raises:
        ModuleNotFoundError: BlackJAX is not installed.
        ValueError: The number of chains does not do, or no starting point is finite.
    """
    if importlib.util.find_spec("blackjax") is None:
        raise ModuleNotFoundError(
            f"{type(kernel).__name__} is BlackJAX's: pip install blackjax, or take kernel='chees'."
        )
    kernel.check(num_chains)
    num_warmup, num_samples, thinning = lengths
    num_draws = num_samples // thinning
    # MEADS learns from how far its chains are apart: they do not set out in groups from one point.
    groups = None if isinstance(kernel, MEADS) else mixing.superchains(num_chains)
    ensemble = Ensemble(space, inputs, kernel, num_chains)
    keys = random.split(as_key(seed), 3)
    own = np.arange(num_chains) if groups is None else groups

    def log_density(args: Any) -> Any:
        return lambda z: -ensemble._energy(args, z)

    def energies(args: Any, z: Array) -> Array:
        return jax.vmap(log_density(args))(z)

    def run(args: Any, z: Array, keys: Array) -> tuple[Array, dict[str, Array], Any]:
        density = log_density(args)
        state, found = kernel.warm(keys[0], z, density, num_warmup)

        def one(carry: tuple[Any, Any], key: Array) -> tuple[Any, None]:
            state, moved = kernel.step(key, carry[0], density, found)
            rate = carry[1]["acceptance_rate"] + moved.acceptance / (kernel.num_steps * thinning)
            wrong = carry[1]["diverging"] | moved.diverging
            return (state, {"acceptance_rate": rate, "diverging": wrong}), None

        def draw(state: Any, key: Array) -> tuple[Any, tuple[Array, dict[str, Array]]]:
            zero = jnp.zeros(num_chains, z.dtype)
            none = {"acceptance_rate": zero, "diverging": zero > 0}
            split = random.split(key, kernel.num_steps * thinning)
            (state, seen), _ = lax.scan(one, (state, none), split)
            return state, (state.position, {**seen, "lp": state.logdensity})

        _, (positions, seen) = lax.scan(draw, state, random.split(keys[1], num_draws))
        return jnp.swapaxes(positions, 0, 1), jax.tree.map(lambda x: x.T, seen), found

    static = (kernel, lengths, num_chains, space.static)
    like = jax.ShapeDtypeStruct((num_chains, ensemble.size), ensemble.dtype)
    build = Build(space.program.fn)
    build.add("persistent start", energies, ensemble.args, like, static=static)
    build.add("persistent", run, ensemble.args, like, keys[:2], static=static)
    kept = jax.ShapeDtypeStruct((num_draws, *like.shape), ensemble.dtype)
    build.add("ensemble values", ensemble._values, ensemble.args, kept, static=static)
    with tqdm(total=1, disable=not progress, desc="compiling") as bar:
        made = build.compile()
        bar.set_description("warmup and sample")
        position, good = ensemble.starts(keys[2], strategy, own, 0), np.zeros(num_chains, bool)
        for attempt in range(1, _TRIES + 1):
            good = np.isfinite(np.asarray(made["persistent start"](ensemble.args, position)))
            if good.all():
                break
            again = ensemble.starts(keys[2], strategy, own, attempt)
            position = np.where(good[:, None], position, again)
        else:
            raise ValueError(
                f"No starting point of finite density in {_TRIES} tries: "
                f"{ensemble.first_bad(position[int(np.argmin(good))])}. Check the data against the "
                "supports, or pass an init_strategy."
            )
        began = time.perf_counter()
        positions, stats, found = made["persistent"](ensemble.args, position, keys[:2])
        draws = made["ensemble values"](ensemble.args, jnp.swapaxes(positions, 0, 1))
        draws = {name: np.asarray(value) for name, value in draws.items()}
        bar.update()
    gradients = (2 if isinstance(kernel, MCLMC) else 1) * kernel.num_steps
    attrs = {
        "kernel": type(kernel).__name__,
        "compiled": "compiled",
        "compiled_reason": "warm-up and sampling of all chains are one compiled function",
        "compile_seconds": build.seconds,
        "sampling_time": time.perf_counter() - began,
        "num_gradients": gradients * (num_warmup + num_samples),
        "tuning_steps": num_warmup,
        "step_size": float(found["step_size"]),
    }
    sites = list(ensemble.sites.items()) if space.static is None else []
    biased = isinstance(kernel, MCLMC)
    attrs |= mixing.gate(
        attrs["kernel"], np.asarray(positions), groups, sites, biased=biased, warn=warn
    )
    return draws, {name: np.asarray(value) for name, value in stats.items()}, attrs, groups
