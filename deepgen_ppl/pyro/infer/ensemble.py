"""The driver of vectorised kernels: starting points, warm-up, sampling, records on the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from deepgen_ppl.loop import noticed
from deepgen_ppl.pyro.kernels import hmc
from deepgen_ppl.pyro.kernels.adaptation import Adaptation, Step
from deepgen_ppl.pyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad

_TRIES = 100
_RADIUS = 2.0  # of the starting points on the unconstrained space
_CHUNK = 64  # kept steps that wait on the device
_SHOWN = 0.2  # seconds between two looks at a run


class Record(NamedTuple):
    """What a run leaves, on the host.

    Attributes:
        positions: Kept positions.
        stats: Statistics of each kept step under ArviZ's names.
        adaptation: What warm-up learnt: `step_size`, `root`, `trajectory_length`.
        restarted: Number of chains that were lost during warm-up and set out anew.
        warmup_seconds: Time of the warm-up.
        sampling_seconds: Time of the steps after it.
        num_gradients: Gradients of all chains that both took.
    """

    positions: Float[np.ndarray, "chain draw D"]
    stats: dict[str, np.ndarray]
    adaptation: dict[str, np.ndarray]
    restarted: int
    warmup_seconds: float
    sampling_seconds: float
    num_gradients: int


def uniform(
    num: int, like: Float[Tensor, " D"], generator: torch.Generator
) -> Float[Tensor, "num D"]:
    """Return points that are uniform on (-2, 2) of the unconstrained space."""
    options: dict = {"generator": generator, "dtype": like.dtype, "device": like.device}
    return (2.0 * torch.rand(num, len(like), **options) - 1.0) * _RADIUS


def starts(
    drawn: Callable[[int], Float[Tensor, "chain D"]],
    value_and_grad: ValueAndGrad,
    describe: Callable[[Tensor], str],
) -> Float[Tensor, "chain D"]:
    """Return starting points of finite energy and gradient.

    Args:
        drawn: The number of an attempt to points of all chains.
        value_and_grad: Potential energy and its gradient, over the batch.
        describe: Says what is wrong at a position.

    Raises:
        ValueError: A chain found none in 100 tries.
    """
    position = drawn(0)
    for attempt in range(1, _TRIES + 1):
        potential, gradient = value_and_grad(position)
        bad = ~(potential.isfinite() & gradient.isfinite().all(-1))
        if not bool(bad.any()):
            return position
        if attempt < _TRIES:
            position = torch.where(bad.unsqueeze(-1), drawn(attempt), position)
    raise ValueError(
        f"No starting point of finite density in {_TRIES} tries: {describe(position[bad][0])}. "
        "Check the data against the supports, or pass an init_strategy."
    )


def run(
    step: Step,
    value_and_grad: ValueAndGrad,
    position: Float[Tensor, "chain D"],
    adaptation: Adaptation,
    lengths: tuple[int, int, int],
    generator: torch.Generator,
    progress: bool = True,
) -> Record:
    """Adapt a kernel over all chains, then sample.

    Args:
        step: The kernel's step.
        value_and_grad: Potential energy and its gradient, over the batch.
        position: Where the chains start.
        adaptation: What learns during warm-up.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        generator: Source of the random numbers.
        progress: Whether to show a progress bar.

    Cost:
        During warm-up one number is read from the device at each step; after it nothing is before
        64 kept steps are fetched together.
    """
    num_warmup, num_samples, thinning = lengths
    keeper = _Keeper(position, num_samples // thinning)
    num_gradients = 0
    with (
        torch.no_grad(),
        tqdm(total=num_warmup + num_samples, disable=not progress, mininterval=_SHOWN) as bar,
        noticed() as check,
    ):
        state = hmc.init(position, value_and_grad)
        adaptation.begin(state)
        shown = began = warmed = time.perf_counter()
        for index in range(num_warmup + num_samples):
            check()
            controls = adaptation.controls(index)
            state, info = step(generator, state, value_and_grad, controls)
            num_gradients += info.num_steps
            kept = index - num_warmup + 1
            if kept <= 0:
                state = adaptation.learn(index, state, info, generator)
                warmed = time.perf_counter()
            elif kept % thinning == 0:
                keeper.add(state, info, controls.step_size)
            if progress and time.perf_counter() - shown > _SHOWN:
                shown = time.perf_counter()
                bar.set_description("warmup" if kept <= 0 else "sample", refresh=False)
                bar.set_postfix_str(_said(controls.step_size, info), refresh=False)
            bar.update()
        keeper.flush()
        ended = time.perf_counter()
    return Record(
        np.swapaxes(keeper.positions, 0, 1),
        {name: np.swapaxes(value, 0, 1) for name, value in keeper.stats.items()},
        learnt(adaptation),
        adaptation.restarted,
        warmed - began,
        ended - warmed,
        num_gradients,
    )


class _Keeper:
    """The kept steps: a few wait on the device, the others stand on the host."""

    def __init__(self, position: Tensor, num_draws: int) -> None:
        num_chains, dtype = len(position), position.new_empty(0).cpu().numpy().dtype
        self.positions = np.empty((num_draws, *position.shape), dtype)
        kinds = {"lp": dtype, "energy": dtype, "acceptance_rate": dtype, "diverging": bool}
        kinds |= {"step_size": dtype, "n_steps": np.int64}
        self.stats = {n: np.empty((num_draws, num_chains), kind) for n, kind in kinds.items()}
        self._waiting: list[tuple[Tensor, ...]] = []
        self._count = 0

    def add(self, state: HMCState, info: HMCInfo, step_size: float | Tensor) -> None:
        row = self._count + len(self._waiting)
        self.stats["step_size"][row] = step_size
        self.stats["n_steps"][row] = info.num_steps
        energies = (state.potential, info.energy, info.acceptance, info.diverging)
        self._waiting.append((state.position, *energies))
        if len(self._waiting) == _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Fetch what waits."""
        if not self._waiting:
            return
        found = [torch.stack(part).cpu().numpy() for part in zip(*self._waiting, strict=True)]
        rows = slice(self._count, self._count + len(self._waiting))
        self.positions[rows] = found[0]
        self.stats["lp"][rows] = -found[1]
        names = ("energy", "acceptance_rate", "diverging")
        for name, value in zip(names, found[2:], strict=True):
            self.stats[name][rows] = value
        self._count, self._waiting = rows.stop, []


def learnt(adaptation: Any) -> dict[str, np.ndarray]:
    """Return what another run can begin with."""
    if not isinstance(adaptation, Adaptation):
        return adaptation.learnt()
    found: dict[str, Any] = {"step_size": np.exp(adaptation.step_size.log_average)}
    found["trajectory_length"] = adaptation.trajectory_length
    if adaptation.root is not None:
        found["root"] = adaptation.root.cpu().numpy()
    return {name: np.asarray(value) for name, value in found.items()}


def _said(step_size: float | Tensor, info: HMCInfo) -> str:
    size = float(torch.as_tensor(step_size).mean())
    rate, divergences = float(info.acceptance.mean()), int(info.diverging.sum())
    return f"step {size:.1e}, {info.num_steps} leapfrogs, acc. {rate:.2f}, {divergences} diverge"
