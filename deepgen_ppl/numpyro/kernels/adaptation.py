"""Adaptation of vectorised kernels over all chains: step size, covariance, trajectory length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from deepgen_ppl.numpyro.kernels.estimates import (
    efficiency,
    estimate,
    lost_chains,
    scales,
    van_der_corput,
)
from deepgen_ppl.numpyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad

_SHARES = np.array([20, 20, 40, 60, 100]) / 240  # of the warm-up, for each window
_SHRINKAGE, _DELAY, _DECAY = 0.05, 10.0, 0.75  # gamma, t0 and kappa of dual averaging
_EARLY = 0.25  # share of a window that is too close to its start to count; half of the first
_SETTLING = 5.0  # leapfrog steps of a trajectory in the first window
_OWN_RATE = 0.5  # by which a chain's own step size follows its acceptance
_MOST = 2**26  # numbers that a window keeps


class Controls(NamedTuple):
    """What adaptation tells a kernel for its next step.

    Attributes:
        step_size: Size of a leapfrog step; one for each chain in the first window.
        trajectory_length: Length of the trajectory, for kernels that have one.
        jitter: A number in (0, 1) that varies from step to step.
        root: L with L L^T the estimated covariance: a lower triangular matrix or its diagonal.
    """

    step_size: Float[Array, " chain"]
    trajectory_length: Float[Array, ""]
    jitter: Float[Array, ""]
    root: Float[Array, " D"] | Float[Array, "D D"]


Step = Callable[[Array, HMCState, ValueAndGrad, Controls], tuple[HMCState, HMCInfo]]


def preconditioned(step: Callable[..., tuple[HMCState, HMCInfo]]) -> Step:
    """Return a step that takes its size and its covariance's root from what adaptation tells.

    Args:
        step: the step of a kernel, by the keywords `step_size` and `root`.
    """

    def bound(
        key: Array, state: HMCState, value_and_grad: ValueAndGrad, controls: Controls
    ) -> tuple[HMCState, HMCInfo]:
        size, root = controls.step_size, controls.root
        return step(key, state, value_and_grad, step_size=size, root=root)

    return bound


class StepSize(NamedTuple):
    """State of dual averaging, and the chains' own step sizes in the first window.

    Attributes:
        log_size: Logarithm of the step size to try.
        log_average: Logarithm of its weighted average, the one to sample with.
        error: Average of target less acceptance.
        count: Steps since the restart.
        centre: Logarithm of the step size that is shrunk to.
        own: Logarithm of each chain's own step size.
    """

    log_size: Float[Array, ""]
    log_average: Float[Array, ""]
    error: Float[Array, ""]
    count: Float[Array, ""]
    centre: Float[Array, ""]
    own: Float[Array, " chain"]


class Phase(NamedTuple):
    """What the steps of one window have in common: inputs of the compiled function.

    Attributes:
        evaluating: Whether the energies are computed where the chains are, and nothing moves.
        own: Whether each chain follows its own step size.
        learning: Whether the step size is adapted.
        trying: Whether the trajectory lengths are tried in turn.
        length: The trajectory length where they are not.
        lengths: The lengths to try.
        target: Acceptance rate that the step size is adapted to.
        root: L with L L^T the estimated covariance.
        source: The chain that each chain goes on from.
    """

    evaluating: Any
    own: Any
    learning: Any
    trying: Any
    length: Any
    lengths: Any
    target: Any
    root: Any
    source: Any


def controls(phase: Phase, step_size: StepSize, index: Int[Array, ""]) -> Controls:
    """Return what the step of a number, counted over warm-up and sampling, is taken with."""
    pooled = jnp.where(phase.learning, step_size.log_size, step_size.log_average)
    size = jnp.exp(jnp.where(phase.own, step_size.own, pooled))
    tried = phase.lengths[index % phase.lengths.shape[0]]
    length = jnp.where(phase.trying, tried, phase.length)
    length = jnp.where(phase.own, _SETTLING * size.mean(), length)
    still = phase.evaluating
    return Controls(
        jnp.where(still, 0.0, size),
        jnp.where(still, 0.0, length),
        van_der_corput(index),
        phase.root,
    )


def learn(phase: Phase, step_size: StepSize, acceptance: Float[Array, " chain"]) -> StepSize:
    """Return the step sizes after a step of all chains."""
    acceptance = jnp.nan_to_num(acceptance)
    pooled = dual_averaging(step_size, phase.target - acceptance.mean())
    learnt = phase.learning & ~phase.own & ~phase.evaluating
    chosen = [jnp.where(learnt, new, old) for new, old in zip(pooled, step_size, strict=True)]
    own = step_size.own + _OWN_RATE * (acceptance - phase.target)
    own = jnp.where(phase.own & ~phase.evaluating, own, step_size.own)
    return StepSize(*chosen)._replace(own=own)


class Adaptation:
    """What warm-up learns, over all chains, in windows of 20/20/40/60/100 parts.

    In the first window each chain has its own step size and goes downhill from where it started. At
    the end of each window but the last the covariance is pooled over chains and the trajectory
    length chosen; chains that are lost, in a place that cannot have a share of the target, go on
    from where another chain is. The last window settles the step size alone. The ends of windows
    are computed on the host; within them nothing leaves the device.

    Args:
        num_warmup: Steps of warm-up.
        like: Positions of the chains.
        target: Acceptance rate that the step size is adapted to.
        lengths: Trajectory lengths to choose from, in standard deviations of the target.
        step_size: The first step size to try.
        dense: Whether to estimate the whole covariance, or its diagonal.
        known: What an earlier run learnt (`step_size`, `root`, `trajectory_length`), to begin with.

    Attributes:
        ends: Steps at which the windows end.
        step_size: State of dual averaging.
        root: L with L L^T the estimated covariance: a lower triangular matrix or its diagonal.
        trajectory_length: The length to sample with.
        restarted: Number of chains that were lost and set out anew.
    """

    def __init__(
        self,
        num_warmup: int,
        like: Float[np.ndarray, "chain D"],
        *,
        target: float,
        lengths: Sequence[float] = (1.0,),
        step_size: float = 0.1,
        dense: bool = True,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        size, self.dtype = like.shape[-1], like.dtype
        self.target, self.lengths, self.dense = target, tuple(lengths), dense
        self.ends = windows(num_warmup).tolist()
        self.trajectory_length, self.restarted = self.lengths[len(self.lengths) // 2], 0
        self.root = (np.eye(size) if dense else np.ones(size)).astype(self.dtype)
        self.source = np.arange(len(like), dtype=np.int32)
        self._settled = known is not None
        if known is not None:
            step_size = float(known["step_size"])
            self.trajectory_length = float(known.get("trajectory_length", self.trajectory_length))
            self.root = _fit_root(known.get("root"), self.root)
        own = np.full(len(like), math.log(step_size), self.dtype)
        self.step_size: StepSize = restart(math.log(step_size), own)

    def phase(self, index: int, *, evaluating: bool = False) -> Phase:
        """Return what the steps from a number on have in common, to the end of their window."""
        learning = index < self.ends[-1]
        own = index < self.ends[0] and not self._settled
        return Phase(
            np.bool_(evaluating),
            np.bool_(own),
            np.bool_(learning),
            np.bool_(self.ends[0] <= index < self.ends[-2]),
            self.dtype.type(self.trajectory_length),
            np.array(self.lengths, self.dtype),
            self.dtype.type(self.target),
            self.root,
            self.source,
        )

    def close(self, end: int, window: Window, rng: np.random.Generator) -> None:
        """End a window: estimate the covariance, choose the length, replace lost chains.

        The last window only replaces lost chains.

        Args:
            end: Number of the step after it.
            window: The chains' steps in it.
            rng: Source of the choice of chains where others are lost.
        """
        self.source = np.arange(len(self.source), dtype=np.int32)
        if len(window) < 4:
            return
        fresh = end == self.ends[0] and not self._settled
        positions, potentials = window.late(0.5 if fresh else _EARLY)
        lost = lost_chains(positions, potentials)
        if lost.any():
            self.source[lost] = rng.choice(np.flatnonzero(~lost), lost.sum())
            self.restarted += int(lost.sum())
        if end == self.ends[-1]:
            return
        mean, root = estimate(positions[:, ~lost], self.dense)
        if np.isfinite(root).all():
            self.root = root.astype(self.dtype)
        own = np.asarray(self.step_size.own)
        if fresh:
            self.step_size = restart(math.log(0.5) - 0.25 * math.log(len(mean)), own)
        else:
            best = window.best_length(end, mean, root, ~lost, len(self.lengths))
            self.trajectory_length = self.lengths[best]
            self.step_size = restart(float(self.step_size.log_average), own)
        self._settled = True

    def learnt(self) -> dict[str, np.ndarray]:
        """Return what another run can begin with."""
        size = np.exp(np.asarray(self.step_size.log_average, float))
        found = {"step_size": size, "trajectory_length": np.asarray(self.trajectory_length)}
        return {**found, "root": np.asarray(self.root)}


class Window:
    """The chains' steps in one window of the warm-up, the latest of them where they are many."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self.parts)

    def add(
        self,
        positions: Float[np.ndarray, "step chain D"],
        potentials: Float[np.ndarray, "step chain"],
        num_steps: Int[np.ndarray, " step"],
    ) -> None:
        """Append some steps."""
        self.parts.append((positions, potentials, num_steps))
        while len(self.parts) > 1 and sum(part[0].size for part in self.parts) > _MOST:
            self.parts.pop(0)

    def late(self, early: float) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and potentials of the steps, the early part cut off."""
        cut = int(early * len(self))
        positions, potentials = (np.concatenate([part[i] for part in self.parts]) for i in (0, 1))
        return positions[cut:].astype(float), potentials[cut:].astype(float)

    def best_length(
        self, end: int, mean: np.ndarray, root: np.ndarray, kept: np.ndarray, num_lengths: int
    ) -> int:
        """Return the index of the trajectory length that was most worth its gradients."""
        positions = np.concatenate([part[0] for part in self.parts])[:, kept]
        y = (positions - mean.astype(positions.dtype)) / scales(root).astype(positions.dtype)
        costs = np.concatenate([part[2] for part in self.parts])
        numbers = np.arange(end - len(costs), end)
        rates = []
        for trial in range(num_lengths):
            mine = np.flatnonzero(numbers[1:] % num_lengths == trial)
            # Beside its gradients a step costs about one more: it is stored, mapped and diagnosed.
            worth = efficiency(y[mine], y[mine + 1]) if mine.size else 0.0
            rates.append(worth / (costs[1:][mine].mean() + 1.0) if mine.size else 0.0)
        return int(np.argmax(rates))


def windows(num_warmup: int) -> Int[np.ndarray, " W"]:
    """Return the steps at which the windows of a warm-up end: 20/20/40/60/100 parts of it.

    Example:
        >>> windows(240)
        array([ 20,  40,  80, 140, 240], dtype=int32)
    """
    return np.round(np.cumsum(_SHARES) * num_warmup).astype(np.int32)


# ------------------------------------------------------------------------------------ step size


def restart(log_size: float, own: Float[np.ndarray, " chain"]) -> StepSize:
    """Begin dual averaging anew at a step size."""
    size, zero = own.dtype.type(log_size), own.dtype.type(0.0)
    values: tuple[Any, ...] = (size, size, zero, zero, size, own)
    return StepSize(*values)


def dual_averaging(state: StepSize, error: Float[Array, ""]) -> StepSize:
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
    count = state.count + 1.0
    weight = 1.0 / (count + _DELAY)
    mean = (1.0 - weight) * state.error + weight * error
    log_size = state.centre - jnp.sqrt(count) / _SHRINKAGE * mean
    share = count**-_DECAY
    average = share * log_size + (1.0 - share) * state.log_average
    return StepSize(log_size, average, mean, count, state.centre, state.own)


def _fit_root(root: Any, like: np.ndarray) -> np.ndarray:
    """Return a known root in the form that is used here, a matrix or a diagonal."""
    if root is None:
        return like
    root = np.asarray(root, like.dtype)
    if root.ndim == like.ndim:
        return root
    return np.diag(root) if like.ndim == 2 else scales(root).astype(like.dtype)
