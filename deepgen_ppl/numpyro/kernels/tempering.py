"""Parallel tempering: chains on a ladder from the prior to the posterior that swap their places."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int

from deepgen_ppl import checks, ladders
from deepgen_ppl.numpyro.kernels import estimates, hmc
from deepgen_ppl.numpyro.kernels.adaptation import Controls, Step
from deepgen_ppl.numpyro.kernels.hmc import HMCInfo, HMCState

Sweep = Callable[[Array, Array, Array], tuple[Array, Array]]

_LENGTH = 1.5  # of trajectories, in standard deviations
_RATE, _DELAY, _DECAY = 1.0, 5.0, 0.75  # of the step sizes' adaptation
_SHARE = 0.02  # least weight of a step in running means, and of the ladder they ask for
_EARLY = 0.25  # share of a window that is too close to its start to count


@dataclass(frozen=True)
class ParallelTempering:
    r"""Chains at several temperatures, the hottest at the prior, that propose to swap places.

    \[ U_\beta(z) = -(1 - \beta) \log q(z) - \beta \log p(x, z), \qquad
       0 = \beta_0 < \dots < \beta_{T-1} = 1, \]

    with q the prior. Before each step neighbours swap with probability
    \(\min(1, e^{(\beta_{t+1} - \beta_t)(\ell_t - \ell_{t+1})})\), \(\ell = \log p(x, z) - \log
    q(z)\), even and odd pairs in turn. The prior is drawn from exactly, so that what comes down the
    ladder may come from any mode. During warm-up the ladder is moved until all pairs reject equally
    often. Only draws of the posterior are kept.

    Args:
        kernel: The kernel that moves the chains: `"chees"`, `"mala"`, `"rwm"`, or `"gibbs"`, which
            draws the discrete latents too, or its options.
        num_temperatures: Number T of temperatures.

    Raises:
        ValueError: Fewer than two temperatures.

    Cost:
        T times that of the kernel, and one more gradient and density a step.

    References:
        Syed, Bouchard-Côté, Deligiannidis, Doucet: Non-reversible parallel tempering: a scalable
        highly parallel MCMC scheme. JRSS B 84(2), 2022. https://arxiv.org/abs/1905.02939

        Swendsen and Wang: Replica Monte Carlo simulation of spin glasses. Physical Review Letters
        57, 1986.

    Example:
        >>> ParallelTempering("mala", num_temperatures=4).num_temperatures
        4
    """

    kernel: Any = "chees"
    num_temperatures: int = 8

    def __post_init__(self) -> None:
        checks.check_positive(num_temperatures=self.num_temperatures)
        if self.num_temperatures < 2:
            raise ValueError(
                f"num_temperatures must be at least 2, got {self.num_temperatures}: one is the "
                "prior's and one the posterior's."
            )


class Rungs(NamedTuple):
    """What the next step of the whole ladder needs.

    Attributes:
        position: Chains at each temperature.
        log_size: Logarithm of each temperature's step size.
        log_average: Logarithm of its weighted average, the one to sample with.
        since: Steps since the step sizes were restarted.
        swaps: Sum of each pair's mean acceptance.
        tried: Number of times each pair tried.
    """

    position: Float[Array, "T chain D"]
    log_size: Float[Array, " T"]
    log_average: Float[Array, " T"]
    since: Float[Array, ""]
    swaps: Float[Array, " pair"]
    tried: Float[Array, " pair"]


class Ladder(NamedTuple):
    """What the steps of a window have in common.

    Attributes:
        betas: Inverse temperatures, ascending from 0 to 1.
        roots: L of each temperature with L L^T the estimated covariance.
        inverses: Their inverses.
        learning: Whether step sizes are adapted.
        target: Acceptance rate they are adapted to.
    """

    betas: Float[Array, " T"]
    roots: Float[Array, "T D D"]
    inverses: Float[Array, "T D D"]
    learning: Bool[Array, ""]
    target: Float[Array, ""]


def first(
    num_temperatures: int,
    size: int,
    target: float,
    dtype: np.dtype,
    known: Mapping[str, np.ndarray] | None = None,
) -> Ladder:
    """Return the ladder before anything is known, or that of an earlier run.

    Args:
        num_temperatures: Number of temperatures.
        size: Number of continuous coordinates.
        target: Acceptance rate that step sizes are adapted to.
        dtype: Type of positions.
        known: `temperatures` and `roots` of that run.
    """
    roots = np.broadcast_to(np.eye(size, dtype=dtype), (num_temperatures, size, size))
    betas = ladders.first_betas(num_temperatures, dtype)
    if known is not None:
        betas, roots = known["temperatures"].astype(dtype), known["roots"].astype(dtype)
    inverses = np.linalg.inv(roots).astype(dtype)
    values: tuple[Any, ...] = (betas, roots, inverses, np.bool_(True), dtype.type(target))
    return Ladder(*values)


def restarted(rungs: Rungs, size: int, known: np.ndarray | None = None) -> Rungs:
    """Begin the adaptation of step sizes and the count of swaps anew, in standard coordinates.

    Args:
        rungs: State of the ladder.
        size: Number of continuous coordinates.
        known: Step sizes to begin with.
    """
    num, dtype = len(rungs.position), np.dtype(rungs.position.dtype)
    log_size = np.full(num, math.log(0.5) - 0.25 * math.log(max(size, 1)), dtype)
    log_size = log_size if known is None else np.log(known).astype(dtype)
    zeros = np.zeros(num - 1, dtype)
    values: tuple[Any, ...] = (rungs.position, log_size, log_size, dtype.type(0.0), zeros, zeros)
    return Rungs(*values)


def step(
    key: Array,
    number: Int[Array, ""],
    rungs: Rungs,
    ladder: Ladder,
    path: Any,
    kernel: Step,
    sweep: Sweep | None = None,
) -> tuple[Rungs, HMCInfo, Float[Array, " chain"], Float[Array, ""]]:
    """Refresh the prior's chains, let neighbours swap, and move all chains by a kernel.

    Where the path has discrete coordinates, a sweep over them follows.

    Args:
        key: Random key.
        number: Number of the step, which tells the pairs whose turn it is.
        rungs: State of the ladder.
        ladder: Its temperatures and covariances.
        path: The path from the prior to the posterior.
        kernel: The kernel's step.
        sweep: A key, positions and their inverse temperatures to positions and the largest
            discrepancy of their terms; None without discrete coordinates.

    Returns:
        The new state, what the kernel says of the step, the chains' energies at the posterior, and
        the discrepancy.
    """
    prior_key, swap_key, move_key = random.split(key, 3)
    num, chains, _ = rungs.position.shape
    position = rungs.position.at[0].set(path.sample(prior_key, chains))
    position, rate, active = swap(swap_key, number, position, ladder.betas, path)
    free, held = position[..., : path.num_free], position[..., path.num_free :]
    # At the prior the data do not count, be their density zero.
    beta = jnp.broadcast_to(jnp.maximum(ladder.betas, 1e-6)[:, None], (num, chains))

    def back(y: Array) -> Array:
        y = jnp.einsum("tde,tce->tcd", ladder.roots, y)
        return jnp.concatenate([y, held], -1) if held.shape[-1] else y

    def value_and_grad(y: Array) -> tuple[Array, Array]:
        (energy, _), gradient = path.tempered(beta)(back(y))
        return energy, jnp.einsum("tcd,tde->tce", gradient[..., : path.num_free], ladder.roots)

    chosen = jnp.where(ladder.learning, rungs.log_size, rungs.log_average)
    size = jnp.broadcast_to(jnp.exp(chosen)[:, None], (num, chains))
    jitter = estimates.van_der_corput(number)

    def once(i: Array, carry: tuple[HMCState, HMCInfo]) -> tuple[HMCState, HMCInfo]:
        # The first time computes the energies where the swaps left the chains: see `hmc.unknown`.
        still = i == 0
        steer = Controls(jnp.where(still, 0.0, size), jnp.where(still, 0.0, _LENGTH), jitter, None)  # type: ignore[arg-type]
        return kernel(random.fold_in(move_key, i), carry[0], value_and_grad, steer)

    start = hmc.unknown(jnp.einsum("tde,tce->tcd", ladder.inverses, free))
    steer = Controls(size, size[0, 0], jitter, None)  # type: ignore[arg-type]
    shapes = jax.eval_shape(lambda: kernel(move_key, start, value_and_grad, steer)[1])
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    end, info = lax.fori_loop(0, 2 if path.num_free else 0, once, (start, nothing))
    if not path.num_free:
        info = info._replace(acceptance=jnp.ones_like(info.acceptance))
    learnt = _learn(rungs, ladder, jnp.nan_to_num(info.acceptance).mean(-1))
    swaps, tried = rungs.swaps + rate, rungs.tried + active
    learnt = learnt._replace(swaps=swaps, tried=tried)
    position, energy, error = back(end.position), end.potential[-1], jnp.zeros(())
    if sweep is not None:
        flat, each = position.reshape(num * chains, -1), beta.reshape(-1)
        flat, error = sweep(random.fold_in(move_key, 2), flat, each)
        position = flat.reshape(position.shape)
        energy = -path.log_densities(position[-1])[1]
    return learnt._replace(position=position), info, energy, error


def swap(
    key: Array,
    number: Int[Array, ""],
    position: Float[Array, "T chain D"],
    betas: Float[Array, " T"],
    path: Any,
) -> tuple[Float[Array, "T chain D"], Float[Array, " pair"], Float[Array, " pair"]]:
    """Let neighbours swap, even pairs at even steps and odd ones at odd steps.

    Args:
        key: Random key.
        number: Number of the step.
        position: Chains at each temperature.
        betas: Inverse temperatures.
        path: The path from the prior to the posterior.

    Returns:
        The positions, the mean acceptance of each pair (0 where it had no turn), and whether it had
        one.
    """
    reference, target = path.log_densities(position)
    turn = exchange(key, number, log_rates(target - reference, betas))
    position = jnp.take_along_axis(position, turn.order[..., None], axis=0)
    return position, turn.rate, turn.active


class Turn(NamedTuple):
    """Who swaps with whom.

    Attributes:
        order: Where what stands at each temperature came from.
        rate: Mean acceptance of each pair, 0 where it had no turn.
        active: Whether it had one, as a number.
    """

    order: Int[Array, "T chain"]
    rate: Float[Array, " pair"]
    active: Float[Array, " pair"]


def log_rates(
    ratio: Float[Array, "T chain"], betas: Float[Array, " T"]
) -> Float[Array, "pair chain"]:
    """Return the logarithm of the rates at which neighbours swap on a path of one ratio.

    Args:
        ratio: Log density of the target less that of the reference, where the chains stand.
        betas: Inverse temperatures.
    """
    return (betas[1:] - betas[:-1])[:, None] * (ratio[:-1] - ratio[1:])


def exchange(key: Array, number: Int[Array, ""], log_rate: Float[Array, "pair chain"]) -> Turn:
    """Decide which neighbours swap, even pairs at even steps and odd ones at odd steps.

    Args:
        key: Random key.
        number: Number of the step.
        log_rate: Log density of both chains of a pair in each other's places less that of the pair.
    """
    num = len(log_rate) + 1
    rate = jnp.exp(jnp.minimum(jnp.nan_to_num(log_rate, nan=-jnp.inf, neginf=-jnp.inf), 0.0))
    active = (jnp.arange(num - 1) % 2) == number % 2
    swapped = active[:, None] & (random.uniform(key, rate.shape, rate.dtype) < rate)
    moved = swapped.astype(jnp.int32)
    none = jnp.zeros_like(moved[:1])
    up, down = jnp.concatenate([moved, none]), jnp.concatenate([none, moved])
    turn = active.astype(rate.dtype)
    return Turn(jnp.arange(num)[:, None] + up - down, turn * rate.mean(-1), turn)


class Spacing(NamedTuple):
    """A ladder that follows the rejections step by step, that all neighbours refuse equally often.

    Attributes:
        betas: Inverse temperatures, from 0 to 1.
        rejections: Running mean of how often each pair of neighbours refuses to swap.
        number: Steps done.
    """

    betas: Float[Array, " T"]
    rejections: Float[Array, " pair"]
    number: Int[Array, ""]

    @classmethod
    def first(cls, num_temperatures: int) -> Spacing:
        """Return the ladder before anything is known."""
        betas = jnp.asarray(ladders.first_betas(num_temperatures, np.dtype(jnp.zeros(()).dtype)))
        return cls(betas, jnp.full(num_temperatures - 1, 0.5), jnp.int32(0))

    def after(self, turn: Turn, learning: Any = True) -> Spacing:
        """Return the ladder after a step.

        Args:
            turn: Who swapped.
            learning: Whether temperatures move.
        """
        tries = self.number // 2 + 1  # of each pair, this one among them
        share = jnp.maximum(_SHARE, 1.0 / tries) * turn.active
        rejections = self.rejections + share * (1.0 - turn.rate - self.rejections)
        asked = ladders.equalised(self.betas, rejections, jnp)
        betas = self.betas + jnp.where(learning, _SHARE, 0.0) * (asked - self.betas)
        return Spacing(betas, rejections, self.number + 1)


def close(
    rungs: Rungs, ladder: Ladder, positions: Float[np.ndarray, "step T chain C"], dense: bool
) -> tuple[Rungs, Ladder]:
    """End a window: estimate every temperature's covariance, and space the ladder evenly.

    Args:
        rungs: State of the ladder.
        ladder: Its temperatures and covariances.
        positions: The window's steps, their continuous coordinates.
        dense: Whether to estimate whole covariances, or their diagonals.
    """
    late = positions[int(_EARLY * len(positions)) :].astype(float)
    dtype = positions.dtype
    rates = np.asarray(rungs.swaps) / np.maximum(np.asarray(rungs.tried), 1.0)
    betas = ladders.equalised(np.asarray(ladder.betas, float), 1.0 - rates).astype(dtype)
    size, values = late.shape[-1], {"betas": betas}
    if size:
        roots = [estimates.estimate(late[:, t], dense)[1] for t in range(late.shape[1])]
        roots = np.stack([root if root.ndim == 2 else np.diag(root) for root in roots])
        inverses = np.linalg.inv(roots).astype(dtype)
        values |= {"roots": roots.astype(dtype), "inverses": inverses}
    moved: Any = ladder._replace(**values)  # type: ignore[arg-type]
    return restarted(rungs, size), moved


def _learn(rungs: Rungs, ladder: Ladder, acceptance: Float[Array, " T"]) -> Rungs:
    since = rungs.since + 1.0
    log_size = rungs.log_size + _RATE / jnp.sqrt(since + _DELAY) * (acceptance - ladder.target)
    share = since**-_DECAY
    average = share * log_size + (1.0 - share) * rungs.log_average

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(ladder.learning, new, old)

    return rungs._replace(
        log_size=pick(log_size, rungs.log_size),
        log_average=pick(average, rungs.log_average),
        since=pick(since, rungs.since),
    )
