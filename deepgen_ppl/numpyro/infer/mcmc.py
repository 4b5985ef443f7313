"""The verb `mcmc`: NumPyro's kernels on a program's potential, several chains, compiled once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.data import as_inputs, as_key
from deepgen_ppl.numpyro.infer import evaluate
from deepgen_ppl.numpyro.infer import kernel as kernel_
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.infer.sampler import Sampler
from deepgen_ppl.numpyro.structure import Pair, Program
from deepgen_ppl.posterior import Posterior

_MOST_THREADED = 16


def mcmc(
    model: Callable[..., Any],
    *data: Any,
    kernel: Any = "nuts",
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    thinning: int = 1,
    target_accept_prob: float | None = None,
    init_strategy: Callable[..., Any] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    chain_method: str = "auto",
    progress: bool = True,
    seed: int | Array = 0,
) -> Posterior:
    r"""Draw the latent sites of a model from their posterior by Hamiltonian Monte Carlo.

    The chain moves on the unconstrained space under the potential energy

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete sites of finite support summed out by NumPyro's enumeration. One chain is compiled
    for a function, its shapes and the kernel's options; other data, bound arrays, parameters and
    seeds of the same shapes run what was compiled before.

    Args:
        model: A NumPyro program.
        *data: Its data, with rows on the leading axis.
        kernel: `"nuts"`, `"hmc"`, a kernel class of NumPyro, or `functools.partial` of one with
            options, as `partial(NUTS, max_tree_depth=8, dense_mass=True)`.
        num_warmup: Steps of adaptation of each chain, not kept.
        num_samples: Steps of each chain after it.
        num_chains: Number of chains.
        thinning: Keep every so-manyth step: `num_samples // thinning` draws of each chain.
        target_accept_prob: Acceptance rate the step size is adapted to; the kernel's own (0.8 for
            NUTS and HMC) when None.
        init_strategy: One of `numpyro.infer.initialization`; uniform on (-2, 2) of the
            unconstrained space when None.
        params: Learned values of the model's parameters: a dict or a `Fit`.
        model_kwargs: Constants passed to the model by name.
        chain_method: `"sequential"`, `"parallel"` (a thread for each chain, as many at once as
            there are cores), `"vectorized"` (all chains in one program), or `"auto"`: vectorized on
            an accelerator or with more than 16 chains, else parallel.
        progress: Whether to show a progress bar over all chains.
        seed: Seed of chains and starting points, an int or a random key.

    Returns:
        A posterior with draws of the latent and deterministic sites and ArviZ's sample statistics.

    Raises:
        TypeError: The kernel is an instance, which is bound to a model.
        ValueError: The model has no continuous latent site, a discrete one cannot be enumerated, it
            subsamples, or its density is not finite at any starting point: the message names the
            first such site.

    Cost:
        2 to 5 s to compile a small model the first time, then one gradient for each leapfrog step.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo. 2017.
        https://arxiv.org/abs/1701.02434

    Example:
        >>> import numpy as np, numpyro, numpyro.distributions as dist
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with numpyro.plate("data", len(y)):
        ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> y = np.full(9, 2.0)
        >>> posterior = mcmc(model, y, num_warmup=200, num_samples=500, progress=False)
        >>> bool(abs(posterior.draws["mean"].mean() - 1.8) < 0.1)
        True
    """
    counts = {"num_samples": num_samples, "num_chains": num_chains, "thinning": thinning}
    _check_counts(num_warmup=num_warmup, **counts)
    vectorized = _is_vectorized(chain_method, num_chains)
    checks.check_target(target_accept_prob)
    kernel_class, options = kernel_.resolve(kernel, target_accept_prob)
    strategy = _strategy(init_strategy or options.pop("init_strategy", None))
    options.pop("init_strategy", None)
    learned = program_.learned(params)
    program = program_.read(model, data, model_kwargs=model_kwargs, params=learned, seed=seed)
    check_learned(Pair(program, None, program.local), learned)
    _check_program(program)
    inputs = program.inputs(data)
    values = {n: v for n, v in learned.items() if n in program.params or n in program.state}
    values = jax.tree.map(jnp.asarray, values)
    sampler = Sampler(program, (inputs, values, as_inputs(options)), strategy, vectorized)
    threads = 1 if chain_method == "sequential" else (os.cpu_count() or 1)
    lengths = (num_warmup, num_samples // thinning, thinning)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        sampler.compile(kernel_class, num_warmup, num_chains)
        record, seconds = sampler.run(as_key(seed), num_chains, lengths, threads, bar)
    flat = record["z"].reshape(-1, record["z"].shape[-1])
    draws = sampler.constrain(flat)
    stats = kernel_.statistics(kernel_class, record)
    return Posterior(
        {name: value.reshape(num_chains, -1, *value.shape[1:]) for name, value in draws.items()},
        stats=stats,
        method="mcmc",
        **evaluate.fields(program, values, inputs, seed=seed),
        attrs={
            "kernel": kernel_class.__name__,
            "compiled": "compiled",
            "compiled_reason": "warm-up and sampling of a chain are one compiled function",
            "compile_seconds": sampler.compile_seconds,
            "sampling_time": seconds,
            "tuning_steps": num_warmup,
        },
    )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        least = 0 if name == "num_warmup" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if counts["thinning"] > counts["num_samples"]:
        raise ValueError(
            f"thinning={counts['thinning']} keeps no draw of num_samples={counts['num_samples']}."
        )


def _is_vectorized(chain_method: str, num_chains: int) -> bool:
    methods = ("auto", "parallel", "sequential", "vectorized")
    if chain_method not in methods:
        raise ValueError(
            f"chain_method must be {', '.join(map(repr, methods[:-1]))} or {methods[-1]!r}, not "
            f"{chain_method!r}."
        )
    if chain_method == "auto":
        return jax.default_backend() != "cpu" or num_chains > _MOST_THREADED
    return chain_method == "vectorized"


def _check_program(program: Program) -> None:
    if not any(not site.is_discrete for site in program.latents.values()):
        names = checks.quote(program.latents) or "none"
        raise ValueError(
            f"mcmc needs a continuous latent site; the model's latent sites are {names}. Discrete "
            "latents alone are drawn by importance."
        )
    for plate in program.plates.values():
        if plate.subsampled:
            raise ValueError(
                f"Plate '{plate.name}' subsamples; mcmc needs all of its {plate.size} elements. "
                "Drop subsample_size."
            )
    for name, site in program.latents.items():
        if site.is_discrete and not site.enumerable:
            raise ValueError(
                f"The discrete latent '{name}' has no finite support to sum over, so '{name}' "
                "cannot be marginalised for HMC. Marginalise it by hand, or use importance or svi."
            )


def _strategy(strategy: Callable[..., Any] | None) -> tuple[Any, Any]:
    """Return a starting strategy as a function and its keywords, whose arrays are inputs."""
    keywords: dict[str, Any] = {}
    while isinstance(strategy, functools.partial):
        keywords = {**strategy.keywords, **keywords}
        strategy = strategy.func
    return as_inputs((strategy, keywords))
