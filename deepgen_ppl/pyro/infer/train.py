"""The one training loop: steps without waiting for their losses, exact resume, early stopping."""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl.pyro.infer.checkpoint import Checkpoint, to_host
from deepgen_ppl.pyro.infer.optimizers import Optimizer
from deepgen_ppl.pyro.infer.step import Step

_MASK = (1 << 64) - 1


class Progress(NamedTuple):
    """What a callback is told; a truthy answer stops the run.

    Attributes:
        step: steps done.
        num_steps: steps asked for.
        loss: mean loss per datum since the last report.
        validation_loss: last validation loss per datum, None without validation data.
        params: returns the present parameters (constrained), copied.
    """

    step: int
    num_steps: int
    loss: float
    validation_loss: float | None
    params: Callable[[], dict[str, Any]]


class NonFiniteError(FloatingPointError):
    """A loss or gradient turned non-finite; the last finite state is kept.

    Attributes:
        step: the step, counted from 0, whose update was not applied.
        rows: rows of its batch, None for the full data.
        site: the first site whose log density or gradient is not finite, where one was found.
        fit: the `Fit` of the last finite state.
    """

    def __init__(self, message: str, step: int, rows: np.ndarray | None, site: str | None) -> None:
        super().__init__(message)
        self.step, self.rows, self.site = step, rows, site
        self.fit: Any = None


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
) -> TrainResult:
    """Minimise a loss; no step waits for its value, which is looked at every report.

    Batches are drawn without replacement: each epoch is a permutation from (seed, epoch) cut into
    floor(N / B) batches; its last N mod B rows wait for a later epoch. The noise of a step comes
    from (seed, step), so a run resumed from its checkpoint is the uninterrupted run, bit by bit
    (as long as both run their steps the same way).

    A report that finds a non-finite loss or parameter goes back to the state of an earlier report
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

    Returns:
        The result; a non-finite step is told by its `failed`.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    batches = _Batches(num_rows, batch_size, seed, step.tensors[0].device)
    run = _Run(step, buffers, batches, num_steps, per_datum, validate, patience, checkpoint, seed)
    run.resume()
    with _bar(progress, num_steps, run.done) as show, _interruptible() as interrupted:
        while run.done < num_steps and not run.stopped:
            run.advance(interrupted)
            if run.failed is not None:
                return run.result()
            if interrupted():
                run.save()
                where = f"; its state is in {checkpoint.path}" if checkpoint else ""
                raise KeyboardInterrupt(
                    f"svi interrupted after step {run.done} of {num_steps}{where}"
                )
            show(run.done, run.history["loss"][-1])
            told = run.progress(params)
            if any([callback(told) for callback in callbacks]):  # every callback hears of it
                run.stopped = run.stopped or "a callback asked to stop"
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
    """The state of a run: takes steps up to the next report, keeps losses, validates and saves."""

    def __init__(self, step, buffers, batches, num_steps, per_datum, validate, patience,  # type: ignore[no-untyped-def]
                 checkpoint, seed) -> None:  # fmt: skip
        self.step, self.buffers, self.batches = step, dict(buffers), batches
        self.num_steps, self.per_datum, self.seed = num_steps, per_datum, seed
        self.validate, self.patience, self.checkpoint = validate, patience, checkpoint
        self.report = max(1, num_steps // 100)
        self.losses: list[np.ndarray] = [np.zeros(0)]
        self.history: dict[str, list[float]] = {"step": [], "loss": [], "seconds": []}
        if validate is not None:
            self.history |= {"validation_step": [], "validation_loss": []}
        self.best: dict[str, Tensor] | None = None
        self.waited, self.stopped = 0, ""
        self.failed: int | None = None
        self.rows: np.ndarray | None = None
        self.before, self.done, self.begun = 0.0, 0, time.perf_counter()
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
        """Take the steps up to the next report and look at their losses."""
        stop = min(self.num_steps, (self.done // self.report + 1) * self.report)
        per_epoch = self.batches.per_epoch
        if self.validate is not None and per_epoch:
            stop = min(stop, (self.done // per_epoch + 1) * per_epoch)
        self._keep()
        values: list[Tensor] = []
        reached = self.done
        while reached < stop and not interrupted():
            rows = self.batches[reached]
            values.append(self.step(rows, self.key(reached)))
            reached += 1
            if not self.step.settled:
                self.step.consider(rows, self.num_steps - reached)
        if not values:
            return
        losses = torch.stack([value.detach().reshape(()) for value in values])
        losses = to_host(losses.double() / self.per_datum)  # waits for the device
        if not (np.isfinite(losses).all() and self._is_finite()):
            losses = self._find_failure(reached)
        self.losses.append(losses)
        self.done += len(losses)
        if self.failed is not None:
            return
        self.history["step"].append(self.done)
        self.history["loss"].append(float(np.mean(losses)))
        self.history["seconds"].append(self.seconds)
        ends_epoch = not per_epoch or self.done % per_epoch == 0
        if self.validate is not None and (ends_epoch or self.done == self.num_steps):
            self._judge(self.validate())

    def _is_finite(self) -> bool:
        # A sum is a single pass over a tensor; asking each element takes three.
        return all(bool(torch.isfinite(leaf.detach().sum())) for leaf in self.step.tensors)

    def _keep(self) -> None:
        """Keep the state to go back to, as often as that takes no more than 1% of the time."""
        begun = time.perf_counter()
        if not self.kept or begun > self.keep_again:
            self.kept, self.kept_step = {}, self.done
            self.kept = self._capture()
            now = time.perf_counter()
            self.keep_again = now + 100 * (now - begun)

    def _find_failure(self, reached: int) -> np.ndarray:
        """Go back and take the same steps one by one; stop before the one that fails."""
        self._restore(self.kept)
        losses: list[float] = []
        for number in range(self.kept_step, reached):
            before = self._capture()
            rows = self.batches[number]
            value = float(self.step(rows, self.key(number))) / self.per_datum
            if not (np.isfinite(value) and self._is_finite()):
                self._restore(before)
                self.failed = number
                self.rows = None if rows is None else rows.cpu().numpy()
                break
            if number >= self.done:
                losses.append(value)
        return np.asarray(losses)

    def _judge(self, value: float) -> None:
        earlier = min(self.history["validation_loss"], default=np.inf)
        self.history["validation_step"].append(self.done)
        self.history["validation_loss"].append(value)
        if self.patience is None:
            return
        if value < earlier or self.best is None:
            self.waited = 0
            self.best = {n: x.detach().clone() for n, x in self._tensors().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = f"no better validation loss in {self.patience} validations"

    def progress(self, params: Callable[[], dict[str, Any]]) -> Progress:
        validation = self.history.get("validation_loss", [])
        last = validation[-1] if validation else None
        return Progress(self.done, self.num_steps, self.history["loss"][-1], last, params)

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
        if self.patience is not None and self.best is not None:
            self._assign(self.best)

    def save(self) -> None:
        """Write the checkpoint, where one is wanted."""
        if self.checkpoint is None:
            return
        manifest = {
            "step": self.done,
            "seconds": self.seconds,
            "history": self.history,
            "waited": self.waited,
            "stopped": self.stopped,
            "mode": self.step.mode,
        }
        tree = {**self._capture(), "best": self.best}
        self.checkpoint.save(tree, {"losses": np.concatenate(self.losses)}, manifest)

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
        self.losses, self.history = [arrays["losses"]], manifest["history"]
        self.done, self.before = manifest["step"], manifest["seconds"]
        self.waited, self.stopped = manifest["waited"], manifest["stopped"]
        if self.step.wanted != "eager" and self.done < self.num_steps:
            self.step.enter(manifest["mode"], self.batches[self.done])

    def result(self) -> TrainResult:
        """Return what the run has come to."""
        return TrainResult(
            np.concatenate(self.losses),
            self.history,
            self.seconds,
            self.step.compile_seconds,
            self.stopped,
            self.failed,
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


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that the step at hand ends whole."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(seen)
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        if seen and callable(before):
            before(number, frame)
        seen.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _bar(wanted: bool, num_steps: int, done: int) -> Iterator[Callable[[int, float], None]]:
    if not wanted:
        yield lambda step, loss: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=num_steps, initial=done, desc="svi", unit="step", leave=True) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update(step - bar.n)

        yield show
