"""The automatic choice on Pyro: total seconds of a fresh process, automatic against eager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.case import Case, Contender, Run, Skip, Target

REQUIRES = ("torch", "pyro")
VARIANTS = ("small-1000", "small-20000", "big-300", "big-3000")

SCRIPT = """
import json, sys, time
from functools import partial
import torch
from benchmarks import programs_pyro
from benchmarks.data import big_digits, small_digits
import deepgen_ppl.pyro as dg
size, num_steps, choice = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sizes = (64, 32, 4) if size == "small" else (784, 400, 50)
x = torch.as_tensor(small_digits() if size == "small" else big_digits(12800)[0])
model, guide = programs_pyro.vae(*sizes)
start = time.perf_counter()
fit = dg.svi(model, guide, x, num_steps=num_steps, batch_size=128,
             optim=partial(torch.optim.Adam, lr=1e-3, fused=True), compile=choice, progress=False)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "compile": fit.compile_seconds, "chosen": str(fit.compiled)}))
"""


def build(variant: str, quick: bool) -> Case:
    """Return the case of one size and number of steps, each run with an empty inductor cache."""
    size, num_steps = variant.split("-")
    if quick:
        num_steps = str(int(num_steps) // 50)

    def fresh_process(choice: str):
        def run(seed: int) -> Run:
            with tempfile.TemporaryDirectory() as cache:
                done = subprocess.run(
                    [sys.executable, "-c", SCRIPT, size, num_steps, choice],
                    capture_output=True,
                    text=True,
                    cwd=Path(__file__).parents[2],
                    check=False,
                    env=_environment(TORCHINDUCTOR_CACHE_DIR=cache),
                )
            if done.returncode:
                raise Skip(done.stderr.strip().splitlines()[-1])
            result = json.loads(done.stdout.splitlines()[-1])
            compiling = result["compile"]
            return Run(result["seconds"] - compiling, compiling, {"chosen": result["chosen"]})

        return run

    contenders = tuple(
        Contender(f"ours, {choice}", lambda choice=choice: fresh_process(choice))
        for choice in ("auto", "eager")
    )
    return Case(
        work=int(num_steps),
        unit="steps",
        contenders=contenders,
        targets=(Target("ours, auto", "ours, eager", 1.0, "total"),),
        repeats=1 if quick or int(num_steps) > 1000 else 2,
        notes=(
            "every run is a process of its own with an empty inductor cache, as a first run is",
        ),
    )


def _environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **extra}
