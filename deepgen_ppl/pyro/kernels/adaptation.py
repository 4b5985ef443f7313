"""Adaptation of vectorised kernels over all chains: step size, covariance, trajectory length."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepgen_ppl.pyro.kernels.estimates import (
    efficiency,
    estimate,
    lost_chains,
    scales,
    van_der_corput,
)
from deepgen_ppl.pyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad

_SHARES = np.array([20, 20, 40, 60, 100]) / 240  # of the warm-up, for each window
_SHRINKAGE, _DELAY, _DECAY = 0.05, 10.0, 0.75  # gamma, t0 and kappa of dual averaging
_EARLY = 0.25  # share of a window that is too close to its start to count; half of the first
_SETTLING = 5.0  # leapfrog steps of a trajectory in the first window
_MOST = 2**26  # numbers that a window keeps


class Controls(NamedTuple):
    """What adaptation tells a kernel for its next step.

    Attributes:
        step_size: Size of a leapfrog step; one for each chain in the first window.
        trajectory_length: Length of the trajectory, for kernels that have one.
        jitter: A number in (0, 1) that varies from step to step.
        root: L with L L^T the estimated covariance; the identity when None.
    """

    step_size: float | Float[Tensor, " chain"]
    trajectory_length: float
    jitter: float
    root: Float[Tensor, " D"] | Float[Tensor, "D D"] | None


Step = Callable[[torch.Generator, HMCState, ValueAndGrad, Controls], tuple[HMCState, HMCInfo]]


def preconditioned(step: Callable[..., tuple[HMCState, HMCInfo]]) -> Step:
    """Return a step that takes its size and its covariance's root from what adaptation tells.

    Args:
        step: the step of a kernel, by the keywords `step_size` and `root`.
    """

    def bound(
        generator: torch.Generator,
        state: HMCState,
        value_and_grad: ValueAndGrad,
        controls: Controls,
    ) -> tuple[HMCState, HMCInfo]:
        size, root = controls.step_size, controls.root
        return step(generator, state, value_and_grad, step_size=size, root=root)

    return bound


class StepSize(NamedTuple):
    """State of dual averaging.

    Attributes:
        log_size: Logarithm of the step size to try.
        log_average: Logarithm of its weighted average, the one to sample with.
        error: Average of target less acceptance.
        count: Steps since the restart.
        centre: Logarithm of the step size that is shrunk to.
    """

    log_size: float
    log_average: float
    error: float
    count: float
    centre: float


class Adaptation:
    """What warm-up learns, over all chains, in windows of 20/20/40/60/100 parts.

    In the first window each chain has its own step size and goes downhill from where it started. At
    the end of each window but the last the covariance is pooled over chains and the trajectory
    length chosen; chains that are lost, in a place that cannot have a share of the target, go on
    from where another chain is. The last window settles the step size alone.

    Args:
        num_warmup: Steps of warm-up.
        target: Acceptance rate that the step size is adapted to.
        lengths: Trajectory lengths to choose from, in standard deviations of the target.
        step_size: The first step size to try.
        dense: Whether to estimate the whole covariance, or its diagonal.
        known: What an earlier run learnt (`step_size`, `root`, `trajectory_length`), to begin with.

    Attributes:
        step_size: State of dual averaging.
        root: L with L L^T the estimated covariance: a lower triangular matrix or its diagonal.
        trajectory_length: The length to sample with.
        restarted: Number of chains that were lost and set out anew.
    """

    def __init__(
        self,
        num_warmup: int,
        *,
        target: float,
        lengths: Sequence[float] = (1.0,),
        step_size: float = 0.1,
        dense: bool = True,
        known: dict[str, Tensor] | None = None,
    ) -> None:
        self.target, self.lengths, self.dense = target, tuple(lengths), dense
        self.ends = windows(num_warmup).tolist()
        self.step_size, self.root = restart(math.log(step_size)), None
        self.trajectory_length, self.restarted = self.lengths[len(self.lengths) // 2], 0
        self._own: Tensor | None = None  # log step sizes of the chains, in the first window
        self._settled = known is not None
        if known is not None:
            self.step_size = restart(math.log(float(known["step_size"])))
            self.root = known.get("root")
            self.trajectory_length = float(known.get("trajectory_length", self.trajectory_length))
        self._window = _Window()

    def controls(self, index: int) -> Controls:
        """Return what the step of a number, counted over warm-up and sampling, is taken with."""
        jitter = van_der_corput(index)
        if index >= self.ends[-1]:
            size = math.exp(self.step_size.log_average)
            return Controls(size, self.trajectory_length, jitter, self.root)
        if index < self.ends[0] and not self._settled and self._own is not None:
            own = self._own.exp()
            return Controls(own, _SETTLING * float(own.mean()), jitter, None)
        size, length = math.exp(self.step_size.log_size), self.trajectory_length
        if index < self.ends[-2] and index >= self.ends[0]:
            length = self.lengths[index % len(self.lengths)]
        return Controls(size, length, jitter, self.root)

    def begin(self, state: HMCState) -> None:
        """Get ready for chains in this state."""
        self._own = torch.full_like(state.potential, self.step_size.log_size)
        self._window = _Window(state)

    def learn(
        self, index: int, state: HMCState, info: HMCInfo, generator: torch.Generator
    ) -> HMCState:
        """Learn from the step of a number, and return the state to go on from.

        Args:
            index: Number of the step.
            state: State after it.
            info: What the kernel says of it.
            generator: Source of the choice of chains where others are lost.
        """
        if index < self.ends[0] and not self._settled and self._own is not None:
            error = torch.nan_to_num(info.acceptance) - self.target
            self._own = self._own + 0.5 * error
        else:
            # The one look from the host at each step.
            self.step_size = dual_averaging(
                self.step_size, self.target - float(info.acceptance.mean())
            )
        self._window.add(state, index % len(self.lengths), info.num_steps)
        return self._close(index + 1, state, generator) if index + 1 in self.ends[:-1] else state

    def _close(self, end: int, state: HMCState, generator: torch.Generator) -> HMCState:
        first = end == self.ends[0]
        window, self._window = self._window, _Window()
        if len(window.positions) < 4:
            self._window = _Window(state)
            return state
        positions, potentials = window.late(0.5 if first and not self._settled else _EARLY)
        lost = lost_chains(positions, potentials)
        kept = positions[:, ~lost]
        mean, self.root = estimate(kept, self.dense)
        if first and not self._settled:
            self.step_size, self._settled = (
                restart(math.log(0.5) - 0.25 * math.log(len(mean))),
                True,
            )
        else:
            best = window.best_length(mean, self.root, ~lost, len(self.lengths))
            self.trajectory_length = self.lengths[best]
            self.step_size = restart(self.step_size.log_average)
        count = int(lost.sum())
        if count:
            found = (~lost).nonzero().squeeze(1)
            picks = torch.randint(len(found), (count,), generator=generator, device=found.device)
            source = torch.arange(len(lost), device=lost.device)
            source[lost] = found[picks]
            state = HMCState(*(part[source] for part in state))
            self.restarted += count
        self._window = _Window(state)
        return state


class _Window:
    """The chains' steps in one window of the warm-up."""

    def __init__(self, state: HMCState | None = None) -> None:
        most = 1 if state is None else max(8, _MOST // max(state.position.numel(), 1))
        self.positions: deque[Tensor] = deque(maxlen=most)
        self.potentials: deque[Tensor] = deque(maxlen=most)
        self.trials: deque[int] = deque(maxlen=most)
        self.num_steps: deque[int] = deque(maxlen=most)
        if state is not None:
            self.add(state, -1, 0)

    def add(self, state: HMCState, trial: int, num_steps: int) -> None:
        self.positions.append(state.position)
        self.potentials.append(state.potential)
        self.trials.append(trial)
        self.num_steps.append(num_steps)

    def late(self, early: float) -> tuple[Tensor, Tensor]:
        """Return positions and potentials of the steps, the early part cut off."""
        cut = 1 + int(early * (len(self.positions) - 1))
        positions, potentials = list(self.positions)[cut:], list(self.potentials)[cut:]
        return torch.stack(positions), torch.stack(potentials)

    def best_length(self, mean: Tensor, root: Tensor, kept: Tensor, num_lengths: int) -> int:
        """Return the index of the trajectory length that was most worth its gradients."""
        trials, costs = np.array(self.trials)[1:], np.array(self.num_steps)[1:]
        y = (torch.stack(list(self.positions))[:, kept] - mean) / scales(root)
        rates = []
        for trial in range(num_lengths):
            mine = np.flatnonzero(trials == trial)
            if not mine.size:
                rates.append(0.0)
                continue
            index = torch.as_tensor(mine, device=y.device)
            # Beside its gradients a step costs about one more: it is stored, mapped and diagnosed.
            rates.append(float(efficiency(y[index], y[index + 1])) / (costs[mine].mean() + 1.0))
        return int(np.argmax(rates))


def windows(num_warmup: int) -> Int[np.ndarray, " W"]:
    """Return the steps at which the windows of a warm-up end: 20/20/40/60/100 parts of it.

    Example:
        >>> windows(240)
        array([ 20,  40,  80, 140, 240], dtype=int32)
    """
    return np.round(np.cumsum(_SHARES) * num_warmup).astype(np.int32)


# ------------------------------------------------------------------------------------ step size


def restart(log_size: float) -> StepSize:
    """Begin dual averaging anew at a step size."""
    return StepSize(log_size, log_size, 0.0, 0.0, log_size)


def dual_averaging(state: StepSize, error: float) -> StepSize:
    r"""Move the step size by how far the acceptance missed its target.

    \[ \bar e_t = (1 - \tfrac{1}{t + t_0}) \bar e_{t-1} + \tfrac{1}{t + t_0} e_t, \qquad
       \log \epsilon_t = \mu - \tfrac{\sqrt t}{\gamma} \bar e_t. \]

    Args:
        state: State of dual averaging.
        error: Target less acceptance, of the mean over chains.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler, section 3.2. JMLR 15, 2014.
        https://arxiv.org/abs/1111.4246
    """
    error = error if math.isfinite(error) else 1.0
    count = state.count + 1.0
    weight = 1.0 / (count + _DELAY)
    mean = (1.0 - weight) * state.error + weight * error
    log_size = state.centre - math.sqrt(count) / _SHRINKAGE * mean
    share = count**-_DECAY
    average = share * log_size + (1.0 - share) * state.log_average
    return StepSize(log_size, average, mean, count, state.centre)
