"""Everything that continuous integration runs, one process a leg: `python tests/legs.py [LEG ...]`.

Every leg runs even when another one fails; the last lines tell which failed, and the exit status
is 1 then. Without arguments all legs but `slow` run. Two legs run at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV_312 = ROOT / ".venv312"
PER_WING = ("tests/wings", "tests/exactness", "tests/posteriordb")
ON_NEWER_VERSIONS = (  # what JAX and ArviZ can change: traces, compilation, DataTrees; verbs once
    "tests/wings/test_datatree.py",
    "tests/wings/test_program.py",
    "tests/wings/test_messages.py",
    "tests/wings/test_compiled_once.py",
    "tests/wings/test_svi.py::test_a_saved_fit_gives_the_same_answers",
    "tests/wings/test_train.py::test_a_resumed_run_is_the_uninterrupted_run",
    "tests/wings/test_importance.py::test_each_datum_has_its_own_evidence",
    "tests/wings/test_mcmc.py::test_conjugate_posterior",
    "tests/wings/test_mcmc.py::test_statistics",
    "tests/wings/test_predict.py::test_posterior_predictive_keeps_the_draws",
    "tests/wings/test_samplers.py::test_statistics",
    "tests/wings/test_samplers.py::test_diagnosis_is_that_of_many_chains",
    "tests/wings/test_evidence_estimators.py::test_evidence_stands_in_the_tree_and_the_diagnosis",
)
NUMPYRO_PARTS = 3  # processes: what is compiled takes memory maps, of which each has a bound
TIME_LIMIT = 1500  # seconds of one command
# Most of the time of JAX's tests is the compiler's. The leg on Python 3.12, the examples and the
# documented code compile as users do.
QUICKLY_COMPILED = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
# Tests, and processes, compile many a program that another one has compiled before.
COMPILED_ONCE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5")


class Leg(NamedTuple):
    """Commands run one after the other, each in a process of its own; a failure ends the leg."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    env: Mapping[str, str] = {}
    skipped: str = ""


class Outcome(NamedTuple):
    """What came of a leg: `passed`, `failed` or `skipped`, its seconds and what it printed."""

    leg: Leg
    verdict: str
    seconds: float
    output: str


def python(*arguments: str) -> tuple[str, ...]:
    """A command of this interpreter."""
    return (sys.executable, *arguments)


def pytest(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Leg:
    """A leg of one pytest process."""
    return Leg(name, (python(*PYTEST, *arguments),), env or {})


def wing_leg(
    name: str, module: str, *arguments: str, env: Mapping[str, str] = QUICKLY_COMPILED
) -> Leg:
    """A leg that needs the language of one wing."""
    if importlib.util.find_spec(module) is None:
        return Leg(name, (), skipped=f"{module} is not installed")
    return pytest(name, *arguments, env=env)


def tests_in(*folders: str) -> list[str]:
    """Those of the folders that hold tests."""
    return [f for f in folders if any((ROOT / f).rglob("test_*.py"))]


def examples() -> Leg:
    """Every example, seconds each."""
    scripts = sorted((ROOT / "examples").glob("*.py"))
    return Leg("examples", tuple(python(str(s.relative_to(ROOT)), "--quick") for s in scripts))


def python_312() -> str | None:
    """A Python 3.12 on the path or among the versions of pyenv."""
    candidates = [shutil.which("python3.12")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(map(str, pyenv.glob("versions/3.12*/bin/python")))
    check = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 12))"
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
            return candidate
    return None


def newest_arviz() -> Leg:
    """The hall, and what can differ of the NumPyro wing, with ArviZ 1.x and without torch."""
    name = "numpyro on Python 3.12"
    if sys.version_info[:2] == (3, 12):
        return Leg(name, (), skipped="the main legs run on Python 3.12 already")
    found = python_312()
    if found is None:
        return Leg(name, (), skipped="no Python 3.12 on this machine")
    mine = str(VENV_312 / "bin" / "python")
    pip = (mine, "-m", "pip", "--disable-pip-version-check", "-qq", "install")
    commands: list[tuple[str, ...]] = []
    if not Path(mine).exists():
        commands.append((found, "-m", "venv", str(VENV_312)))
    commands.append((*pip, "-c", "constraints.txt", "-e", ".[numpyro,dev]"))
    commands.append((mine, *PYTEST, "tests/hall", "tests/test_imports.py"))
    commands.append((mine, *PYTEST, *ON_NEWER_VERSIONS, "--wing", "numpyro"))
    return Leg(name, tuple(commands))


def all_legs() -> dict[str, Leg]:
    """Every leg by name, the longest first, so that two workers end together."""
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests/wings").glob("test_*.py"))
    parts = [files[i::NUMPYRO_PARTS] for i in range(NUMPYRO_PARTS)]
    parts[-1] += tests_in(*PER_WING[1:])
    legs = [
        newest_arviz(),
        wing_leg("pyro", "pyro", *tests_in(*PER_WING), "--wing", "pyro"),
        *(
            wing_leg(f"numpyro, part {i}", "numpyro", *part, "--wing", "numpyro")
            for i, part in enumerate(parts, 1)
        ),
        examples(),
        pytest("documented code", "tests/test_docs.py"),
        pytest("hall", *tests_in("tests/hall"), "tests/test_imports.py", "tests/test_surface.py"),
        pytest(
            "parity in float64",
            *tests_in("tests/parity"),
            env={**QUICKLY_COMPILED, "JAX_ENABLE_X64": "1"},
        ),
        pytest("doctests of the hall", "--doctest-modules", *hall_modules()),
        wing_leg("doctests of numpyro", "numpyro", "--doctest-modules", "deepgen_ppl/numpyro"),
        wing_leg("doctests of pyro", "pyro", "--doctest-modules", "deepgen_ppl/pyro"),
        pytest("benchmarks", "tests/test_benchmarks.py"),
        Leg(
            "documentation",
            (python("-m", "sphinx", "-W", "--keep-going", "-q", "docs", "docs/_build/html"),),
        ),
        Leg("types", (python("-m", "pyright"),)),
        Leg(
            "lint",
            (python("-m", "ruff", "check", "."), python("-m", "ruff", "format", "--check", ".")),
        ),
    ]
    return {leg.name: leg for leg in legs}


def slow_legs() -> dict[str, Leg]:
    """The tests marked slow, each wing in a process of its own."""
    folders = tests_in("tests/hall", *PER_WING, "tests/slow")
    legs = [
        wing_leg(f"slow, {wing}", wing, "-m", "slow", *folders, "--wing", wing, env={})
        for wing in ("numpyro", "pyro")
    ]
    return {leg.name: leg for leg in legs}


def hall_modules() -> list[str]:
    """The modules of the hall, without the wings."""
    return [str(p.relative_to(ROOT)) for p in sorted((ROOT / "deepgen_ppl").glob("*.py"))]


def status_of(command: Sequence[str], env: Mapping[str, str], log: IO[str]) -> int | str:
    """Run a command to its end, or to the time limit, and return its exit status."""
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run(
            command, cwd=ROOT, env=env, stdin=quiet, stdout=log, stderr=log, timeout=TIME_LIMIT
        ).returncode
    except subprocess.TimeoutExpired:
        return f"none within {TIME_LIMIT} s"


def run(leg: Leg, compiled: str) -> Outcome:
    """Run one leg and keep what it printed; what JAX compiles goes to a folder."""
    start = time.perf_counter()
    if leg.skipped:
        return Outcome(leg, "skipped", 0.0, leg.skipped)
    print(f"... {leg.name}", flush=True)
    # Legs share the cores: threads that wait for each other by spinning would slow both tenfold.
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    once = {"JAX_COMPILATION_CACHE_DIR": compiled, **COMPILED_ONCE}
    env = {**os.environ, "MPLBACKEND": "Agg", **one, **once, **leg.env}
    verdict = "passed"
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        for command in leg.commands:
            log.write("$ " + " ".join(command).replace(f"{ROOT}{os.sep}", "") + "\n")
            log.flush()
            if (status := status_of(command, env, log)) != 0:
                verdict = "failed"
                log.write(f"exit status {status}\n")
                break
        log.seek(0)
        return Outcome(leg, verdict, time.perf_counter() - start, log.read())


def main() -> int:
    """Run the legs asked for and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help="a leg's name, or `slow`")
    parser.add_argument("--list", action="store_true", help="print the legs and leave")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    known = all_legs() | slow_legs()
    if options.list:
        print("\n".join(known))
        return 0
    names = [
        n
        for name in options.legs or all_legs()
        for n in (slow_legs() if name == "slow" else [name])
    ]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no leg called {', '.join(unknown)}; there are: {', '.join(known)}")
    if not (ROOT.parent / "shared" / "data").is_dir():
        print("../shared/data is not there: the tests that read it are skipped by name", flush=True)
    outcomes = []
    with ThreadPoolExecutor(options.jobs) as pool, tempfile.TemporaryDirectory() as compiled:
        for future in as_completed([pool.submit(run, known[name], compiled) for name in names]):
            outcome = future.result()
            outcomes.append(outcome)
            print(f"\n===== {outcome.leg.name}: {outcome.verdict} in {outcome.seconds:.0f} s =====")
            print(outcome.output.rstrip(), flush=True)
    print("\n===== summary =====")
    for outcome in sorted(outcomes, key=lambda o: names.index(o.leg.name)):
        reason = f"  ({outcome.output})" if outcome.verdict == "skipped" else ""
        print(f"{outcome.verdict:8} {outcome.seconds:5.0f} s  {outcome.leg.name}{reason}")
    counts = {v: sum(o.verdict == v for o in outcomes) for v in ("passed", "failed", "skipped")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
