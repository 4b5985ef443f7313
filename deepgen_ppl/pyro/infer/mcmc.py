"""The verb `mcmc`: chains on a program's potential, one by one or all at once, traced once."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.chains import check_counts
from deepgen_ppl.loop import noticed
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, marginal
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer import alternating, batched, evaluate, gradient, ladder, vectorized
from deepgen_ppl.pyro.infer import kernel as kernel_
from deepgen_ppl.pyro.infer import space as space_
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store, resolve
from deepgen_ppl.pyro.path import Path
from deepgen_ppl.pyro.paths import read_mixed, read_path

_TRIES = 100
_NUM_CHAINS = 4
_FEW = 16  # chains below which "auto" takes Pyro's kernel


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
    seed: int = 0,
) -> Posterior:
    r"""Draw the latent sites of a model from their posterior by Markov chains.

    The chain moves on the unconstrained space under the potential energy

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete sites of finite support summed out by Pyro's enumeration, unless the kernel is a
    discrete one, which draws them. Energy, gradient and
    leapfrog step are traced once into one flat graph, so that Pyro's handlers do not run during
    sampling; where a model cannot be traced, it is run itself. `posterior.attrs["compiled"]` says
    which it was and `["compiled_reason"]` why.

    Vectorised kernels move all chains together and adapt step size, covariance and trajectory
    length over all of them; hundreds of chains are normal. When these have not mixed, a warning
    says so.

    Args:
        model: A Pyro program.
        *data: Its data, with rows on the leading axis.
        kernel: `"nuts"`, `"hmc"`, a kernel class of Pyro, or `functools.partial` of one with
            options, as `partial(NUTS, max_tree_depth=8, full_mass=True)`; vectorised `"chees"`,
            `"mala"`, `"rwm"`, `"langevin"` (whose draws are biased), or their options, as
            `ChEES(max_num_steps=32)`; `"gibbs"`, `"gibbs_with_gradients"` and
            `"discrete_langevin"`, which draw the discrete sites too, in turn with continuous ones
            where there are any, as `Gibbs(continuous="chees")`; or `"auto"`, which picks `"chees"`
            for 16 chains or more of a model that can be vectorised, falls back to `"nuts"` where
            they do not mix, and says why in `posterior.attrs["kernel_reason"]`.
            `ParallelTempering("chees")` finds several modes, `ParallelTempering("gibbs")` those of
            discrete latents.
        num_warmup: Steps of adaptation of each chain, not kept; 240 are enough for 64 chains of a
            vectorised kernel.
        num_samples: Steps of each chain after it.
        num_chains: Number of chains; when None, 4 of Pyro's kernels, which run one after the other,
            or 64 of a vectorised one.
        thinning: Keep every so-manyth step: `num_samples // thinning` draws of each chain.
        target_accept_prob: Acceptance rate the step size is adapted to; the kernel's own (0.8) when
            None.
        init_strategy: One of `pyro.infer.autoguide.initialization`; uniform on (-2, 2) of the
            unconstrained space when None.
        params: Learned values of the model's parameters: a dict or a `Fit`.
        model_kwargs: Constants passed to the model by name.
        chain_method: `"auto"`, or `"sequential"` and `"vectorized"`, which the kernel tells: Pyro's
            move one chain at a time, ours all of them.
        progress: Whether to show a progress bar over all chains.
        init: A posterior or a `Fit` whose draws the chains start from.
        neutra: A `Fit` of an autoguide with a transform, such as `AutoMultivariateNormal` or
            `AutoIAFNormal`: chains walk on the space that it maps to the model's (NeuTra). With
            `ParallelTempering` the ladder goes from the prior as ever, in these coordinates.
        adaptation: `posterior.adaptation` of an earlier run, for a vectorised kernel to begin with;
            with `num_warmup=0` it is used as it is.
        compile: How a vectorised kernel's gradient runs: "eager" (the program itself), "traced" (a
            flat graph of it), "compiled" (by inductor), or "auto": compiled where the expected
            number of gradients repays it, else traced.
        seed: Seed of chains and starting points. The user's random state is left alone.

    Returns:
        A posterior with draws of the latent and deterministic sites and ArviZ's sample statistics.

    Raises:
        TypeError: The kernel is an instance of Pyro's, which is bound to a model, or `neutra` is
            the fit of a guide without a transform.
        ValueError: The model has no continuous latent site, a discrete one cannot be enumerated, it
            subsamples, or its density is not finite at any starting point: the message names the
            first such site.

    Cost:
        0.1 to 1 s to trace, then one gradient for each leapfrog step, of all chains at once with
        a vectorised kernel. Long runs of these are compiled, which takes about 10 s.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo. 2017.
        https://arxiv.org/abs/1701.02434

        Hoffman, Radul, Sountsov: An adaptive-MCMC scheme for setting trajectory lengths in
        Hamiltonian Monte Carlo. AISTATS 2021. https://proceedings.mlr.press/v130/hoffman21a.html

        Hoffman et al.: NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural
        transport. 2019. https://arxiv.org/abs/1903.03704

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
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
    data = data_.to_tensors(data)
    fn, bound, _ = program_.unwrap(model)
    data_.check(data_.argument_names(fn, len(bound), len(data)), data)
    learned = given(neutra if params is None else params)
    options: dict = {"model_kwargs": model_kwargs, "params": learned, "seed": seed}
    program = program_.read(model, data, **options)
    discrete = vectorized.is_discrete(ours)
    _check_program(program, discrete, neutra)
    values = resolve(program.params, learned)
    if isinstance(params, Mapping):
        checks.check_known(params, program.params, guide=False)
    numbers = sum(value.numel() for value in data if isinstance(value, Tensor))
    with private_store(), preserved(program.modules), evaluate.few_threads(numbers):
        if not discrete:
            marginal.prepare(program, values, data, needed=False)
        space: Any = None if discrete else space_.of_program(program, values, data)
        if neutra is not None:
            space = space_.of_fit(space, neutra, model, data, options)
        if kernel == "auto":
            ours, why = vectorized.choose(space, ours, why, seed)
            num_chains = num_chains if ours is not None else min(num_chains, _NUM_CHAINS)
        points = None
        if not discrete:
            points = space_.points(init, space, program, data, num_chains, seed)

        def describe(latents: dict[str, Tensor]) -> str:
            return _first_bad_site(program, values, data, latents)

        def path() -> Path:
            return space.along(read_path(model, *data, by_rows=False, verb="mcmc", **options))

        lengths = (num_warmup, num_samples, thinning)
        shared: dict = {"describe": describe, "points": points, "progress": progress, "seed": seed}
        shared |= {"strategy": init_strategy}
        found = None
        if isinstance(ours, vectorized.Discrete):
            theirs = {"strategy": init_strategy, "adaptation": adaptation, "init": init}
            theirs |= {"level": compile, "progress": progress, "seed": seed}
            found = alternating.sample(ours, program, values, data, lengths, num_chains, **theirs)
        elif discrete and isinstance(ours, vectorized.ParallelTempering):
            theirs = {"init": init, "adaptation": adaptation, "progress": progress, "seed": seed}
            mixed = read_mixed(model, None, data, "mcmc", options, by_rows=False)
            found = ladder.sample(ours, mixed, lengths, num_chains, **theirs)
        elif ours is not None:
            theirs = {**shared, "adaptation": adaptation, "path": path, "warn": kernel != "auto"}
            theirs["level"] = compile
            found = vectorized.sample(ours, space, lengths, num_chains, **theirs)
            if kernel == "auto" and not found.attrs.get("mixed", True):
                rhat = found.attrs["ensemble_rhat"]
                why = f"nuts: {num_chains} chains of chees had not mixed (R-hat {rhat:.3f})"
                found = None
        if found is None:
            found = _one_by_one(native, space, lengths, num_chains, **shared)
    fields = evaluate.fields(program, values, data, seed=seed)
    if found.restore is not None:
        fields["evaluators"] = evaluate.restoring(found.restore, fields["evaluators"])
    return Posterior(
        found.draws,
        stats=found.stats,
        method="mcmc",
        **fields,
        adaptation=found.adaptation,
        superchains=found.superchains,
        attrs=found.attrs | ({"kernel_reason": why} if why else {}),
    )


def _engine(
    kernel: Any, target: float | None, num_chains: int | None
) -> tuple[Any, tuple[type, dict[str, Any]], str]:
    """Return the vectorised kernel that is meant, Pyro's for where it is none, and why."""
    if kernel != "auto":
        ours = vectorized.resolve(kernel, target)
        return ours, kernel_.resolve("nuts" if ours is not None else kernel, target), ""
    native = kernel_.resolve("nuts", target)
    if num_chains is not None and num_chains < _FEW:
        why = f"nuts: {num_chains} chains are too few to learn a covariance from"
        return None, native, why
    return vectorized.resolve("chees", target), native, ""


def _one_by_one(
    native: tuple[type, dict[str, Any]],
    space: space_.Space,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    describe: Callable[[dict[str, Tensor]], str],
    points: list[dict[str, Tensor]] | None,
    strategy: Callable[..., Any] | None,
    progress: bool,
    seed: int,
) -> vectorized.Sampled:
    """Run the chains of a kernel of Pyro."""
    kernel_class, options = native
    strategy = strategy or options.get("init_strategy")
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(num_chains, np.uint32)]
    starts = [
        _start(space, strategy, s, describe, None if points is None else points[i])
        for i, s in enumerate(seeds)
    ]
    layout = gradient.Layout.of(starts[0], kernel_.dense_blocks(options))
    began = time.perf_counter()
    others = [space.init(s + 1) for s in seeds[:2]]
    dense = kernel_.is_dense(layout, options)
    traced = gradient.trace(space.energy, layout, [*starts[:2], *others], dense)
    compiled = time.perf_counter()
    drawn, stats = _drive(
        lambda: kernel_.build(kernel_class, options, layout, traced),
        [layout.join(start) for start in starts],
        seeds,
        lengths,
        progress,
    )
    sampled = time.perf_counter()
    draws = evaluate.over_draws(space.constrain, layout.split(drawn))
    attrs = {
        "kernel": kernel_class.__name__,
        "compiled": traced.compiled,
        "compiled_reason": traced.reason,
        "compile_seconds": compiled - began,
        "sampling_time": sampled - compiled,
        "tuning_steps": lengths[0],
    }
    draws = {name: x.reshape(num_chains, -1, *x.shape[1:]) for name, x in draws.items()}
    return vectorized.Sampled(draws, stats, attrs)


def _check_method(chain_method: str, ours: Any, adaptation: Any, compile: str) -> None:
    if compile not in batched.LEVELS or (ours is None and compile != "auto"):
        levels = batched.LEVELS if ours is not None else ("auto",)
        raise ValueError(
            f"compile={compile!r}: pass one of {', '.join(map(repr, levels))} with this kernel."
        )
    known = ("auto", "sequential" if ours is None else "vectorized")
    if chain_method not in known:
        raise ValueError(
            f"chain_method must be 'auto' or '{known[1]}' with this kernel, not {chain_method!r}."
        )
    if adaptation is not None and ours is None:
        raise ValueError(
            "adaptation= is for vectorised kernels such as kernel='chees'; Pyro's adapt anew."
        )


def _check_program(program: program_.Program, discrete: bool, neutra: Any) -> None:
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


def _start(
    space: space_.Space,
    strategy: Callable[..., Any] | None,
    seed: int,
    describe: Callable[[dict[str, Tensor]], str],
    point: dict[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Return a starting point of finite energy and gradient: the given one if it is."""
    z: dict[str, Tensor] = {}
    for attempt in range(_TRIES):
        z = space.init(seed + 7919 * attempt, strategy) if point is None or attempt else point
        leaves = {name: value.detach().requires_grad_(True) for name, value in z.items()}
        value = space.energy(leaves)
        if bool(torch.isfinite(value)):
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            if all(g is not None and bool(torch.isfinite(g).all()) for g in grads):
                return {name: leaf.detach() for name, leaf in leaves.items()}
    raise ValueError(
        f"No starting point of finite density in {_TRIES} tries: {describe(space.constrain(z))}. "
        "Check the data "
        "against the supports, "
        "or pass an init_strategy."
    )


def _first_bad_site(
    program: program_.Program, values: Mapping[str, Tensor], data: tuple, latents: dict[str, Tensor]
) -> str:
    with handlers.validation(False), torch.no_grad():
        found = program_.log_probs(program, values, latents, data)
    for name, log_prob in found.items():
        if not bool(torch.isfinite(log_prob).all()):
            bad = log_prob[~torch.isfinite(log_prob)].flatten()[0].item()
            return f"the log density of site '{name}' is {bad}"
    return "the gradient of the log density is not finite"


def _drive(
    make: Callable[[], Any],
    starts: list[dict[str, Tensor]],
    seeds: list[int],
    lengths: tuple[int, int, int],
    progress: bool,
) -> tuple[tuple[Tensor, ...], dict[str, np.ndarray]]:
    """Run the chains one by one; return each block's draws, chains joined, and the statistics."""
    num_warmup, num_samples, thinning = lengths
    draws: list[tuple[Tensor, ...]] = []
    stats: list[dict[str, float]] = []
    total = len(starts) * (num_warmup + num_samples)
    with (
        tqdm(total=total, disable=not progress, mininterval=0.2) as bar,
        handlers.validation(False),
        noticed() as check,
    ):
        for number, (start, seed) in enumerate(zip(starts, seeds, strict=True), 1):
            with forked_rng(seed):
                chain = make()
                chain.initial_params = z = start
                chain.setup(num_warmup)
                divergences = 0
                for step in range(num_warmup + num_samples):
                    check()
                    if step == num_warmup:
                        chain.end_warmup()
                    z = chain.sample(z)
                    kept = step - num_warmup + 1
                    divergences += chain.statistics["diverging"]
                    if kept > 0 and kept % thinning == 0:
                        draws.append(tuple(z.values()))
                        stats.append(chain.statistics)
                    if progress and step % 20 == 0:
                        phase = "warmup" if kept <= 0 else "sample"
                        bar.set_description(f"{phase} {number}/{len(starts)}", refresh=False)
                        bar.set_postfix_str(_said(chain, divergences), refresh=False)
                    bar.update()
                chain.cleanup()
    blocks = tuple(torch.stack(block).detach() for block in zip(*draws, strict=True))
    shape = (len(starts), -1)
    return blocks, {name: np.array([s[name] for s in stats]).reshape(shape) for name in stats[0]}


def _said(chain: Any, divergences: int) -> str:
    steps, rate = chain.statistics["n_steps"], chain._mean_accept_prob
    step_size = f"step {chain.step_size:.1e}"
    return f"{step_size}, {steps} leapfrogs, acc. {rate:.2f}, {divergences} divergences"
