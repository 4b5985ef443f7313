"""Run benchmark cases: `python benchmarks/run.py [CASE ...] [--quick] [--json FILE] [--list]`.

A case is named by its file, `numpyro_svi`, or with its variant, `numpyro_svi-small`. Each variant
runs in a process of its own; within it the contenders run interleaved for several rounds.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import measure, tables  # noqa: E402

CASES = ROOT / "benchmarks" / "cases"


class Listing(NamedTuple):
    """What a case file says of itself, read without importing it."""

    name: str
    summary: str
    requires: tuple[str, ...]
    variants: tuple[str, ...]


def listings() -> list[Listing]:
    """Return what each file in `cases/` says of itself, by name."""
    found = []
    for path in sorted(CASES.glob("*.py")):
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("REQUIRES", "VARIANTS")
        }
        summary = (ast.get_docstring(tree) or "").split("\n")[0]
        found.append(Listing(path.stem, summary, constants["REQUIRES"], constants["VARIANTS"]))
    return found


def selected(names: list[str], known: list[Listing]) -> list[tuple[Listing, str]]:
    """Return the (case, variant) pairs that the command line names; all of them for none.

    Raises:
        ValueError: for a name that is neither a case nor a case with its variant.
    """
    pairs = [(case, variant) for case in known for variant in case.variants]
    if not names:
        return pairs
    chosen = []
    for name in names:
        found = [(c, v) for c, v in pairs if name in (c.name, f"{c.name}-{v}")]
        if not found:
            every = ", ".join(f"{c.name}-{v}" for c, v in pairs)
            raise ValueError(f"there is no benchmark case {name!r}; the cases are {every}")
        chosen += found
    return chosen


def keep_to(cores: int | None) -> None:
    """Keep this process and its children to the first `cores` processor cores.

    XLA and torch take their number of threads from it, so both sides of a ratio have the same.
    """
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("this system cannot keep a process to some cores; leave --cores out")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(cores)


def run_in_own_process(case: Listing, variant: str, quick: bool, clock: str) -> dict[str, Any]:
    """Return the figures of one variant, measured in a fresh process."""
    title = f"{case.name}-{variant}"
    missing = [name for name in case.requires if importlib.util.find_spec(name) is None]
    if missing:
        return {"case": title, "skipped": f"needs {', '.join(missing)}, not installed here"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, __file__, title, "--child", str(out), "--clock", clock]
        command += ["--quick"] * quick
        done = subprocess.run(command, cwd=ROOT, check=False, env=os.environ)
        if done.returncode or not out.exists():
            return {"case": title, "skipped": f"its process ended with status {done.returncode}"}
        return json.loads(out.read_text())


def measure_here(case: Listing, variant: str, quick: bool, clock: str, out: Path) -> None:
    """Measure one variant in this process and write its figures."""
    if clock == "cpu":
        # Everybody's clock in this process, the library's own too: the processor time it used.
        time.perf_counter = time.process_time
    module = importlib.import_module(f"benchmarks.cases.{case.name}")
    title = f"{case.name}-{variant}"
    out.write_text(json.dumps(measure.measure(title, lambda: module.build(variant, quick))))


def machine(cores: int | None) -> dict[str, Any]:
    """Return what the figures depend on: number of cores and versions, no names or paths."""
    versions = {}
    for package in ("jax", "numpyro", "optax", "torch", "pyro-ppl", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "machine": f"{os.cpu_count()}-core CPU",
        "cores_used": cores or os.cpu_count(),
        "python": sys.version.split()[0],
        "versions": versions,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line names, print tables, write files; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="case or case-variant; all by default"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--cores", type=int, metavar="N", help="keep to N processor cores")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts processor time: with --cores 1, for a machine shared with other work",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the printed tables there"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    known = listings()
    if options.list:
        for case in known:
            print(f"{case.name:14} {case.summary}\n{'':14} variants: {', '.join(case.variants)}")
        return 0
    try:
        chosen = selected(options.cases, known)
    except ValueError as error:
        parser.error(str(error))
    if options.child:
        measure_here(*chosen[0], options.quick, options.clock, options.child)
        return 0
    keep_to(options.cores)
    results: dict[str, Any] = {
        **machine(options.cores),
        "clock": options.clock,
        "quick": options.quick,
        "cases": [],
    }
    for case, variant in chosen:
        results["cases"].append(run_in_own_process(case, variant, options.quick, options.clock))
        print(tables.case_table(results["cases"][-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
        if options.markdown:
            options.markdown.write_text(tables.page(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
