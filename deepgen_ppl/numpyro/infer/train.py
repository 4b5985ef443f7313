"""The one training loop: many steps per compiled call, exact resume, early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deepgen_ppl.loop import Progress, Record, bar, interruptible
from deepgen_ppl.numpyro.compilation import Build
from deepgen_ppl.numpyro.convolutions import trace
from deepgen_ppl.numpyro.infer.checkpoint import Checkpoint
from deepgen_ppl.numpyro.infer.optimizers import as_optimizer
from deepgen_ppl.numpyro.infer.step import Loss, State, Steps
from deepgen_ppl.numpyro.program import Inputs, as_key

_MOST_STEPS = 1 << 14
"""Steps of one call at the most: the length of the array that holds their losses."""


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
    columns: Sequence[str] = (),
    monitor: Callable[[Any, Any], Mapping[str, float]] | None = None,
    verb: str = "svi",
) -> TrainResult:
    """Minimise a loss; nothing crosses to the host between two looks at it.

    Batches are drawn without replacement: each epoch is a permutation from (seed, epoch) cut into
    floor(N / B) batches; its last N mod B rows wait for a later epoch. The noise of a step comes
    from (seed, step), so a run resumed from its checkpoint is the uninterrupted run, bit by bit.

    A look at the steps that finds a non-finite loss or parameter goes back to the state of the look
    before and takes the same steps again, looking at each gradient, to the one that fails: that one
    is not applied.

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
        columns: names of what the loss returns beside its value; reports have their means.
        monitor: (params, mutable) -> numbers that join the history at every report.
        verb: what runs, as the bar and Ctrl-C name it.

    Returns:
        The result; a non-finite step is told by its `failed`.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    run = _Run(
        Steps(
            loss,
            as_optimizer(optim, clip_norm),
            batch_size,
            per_datum,
            _MOST_STEPS,
            columns=len(columns),
        ),
        Record(
            num_steps,
            per_epoch=inputs.num_rows // batch_size if batch_size else 0,
            validated=validate is not None,
            patience=patience,
            columns=columns,
            awaited=bool(callbacks) or monitor is not None,
            verb=verb,
        ),
        validate,
        checkpoint,
    )
    run.compile(build or Build(loss), params, mutable, inputs, as_key(seed))
    run.resume()
    record = run.record
    with bar(progress, num_steps, record.done, verb) as show, interruptible() as interrupted:
        while record.running:
            run.advance()
            if record.failed is not None:
                break
            show(record.done, record.loss)
            record.note(monitor and (lambda: monitor(run.state.params, run.state.mutable)))
            record.tell(callbacks, run.constrained(constrain))
            if interrupted():
                run.save()
                raise record.interrupt(checkpoint and checkpoint.path)
            if checkpoint is not None and checkpoint.due():
                run.save()
    if record.failed is None:
        run.save()
    return run.result()


class _Run:
    """The host's part: calls the compiled steps, validates, saves."""

    def __init__(self, steps: Steps, record: Record, validate: Validation | None,
                 checkpoint: Checkpoint | None) -> None:  # fmt: skip
        self.steps, self.record = steps, record
        self.validate, self.checkpoint = validate, checkpoint
        self.best: Any = None
        self.before = 0.0

    def compile(self, build: Build, params: Any, mutable: Any, inputs: Inputs, key: Array) -> None:
        """Compile the steps and the validation loss, unless they are kept."""
        begun = time.perf_counter()
        self.inputs, self.key, steps = inputs, key, self.steps
        self.state = steps.start(params, mutable, inputs)
        static = (steps.batch_size, steps.per_datum, steps.length, steps.optimizer.code,
                  steps.columns)  # fmt: skip
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
        """Take steps in one call, look at them, and validate where that is due."""
        record, before = self.record, self.state
        record.begin(self.seconds)
        count = jnp.int32(record.ahead(self.steps.length))
        self.state, losses = self.call(before, self.inputs, self.key, count)
        if not bool(self.state.finite):  # waits for the device
            losses = self._find_failure(before, count)
        taken = int(self.state.step) - record.done
        record.add(np.asarray(losses, np.float64)[:taken], self.seconds)
        if record.failed is None and record.validates():
            assert self.validate is not None and self.judged is not None
            value = self.judged(self.state.params, self.state.mutable, *self.validate.args)
            if record.judge(float(value), self.best is not None):
                self.best = self.state.params, self.state.mutable

    def _find_failure(self, before: State, count: Array) -> Array:
        """Take the same steps again, carefully; stop before the one that fails."""
        steps = replace(self.steps, careful=True).__call__
        careful = trace(steps, before, self.inputs, self.key, count).lower().compile()
        state, losses = careful(before, self.inputs, self.key, count)
        if bool(state.finite):
            self.state = state
            return losses
        self.record.failed = int(state.step)
        count = jnp.int32(self.record.failed - self.record.done)
        kept, losses = careful(before, self.inputs, self.key, count)
        self.state = kept._replace(rows=state.rows)
        return losses

    def constrained(self, constrain: Callable) -> Callable[[], dict[str, Any]]:
        """Return a function that gives the present parameters as callbacks see them."""
        state = self.state
        return lambda: jax.device_get(constrain(state.params, state.mutable))

    def save(self) -> None:
        """Write the checkpoint, where one is wanted."""
        if self.checkpoint is None:
            return
        best = self.best or (self.state.params, self.state.mutable)
        self.record.begin(self.seconds)
        manifest = {**self.record.manifest(), "best": self.best is not None}
        losses = {"losses": self.record.kept}
        self.checkpoint.save((self.state, best), losses, manifest)

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        like = self.state, (self.state.params, self.state.mutable)
        (state, best), arrays, manifest = self.checkpoint.load(like)
        self.state, self.best = state, best if manifest["best"] else None
        self.record.restore(manifest, arrays["losses"])
        self.before = self.record.seconds

    def result(self) -> TrainResult:
        """Return what the run has come to."""
        record, patient = self.record, self.record.patience is not None
        best = self.best if patient else None
        params, mutable = best or (self.state.params, self.state.mutable)
        return TrainResult(
            params,
            mutable,
            record.all_losses,
            record.history,
            self.seconds,
            self.compile_seconds,
            record.stopped,
            record.failed,
            None if record.failed is None else self._batch(record.failed),
        )

    def _batch(self, step: int) -> np.ndarray | None:
        size = self.steps.batch_size
        if size is None:
            return None
        start = step % self.steps.num_batches(self.inputs) * size
        return np.asarray(self.state.rows)[start : start + size]
