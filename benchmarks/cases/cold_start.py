"""A fresh process's first small `mcmc`: no compilation cache, an empty one, a filled one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.case import Case, Contender, Limit, Run, Skip, Target

REQUIRES = ("jax", "numpyro")
VARIANTS = ("numpyro",)

SCRIPT = """
import json, sys, time
start = time.perf_counter()
import jax
import deepgen_ppl.numpyro as dg
from benchmarks import programs_numpyro
from benchmarks.data import eight_schools
if sys.argv[1]:
    dg.use_compilation_cache(sys.argv[1])
imported = time.perf_counter()
dg.mcmc(programs_numpyro.eight_schools, *eight_schools(), progress=False)
done = time.perf_counter()
print(json.dumps({"seconds": done - imported, "importing": imported - start}))
"""


def build(variant: str, quick: bool) -> Case:
    """Return the case: eight schools, 4 chains of 1,000 + 1,000, one process a run."""
    del variant

    def first_mcmc(cache: str) -> Run:
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, cache],
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            check=False,
        )
        if done.returncode:
            raise Skip(done.stderr.strip().splitlines()[-1])
        result = json.loads(done.stdout.splitlines()[-1])
        return Run(result["seconds"], 0.0, {"import seconds": result["importing"]})

    def without():
        return lambda seed: first_mcmc("")

    def empty():
        def run(seed: int) -> Run:
            with tempfile.TemporaryDirectory() as cache:
                return first_mcmc(cache)

        return run

    def filled():
        folder = tempfile.TemporaryDirectory()
        first_mcmc(folder.name)

        def run(seed: int, folder=folder) -> Run:
            return first_mcmc(folder.name)

        return run

    names = ("no cache", "empty cache", "filled cache")
    return Case(
        work=1,
        unit="calls",
        contenders=tuple(map(Contender, names, (without, empty, filled))),
        targets=(Target("filled cache", "no cache"), Target("empty cache", "no cache")),
        limits=(Limit("filled cache", "seconds", 3.0),),
        repeats=1 if quick else 2,
        notes=("seconds of the first mcmc call after importing; the imports are listed beside",),
    )
