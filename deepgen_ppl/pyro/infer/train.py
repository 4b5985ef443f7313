"""The one training loop: steps without waiting for their losses, exact resume, early stopping."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl.loop import Progress, Record, bar, interruptible
from deepgen_ppl.pyro.infer.checkpoint import Checkpoint, to_host
from deepgen_ppl.pyro.infer.optimizers import Optimizer
from deepgen_ppl.pyro.infer.step import Step

_MASK = (1 << 64) - 1


@dataclass
class TrainResult:
    """What a run of the loop returns; the leaves hold the parameters.

    Attributes:
        losses: loss per datum of each step done.
        history: "step", "loss" (mean since the last report), "seconds" and, with validation data,
            "validation_step" and "validation_loss".
        seconds: time of the steps, tracing and compiling left out.
        compile_seconds: time of tracing and compiling.
        stopped: why the run ended before `num_steps`; empty otherwise.
        failed: the step whose loss or gradient was not finite, None without one.
        rows: rows of the failed step's batch, None for the full data.
    """

    losses: np.ndarray
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0
    stopped: str = ""
    failed: int | None = None
    rows: np.ndarray | None = None


def mix(*numbers: int) -> int:
    """Return a 63-bit seed from several numbers (SplitMix64).

    Example:
        >>> mix(0, 1) != mix(1, 0), 0 <= mix(3, 4) < 2**63
        (True, True)
    """
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def train(
    step: Step,
    buffers: Mapping[str, Tensor],
    *,
    num_steps: int,
    num_rows: int | None = None,
    batch_size: int | None = None,
    per_datum: int = 1,
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    params: Callable[[], dict[str, Any]] = dict,
    progress: bool = True,
    seed: int = 0,
    columns: Sequence[str] = (),
    monitor: Callable[[], Mapping[str, float]] | None = None,
    verb: str = "svi",
) -> TrainResult:
    """Minimise a loss; no step waits for its value, which is looked at later.

    Batches are drawn without replacement: each epoch is a permutation from (seed, epoch) cut into
    floor(N / B) batches; its last N mod B rows wait for a later epoch. The noise of a step comes
    from (seed, step), so a run resumed from its checkpoint is the uninterrupted run, bit by bit
    (as long as both run their steps the same way).

    A look at the losses that finds a non-finite one, or parameter, goes back to an earlier state
    and takes the same steps again, one by one, to the one that fails: that one is not applied.

    Args:
        step: the step; it changes leaves and buffers in place.
        buffers: buffers of the modules, by name.
        num_steps: number of steps.
        num_rows: rows N of the data.
        batch_size: rows B of a batch, None for all rows at every step.
        per_datum: number by which reported losses are divided.
        validate: returns the validation loss per datum; called once an epoch, or at every report
            without minibatches.
        patience: validations without improvement after which to stop with the best parameters.
        checkpoint: where to keep the state of the run.
        callbacks: functions of a `Progress`, called at every report; a truthy answer stops.
        params: returns the parameters as callbacks see them.
        progress: whether to show a bar.
        seed: seeds batches and noise.
        columns: names of what the loss returns beside its value; reports have their means.
        monitor: numbers that join the history at every report.
        verb: what runs, as the bar and Ctrl-C name it.

    Returns:
        The result; a non-finite step is told by its `failed`.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    batches = _Batches(num_rows, batch_size, seed, step.tensors[0].device)
    record = Record(
        num_steps,
        per_epoch=batches.per_epoch,
        validated=validate is not None,
        patience=patience,
        columns=columns,
        awaited=bool(callbacks) or monitor is not None,
        verb=verb,
    )
    run = _Run(step, buffers, batches, record, per_datum, validate, checkpoint, seed)
    run.resume()
    with bar(progress, num_steps, record.done, verb) as show, interruptible() as interrupted:
        while record.running:
            run.advance(interrupted)
            if record.failed is not None:
                return run.result()
            show(record.done, record.loss)
            record.note(monitor)
            record.tell(callbacks, params)
            if interrupted():
                run.save()
                raise record.interrupt(checkpoint and checkpoint.path)
            if checkpoint is not None and checkpoint.due():
                run.save()
    run.save()
    run.restore_best()
    return run.result()


class _Batches:
    """Rows of each step: a permutation per epoch, cut into batches."""

    def __init__(
        self, num_rows: int | None, size: int | None, seed: int, device: torch.device
    ) -> None:
        self.num_rows, self.size, self.seed, self.device = num_rows or 0, size, seed, device
        self.per_epoch = self.num_rows // size if size else 0
        self.epoch, self.order = -1, torch.empty(0)

    def __getitem__(self, step: int) -> Tensor | None:
        if not self.size:
            return None
        epoch, start = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, 0, epoch))
            self.order = torch.randperm(self.num_rows, generator=generator).to(self.device)
            self.epoch = epoch
        return self.order[start * self.size : (start + 1) * self.size]


class _Run:
    """The state of a run: takes steps up to the next look, validates and saves."""

    def __init__(self, step: Step, buffers: Mapping[str, Tensor], batches: _Batches,
                 record: Record, per_datum: int, validate: Callable[[], float] | None,
                 checkpoint: Checkpoint | None, seed: int) -> None:  # fmt: skip
        self.step, self.buffers, self.batches, self.record = step, dict(buffers), batches, record
        self.per_datum, self.validate, self.checkpoint = per_datum, validate, checkpoint
        self.seed = seed
        self.best: dict[str, Tensor] | None = None
        self.rows: np.ndarray | None = None
        self.before, self.begun = 0.0, time.perf_counter()
        self.kept: dict[str, Any] = {}
        self.kept_step, self.keep_again = 0, 0.0

    @property
    def optimizer(self) -> Optimizer:
        return self.step.optimizer

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.begun - self.step.compile_seconds

    def key(self, step: int) -> int:
        return mix(self.seed, 1, step)

    def advance(self, interrupted: Callable[[], bool]) -> None:
        """Take steps, look at their losses, and validate where that is due."""
        record = self.record
        self._keep()
        record.begin(self.seconds)
        values: list[Tensor] = []
        reached, stop = record.done, record.bound()
        while reached < stop and not interrupted() and not record.enough(self.seconds):
            rows = self.batches[reached]
            values.append(self.step(rows, self.key(reached), reached))
            reached += 1
            if not self.step.settled:
                self.step.consider(rows, record.num_steps - reached)
        if not values:
            return
        shape = (1 + len(record.columns),) if record.columns else ()
        losses = torch.stack([value.detach().reshape(shape) for value in values])
        losses = to_host(losses.double() / self.per_datum)  # waits for the device
        if not (np.isfinite(losses).all() and self._is_finite()):
            losses = self._find_failure(reached)
        record.add(losses, self.seconds)
        if record.failed is None and record.validates():
            assert self.validate is not None
            if record.judge(self.validate(), self.best is not None):
                self.best = {n: x.detach().clone() for n, x in self._tensors().items()}

    def _is_finite(self) -> bool:
        # A sum is a single pass over a tensor; asking each element takes three.
        return all(bool(torch.isfinite(leaf.detach().sum())) for leaf in self.step.tensors)

    def _keep(self) -> None:
        """Keep the state to go back to, as often as that takes no more than 1% of the time."""
        begun = time.perf_counter()
        if not self.kept or begun > self.keep_again:
            self.kept, self.kept_step = {}, self.record.done
            self.kept = self._capture()
            now = time.perf_counter()
            self.keep_again = now + 100 * (now - begun)

    def _find_failure(self, reached: int) -> np.ndarray:
        """Go back and take the same steps one by one; stop before the one that fails."""
        self._restore(self.kept)
        losses: list[np.ndarray] = []
        for number in range(self.kept_step, reached):
            before = self._capture()
            rows = self.batches[number]
            told = self.step(rows, self.key(number), number)
            value = to_host(told.double().reshape(self.record.kept.shape[1:]) / self.per_datum)
            if not (np.isfinite(value).all() and self._is_finite()):
                self._restore(before)
                self.record.failed = number
                self.rows = None if rows is None else rows.cpu().numpy()
                break
            if number >= self.record.done:
                losses.append(value)
        return np.asarray(losses).reshape(-1, *self.record.kept.shape[1:])

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.step.leaves, **self.buffers}

    def _capture(self) -> dict[str, Any]:
        self.step.store()
        tensors = {name: x.detach().clone() for name, x in self._tensors().items()}
        return {"tensors": tensors, "optimizer": copy.deepcopy(self.optimizer.state_dict())}

    def _restore(self, kept: Mapping[str, Any]) -> None:
        self._assign(kept["tensors"])
        self.optimizer.load_state_dict(copy.deepcopy(kept["optimizer"]))
        self.step.reload()

    def _assign(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, x in self._tensors().items():
                x.copy_(tensors[name])

    def restore_best(self) -> None:
        """Put the best parameters into the leaves, where patience asked for them."""
        if self.record.patience is not None and self.best is not None:
            self._assign(self.best)

    def save(self) -> None:
        """Write the checkpoint, where one is wanted."""
        if self.checkpoint is None:
            return
        self.record.begin(self.seconds)
        manifest = {**self.record.manifest(), "mode": self.step.mode}
        tree = {**self._capture(), "best": self.best}
        self.checkpoint.save(tree, {"losses": self.record.kept}, manifest)

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        tree, arrays, manifest = self.checkpoint.load()
        _check_shapes(self.checkpoint, self._tensors(), tree["tensors"])
        state = tree["optimizer"]
        state["state"] = {int(key): value for key, value in state["state"].items()}
        self._restore(tree)
        self.best = tree["best"]
        record = self.record
        record.restore(manifest, arrays["losses"])
        self.before = record.seconds
        if self.step.wanted != "eager" and record.done < record.num_steps:
            self.step.enter(manifest["mode"], self.batches[record.done])

    def result(self) -> TrainResult:
        """Return what the run has come to."""
        return TrainResult(
            self.record.all_losses,
            self.record.history,
            self.seconds,
            self.step.compile_seconds,
            self.record.stopped,
            self.record.failed,
            self.rows,
        )


def _check_shapes(
    checkpoint: Checkpoint, own: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> None:
    cure = f"Delete {checkpoint.path}, or give checkpoint= another path."
    for name in sorted(set(own) ^ set(stored)):
        where = "lacks" if name in own else "holds the unknown"
        raise ValueError(
            f"checkpoint {checkpoint.path} is of another run: it {where} array {name}. {cure}"
        )
    for name, tensor in own.items():
        if tuple(tensor.shape) != tuple(stored[name].shape):
            raise ValueError(
                f"checkpoint {checkpoint.path} is of another run: array {name} has shape "
                f"{tuple(stored[name].shape)}, expected {tuple(tensor.shape)}. {cure}"
            )
