"""The verb `mcmc`: chains on a program's potential, one by one or all at once, compiled once."""

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
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.chains import check_counts
from deepgen_ppl.numpyro import marginal
from deepgen_ppl.numpyro import program as program_
from deepgen_ppl.numpyro.data import Inputs, as_inputs, as_key
from deepgen_ppl.numpyro.infer import alternating, evaluate, tempered, vectorized
from deepgen_ppl.numpyro.infer import kernel as kernel_
from deepgen_ppl.numpyro.infer.importance import check_learned
from deepgen_ppl.numpyro.infer.sampler import Sampler
from deepgen_ppl.numpyro.infer.space import Space, drawn, from_draws
from deepgen_ppl.numpyro.kernels.tempering import ParallelTempering
from deepgen_ppl.numpyro.paths import read_mixed, read_path
from deepgen_ppl.numpyro.structure import Pair, Program
from deepgen_ppl.posterior import Posterior

_MOST_THREADED = 16
_NUM_CHAINS = 4
_FEW = 16  # chains below which "auto" takes NumPyro's kernel


def mcmc(
    model: Callable[..., Any],
    *data: Any,
    kernel: Any = "nuts",
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int | None = None,
    thinning: int = 1,
    target_accept_prob: float | None = None,
    init_strategy: Callable[..., Any] | None = None,
    params: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    chain_method: str = "auto",
    progress: bool = True,
    init: Any = None,
    neutra: Any = None,
    adaptation: Mapping[str, Any] | None = None,
    compile: str = "auto",
    seed: int | Array = 0,
) -> Posterior:
    r"""Draw the latent sites of a model from their posterior by Markov chains.

    The chain moves on the unconstrained space under the potential energy

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete sites of finite support summed out by NumPyro's enumeration, unless the kernel is
    a discrete one, which draws them. One chain is compiled
    for a function, its shapes and the kernel's options; other data, bound arrays, parameters and
    seeds of the same shapes run what was compiled before.

    Vectorised kernels move all chains together and adapt step size, covariance and trajectory
    length over all of them; hundreds of chains are normal. When these have not mixed, a warning
    says so.

    Args:
        model: A NumPyro program.
        *data: Its data, with rows on the leading axis.
        kernel: `"nuts"`, `"hmc"`, a kernel class of NumPyro, or `functools.partial` of one with
            options, as `partial(NUTS, max_tree_depth=8, dense_mass=True)`; vectorised `"chees"`,
            `"mala"`, `"rwm"`, `"langevin"` (whose draws are biased), or their options, as
            `ChEES(max_num_steps=32)`; BlackJAX's `"meads"` and `"mclmc"` (biased too); `"gibbs"`,
            `"gibbs_with_gradients"` and `"discrete_langevin"`, which draw the discrete sites too,
            in turn with continuous ones where there are any, as `Gibbs(continuous="chees")`; or
            `"auto"`, which picks `"chees"` for 16 chains or more, falls back to `"nuts"` where they
            do not mix, and says why in `posterior.attrs["kernel_reason"]`.
            `ParallelTempering("chees")` finds several modes, `ParallelTempering("gibbs")` those of
            discrete latents.
        num_warmup: Steps of adaptation of each chain, not kept; 240 are enough for 64 chains of a
            vectorised kernel.
        num_samples: Steps of each chain after it.
        num_chains: Number of chains; when None, 4 of NumPyro's kernels, or 64 of a vectorised one.
        thinning: Keep every so-manyth step: `num_samples // thinning` draws of each chain.
        target_accept_prob: Acceptance rate the step size is adapted to; the kernel's own (0.8 for
            NUTS and HMC) when None.
        init_strategy: One of `numpyro.infer.initialization`; uniform on (-2, 2) of the
            unconstrained space when None.
        params: Learned values of the model's parameters: a dict or a `Fit`.
        model_kwargs: Constants passed to the model by name.
        chain_method: `"sequential"`, `"parallel"` (a thread for each chain, as many at once as
            there are cores), `"vectorized"` (all chains in one program), or `"auto"`: vectorized on
            an accelerator or with more than 16 chains, else parallel. A vectorised kernel takes
            `"auto"` and `"vectorized"`.
        progress: Whether to show a progress bar over all chains.
        init: A posterior or a `Fit` whose draws the chains start from.
        neutra: A `Fit` of an autoguide with a transform, such as `AutoMultivariateNormal` or
            `AutoIAFNormal`: chains walk on the space that it maps to the model's (NeuTra). With
            `ParallelTempering` the ladder goes from the prior as ever, in these coordinates.
        adaptation: `posterior.adaptation` of an earlier run, for a vectorised kernel to begin with;
            with `num_warmup=0` it is used as it is.
        compile: "auto" or "compiled": on this wing chains are always compiled.
        seed: Seed of chains and starting points, an int or a random key.

    Returns:
        A posterior with draws of the latent and deterministic sites and ArviZ's sample statistics.

    Raises:
        TypeError: The kernel is an instance of NumPyro's, which is bound to a model, or `neutra` is
            the fit of a guide without a transform.
        ValueError: The model has no continuous latent site, a discrete one cannot be enumerated, it
            subsamples, or its density is not finite at any starting point: the message names the
            first such site.

    Cost:
        2 to 5 s to compile a small model the first time, then one gradient for each leapfrog step,
        of all chains at once with a vectorised kernel.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo. 2017.
        https://arxiv.org/abs/1701.02434

        Hoffman, Radul, Sountsov: An adaptive-MCMC scheme for setting trajectory lengths in
        Hamiltonian Monte Carlo. AISTATS 2021. https://proceedings.mlr.press/v130/hoffman21a.html

        Hoffman et al.: NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural
        transport. 2019. https://arxiv.org/abs/1903.03704

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
    checks.check_target(target_accept_prob)
    ours, native, why = _engine(kernel, target_accept_prob, num_chains)
    if num_chains is None:
        num_chains = _NUM_CHAINS if ours is None else vectorized.NUM_CHAINS
    counts = {"num_samples": num_samples, "num_chains": num_chains, "thinning": thinning}
    check_counts(num_warmup=num_warmup, **counts)
    _check_method(chain_method, ours, adaptation, compile)
    strategy = _strategy(init_strategy or native[1].pop("init_strategy", None))
    native[1].pop("init_strategy", None)
    learned = program_.learned(neutra if params is None else params)
    program = program_.read(model, data, model_kwargs=model_kwargs, params=learned, seed=seed)
    check_learned(Pair(program, None, program.local), learned)
    if isinstance(params, Mapping):
        checks.check_known(params, [*program.params, *program.state, *program.fixed], guide=False)
    discrete = vectorized.is_discrete(ours)
    _check_program(program, discrete, neutra)
    inputs = program.inputs(data)
    values = {n: v for n, v in learned.items() if n in program.params or n in program.state}
    values = jax.tree.map(jnp.asarray, values)
    if not discrete:
        marginal.prepare(program, values, inputs, needed=False)
    space = Space(program, values, neutra)
    if isinstance(ours, ParallelTempering):
        if init is not None:
            init = drawn(init, data, num_chains, seed if isinstance(seed, int) else 0)
    elif init is not None and not discrete:
        strategy = from_draws(init, program, data, num_chains, seed)
    lengths = (num_warmup, num_samples, thinning)
    shared: dict = {"strategy": strategy, "progress": progress, "seed": seed}
    found = None
    if isinstance(ours, vectorized.Discrete):
        shared |= {"adaptation": adaptation, "init": init}
        found = alternating.sample(ours, program, values, inputs, lengths, num_chains, **shared)
    elif isinstance(ours, ParallelTempering):
        options = {"model_kwargs": model_kwargs, "params": learned, "seed": seed}
        if isinstance(ours.kernel, vectorized.Gibbs):
            path = read_mixed(model, None, data, "mcmc", options, by_rows=False)
        else:
            path = space.along(read_path(model, *data, by_rows=False, verb="mcmc", **options))
        options = {"init": init, "adaptation": adaptation, "progress": progress, "seed": seed}
        found = tempered.sample(ours, path, lengths, num_chains, **options)
    elif ours is not None:
        options = {**shared, "adaptation": adaptation, "warn": kernel != "auto"}
        found = vectorized.sample(ours, space, inputs, lengths, num_chains, **options)
        if kernel == "auto" and not found.attrs.get("mixed", True):
            why = f"nuts: {num_chains} chains of chees had not mixed (R-hat {_rhat(found)})"
            found = None
    if found is None:
        found = _one_by_one(native, space, inputs, lengths, num_chains, chain_method, **shared)
    return Posterior(
        found.draws,
        stats=found.stats,
        method="mcmc",
        **evaluate.fields(program, values, inputs, seed=seed),
        adaptation=found.adaptation,
        superchains=found.superchains,
        attrs=found.attrs | ({"kernel_reason": why} if why else {}),
    )


def _engine(
    kernel: Any, target: float | None, num_chains: int | None
) -> tuple[Any, tuple[Any, dict[str, Any]], str]:
    """Return the vectorised kernel that is meant, NumPyro's for where it is none, and why."""
    if kernel != "auto":
        ours = vectorized.resolve(kernel, target)
        return ours, kernel_.resolve("nuts" if ours is not None else kernel, target), ""
    native = kernel_.resolve("nuts", target)
    if num_chains is not None and num_chains < _FEW:
        why = f"nuts: {num_chains} chains are too few to learn a covariance from"
        return None, native, why
    why = "chees: all chains move together, and learn one covariance"
    return vectorized.resolve("chees", target), native, why


def _one_by_one(
    native: tuple[Any, dict[str, Any]],
    space: Space,
    inputs: Inputs,
    lengths: tuple[int, int, int],
    num_chains: int,
    chain_method: str,
    *,
    strategy: Any,
    progress: bool,
    seed: int | Array,
) -> vectorized.Sampled:
    """Run the chains of a kernel of NumPyro."""
    kernel_class, options = native
    num_warmup, num_samples, thinning = lengths
    args = (inputs, space.params, as_inputs(options))
    sampler = Sampler(space, args, strategy, _is_vectorized(chain_method, num_chains))
    threads = 1 if chain_method == "sequential" else (os.cpu_count() or 1)
    counts = (num_warmup, num_samples // thinning, thinning)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        sampler.compile(kernel_class, num_warmup, num_chains)
        record, seconds = sampler.run(as_key(seed), num_chains, counts, threads, bar)
    flat = record["z"].reshape(-1, record["z"].shape[-1])
    draws = sampler.constrain(flat)
    attrs = {
        "kernel": kernel_class.__name__,
        "compiled": "compiled",
        "compiled_reason": "warm-up and sampling of a chain are one compiled function",
        "compile_seconds": sampler.compile_seconds,
        "sampling_time": seconds,
        "tuning_steps": num_warmup,
    }
    draws = {n: value.reshape(num_chains, -1, *value.shape[1:]) for n, value in draws.items()}
    return vectorized.Sampled(draws, kernel_.statistics(kernel_class, record), attrs)


def _rhat(found: vectorized.Sampled) -> str:
    return f"{found.attrs['ensemble_rhat']:.3f}"


def _check_method(chain_method: str, ours: Any, adaptation: Any, compile: str) -> None:
    if compile not in ("auto", "compiled"):
        raise ValueError(
            f"compile={compile!r}: the NumPyro wing compiles chains always; pass 'auto'."
        )
    _is_vectorized(chain_method, 1)
    if ours is not None and chain_method not in ("auto", "vectorized"):
        raise ValueError(
            f"chain_method must be 'auto' or 'vectorized' with this kernel, not {chain_method!r}."
        )
    if adaptation is not None and ours is None:
        raise ValueError(
            "adaptation= is for vectorised kernels such as kernel='chees'; NumPyro's adapt anew."
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


def _check_program(program: Program, discrete: bool, neutra: Any) -> None:
    discrete_.check_continuous(
        [name for name, site in program.latents.items() if not site.is_discrete],
        list(program.latents),
        discrete,
        neutra is not None,
    )
    for plate in program.plates.values():
        if plate.subsampled:
            raise ValueError(
                f"Plate '{plate.name}' subsamples; mcmc needs all of its {plate.size} elements. "
                "Drop subsample_size."
            )
    for name, site in program.latents.items():
        if site.is_discrete and not site.enumerable and not discrete:
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
