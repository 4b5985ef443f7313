"""The vectorised kernels of `mcmc`: which is meant, its chains on a space, what they leave."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl.pyro.infer import batched, ensemble, evaluate
from deepgen_ppl.pyro.infer.gradient import Layout
from deepgen_ppl.pyro.infer.space import Point, Space
from deepgen_ppl.pyro.kernels.adaptation import Adaptation
from deepgen_ppl.pyro.kernels.chees import ChEES
from deepgen_ppl.pyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.pyro.kernels.rwm import RWM

Options = ChEES | MALA | Langevin | RWM

NAMES: dict[str, type[Any]] = {"chees": ChEES, "mala": MALA, "langevin": Langevin, "rwm": RWM}
NUM_CHAINS = 64

_DENSE = 256  # latent numbers up to which the whole covariance is estimated
_GRADIENTS = 4.0  # expected of a trajectory
_MIXED = 1.05
_CHUNK = 2**14


def resolve(kernel: Any, target_accept_prob: float | None = None) -> Options | None:
    """Return the options of the vectorised kernel that is meant; None for a kernel of Pyro.

    Args:
        kernel: A name, a class of ours, `functools.partial` of one, or an instance.
        target_accept_prob: Takes the place of the kernel's own option.

    Example:
        >>> resolve("chees", 0.9).target_accept_prob
        0.9
    """
    kinds, options = tuple(NAMES.values()), {}
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
    if target_accept_prob is not None:
        made = dataclasses.replace(made, target_accept_prob=target_accept_prob)
    return made


def choose(space: Space, ours: Options | None, why: str, seed: int) -> tuple[Options | None, str]:
    """Return the kernel that `"auto"` picks on a space, and why: None for Pyro's NUTS."""
    if ours is None:
        return None, why
    layout = Layout.of(space.init(seed))
    points = torch.stack([layout.join(space.init(seed + i))["z"] for i in range(2)])
    obstacle = batched.obstacle(space.energy, layout, points)
    if obstacle:
        return None, f"nuts: the model cannot be vectorised over chains ({obstacle})"
    return ours, "chees: all chains move together on a vectorised density"


class Sampled(NamedTuple):
    """What the chains of a vectorised kernel leave.

    Attributes:
        draws: Values of the sites, with chains joined.
        stats: Statistics under ArviZ's names, shape (chain, draw).
        adaptation: What warm-up learnt.
        attrs: How it ran.
    """

    draws: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    adaptation: dict[str, np.ndarray] | None
    attrs: dict[str, Any]


def sample(
    kernel: Options,
    space: Space,
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    describe: Callable[[Point], str],
    points: Sequence[Point] | None = None,
    strategy: Callable[..., Any] | None = None,
    adaptation: Mapping[str, Any] | None = None,
    level: str = "auto",
    progress: bool = True,
    seed: int = 0,
) -> Sampled:
    """Run the chains of a vectorised kernel on a space.

    Args:
        kernel: The kernel's options.
        space: What the chains walk on.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains.
        describe: Says what is wrong at values of the latent sites.
        points: Starting points.
        strategy: A starting strategy of Pyro; uniform on (-2, 2) when None.
        adaptation: What an earlier run learnt.
        level: How the gradient runs, as of `batched`.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    first = space.init(seed)
    layout = Layout.of(first)
    (like,) = layout.join(first).values()
    generator = torch.Generator(device=like.device).manual_seed(seed)

    def split(position: Tensor) -> Point:
        return layout.split((position,))

    def join(point: Point) -> Tensor:
        return layout.join(point)["z"]

    def drawn(attempt: int) -> Tensor:
        if points is not None:
            return torch.stack([join(point) for point in points])
        seeds = [seed + 7919 * attempt + 104729 * chain for chain in range(num_chains)]
        return torch.stack([join(space.init(s, strategy)) for s in seeds])

    options: dict = {"generator": generator, "dtype": like.dtype, "device": like.device}
    probes = torch.randn(num_chains, len(like), **options)
    calls = sum(lengths[:2]) * (_GRADIENTS if isinstance(kernel, ChEES) else 1.0)
    energy = batched.batched(space.energy, layout, probes, level=level, calls=calls)
    start = ensemble.starts(
        num_chains,
        like,
        energy,
        generator,
        lambda position: describe(space.constrain(split(position))),
        drawn if strategy is not None or points is not None else None,
    )
    learning = Adaptation(
        lengths[0],
        target=kernel.target_accept_prob,
        lengths=getattr(kernel, "trajectory_lengths", (1.0,)),
        step_size=kernel.step_size,
        dense=len(like) <= _DENSE if kernel.dense is None else kernel.dense,
        known=ensemble.known(adaptation, like),
    )
    record = ensemble.run(kernel.bind(), energy, start, learning, lengths, generator, progress)
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
    return Sampled(draws, record.stats, record.adaptation, attrs | _gate(kernel, record.positions))


def _gate(kernel: Options, positions: np.ndarray) -> dict[str, Any]:
    """Warn of chains that are biased, stuck or have not mixed."""
    name = type(kernel).__name__
    if isinstance(kernel, Langevin):
        warnings.warn(
            "Unadjusted Langevin draws are biased: its steps are not tested against the density. "
            "Use kernel='mala' or 'chees' for draws of the posterior itself.",
            UserWarning,
            stacklevel=4,
        )
    num_chains, num_draws, _ = positions.shape
    if num_draws < 4:
        warnings.warn(
            f"{num_draws} draws of each chain are too few to tell whether the chains have mixed: "
            "keep at least 4.",
            UserWarning,
            stacklevel=4,
        )
        return {}
    stuck = int((np.ptp(positions, axis=1) == 0).all(-1).sum())
    worst = split_rhat(positions)
    if not worst < _MIXED:
        advice = "Raise num_warmup, reparametrise the model, or try kernel='nuts'."
        parts = f"; {stuck} of them never moved" if stuck else ""
        warnings.warn(
            f"The {num_chains} chains of {name} have not mixed: the largest split R-hat is "
            f"{worst:.3f}{parts}. The draws are not those of the posterior. {advice}",
            UserWarning,
            stacklevel=4,
        )
    return {"rhat": worst, "stuck_chains": stuck}


def split_rhat(positions: Float[np.ndarray, "chain draw D"]) -> float:
    """Return the largest split R-hat of the unconstrained positions.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(8, 100, 3))
        >>> split_rhat(draws) < 1.05 < split_rhat(draws + np.arange(8)[:, None, None])
        True
    """
    half = positions.shape[1] // 2
    worst = 1.0
    for d in range(positions.shape[2]):
        series = positions[:, :, d].astype(float)
        halves = np.concatenate([series[:, :half], series[:, -half:]])
        within = halves.var(axis=1, ddof=1).mean()
        between = halves.mean(axis=1).var(ddof=1)
        if within > 0 or between > 0:
            ratio = np.inf if within == 0 else between / within
            worst = max(worst, float(np.sqrt((half - 1) / half + ratio)))
    return worst
