"""The driver of parallel tempering: a ladder of chains, its warm-up and the swaps between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import discrete as discrete_
from deepgen_ppl import ladders
from deepgen_ppl.pyro.kernels import adaptation as adaptation_
from deepgen_ppl.pyro.kernels import estimates, tempering
from deepgen_ppl.pyro.kernels.adaptation import Controls, StepSize
from deepgen_ppl.pyro.kernels.hmc import HMCInfo, HMCState, ValueAndGrad
from deepgen_ppl.pyro.mixed import MixedPath
from deepgen_ppl.pyro.path import Path

Sweep = Callable[[torch.Generator, Tensor, Tensor, bool], tuple[Tensor, float]]

_LENGTH = 1.5  # of trajectories, in standard deviations
_RATE, _DELAY = 1.0, 5.0  # of the step sizes' adaptation
_POOL = 64  # exact draws of the prior that are made together, for each chain


class Tempered:
    """The ladder of one run: its kernel, its adaptation and the chains that are not kept.

    To the driver it is both a kernel's step and what learns during warm-up; the state that it hands
    out is that of the chains at the posterior.

    Args:
        kernel: Options of the kernel that moves the continuous coordinates.
        num_temperatures: Number of temperatures.
        num_warmup: Steps of warm-up.
        path: The path from the prior to the posterior.
        dense: Whether whole covariances are estimated, or their diagonals.
        generator: Source of the first draws of the prior.
        known: What an earlier run learnt.
        sweep: A generator, positions, their inverse temperatures and whether to check, to positions
            and the largest discrepancy of their terms; None without discrete coordinates.

    Attributes:
        betas: Inverse temperatures, from 0 to 1.
        swap_rates: Mean acceptance of the swaps of each pair of neighbours, since warm-up.
        discrepancy: Largest relative difference of terms put together in a sweep from the whole.
    """

    def __init__(
        self,
        kernel: Any,
        num_temperatures: int,
        num_warmup: int,
        path: Path | MixedPath,
        dense: bool,
        generator: torch.Generator,
        known: Mapping[str, np.ndarray] | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        self.kernel, self.bound, self.dense = kernel, kernel.bind(), dense
        self._generator, self._sweep, self._known = generator, sweep, known
        self.densities, self.draw, self.free = path.densities, path.sample, path.num_free
        self.ends = adaptation_.windows(num_warmup).tolist()
        self.betas = ladders.first_betas(num_temperatures)
        self.trajectory_length, self.restarted, self.discrepancy = _LENGTH, 0, 0.0
        self.root: Tensor | None = None  # of the posterior's covariance
        self._sizes = np.full(num_temperatures, math.log(0.5))
        if known is not None:
            self.betas, self._sizes = (
                known["temperatures"].astype(float),
                np.log(known["step_sizes"]),
            )
        self._mean_sizes, self._since = self._sizes.copy(), 0 if num_warmup else -1
        self._number = 0
        self._swaps, self._tried = np.zeros(num_temperatures - 1), np.zeros(num_temperatures - 1)
        self._pool: Tensor | None = None
        self._window: list[Tensor] = []

    @property
    def step_size(self) -> StepSize:
        """Step size at the posterior."""
        return adaptation_.restart(float(self._mean_sizes[-1]))

    def learnt(self) -> dict[str, np.ndarray]:
        """Return what another run can begin with."""
        sizes, roots = np.exp(self._mean_sizes), self.roots.cpu().numpy()
        return {"temperatures": self.betas, "step_sizes": sizes, "roots": roots}

    @property
    def swap_rates(self) -> Float[np.ndarray, " pair"]:
        """Mean acceptance of the swaps of each pair of neighbours."""
        return self._swaps / np.maximum(self._tried, 1.0)

    def controls(self, index: int) -> Controls:
        """Return what the step of a number is taken with; its step size is the posterior's."""
        sizes = self._sizes if index < self.ends[-1] else self._mean_sizes
        jitter = estimates.van_der_corput(index)
        return Controls(math.exp(sizes[-1]), self.trajectory_length, jitter, None)

    def begin(self, state: HMCState) -> None:
        """Set the ladder up: the given chains at the posterior, draws of the prior elsewhere."""
        num_chains, size = state.position.shape
        num = len(self.betas)
        hot = self.draw(self._generator, num_chains * (num - 1)).to(state.position)
        self.z = torch.cat([hot.reshape(num - 1, num_chains, size), state.position[None]])
        eye = torch.eye(self.free).to(state.position)
        self.roots = eye.expand(num, self.free, self.free).clone()
        if self._known is not None:
            self.roots = torch.as_tensor(self._known["roots"]).to(state.position)
        self._evaluate()

    def step(
        self,
        generator: torch.Generator,
        state: HMCState,
        value_and_grad: ValueAndGrad,
        controls: Controls,
    ) -> tuple[HMCState, HMCInfo]:
        """Move all chains, then let neighbours swap; return what is seen at the posterior."""
        learning = self._since >= 0
        sizes = torch.as_tensor(self._sizes if learning else self._mean_sizes).to(self.z)
        each = sizes.exp()[:, None].expand(self.z.shape[:-1])
        # Standardised coordinates of each temperature: there the root is the identity.
        free, held = self.z[..., : self.free], self.z[..., self.free :]

        def back(x: Tensor) -> Tensor:
            x = x @ self.roots.mT
            return torch.cat([x, held], -1) if held.shape[-1] else x

        def standardised(x: Tensor) -> tuple[Tensor, Tensor]:
            return self._tempered(*self._look(back(x)))

        energy, gradient = self._tempered(self.values, self.grads)
        if self.free:
            inverse = torch.linalg.solve_triangular(self.roots, free.mT, upper=False).mT
            start = HMCState(inverse, energy, gradient)
            options = controls._replace(step_size=each, root=None)
            new, info = self.bound(generator, start, standardised, options)
            self.z = back(new.position)
        else:
            none, one = torch.zeros_like(energy).bool(), torch.ones_like(energy)
            info = HMCInfo(one, ~none, energy, none, 0, free, free)
        self._discrete(generator)
        self._refresh_prior(generator)
        self._evaluate()
        self._acceptance = info.acceptance.mean(-1)
        self._swap(generator)
        potential, gradient = (part[-1] for part in self._tempered(self.values, self.grads))
        cold: list[Any] = [part[-1] if isinstance(part, Tensor) else part for part in info]
        return HMCState(self.z[-1], potential, gradient), HMCInfo(*cold)

    def learn(
        self, index: int, state: HMCState, info: HMCInfo, generator: torch.Generator
    ) -> HMCState:
        """Adapt step sizes; at the end of a window covariances and ladder."""
        self._since += 1
        error = self._acceptance.cpu().numpy() - self.kernel.target_accept_prob
        self._sizes = self._sizes + _RATE / math.sqrt(self._since + _DELAY) * np.nan_to_num(error)
        share = self._since**-0.75
        self._mean_sizes = share * self._sizes + (1.0 - share) * self._mean_sizes
        self._window.append(self.z)
        if index + 1 in self.ends:
            self._close(index + 1)
        return state

    def _discrete(self, generator: torch.Generator) -> None:
        """Draw the discrete coordinates of all chains by Gibbs sampling."""
        if self._sweep is None:
            return
        check, self._number = self._number % discrete_.CHECKED_EVERY == 0, self._number + 1
        beta = torch.as_tensor(self.betas).to(self.z).clamp(min=1e-6)  # the prior is drawn anew
        each = beta[:, None].expand(self.z.shape[:-1]).reshape(-1)
        flat, error = self._sweep(generator, self.z.reshape(len(each), -1), each, check)
        self.z, self.discrepancy = flat.reshape(self.z.shape), max(self.discrepancy, error)

    def _close(self, end: int) -> None:
        positions = torch.stack(self._window[len(self._window) // 4 :])
        self._window, self._since = [], 0
        if end == self.ends[-1]:
            self._since = -1
            self._swaps[:], self._tried[:] = 0.0, 0.0
            return
        if len(positions) < 4:
            return
        self.betas = ladders.equalised(self.betas, 1.0 - self.swap_rates)
        self._swaps[:], self._tried[:] = 0.0, 0.0
        for t in range(len(self.betas) if self.free else 0):
            root = estimates.estimate(positions[:, t, :, : self.free], self.dense)[1]
            self.roots[t] = root if root.dim() == 2 else torch.diag(root)
        self.root = self.roots[-1] if self.dense else self.roots[-1].diagonal()
        self._sizes = np.full(len(self.betas), math.log(0.5) - 0.25 * math.log(max(self.free, 1)))
        self._mean_sizes = self._sizes.copy()

    def _look(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return both log densities (2, t, chain) and their gradients (2, t, chain, D)."""
        found = self.densities(z.reshape(-1, z.shape[-1]))
        values = torch.stack([found.log_reference, found.log_target])
        grads = torch.stack([found.grad_reference, found.grad_target])
        return values.reshape(2, *z.shape[:-1]), grads.reshape(2, *z.shape)

    def _evaluate(self) -> None:
        self.values, self.grads = self._look(self.z)

    def _tempered(self, values: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies and gradients at the ladder's temperatures, in standardised places."""
        beta = torch.as_tensor(self.betas).to(values)[:, None]
        # At the prior and at the posterior the other density, infinite perhaps, does not count.
        parts = torch.stack([1.0 - beta, beta])
        energy = -torch.where(parts > 0, parts * values, 0.0).sum(0)
        parts = parts.unsqueeze(-1)
        gradient = -torch.where(parts > 0, parts * grads, 0.0).sum(0)
        return energy, gradient[..., : self.free] @ self.roots

    def _refresh_prior(self, generator: torch.Generator) -> None:
        """Put exact draws of the prior at the hottest temperature."""
        num_chains = self.z.shape[1]
        if self._pool is None or not len(self._pool):
            self._pool = self.draw(generator, num_chains * _POOL).to(self.z)
        hot, self._pool = self._pool[:num_chains], self._pool[num_chains:]
        self.z = torch.cat([hot[None], self.z[1:]])

    def _swap(self, generator: torch.Generator) -> None:
        """Let neighbours swap: even pairs at one step, odd ones at the next."""
        self._parity = 1 - getattr(self, "_parity", 1)
        beta = torch.as_tensor(self.betas).to(self.z)
        log_rates = tempering.log_rates(self.values[1] - self.values[0], beta)
        turn = tempering.exchange(self._parity, log_rates, generator=generator)
        chain = torch.arange(self.z.shape[1], device=self.z.device)
        self.z = self.z[turn.order, chain]
        self.values, self.grads = (
            self.values[:, turn.order, chain],
            self.grads[:, turn.order, chain],
        )
        self._swaps += turn.rate.cpu().numpy()
        self._tried += turn.active.cpu().numpy()
