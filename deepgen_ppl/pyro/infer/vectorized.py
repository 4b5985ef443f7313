"""The vectorised kernels of `mcmc`: which is meant, its chains on a space, what they leave."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import checks, mixing
from deepgen_ppl.pyro.infer import batched, ensemble, evaluate
from deepgen_ppl.pyro.infer.gradient import Layout
from deepgen_ppl.pyro.infer.space import Point, Space
from deepgen_ppl.pyro.infer.tempered import Tempered
from deepgen_ppl.pyro.kernels.adaptation import Adaptation
from deepgen_ppl.pyro.kernels.chees import ChEES
from deepgen_ppl.pyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.pyro.kernels.gibbs import Gibbs
from deepgen_ppl.pyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.pyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.pyro.kernels.rwm import RWM
from deepgen_ppl.pyro.kernels.tempering import ParallelTempering
from deepgen_ppl.pyro.path import Path

Options = ChEES | MALA | Langevin | RWM | ParallelTempering
Discrete = Gibbs | GibbsWithGradients | DiscreteLangevin

NAMES: dict[str, type[Any]] = {"chees": ChEES, "mala": MALA, "langevin": Langevin, "rwm": RWM}
NAMES |= {"gibbs": Gibbs, "gibbs_with_gradients": GibbsWithGradients}
NAMES |= {"discrete_langevin": DiscreteLangevin}
NUM_CHAINS = 64

_QUARTER_TURN = 1.5

_DENSE = 256  # latent numbers up to which the whole covariance is estimated
_GRADIENTS = 4.0  # expected of a trajectory
_CHUNK = 2**14


def resolve(kernel: Any, target_accept_prob: float | None = None) -> Options | Discrete | None:
    """Return the options of the vectorised kernel that is meant; None for a kernel of Pyro.

    Args:
        kernel: A name, a class of ours, `functools.partial` of one, or an instance.
        target_accept_prob: Takes the place of the kernel's own option.

    Example:
        >>> resolve("chees", 0.9).target_accept_prob
        0.9
    """
    kinds, options = (*NAMES.values(), ParallelTempering), {}
    while isinstance(kernel, functools.partial):
        if not kernel.args:
            options = {**kernel.keywords, **options}
        kernel = kernel.func
    if isinstance(kernel, str):
        kernel = NAMES.get(kernel, kernel)
    if isinstance(kernel, type) and issubclass(kernel, kinds):
        unknown = sorted(set(options) - {field.name for field in dataclasses.fields(kernel)})
        if unknown:
            raise ValueError(f"{kernel.__name__} has no option {', '.join(map(repr, unknown))}.")
        kernel = kernel(**options)
    if not isinstance(kernel, kinds):
        return None
    made: Any = kernel
    if isinstance(kernel, Discrete):
        continuous = _continuous(kernel.continuous, target_accept_prob)
        return dataclasses.replace(kernel, continuous=continuous)
    if isinstance(kernel, ParallelTempering):
        inner = resolve(kernel.kernel, target_accept_prob)
        if not isinstance(inner, ChEES | MALA | RWM | Gibbs):
            raise ValueError(
                f"ParallelTempering cannot wrap {kernel.kernel!r}: choose 'chees', 'mala', 'rwm' "
                "or 'gibbs'."
            )
        return dataclasses.replace(kernel, kernel=inner)
    if target_accept_prob is not None:
        made = dataclasses.replace(made, target_accept_prob=target_accept_prob)
    return made


def is_discrete(kernel: Any) -> bool:
    """Tell whether a kernel draws discrete latents, by itself or inside parallel tempering."""
    inner = kernel.kernel if isinstance(kernel, ParallelTempering) else kernel
    return isinstance(inner, Discrete)


def _continuous(kernel: Any, target_accept_prob: float | None) -> Options:
    """Return the options of the kernel that moves continuous sites beside a discrete kernel."""
    if isinstance(kernel, str) and kernel == "hmc":
        kernel = ChEES(trajectory_lengths=(_QUARTER_TURN,))
    found: Any = resolve(kernel, target_accept_prob)
    if not isinstance(found, ChEES | MALA | Langevin | RWM):
        raise ValueError(
            "continuous must be 'chees', 'hmc', 'mala', 'rwm' or the options of one, such as "
            f"ChEES(max_num_steps=16), not {kernel!r}."
        )
    return found


def choose(space: Space, ours: Options | None, why: str, seed: int) -> tuple[Options | None, str]:
    """Return the kernel that `"auto"` picks on a space, and why: None for Pyro's NUTS."""
    if ours is None:
        return None, why
    layout = Layout.of(space.init(seed))
    points = torch.stack([layout.join(space.init(seed + i))["z"] for i in range(2)])
    obstacle = batched.obstacle(space.energy, layout, points)
    if obstacle:
        return None, f"nuts: the model cannot be vectorised over chains ({obstacle})"
    return ours, "chees: all chains move together, and learn one covariance"


class Sampled(NamedTuple):
    """What the chains of a kernel leave.

    Attributes:
        draws: Values of the sites, (chain, draw, ...).
        stats: Statistics under ArviZ's names, shape (chain, draw).
        attrs: How it ran.
        adaptation: What warm-up learnt, where another run can take it over.
        superchains: Number of the group of each chain that set out from one point.
        restore: Draws to the types that the program has them in, where they have others.
    """

    draws: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    attrs: dict[str, Any]
    adaptation: dict[str, np.ndarray] | None = None
    superchains: np.ndarray | None = None
    restore: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None


def sample(
    kernel: Options,
    space: Space,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    describe: Callable[[Point], str],
    path: Callable[[], Path],
    points: Sequence[Point] | None = None,
    strategy: Callable[..., Any] | None = None,
    adaptation: Mapping[str, Any] | None = None,
    level: str = "auto",
    progress: bool = True,
    seed: int = 0,
    warn: bool = True,
) -> Sampled:
    """Run the chains of a vectorised kernel on a space.

    Args:
        kernel: The kernel's options.
        space: What the chains walk on.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains.
        describe: Says what is wrong at values of the latent sites.
        path: Reads the path from the prior, for tempering.
        points: Starting points.
        strategy: A starting strategy of Pyro; uniform on (-2, 2) when None.
        adaptation: What an earlier run learnt.
        level: How the gradient runs, as of `batched`.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
        warn: Whether to warn of chains that have not mixed.
    """
    first = space.init(seed)
    layout, ladder = Layout.of(first), None
    if isinstance(kernel, ParallelTempering):
        ladder = path()
        if space.warp is None:
            layout = Layout({"z": tuple(ladder.layout.shapes)}, layout.shapes)
    (like,) = layout.join(first).values()
    generator = torch.Generator(device=like.device).manual_seed(seed)

    def split(position: Tensor) -> Point:
        return layout.split((position,))

    def join(point: Point) -> Tensor:
        return layout.join(point)["z"]

    groups = None if points is not None else mixing.superchains(num_chains)
    own = np.arange(num_chains) if groups is None else groups

    def drawn(attempt: int) -> Tensor:
        if points is not None:
            return torch.stack([join(point) for point in points])
        if strategy is None:
            return ensemble.uniform(int(own.max()) + 1, like, generator)[own]
        seeds = [seed + 7919 * attempt + 104729 * group for group in range(int(own.max()) + 1)]
        return torch.stack([join(space.init(s, strategy)) for s in seeds])[own]

    options: dict = {"generator": generator, "dtype": like.dtype, "device": like.device}
    probes = torch.randn(num_chains, len(like), **options)
    calls = sum(lengths[:2]) * (_GRADIENTS if isinstance(kernel, ChEES) else 1.0)
    energy = batched.batched(space.energy, layout, probes, level=level, calls=calls)
    start = ensemble.starts(
        drawn, energy, lambda position: describe(space.constrain(split(position)))
    )
    learning, step = _engine(kernel, lengths[0], like, adaptation, ladder, generator)
    record = ensemble.run(step, energy, start, learning, lengths, generator, progress)
    flat = torch.as_tensor(record.positions.reshape(-1, len(like)))
    draws = evaluate.over_draws(space.constrain, split(flat), chunk=_CHUNK)
    attrs = {
        "kernel": type(kernel).__name__,
        "compiled": energy.compiled,
        "compiled_reason": energy.reason,
        "compile_seconds": energy.seconds,
        "warmup_time": record.warmup_seconds,
        "sampling_time": record.sampling_seconds,
        "num_gradients": record.num_gradients,
        "restarted_chains": record.restarted,
        "tuning_steps": lengths[0],
    }
    if isinstance(learning, Tempered):
        attrs["temperatures"] = learning.betas
        attrs["swap_acceptance"] = learning.swap_rates
    sites = [(name, layout.shapes[name]) for name in layout.blocks["z"]]
    biased = isinstance(kernel, Langevin)
    sites = sites if set(layout.shapes) != {"u"} else []
    found = mixing.gate(attrs["kernel"], record.positions, groups, sites, biased=biased, warn=warn)
    draws = {name: x.reshape(num_chains, -1, *x.shape[1:]) for name, x in draws.items()}
    return Sampled(draws, record.stats, attrs | found, record.adaptation, groups)


def _engine(
    kernel: Any,
    num_warmup: int,
    like: Tensor,
    known: Mapping[str, Any] | None,
    ladder: Path | None,
    generator: torch.Generator,
) -> tuple[Any, Any]:
    """Return what learns during warm-up, and the step that it steers."""
    inner = kernel.kernel if ladder is not None else kernel
    dense = len(like) <= _DENSE if inner.dense is None else inner.dense
    if ladder is not None:
        num = kernel.num_temperatures
        earlier = None if known is None else checks.check_ladder(known, num, len(like))
        tempered = Tempered(inner, num, num_warmup, ladder, dense, generator, earlier)
        return tempered, tempered.step
    learning = Adaptation(
        num_warmup,
        target=kernel.target_accept_prob,
        lengths=getattr(kernel, "trajectory_lengths", (1.0,)),
        step_size=kernel.step_size,
        dense=dense,
        known=None if known is None else _tensors(checks.check_adaptation(known, len(like)), like),
    )
    return learning, kernel.bind()


def _tensors(values: Mapping[str, np.ndarray], like: Tensor) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value).to(like) for name, value in values.items()}
