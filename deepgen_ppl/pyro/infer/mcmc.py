"""The verb `mcmc`: Pyro's kernels on a program's potential, several chains, traced once."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer import evaluate, gradient
from deepgen_ppl.pyro.infer import kernel as kernel_
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store, resolve

_TRIES = 100


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
    seed: int = 0,
) -> Posterior:
    r"""Draw the latent sites of a model from their posterior by Hamiltonian Monte Carlo.

    The chain moves on the unconstrained space under the potential energy

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete sites of finite support summed out by Pyro's enumeration. Energy, gradient and
    leapfrog step are traced once into one flat graph, so that Pyro's handlers do not run during
    sampling; where a model cannot be traced, it is run itself. `posterior.attrs["compiled"]` says
    which it was and `["compiled_reason"]` why.

    Args:
        model: A Pyro program.
        *data: Its data, with rows on the leading axis.
        kernel: `"nuts"`, `"hmc"`, a kernel class of Pyro, or `functools.partial` of one with
            options, as `partial(NUTS, max_tree_depth=8, full_mass=True)`.
        num_warmup: Steps of adaptation of each chain, not kept.
        num_samples: Steps of each chain after it.
        num_chains: Number of chains, run one after the other.
        thinning: Keep every so-manyth step: `num_samples // thinning` draws of each chain.
        target_accept_prob: Acceptance rate the step size is adapted to; the kernel's own (0.8) when
            None.
        init_strategy: One of `pyro.infer.autoguide.initialization`; uniform on (-2, 2) of the
            unconstrained space when None.
        params: Learned values of the model's parameters: a dict or a `Fit`.
        model_kwargs: Constants passed to the model by name.
        chain_method: `"auto"` or `"sequential"`: Pyro's kernels move one chain at a time.
        progress: Whether to show a progress bar over all chains.
        seed: Seed of chains and starting points. The user's random state is left alone.

    Returns:
        A posterior with draws of the latent and deterministic sites and ArviZ's sample statistics.

    Raises:
        TypeError: The kernel is an instance, which is bound to a model.
        ValueError: The model has no continuous latent site, a discrete one cannot be enumerated, it
            subsamples, or its density is not finite at any starting point: the message names the
            first such site.

    Cost:
        0.1 to 1 s to trace, then one gradient for each leapfrog step.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo. 2017.
        https://arxiv.org/abs/1701.02434

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
    counts = {"num_samples": num_samples, "num_chains": num_chains, "thinning": thinning}
    _check_counts(num_warmup=num_warmup, **counts)
    if chain_method not in ("auto", "sequential"):
        raise ValueError(f"chain_method must be 'auto' or 'sequential', not {chain_method!r}.")
    checks.check_target(target_accept_prob)
    kernel_class, options = kernel_.resolve(kernel, target_accept_prob)
    init_strategy = init_strategy or options.get("init_strategy")
    data = data_.to_tensors(data)
    fn, bound, _ = program_.unwrap(model)
    data_.check(data_.argument_names(fn, len(bound), len(data)), data)
    learned = given(params)
    program = program_.read(model, data, model_kwargs=model_kwargs, params=learned, seed=seed)
    _check_program(program)
    values = resolve(program.params, learned)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(num_chains, np.uint32)]
    numbers = sum(value.numel() for value in data if isinstance(value, Tensor))
    with private_store(), preserved(program.modules), evaluate.few_threads(numbers):
        energy, constrain, init = program_.potential(program, values, data)

        def describe(z: dict[str, Tensor]) -> str:
            return _first_bad_site(program, values, data, constrain(z))

        starts = [_start(energy, init, init_strategy, s, describe) for s in seeds]
        layout = gradient.Layout.of(starts[0], kernel_.dense_blocks(options))
        began = time.perf_counter()
        others = [init(s + 1) for s in seeds[:2]]
        dense = kernel_.is_dense(layout, options)
        traced = gradient.trace(energy, layout, [*starts[:2], *others], dense)
        compiled = time.perf_counter()
        drawn, stats = _drive(
            lambda: kernel_.build(kernel_class, options, layout, traced),
            [layout.join(start) for start in starts],
            seeds,
            (num_warmup, num_samples, thinning),
            progress,
        )
        sampled = time.perf_counter()
        draws = evaluate.over_draws(constrain, layout.split(drawn))
    return Posterior(
        {name: value.reshape(num_chains, -1, *value.shape[1:]) for name, value in draws.items()},
        stats=stats,
        method="mcmc",
        **evaluate.fields(program, values, data, seed=seed),
        attrs={
            "kernel": kernel_class.__name__,
            "compiled": traced.compiled,
            "compiled_reason": traced.reason,
            "compile_seconds": compiled - began,
            "sampling_time": sampled - compiled,
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


def _check_program(program: program_.Program) -> None:
    if not any(not site.is_discrete for site in program.latents.values()):
        names = ", ".join(f"'{name}'" for name in program.latents) or "none"
        raise ValueError(
            f"mcmc needs a continuous latent site; the model's latent sites are {names}. Discrete "
            "latents alone "
            "are drawn by importance."
        )
    for plate in program.plates.values():
        if plate.subsampled:
            raise ValueError(
                f"Plate '{plate.name}' subsamples; mcmc needs all of its {plate.size} elements. "
                "Drop subsample_size."
            )


def _start(
    energy: Callable[..., Tensor],
    init: Callable[..., dict[str, Tensor]],
    strategy: Callable[..., Any] | None,
    seed: int,
    describe: Callable[[dict[str, Tensor]], str],
) -> dict[str, Tensor]:
    """Return a starting point of finite energy and gradient."""
    z: dict[str, Tensor] = {}
    for attempt in range(_TRIES):
        z = init(seed + 7919 * attempt, strategy)
        leaves = {name: value.detach().requires_grad_(True) for name, value in z.items()}
        value = energy(leaves)
        if bool(torch.isfinite(value)):
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            if all(g is not None and bool(torch.isfinite(g).all()) for g in grads):
                return {name: leaf.detach() for name, leaf in leaves.items()}
    raise ValueError(
        f"No starting point of finite density in {_TRIES} tries: {describe(z)}. Check the data "
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
    ):
        for number, (start, seed) in enumerate(zip(starts, seeds, strict=True), 1):
            with forked_rng(seed):
                chain = make()
                chain.initial_params = z = start
                chain.setup(num_warmup)
                divergences = 0
                for step in range(num_warmup + num_samples):
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
