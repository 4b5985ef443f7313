"""The evaluators of a posterior: predictive draws, log likelihood and log prior of its draws."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.compilation import compiled
from deepgen_ppl.numpyro.data import Inputs, as_key
from deepgen_ppl.numpyro.structure import Program
from deepgen_ppl.numpyro.unconstrained import row_axis

Draws = Mapping[str, Any]
Evaluator = Callable[[Draws], dict[str, np.ndarray]]

_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 512


def over_draws(
    owner: Any,
    name: str,
    fn: Callable[..., Mapping[str, Any]],
    draws: Draws,
    args: Sequence[Any] = (),
    seed: int | jax.Array = 0,
    *,
    copies: int = 1,
    static: Hashable = (),
    once: bool = False,
) -> dict[str, np.ndarray]:
    """Map a function of one draw over all draws, vectorised and compiled once, in chunks.

    Args:
        owner: the program's own function, by which the compiled function is kept.
        name: name of the function among the owner's.
        fn: (draw, key, *args) -> named arrays, for one draw of each site.
        draws: arrays of shape `(S, ...)`.
        args: further arguments, the same for all draws.
        seed: seed of what `fn` draws itself.
        copies: runs of the program within `fn`, by which the chunks shrink.
        static: whatever else the code of `fn` depends on.
        once: whether it runs once or twice only, so that compiling fast counts for more.

    Returns:
        Arrays of shape `(S, ...)` on the host.
    """
    arrays = {site: np.asarray(value) for site, value in draws.items()}
    key, size = as_key(seed), len(next(iter(arrays.values())))
    one = {site: jax.ShapeDtypeStruct(v.shape[1:], _canonical(v)) for site, v in arrays.items()}
    out = jax.eval_shape(fn, one, key, *args)
    numbers = sum(leaf.size for leaf in jax.tree.leaves((one, out, args[-1:])))
    most = max(1, min(_CHUNK_DRAWS, _CHUNK_NUMBERS // max(numbers * copies, 1)))
    chunk = min(1 << (most.bit_length() - 1), 1 << (size - 1).bit_length())

    def chunked(part: Any, index: Any, key: Any, *args: Any) -> Any:
        def single(draw: Any, i: Any) -> Any:
            return fn(draw, random.fold_in(key, i), *args)

        return jax.vmap(single)(part, index)

    def cut(start: int) -> tuple[dict[str, Any], Any]:
        index = np.minimum(np.arange(start, start + chunk), size - 1)
        part = {site: jnp.asarray(value[index]) for site, value in arrays.items()}
        return part, jnp.asarray(index, jnp.int32)

    run = compiled(owner, name, chunked, *cut(0), key, *args, static=(static, chunk), once=once)
    parts = []
    for start in range(0, size, chunk):
        found = run(*cut(start), key, *args)
        parts.append({n: np.asarray(value)[: size - start] for n, value in found.items()})
    return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def fields(
    program: Program,
    params: Mapping[str, Any],
    data: Sequence[Any] | Inputs,
    *,
    seed: int | jax.Array = 0,
) -> dict[str, Any]:
    """Return what a `Posterior` says beside its draws: dims, data, parameters and evaluators.

    Args:
        program: the model, read at the data.
        params: constrained values of its parameters, and its mutable state.
        data: the data arguments, or `Inputs`.
        seed: seed of the predictive draws.

    Returns:
        Keyword arguments of `Posterior`.
    """
    inputs = data if isinstance(data, Inputs) else program.inputs(data)
    observed: dict[str, np.ndarray] = {}
    if program.observed:

        def values(params: Any, inputs: Inputs) -> dict[str, Any]:
            key, options = random.key(0), {"redraw": (), "stand_in": True}
            found = program_.simulate(program, params, inputs, key, **options)
            return {name: found[name] for name in program.observed}

        run = compiled(program.fn, "observed", values, dict(params), inputs)
        observed = {n: np.asarray(v) for n, v in run(dict(params), inputs).items()}
    constant = {}
    for name, tree in zip(program.arguments, inputs.data, strict=True):
        leaves = jax.tree.leaves(tree)
        array = np.asarray(leaves[0]) if len(leaves) == 1 else None
        same = array is None or any(np.array_equal(array, other) for other in observed.values())
        if array is not None and not same and name not in program.sites:
            constant[name] = array
    return {
        "dims": {name: site.plates for name, site in program.sites.items()},
        "observed_data": observed,
        "constant_data": constant,
        "params": jax.tree.map(np.asarray, dict(params)),
        "evaluators": evaluators(program, params, inputs, seed=seed),
    }


def evaluators(
    program: Program,
    params: Mapping[str, Any],
    data: Sequence[Any] | Inputs,
    *,
    seed: int | jax.Array = 0,
) -> dict[str, Evaluator]:
    r"""Return the functions from flat draws to the groups of a DataTree.

    `log_likelihood` is the log density of each datum given the draw's shared sites,

    \[ \log p(x_i \mid \theta) = \log \int p(x_i, z_i \mid \theta)\, dz_i, \]

    with latents local to a datum integrated out (discrete ones summed, continuous ones by
    importance sampling from a Student-t fitted to that datum's draws, mixed with their prior), so
    that leaving a datum out means what it says. Without local latents it is the log density of
    each observed site. Discrete latents that rows share leave the group out.

    Args:
        program: the model, read at the data.
        params: constrained values of its parameters, and its mutable state.
        data: the data arguments, or `Inputs`.
        seed: seed of random draws.

    Cost:
        One run of the model for each draw, vectorised; 128 for each draw with continuous local
        latents. Each group is compiled once for a function and its shapes.

    References:
        Vehtari, Mononen, Tolvanen, Sivula, Winther: Bayesian leave-one-out cross-validation
        approximations for Gaussian latent variable models. JMLR 17, 2016.
        https://arxiv.org/abs/1412.7461
    """
    inputs = data if isinstance(data, Inputs) else program.inputs(data)
    latents, args = program.latents, (dict(params), inputs)
    discrete = [site for site in latents.values() if site.is_discrete]
    own = {name: row_axis(program, site) is not None for name, site in latents.items()}

    def mapped(group: str, fn: Callable[..., Any], names: Collection[str]) -> Evaluator:
        def run(draws: Draws) -> dict[str, np.ndarray]:
            kept = {name: value for name, value in draws.items() if name in names}
            return over_draws(program.fn, group, fn, kept, args, seed)

        return run

    def predictive(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Any]:
        found = program_.simulate(program, params, inputs, key, draw)
        return {name: found[name] for name in program.observed}

    def densities(names: Collection[str], draw: Any, key: Any, params: Any, inputs: Inputs) -> Any:
        found = program_.log_probs(program, params, draw, inputs)
        return {name: found[name] for name in names if name in draw or name in program.observed}

    def integrated(draws: Draws) -> dict[str, np.ndarray]:
        from deepgen_ppl.numpyro.infer import local

        return local.log_evidence(program, *args, draws, seed)

    def prior_of(group: str, names: Collection[str]) -> Evaluator:
        def fn(draw: Any, key: Any, params: Any, inputs: Inputs) -> dict[str, Any]:
            found = program_.simulate(program, params, inputs, key)
            return {name: found[name] for name in names}

        def run(draws: Draws) -> dict[str, np.ndarray]:
            counter = {"draw number": np.arange(len(next(iter(draws.values()))))}
            return over_draws(program.fn, group, fn, counter, args, seed)

        return run

    made = {"log_prior": mapped("log_prior", partial(densities, list(latents)), latents)}
    if program.observed:
        made["posterior_predictive"] = mapped("posterior_predictive", predictive, latents)
        if any(own.values()) and all(own[site.name] for site in discrete):
            made["log_likelihood"] = integrated
        elif not discrete:
            likelihood = partial(densities, list(program.observed))
            made["log_likelihood"] = mapped("log_likelihood", likelihood, latents)
    if not program.factors:
        deterministic = [n for n, s in program.sites.items() if s.role == "deterministic"]
        made["prior"] = prior_of("prior", [*latents, *deterministic])
        if program.observed:
            made["prior_predictive"] = prior_of("prior_predictive", list(program.observed))
    return made


def _canonical(value: np.ndarray) -> Any:
    return jax.dtypes.canonicalize_dtype(value.dtype)
