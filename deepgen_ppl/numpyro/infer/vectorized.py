"""The vectorised kernels of `mcmc`: which one is meant, its chains on a program, what is left."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
from jax import Array, random
from tqdm.auto import tqdm

from deepgen_ppl import checks, mixing
from deepgen_ppl.numpyro.data import Inputs, as_key
from deepgen_ppl.numpyro.infer import persistent
from deepgen_ppl.numpyro.infer.ensemble import Ensemble
from deepgen_ppl.numpyro.infer.space import Space
from deepgen_ppl.numpyro.kernels.blackjax import MCLMC, MEADS
from deepgen_ppl.numpyro.kernels.chees import ChEES
from deepgen_ppl.numpyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs
from deepgen_ppl.numpyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.numpyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.numpyro.kernels.rwm import RWM
from deepgen_ppl.numpyro.kernels.tempering import ParallelTempering

Options = ChEES | MALA | Langevin | RWM
Persistent = MEADS | MCLMC

Discrete = Gibbs | GibbsWithGradients | DiscreteLangevin

NAMES: dict[str, type[Any]] = {"chees": ChEES, "mala": MALA, "langevin": Langevin, "rwm": RWM}
NAMES |= {"gibbs": Gibbs, "gibbs_with_gradients": GibbsWithGradients}
NAMES |= {"discrete_langevin": DiscreteLangevin, "meads": MEADS, "mclmc": MCLMC}
NUM_CHAINS = 64

_QUARTER_TURN = 1.5


class Sampled(NamedTuple):
    """What the chains of a kernel leave.

    Attributes:
        draws: Values of the sites, (chain, draw, ...).
        stats: Statistics under ArviZ's names, shape (chain, draw).
        attrs: How it ran.
        adaptation: What warm-up learnt, where another run can take it over.
        superchains: Number of the group of each chain that set out from one point.
    """

    draws: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    attrs: dict[str, Any]
    adaptation: dict[str, np.ndarray] | None = None
    superchains: np.ndarray | None = None


def resolve(
    kernel: Any, target_accept_prob: float | None = None
) -> Options | Persistent | Discrete | ParallelTempering | None:
    """Return the options of the vectorised kernel that is meant; None for one of NumPyro's.

    Args:
        kernel: A name, a class of ours, `functools.partial` of one, or an instance.
        target_accept_prob: Takes the place of the kernel's own option.

    Raises:
        ValueError: An option the kernel lacks.

    Example:
        >>> resolve("chees", 0.9).target_accept_prob
        0.9
    """
    options: dict[str, Any] = {}
    while isinstance(kernel, functools.partial):
        if not kernel.args:
            options = {**kernel.keywords, **options}
        kernel = kernel.func
    if isinstance(kernel, str):
        kernel = NAMES.get(kernel, kernel)
    kinds = (*NAMES.values(), ParallelTempering)
    if isinstance(kernel, type) and issubclass(kernel, kinds):
        unknown = sorted(set(options) - {field.name for field in fields(kernel)})
        if unknown:
            raise ValueError(f"{kernel.__name__} has no option {', '.join(map(repr, unknown))}.")
        kernel = kernel(**options)
    if isinstance(kernel, ParallelTempering):
        inner = resolve(kernel.kernel, target_accept_prob)
        if not isinstance(inner, ChEES | MALA | RWM | Gibbs):
            raise ValueError(
                f"ParallelTempering cannot wrap {kernel.kernel!r}: choose 'chees', 'mala', 'rwm' "
                "or 'gibbs'."
            )
        return replace(kernel, kernel=inner)
    if isinstance(kernel, Persistent):
        return kernel
    if isinstance(kernel, Discrete):
        continuous = _continuous(kernel.continuous, target_accept_prob)
        return replace(kernel, continuous=continuous)
    if not isinstance(kernel, Options):
        return None
    if target_accept_prob is None:
        return kernel
    return replace(kernel, target_accept_prob=target_accept_prob)


def is_discrete(kernel: Any) -> bool:
    """Tell whether a kernel draws discrete latents, by itself or inside parallel tempering."""
    inner = kernel.kernel if isinstance(kernel, ParallelTempering) else kernel
    return isinstance(inner, Discrete)


def _continuous(kernel: Any, target_accept_prob: float | None) -> Options:
    """Return the options of the kernel that moves continuous sites beside a discrete kernel."""
    if isinstance(kernel, str) and kernel == "hmc":
        kernel = ChEES(trajectory_lengths=(_QUARTER_TURN,))
    found = resolve(kernel, target_accept_prob)
    if not isinstance(found, Options):
        raise ValueError(
            "continuous must be 'chees', 'hmc', 'mala', 'rwm' or the options of one, such as "
            f"ChEES(max_num_steps=16), not {kernel!r}."
        )
    return found


def sample(
    kernel: Options | Persistent,
    space: Space,
    inputs: Inputs,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    strategy: Any,
    adaptation: Mapping[str, Any] | None = None,
    progress: bool = True,
    seed: int | Array = 0,
    warn: bool = True,
) -> Sampled:
    """Run the chains of a vectorised kernel on a space.

    Args:
        kernel: The kernel's options.
        space: What the chains walk on.
        inputs: Inputs of the program.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains.
        strategy: A starting strategy; uniform on (-2, 2) without one.
        adaptation: What an earlier run learnt.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
        warn: Whether to warn of chains that have not mixed.
    """
    if isinstance(kernel, Persistent):
        if adaptation is not None:
            name = type(kernel).__name__
            raise ValueError(f"adaptation= does not go with {name}, which adapts anew.")
        shared: dict[str, Any] = {"strategy": strategy, "progress": progress, "seed": seed}
        ran = persistent.sample(kernel, space, inputs, lengths, num_chains, **shared, warn=warn)
        draws, stats, attrs, groups = ran
        return Sampled(draws, stats, attrs, None, groups)
    num_warmup, num_samples, thinning = lengths
    groups = mixing.superchains(num_chains)
    start_key, run_key = random.split(as_key(seed))
    ensemble = Ensemble(space, inputs, kernel, num_chains)
    known = None if adaptation is None else checks.check_adaptation(adaptation, ensemble.size)
    learning = ensemble.adapt(num_warmup, known)
    with tqdm(total=num_chains * (num_warmup + num_samples), disable=not progress) as bar:
        bar.set_description("compiling")
        ensemble.compile(learning)

        def start(attempt: int) -> np.ndarray:
            own = np.arange(num_chains) if groups is None else groups
            return ensemble.starts(start_key, strategy, own, attempt)

        rest = (num_warmup, num_samples // thinning, thinning)
        record = ensemble.run(run_key, rest, learning, start, bar)
    attrs = {
        "kernel": type(kernel).__name__,
        "compiled": "compiled",
        "compiled_reason": "the steps of all chains are one compiled function",
        "compile_seconds": ensemble.compile_seconds,
        "sampling_time": record.seconds,
        "num_gradients": record.num_gradients,
        "restarted_chains": record.restarted,
        "tuning_steps": num_warmup,
    }
    sites = list(ensemble.sites.items()) if space.static is None else []
    biased = isinstance(kernel, Langevin)
    found = mixing.gate(attrs["kernel"], record.positions, groups, sites, biased=biased, warn=warn)
    return Sampled(record.draws, record.stats, attrs | found, record.adaptation, groups)
