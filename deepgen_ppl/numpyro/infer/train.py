"""The one training loop: many steps per compiled call, exact resume, early stopping."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl.numpyro.compilation import Build
from deepgen_ppl.numpyro.infer.checkpoint import Checkpoint
from deepgen_ppl.numpyro.infer.optimizers import as_optimizer
from deepgen_ppl.numpyro.infer.step import Loss, State, Steps
from deepgen_ppl.numpyro.program import Inputs, as_key


class Progress(NamedTuple):
    """What a callback is told; a truthy answer stops the run.

    Attributes:
        step: steps done.
        num_steps: steps asked for.
        loss: mean loss per datum since the last report.
        validation_loss: last validation loss per datum, None without validation data.
        params: returns the present parameters (constrained), copied to the host.
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


class Validation(NamedTuple):
    """How the validation loss is evaluated.

    Attributes:
        loss: (params, mutable, *args) -> loss per datum.
        args: its further arguments, arrays.
        static: what its code depends on beside them.
    """

    loss: Callable[..., Array]
    args: tuple = ()
    static: Hashable = ()


@dataclass
class TrainResult:
    """What a run of the loop returns.

    Attributes:
        params: unconstrained parameters, the best ones where patience asked for them.
        mutable: mutable state that belongs to them.
        losses: loss per datum of each step done.
        history: "step", "loss" (mean since the last report), "seconds" and, with validation data,
            "validation_step" and "validation_loss".
        seconds: time of the steps.
        compile_seconds: time of tracing and compiling.
        stopped: why the run ended before `num_steps`; empty otherwise.
        failed: the step whose loss or gradient was not finite, None without one.
        rows: rows of that step's batch.
    """

    params: Any
    mutable: Any
    losses: np.ndarray
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0
    stopped: str = ""
    failed: int | None = None
    rows: np.ndarray | None = None


def train(
    loss: Loss,
    params: Any,
    mutable: Any,
    inputs: Inputs,
    *,
    num_steps: int,
    batch_size: int | None = None,
    optim: Any = None,
    per_datum: int = 1,
    clip_norm: float | None = None,
    validate: Validation | None = None,
    patience: int | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    constrain: Callable[[Any, Any], dict[str, Any]] = lambda params, mutable: params,
    progress: bool = True,
    seed: int | Array = 0,
    build: Build | None = None,
) -> TrainResult:
    """Minimise a loss; nothing crosses to the host between two reports.

    Batches are drawn without replacement: each epoch is a permutation from (seed, epoch) cut into
    floor(N / B) batches; its last N mod B rows wait for a later epoch. The noise of a step comes
    from (seed, step), so a run resumed from its checkpoint is the uninterrupted run, bit by bit.

    A report that finds a non-finite loss or parameter goes back to the state of the report before
    and takes the same steps again, looking at each gradient, to the one that fails: that one is not
    applied.

    Args:
        loss: loss of the whole data and new mutable state.
        params: unconstrained parameters to start from.
        mutable: mutable state to start from.
        inputs: inputs of the programs at all N rows.
        num_steps: number of steps.
        batch_size: rows B of a batch, None for all rows at every step.
        optim: optimizer, see `as_optimizer`.
        per_datum: number by which reported losses are divided.
        clip_norm: largest norm of the gradient.
        validate: the validation loss per datum; evaluated once an epoch, or at every report
            without minibatches.
        patience: validations without improvement after which to stop with the best parameters.
        checkpoint: where to keep the state of the run.
        callbacks: functions of a `Progress`, called at every report; a truthy answer stops.
        constrain: (params, mutable) -> parameters as callbacks see them.
        progress: whether to show a bar.
        seed: seeds batches and noise.
        build: where the compiled functions are kept; their code must depend on nothing that it
            does not know. By default they are those of this call.

    Returns:
        The result; a non-finite step is told by its `failed`.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    report = max(1, num_steps // 100)
    run = _Run(
        loss=Steps(loss, as_optimizer(optim, clip_norm), batch_size, per_datum, report),
        validate=validate,
        patience=patience,
        checkpoint=checkpoint,
        num_steps=num_steps,
    )
    run.compile(build or Build(loss), params, mutable, inputs, as_key(seed))
    run.resume()
    with _bar(progress, num_steps, run.done) as show, _interruptible() as interrupted:
        while run.done < num_steps and not run.stopped and run.failed is None:
            run.advance()
            if run.failed is not None:
                break
            show(run.done, run.history["loss"][-1])
            told = run.progress(constrain)
            if any([callback(told) for callback in callbacks]):  # every callback hears of it
                run.stopped = run.stopped or "a callback asked to stop"
            if interrupted():
                run.save()
                where = f"; its state is in {checkpoint.path}" if checkpoint else ""
                raise KeyboardInterrupt(f"interrupted after step {run.done} of {num_steps}{where}")
            if checkpoint is not None and checkpoint.due():
                run.save()
    if run.failed is None:
        run.save()
    return run.result()


class _Run:
    """The host's part: calls the compiled steps, keeps the losses, validates and saves."""

    def __init__(self, loss: Steps, validate: Validation | None, patience: int | None,
                 checkpoint: Checkpoint | None, num_steps: int) -> None:  # fmt: skip
        self.steps, self.validate, self.patience = loss, validate, patience
        self.checkpoint, self.num_steps = checkpoint, num_steps
        self.losses: list[np.ndarray] = [np.zeros(0)]
        self.history: dict[str, list[float]] = {"step": [], "loss": [], "seconds": []}
        if validate is not None:
            self.history |= {"validation_step": [], "validation_loss": []}
        self.best: Any = None
        self.waited, self.stopped = 0, ""
        self.failed: int | None = None
        self.before, self.done = 0.0, 0

    def compile(self, build: Build, params: Any, mutable: Any, inputs: Inputs, key: Array) -> None:
        begun = time.perf_counter()
        self.inputs, self.key = inputs, key
        self.state = self.steps.start(params, mutable, inputs)
        self.num_batches = self.steps.num_batches(inputs)
        steps = self.steps
        static = (steps.batch_size, steps.per_datum, steps.length, steps.optimizer.code)
        build.add("steps", steps.__call__, self.state, inputs, key, jnp.int32(0), static=static)
        if self.validate is not None:
            fn, args, also = self.validate
            args = (self.state.params, self.state.mutable, *args)
            build.add("validate", fn, *args, static=also)
        made = build.compile()
        self.call, self.judged = made["steps"], made.get("validate")
        self.compile_seconds = time.perf_counter() - begun
        self.begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.begun

    def advance(self) -> None:
        report = self.steps.length
        stop = min(self.num_steps, (self.done // report + 1) * report)
        if self.validate is not None and self.num_batches:
            stop = min(stop, (self.done // self.num_batches + 1) * self.num_batches)
        before, count = self.state, jnp.int32(stop - self.done)
        self.state, losses = self.call(before, self.inputs, self.key, count)
        if not bool(self.state.finite):  # waits for the device
            losses = self._find_failure(before, count)
        reached = int(self.state.step)
        self.losses.append(np.asarray(losses, np.float64)[: reached - self.done])
        self.done = reached
        if self.failed is not None:
            return
        self.history["step"].append(reached)
        self.history["loss"].append(float(np.mean(self.losses[-1])))
        self.history["seconds"].append(self.seconds)
        ends_epoch = not self.num_batches or reached % self.num_batches == 0
        if self.validate is not None and (ends_epoch or reached == self.num_steps):
            self._judge(self._validation_loss())

    def _validation_loss(self) -> float:
        assert self.validate is not None and self.judged is not None
        return float(self.judged(self.state.params, self.state.mutable, *self.validate.args))

    def _find_failure(self, before: State, count: Array) -> Array:
        """Take the same steps again, carefully; stop before the one that fails."""
        careful = jax.jit(replace(self.steps, careful=True).__call__)
        state, losses = careful(before, self.inputs, self.key, count)
        if bool(state.finite):
            self.state = state
            return losses
        self.failed = int(state.step)
        count = jnp.int32(self.failed - self.done)
        kept, _ = careful(before, self.inputs, self.key, count)
        self.state = kept._replace(rows=state.rows)
        return losses

    def _judge(self, value: float) -> None:
        earlier = min(self.history["validation_loss"], default=np.inf)
        self.history["validation_step"].append(self.done)
        self.history["validation_loss"].append(value)
        if self.patience is None:
            return
        if value < earlier or self.best is None:
            self.waited = 0
            self.best = self.state.params, self.state.mutable
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = f"no better validation loss in {self.patience} validations"

    def progress(self, constrain: Callable) -> Progress:
        state, validation = self.state, self.history.get("validation_loss", [])
        return Progress(
            self.done,
            self.num_steps,
            self.history["loss"][-1],
            validation[-1] if validation else None,
            lambda: jax.device_get(constrain(state.params, state.mutable)),
        )

    def save(self) -> None:
        if self.checkpoint is None:
            return
        best = self.best or (self.state.params, self.state.mutable)
        manifest = {
            "step": self.done,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best is not None,
            "waited": self.waited,
            "stopped": self.stopped,
        }
        losses = {"losses": np.concatenate(self.losses)}
        self.checkpoint.save((self.state, best), losses, manifest)

    def resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        like = self.state, (self.state.params, self.state.mutable)
        (state, best), arrays, manifest = self.checkpoint.load(like)
        self.state, self.best = state, best if manifest["best"] else None
        self.losses, self.history = [arrays["losses"]], manifest["history"]
        self.done, self.before = manifest["step"], manifest["seconds"]
        self.waited, self.stopped = manifest["waited"], manifest["stopped"]

    def result(self) -> TrainResult:
        best = self.best if self.patience is not None else None
        params, mutable = best or (self.state.params, self.state.mutable)
        return TrainResult(
            params,
            mutable,
            np.concatenate(self.losses),
            self.history,
            self.seconds,
            self.compile_seconds,
            self.stopped,
            self.failed,
            None if self.failed is None else self._batch(self.failed),
        )

    def _batch(self, step: int) -> np.ndarray | None:
        size = self.steps.batch_size
        if size is None:
            return None
        start = step % self.num_batches * size
        return np.asarray(self.state.rows)[start : start + size]


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


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C until the steps under way are done, so that the state is whole; twice raises."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.getsignal(signal.SIGINT)
    asked: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, previous)
