"""The figures as text: one table of contenders and one of ratios for each case, in Markdown."""

from __future__ import annotations

from typing import Any


def case_table(figures: dict[str, Any]) -> str:
    """Return the section of one case."""
    lines = ["", f"## {figures['case']}", ""]
    if "skipped" in figures:
        return "\n".join([*lines, f"SKIPPED: {figures['skipped']}", ""])
    lines += [f"- {note}" for note in figures["notes"]]
    lines += [f"- SKIPPED {name}: {why}" for name, why in figures["skipped_contenders"].items()]
    unit = figures["unit"]
    rows = [
        [
            c["name"],
            f"{c['prepare_seconds']:.1f}",
            f"{c['compile_seconds_per_call']:.2f}",
            f"{c['median_seconds']:.3f} ({min(c['seconds']):.3f}-{max(c['seconds']):.3f})",
            f"{c['rate']:,.0f}" if c["rate"] >= 10 else f"{c['rate']:.2f}",
            "; ".join(f"{k} {_number(v)}" for k, v in c["quality"].items()),
        ]
        for c in figures["contenders"]
    ]
    header = [
        "contender",
        "first call s",
        "compile s a call",
        "run s, median (range)",
        f"{unit}/s",
        "quality",
    ]
    lines += ["", *_table(header, rows)]
    rows = [
        [
            r["ours"],
            r["baseline"],
            "run time" if r["measure"] == "seconds" else "run + compile",
            f"{r['median']:.2f}",
            f"{r['quartiles'][0]:.2f}-{r['quartiles'][1]:.2f}",
            f"{r['range'][0]:.2f}-{r['range'][1]:.2f}",
            "" if r["at_least"] is None else f">= {r['at_least']:g} {_verdict(r['met'])}",
        ]
        for r in figures["ratios"]
    ]
    if rows:
        header = ["ours", "faster than", "measure", "times, median", "quartiles", "range", "aim"]
        lines += ["", *_table(header, rows)]
    lines += [
        f"\n{limit['ours']}: {limit['value']} {_number(limit['median'])}, "
        f"aim <= {_number(limit['at_most'])} {_verdict(limit['met'])}"
        for limit in figures["limits"]
    ]
    return "\n".join([*lines, ""])


def page(results: dict[str, Any]) -> str:
    """Return a Markdown page of all cases."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    head = [
        f"# Benchmarks on a {results['machine']}, {results['cores_used']} of its cores used",
        "",
        f"Python {results['python']}; {versions}. Written by `benchmarks/run.py`.",
        "Contenders run interleaved; a ratio is taken within each round, its median is shown.",
        "First call: preparing a contender, with tracing, compiling and one full warm-up run.",
    ]
    if results.get("clock") == "cpu":
        head += [
            "",
            "Seconds are processor time, since the machine was shared with other work, except in",
            "cases that start processes of their own (`cold_start`, `pyro_auto`): wall time there.",
        ]
    if results["quick"]:
        head += ["", "Made with `--quick`: sizes too small to judge speed by."]
    return "\n".join([*head, *(case_table(figures) for figures in results["cases"])])


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _number(value: float | str) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:,.4g}"
        if abs(value) < 1e4
        else f"{value:,.0f}"
    )


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)]
