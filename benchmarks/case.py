"""The protocol of a benchmark case: contenders that do the same work, and targets for their ratios.

A case is a file `benchmarks/cases/<name>.py` that holds

- a docstring whose first line says what is compared (`--list` prints it without an import);
- `REQUIRES`, a tuple of importable packages, without which the case is skipped visibly;
- `VARIANTS`, a tuple of names: the same contenders at other sizes, or on other models;
- `build(variant: str, quick: bool) -> Case`.

The runner gives every variant a process of its own, so that neither threads, caches nor peak
memory of one reach another. Within it contenders run interleaved, round by round, and every ratio
is taken within a round, so that a load on the machine falls on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Measure = Literal["seconds", "total"]


class Skip(Exception):
    """A contender that cannot run here; the runner prints the reason and goes on without it."""


class Run(NamedTuple):
    """One timed run of a contender.

    Attributes:
        seconds: run time, compilation excluded.
        compile_seconds: what this very run spent on tracing and compiling.
        quality: what the run achieved (final loss, smallest ESS, R-hat, peak MiB), by name.
    """

    seconds: float
    compile_seconds: float = 0.0
    quality: Mapping[str, float | str] = {}


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case.

    Attributes:
        name: how the tables and targets call it.
        prepare: traces, compiles and warms up (timed as its first call) and returns the function
            to be timed, called with the number of the round as its seed. Raises `Skip`.
    """

    name: str
    prepare: Callable[[], Callable[[int], Run]]


@dataclass(frozen=True)
class Target:
    """A ratio that is aimed at: `baseline` time over `ours` time, at least `at_least`.

    Attributes:
        ours: name of the contender in the denominator.
        baseline: name of the contender in the numerator.
        at_least: the aim; None prints the ratio without a verdict.
        measure: "seconds" compares run times, "total" run and compile time together.
    """

    ours: str
    baseline: str
    at_least: float | None = None
    measure: Measure = "seconds"


@dataclass(frozen=True)
class Limit:
    """An absolute aim: a named quality of a contender, or its "seconds", at most `at_most`."""

    ours: str
    value: str
    at_most: float


@dataclass(frozen=True)
class Case:
    """Contenders that do the same work.

    Attributes:
        work: units of work in one run (steps, draws, calls); rates are `work / seconds`.
        unit: name of that unit.
        contenders: in the order of the first round; later rounds rotate it.
        targets: ratios to print, with a verdict where there is an aim.
        limits: absolute aims.
        repeats: number of rounds.
        notes: what a reader of the figures must know, such as a data set that stood in for another.
    """

    work: float
    unit: str
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...] = ()
    limits: tuple[Limit, ...] = ()
    repeats: int = 5
    notes: tuple[str, ...] = field(default=())


class Stopwatch:
    """Wall seconds of a `with timed()` block."""

    seconds: float = 0.0


@contextmanager
def timed():
    """Take the wall time of a `with` block; its target holds `seconds` afterwards."""
    clock = Stopwatch()
    start = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - start
