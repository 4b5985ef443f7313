"""What a training loop keeps and shows on any wing: losses, reports, patience, the bar, Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_LOOK_SECONDS = 0.5
"""How long steps run between two looks at them, where nobody waits for a report."""


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


def non_finite(
    step: int, batch: np.ndarray | None, site: str | None, bad: list[int], fit: Any
) -> NonFiniteError:
    """Return the error of a step that was not applied.

    Args:
        step: its number, counted from 0.
        batch: rows of its batch, None for the full data.
        site: the first site that is not finite, where one was found.
        bad: data rows where it is not.
        fit: the fit of the last finite state.

    Example:
        >>> print(str(non_finite(3, None, "y", [7], None))[:67])
        step 3: the log density or gradient of site 'y' is not finite (data
    """
    where = "the loss or its gradient is not finite"
    if site is not None:
        where = f"the log density or gradient of site '{site}' is not finite"
    shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    rows = f" (data rows {shown})" if bad else ""
    error = NonFiniteError(
        f"step {step}: {where}{rows}. The parameters of the step before are in the "
        "exception's `.fit`. Look at these rows, lower the learning rate, or pass clip_norm=.",
        step,
        batch,
        site,
    )
    error.fit = fit
    return error


class Record:
    """Losses of a run, its reports, and what its validations decide; numbers on the host.

    Reports stand at every hundredth of a run and, with validation data, at the end of every epoch,
    whenever the steps were looked at. Where nobody waits for a report, steps run for about half a
    second between two looks.

    Args:
        num_steps: steps asked for.
        per_epoch: batches of an epoch, 0 without minibatches.
        validated: whether there are validation data.
        patience: validations without improvement after which to stop.
        awaited: whether every report is waited for, as callbacks do.
        columns: names of what is told of each step beside its loss, which reports have means of.
        verb: what runs, for the words of Ctrl-C.

    Example:
        >>> record = Record(200, awaited=True)
        >>> record.bound()
        2
        >>> record.add(np.array([3.0, 1.0]), seconds=0.5)
        >>> record.history["loss"]
        [2.0]
    """

    def __init__(
        self,
        num_steps: int,
        per_epoch: int = 0,
        validated: bool = False,
        patience: int | None = None,
        awaited: bool = False,
        columns: Sequence[str] = (),
        verb: str = "svi",
    ) -> None:
        self.verb = verb
        self.num_steps, self.per_epoch = num_steps, per_epoch if validated else 0
        self.validated, self.patience = validated, patience
        self.awaited = awaited or (validated and not per_epoch)
        self.columns = tuple(columns)
        blank = np.zeros((0, 1 + len(self.columns))) if self.columns else np.zeros(0)
        self.losses: list[np.ndarray] = [blank]  # of each look; with columns, they stand beside
        self.history: dict[str, list[float]] = {"step": [], "loss": [], "seconds": []}
        self.history |= {name: [] for name in self.columns}
        if validated:
            self.history |= {"validation_step": [], "validation_loss": []}
        self.done, self.seconds, self.pace = 0, 0.0, 0.0
        self.waited, self.stopped = 0, ""
        self.failed: int | None = None
        self._tail = blank  # losses since the last report

    @property
    def loss(self) -> float:
        """Mean loss of the last steps, for the bar."""
        last = self.losses[-1] if not self.columns else self.losses[-1][:, 0]
        return float(np.mean(last)) if len(last) else float("nan")

    @property
    def kept(self) -> np.ndarray:
        """The loss of each step, shape (steps,); with columns (steps, 1 + columns)."""
        return np.concatenate(self.losses)

    @property
    def all_losses(self) -> np.ndarray:
        """The loss of each step, shape (steps,)."""
        return self.kept[:, 0] if self.columns else self.kept

    @property
    def running(self) -> bool:
        """Whether there are steps to take."""
        return self.done < self.num_steps and not self.stopped and self.failed is None

    def bound(self) -> int:
        """Return the step that must not be passed without a look."""
        if self.awaited:
            return self._next(self.done)
        return self._epoch_end(self.done)

    def ahead(self, most: int) -> int:
        """Return how many steps to take before the next look, by the time of those before."""
        wanted = self.bound() - self.done
        if not self.awaited:  # the first step alone shows how long they take
            wanted = min(wanted, int(_LOOK_SECONDS / self.pace) if self.pace else 1)
        return int(np.clip(wanted, 1, most))

    def enough(self, seconds: float) -> bool:
        """Tell whether steps have run long enough for a look, at this time of the run."""
        return not self.awaited and seconds - self.seconds > _LOOK_SECONDS

    def begin(self, seconds: float) -> None:
        """Note the time of the run at which steps start, after callbacks and validations."""
        self.seconds = seconds

    def add(self, losses: np.ndarray, seconds: float) -> None:
        """Add the losses of the steps just done (and columns), by this time of the run."""
        start, began = self.done, self.seconds
        self.losses.append(losses)
        self.done, self.seconds = start + len(losses), seconds
        self.pace = (seconds - began) / max(len(losses), 1)
        if self.failed is not None:
            return
        tail, first = np.concatenate([self._tail, losses]), start - len(self._tail)
        while first < self.num_steps and (end := self._next(first)) <= self.done:
            self.history["step"].append(end)
            means = np.atleast_1d(np.mean(tail[: end - first], axis=0))
            for name, mean in zip(("loss", *self.columns), means, strict=True):
                self.history[name].append(float(mean))
            self.history["seconds"].append(seconds - (self.done - end) * self.pace)
            tail, first = tail[end - first :], end
        self._tail = tail

    def reported(self) -> bool:
        """Tell whether the run stands at a report."""
        return bool(self.history["step"]) and self.history["step"][-1] == self.done

    def validates(self) -> bool:
        """Tell whether the validation loss is due."""
        ends = not self.per_epoch or self.done % self.per_epoch == 0 or self.done == self.num_steps
        return self.validated and self.reported() and ends

    def judge(self, value: float, has_best: bool) -> bool:
        """Add a validation loss; return whether the parameters it belongs to are the best."""
        earlier = min(self.history["validation_loss"], default=np.inf)
        self.history["validation_step"].append(self.done)
        self.history["validation_loss"].append(value)
        if self.patience is None:
            return False
        if value < earlier or not has_best:
            self.waited = 0
            return True
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = f"no better validation loss in {self.patience} validations"
        return False

    def note(self, monitor: Callable[[], Mapping[str, float]] | None) -> None:
        """Add what is watched to the history, where the run stands at a report."""
        if monitor is None or not self.reported():
            return
        for name, value in monitor().items():
            self.history.setdefault(name, []).append(float(value))

    def tell(self, callbacks: Any, params: Callable[[], dict[str, Any]]) -> None:
        """Tell every callback of the report the run stands at; one may stop it."""
        if not self.reported():
            return
        validations = self.history.get("validation_loss", [])
        last = validations[-1] if validations else None
        told = Progress(self.done, self.num_steps, self.history["loss"][-1], last, params)
        if any([callback(told) for callback in callbacks]):  # every callback hears of it
            self.stopped = self.stopped or "a callback asked to stop"

    def interrupt(self, path: Any) -> KeyboardInterrupt:
        """Return what Ctrl-C raises, naming the checkpoint where there is one."""
        where = f"; its state is in {path}" if path else ""
        return KeyboardInterrupt(
            f"{self.verb} interrupted after step {self.done} of {self.num_steps}{where}"
        )

    def manifest(self) -> dict[str, Any]:
        """Return the record as plain data, without the losses."""
        names = ("history", "seconds", "waited", "stopped")
        return {"step": self.done, **{name: getattr(self, name) for name in names}}

    def restore(self, manifest: Mapping[str, Any], losses: np.ndarray) -> None:
        """Continue from a manifest and all losses."""
        self.losses, self.history = [losses], manifest["history"]
        self.done, self.seconds = manifest["step"], manifest["seconds"]
        self.waited, self.stopped = manifest["waited"], manifest["stopped"]
        self._tail = losses[int(self.history["step"][-1]) if self.history["step"] else 0 :]

    def _next(self, step: int) -> int:
        report = max(1, self.num_steps // 100)
        return min(self._epoch_end(step), (step // report + 1) * report)

    def _epoch_end(self, step: int) -> int:
        if not self.per_epoch:
            return self.num_steps
        return min(self.num_steps, (step // self.per_epoch + 1) * self.per_epoch)


@contextlib.contextmanager
def bar(
    wanted: bool, num_steps: int, done: int, verb: str = "svi"
) -> Iterator[Callable[[int, float], None]]:
    """Show a bar of steps; what it gives is called with the steps done and the loss."""
    if not wanted:
        yield lambda step, loss: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=num_steps, initial=done, desc=verb, unit="step", leave=True) as shown:

        def show(step: int, loss: float) -> None:
            shown.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            shown.update(step - shown.n)

        yield show


@contextlib.contextmanager
def _at_ctrl_c(handle: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function stand for Ctrl-C's own handling; threads beside the main one are not told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C until the steps under way are done, so that the state is whole.

    What it gives tells whether Ctrl-C was pressed; a second one is not held.
    """
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    with _at_ctrl_c(note):
        yield lambda: bool(asked)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold the first Ctrl-C until the block is done: ended midway it would leave state torn.

    Ctrl-C is then delivered as if pressed after the block, also where the block failed.
    """
    pressed = None
    try:
        with interruptible() as pressed:
            yield
    finally:
        if pressed is not None and pressed():
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end the block at once, or at the next check where it fell on deaf ears.

    Python drops the exception of a Ctrl-C that comes while a destructor or a callback of the
    garbage collector runs; long loops call what this gives once a step, so that none is lost.
    """
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    with _at_ctrl_c(note):
        yield check


@contextlib.contextmanager
def explained(verb: str, done: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Let Ctrl-C say which verb it ended, and how far that was; gives a check for each step.

    Example:
        >>> try:
        ...     with explained("importance", lambda: "200 of 1000 rows"):
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt as error:
        ...     print(error)
        importance interrupted after 200 of 1000 rows; nothing is kept
    """
    try:
        with noticed() as check:
            yield check
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{verb} interrupted after {done()}; nothing is kept") from error
