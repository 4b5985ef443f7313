"""The measuring: prepare each contender, run all of them in rounds, take ratios within rounds."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.case import Case, Run, Skip, Target, timed


def measure(title: str, build: Callable[[], Case]) -> dict[str, Any]:
    """Return the figures of a case as plain data; a case or contender that cannot run says why."""
    try:
        case = build()
    except Skip as reason:
        return {"case": title, "skipped": str(reason)}
    runners, prepared, skipped = {}, {}, {}
    for contender in case.contenders:
        print(f"{title}: preparing {contender.name}", file=sys.stderr, flush=True)
        try:
            with timed() as clock:
                runners[contender.name] = contender.prepare()
            prepared[contender.name] = clock.seconds
        except Exception as error:
            skipped[contender.name] = _reason(error)
    runs: dict[str, list[Run | None]] = {name: [] for name in runners}
    for repeat in range(case.repeats):
        print(f"{title}: round {repeat + 1} of {case.repeats}", file=sys.stderr, flush=True)
        names = list(runners)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            if name in skipped:
                continue
            try:
                runs[name].append(runners[name](repeat + 1))
            except Exception as error:
                skipped[name] = _reason(error)
    done = {name: rounds for name, rounds in runs.items() if rounds and name not in skipped}
    return {
        "case": title,
        "unit": case.unit,
        "work": case.work,
        "repeats": case.repeats,
        "notes": list(case.notes),
        "contenders": [
            _contender(name, case.work, prepared[name], rounds) for name, rounds in done.items()
        ],
        "skipped_contenders": skipped,
        "ratios": [
            _ratio(target, done[target.ours], done[target.baseline])
            for target in case.targets
            if target.ours in done and target.baseline in done
        ],
        "limits": [_limit(limit, done[limit.ours]) for limit in case.limits if limit.ours in done],
    }


def _reason(error: Exception) -> str:
    if not isinstance(error, Skip):
        traceback.print_exception(error)
    return f"{type(error).__name__}: {error}".split("\n")[0][:300]


def _contender(name: str, work: float, prepared: float, rounds: list[Run]) -> dict[str, Any]:
    seconds = np.array([run.seconds for run in rounds])
    quality: dict[str, Any] = {}
    for key in rounds[-1].quality:
        values = [run.quality[key] for run in rounds]
        numbers = all(isinstance(v, int | float) for v in values)
        quality[key] = float(np.median(np.asarray(values, float))) if numbers else str(values[-1])
    return {
        "name": name,
        "prepare_seconds": prepared,
        "compile_seconds_per_call": float(np.median([run.compile_seconds for run in rounds])),
        "seconds": seconds.tolist(),
        "median_seconds": float(np.median(seconds)),
        "rate": float(work / np.median(seconds)),
        "quality": quality,
    }


def _ratio(target: Target, ours: list[Run], baseline: list[Run]) -> dict[str, Any]:
    def cost(run: Run) -> float:
        return run.seconds + (run.compile_seconds if target.measure == "total" else 0.0)

    ratios = np.array([cost(b) / cost(o) for o, b in zip(ours, baseline, strict=True)])
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "ours": target.ours,
        "baseline": target.baseline,
        "measure": target.measure,
        "median": float(median),
        "quartiles": [float(low), float(high)],
        "range": [float(ratios.min()), float(ratios.max())],
        "at_least": target.at_least,
        "met": None if target.at_least is None else bool(median >= target.at_least),
    }


def _limit(limit, rounds: list[Run]) -> dict[str, Any]:
    values = [
        run.seconds if limit.value == "seconds" else float(run.quality[limit.value])
        for run in rounds
    ]
    worst = float(np.median(values))
    return {
        "ours": limit.ours,
        "value": limit.value,
        "median": worst,
        "at_most": limit.at_most,
        "met": worst <= limit.at_most,
    }
