"""The chains that a contrastive run keeps: how they set out, move and are watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from deepgen_ppl import energy_checks
from deepgen_ppl import energy_monitors as monitors
from deepgen_ppl.loop import NonFiniteError
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.learn import (
    held_of,
    values_of,
)
from deepgen_ppl.pyro.infer.negative import OwnChains, Sampler
from deepgen_ppl.pyro.infer.phases import (
    Phases,
)
from deepgen_ppl.pyro.infer.program_chains import ProgramChains
from deepgen_ppl.pyro.infer.tempered_chains import Tuning
from deepgen_ppl.pyro.infer.train import mix

_SMOOTHING = 0.1
_LONGER = 10


@dataclass
class Pool:
    """All chains that are kept, and what is watched of them.

    Attributes:
        state: state of the sampler.
        rows: data row of each chain.
        age: updates since each chain set out.
        mean: running mean of each chain's centred log density.
        square: running mean of its square.
        tuning: what their moves are steered by, as the logarithm of the step size.
        number: updates done.
        watched: smoothed energies and acceptance.
        hidden: state of the chains on hidden sites given the data, of all rows; or None.
        hidden_step: logarithm of their step size.
    """

    state: Any
    rows: Int[Tensor, " chain"]
    age: Int[Tensor, " chain"]
    mean: Float[Tensor, " chain"]
    square: Float[Tensor, " chain"]
    tuning: Any
    number: Int[Tensor, ""]
    watched: dict[str, Tensor]
    hidden: Any
    hidden_step: Float[Tensor, ""]

    def tensors(self) -> dict[str, Tensor]:
        """Return all of them by name, as a checkpoint keeps them."""
        found = {name: getattr(self, name) for name in ("rows", "age", "mean", "square",
                 "number", "hidden_step")}  # fmt: skip
        found |= {f"watched.{name}": value for name, value in self.watched.items()}
        for name in ("state", "tuning", "hidden"):
            leaves = tree_leaves(getattr(self, name))
            found |= {f"{name}.{i}": leaf for i, leaf in enumerate(leaves) if leaf is not None}
        return {f"negative chains.{name}": value for name, value in found.items()}


@dataclass
class Run:
    """A run of contrastive training: the loss, the chains, and what may be asked of both."""

    model: Callable[..., Any]
    phases: Phases
    chains: Sampler
    given: ProgramChains | None
    positive: Callable[..., Any]
    data: tuple[Any, ...]
    batch_size: int | None
    by_row: bool
    options: Any = None

    def begin(self, leaves: Mapping[str, Tensor], seed: int) -> None:
        """Let the chains set out."""
        num_rows, options = self.num_rows, self.options
        size = options.buffer_size
        if not options.persistent:
            size = self.batch_size or num_rows
        elif self.by_row:
            size = num_rows
        rng = np.random.default_rng(seed)
        copies = 1 if self.by_row or not options.persistent else monitors.COPIES
        rows = np.arange(num_rows)
        if not self.by_row:
            groups = -(-size // copies)
            chosen = rng.permutation(num_rows) if groups <= num_rows else rng.integers(
                num_rows, size=groups)  # fmt: skip
            rows = np.repeat(chosen[:groups], copies)[:size]
        values = held_of(values_of(self.phases.pair, leaves))
        torch.manual_seed(mix(seed, 5))
        with handlers.validation(False):
            index = torch.as_tensor(rows.astype(np.int64))
            state = self.chains.start(values, self.data, index, options.start == "data")
            hidden = None
            if self.phases.positive == "sampled":
                assert self.given is not None
                hidden = self.given.start(values, self.data, torch.arange(num_rows), False)
            self.scale = self._scale(values)
        names = ("energy_data", "energy_chains", "energy_width", "acceptance", "discrepancy")
        own = torch.zeros(()) if self.given is None else self.given.tuning
        self.pool = Pool(
            tree_map(lambda leaf: leaf.detach().clone(), state), index,
            torch.zeros(size, dtype=torch.int64), torch.zeros(size), torch.zeros(size),
            tree_map(torch.clone, self.chains.tuning), torch.tensor(0),
            {name: torch.zeros(()) for name in names},
            tree_map(lambda leaf: leaf if leaf is None else leaf.detach().clone(), hidden),
            own.clone(),
        )  # fmt: skip

    @property
    def num_rows(self) -> int:
        """Number of rows of the data, 1 without rows."""
        return max(self.phases.pair.num_rows or 1, 1)

    def _scale(self, values: Mapping[str, Tensor]) -> float:
        """Return the root mean square of the data where chains live."""
        if not self.chains.is_continuous:
            return 0.0
        count = self.num_rows
        rows = torch.as_tensor(np.linspace(0, count - 1, min(count, 512)).astype(np.int64))
        place = self.chains.place(self.chains.start(values, self.data, rows, True))
        return float(place.square().mean().sqrt())

    @property
    def same_kind(self) -> float:
        """One where data and chains have energies of the same kind, else not a number.

        They differ where hidden units are summed out or bounded for the data, not for the chains.
        """
        if isinstance(self.chains, OwnChains):
            return 1.0 if self.chains.counts_visible else float("nan")
        own = isinstance(self.chains, ProgramChains)
        return float("nan") if own and self.phases.positive in ("exact", "guide") else 1.0

    # ----------------------------------------------------------------------------- the loss

    def loss(self, leaves: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        """Return energies of the data less those of the chains, times the rows."""
        pool, params = self.pool, values_of(self.phases.pair, leaves)
        held = held_of(params)
        count = self.num_rows
        if self.phases.positive == "sampled":
            data = self._sampled(params, held, rows)
        else:
            data = self.positive(params, rows) / count
        chosen, chain_rows, index, rate, worst = self._advance(held, rows)
        log_probs = self.chains.log_prob(params, self.data, chain_rows, chosen)
        self._remember(index, log_probs.detach())
        loss = data + log_probs.mean()
        seen = {
            "energy_data": data,
            "energy_chains": -log_probs.mean(),
            "energy_width": log_probs.std(correction=0) * self.same_kind,
            "acceptance": rate.mean(),
            "discrepancy": worst,
        }
        with torch.no_grad():
            share = 1.0 if int(pool.number) == 0 else _SMOOTHING
            for name, old in pool.watched.items():
                old.copy_((1 - share) * old + share * seen[name].detach())
            pool.number += 1
        return count * loss

    def _sampled(self, params: Any, held: Any, rows: Tensor | None) -> Tensor:
        """Draw the hidden sites of the batch by chains that go on from batch to batch."""
        assert self.given is not None
        pool = self.pool
        index = torch.arange(self.num_rows) if rows is None else rows
        own = tree_map(lambda leaf: leaf[index], pool.hidden)
        found = self.given.move(
            held, self.data, index, own, pool.hidden_step, self.options.chain_steps
        )
        _put(pool.hidden, found.state, index)
        pool.hidden_step.copy_(found.tuning)
        return -self.given.log_prob(params, self.data, index, found.state).mean()

    def _advance(self, held: Any, rows: Tensor | None) -> tuple[Any, Tensor, Any, Tensor, Tensor]:
        """Move the chains that are due; their index is a whole slice where all are."""
        options, pool = self.options, self.pool
        size = len(pool.rows)
        index: Any = slice(None)
        if not options.persistent:
            batch = pool.rows if rows is None else rows
            begun = self.chains.start(held, self.data, batch, options.start == "data")
            _put(pool.state, begun, index)
            pool.rows.copy_(batch)
        elif self.by_row and rows is not None:
            index = rows
        elif size > options.num_chains:
            index = torch.randperm(size)[: options.num_chains]
        chain_rows, age = pool.rows[index], pool.age[index]
        state = tree_map(lambda leaf: leaf[index], pool.state)
        if options.restart and options.persistent:
            fresh = self.chains.start(held, self.data, chain_rows, False)
            anew = torch.rand(len(chain_rows)) < options.restart
            state = tree_map(lambda a, b: _where(anew, a, b), fresh, state)
            age = torch.where(anew, 0, age)
        found = self.chains.move(
            held, self.data, chain_rows, state, pool.tuning, options.chain_steps
        )
        with torch.no_grad():
            pool.age[index] = age + 1
            _put(pool.state, found.state, index)
            _put(pool.tuning, found.tuning, ...)
        return found.state, chain_rows, index, found.acceptance, found.discrepancy

    def _remember(self, index: Any, log_probs: Tensor) -> None:
        """Keep the running moments of the chains that moved."""
        pool = self.pool
        centred = log_probs - log_probs.mean()
        share = (1.0 / pool.age[index]).clamp(min=monitors.RATE)
        pool.mean[index] = (1 - share) * pool.mean[index] + share * centred
        pool.square[index] = (1 - share) * pool.square[index] + share * centred**2

    # -------------------------------------------------------------------------- afterwards

    def short_run(self, params: Mapping[str, Tensor]) -> float:
        """Return how far chains from the base end from the kept ones' energies, in deviations."""
        pool = self.pool
        begun = self.chains.start(params, self.data, pool.rows, False)
        steps = _LONGER * self.options.chain_steps
        found = self.chains.move(params, self.data, pool.rows, begun, pool.tuning, steps)
        with torch.no_grad():
            fresh, kept = (
                self.chains.log_prob(params, self.data, pool.rows, state).double().cpu().numpy()
                for state in (found.state, pool.state)
            )
        width = max(float(kept.std()), 1e-12)
        return float((fresh.mean() - kept.mean()) / width)

    def blame(self, fit: Fit, result: Any, held: Mapping[str, Tensor], seed: int) -> NonFiniteError:
        """Return the error of the step that failed, naming the first chain that is not finite."""
        torch.manual_seed(mix(seed, 1, result.failed))
        rows = None if result.rows is None else torch.as_tensor(result.rows)
        chosen, chain_rows, *_ = self._advance(held, rows)
        with torch.no_grad():
            log_prob = self.chains.log_prob(held, self.data, chain_rows, chosen)
        bad = np.flatnonzero(~np.isfinite(log_prob.cpu().numpy()))
        chain = int(bad[0]) if bad.size else None
        return energy_checks.non_finite_energy(result.failed, chain, result.rows, fit)


class Watch:
    """What is watched at every report: numbers for the history."""

    def __init__(self, run: Run, leaves: Mapping[str, Tensor]) -> None:
        self.run, self.leaves = run, leaves
        self.before: tuple[Any, Any, Any] | None = None
        self.spread = 0.0

    def __call__(self) -> dict[str, float]:
        """Return what is watched at present."""
        pool = self.run.pool
        found = {name: float(value) for name, value in pool.watched.items()}
        age = pool.age.numpy()
        norms = [float(torch.linalg.vector_norm(leaf.detach())) for leaf in self.leaves.values()]
        found["weight_norm"] = float(np.hypot.reduce(norms))
        found["chain_age"] = float(age.mean()) * self.run.options.persistent
        mean, square = pool.mean.double().numpy(), pool.square.double().numpy()
        steady = self.run.options.persistent and not self.run.by_row and age.min() >= 50
        rhat = monitors.nested_rhat(mean, np.maximum(square - mean**2, 0.0)) if steady else np.nan
        found["chain_rhat"] = rhat
        found["chain_spread"] = self._spread()
        found["log_z_drift"] = self._drift()
        if isinstance(pool.tuning, Tuning):
            found["swap_acceptance"] = 1.0 - float(pool.tuning.spacing.rejections.max())
        return found

    def _spread(self) -> float:
        if not self.run.chains.is_continuous or not self.run.scale:
            return 0.0
        place = self.run.chains.place(self.run.pool.state)
        self.spread = float(place.double().square().mean().sqrt()) / self.run.scale
        return self.spread

    def _drift(self) -> float:
        """Return how log Z changed since the last report, by some chains as they were then."""
        run, before = self.run, self.before
        own = {name: leaf.detach().clone().requires_grad_() for name, leaf in self.leaves.items()}
        params = held_of(values_of(run.phases.pair, own))
        few = monitors.some(len(run.pool.rows))
        kept = tree_map(lambda leaf: leaf[few].clone(), run.pool.state)
        self.before = params, run.pool.rows[few].clone(), kept
        if before is None:
            return float("nan")
        old, rows, state = before
        with torch.no_grad():
            change = [
                run.chains.log_prob(own, run.data, rows, state).double() for own in (params, old)
            ]
        gain = change[0] - change[1]
        return float(torch.logsumexp(gain, 0) - np.log(len(gain)))


def _put(whole: Any, part: Any, index: Any) -> None:
    """Write the states of some chains in place."""
    with torch.no_grad():
        for old, new in zip(tree_leaves(whole), tree_leaves(part), strict=True):
            old[index] = new.to(old.dtype)


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(chosen.reshape(chosen.shape + (1,) * (a.dim() - 1)), a, b)
