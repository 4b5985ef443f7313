"""All smoothing marginals of a hidden Markov model: exact against a scan written by hand.

A unit of work is one sequence of 1,000 steps with 8 states. `exact` reads the program, recognises
the chain and runs it as one loop; "sums alone" leaves out reading and tabulating the program, which
is what the scan by hand does not do either. "other data" are new ones in every round: the
NumPyro wing evaluates and checks the terms that use them, the Pyro wing runs the program four
times. Both wings; one core.
"""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np

from benchmarks.case import Case, Contender, Limit, Run, Target, timed

REQUIRES = ("jax", "pyro")
VARIANTS = ("64 sequences",)

STATES = 8


def build(variant: str, quick: bool) -> Case:
    """Return the case."""
    num_steps, count = (50, 4) if quick else (1000, 64)
    rng = np.random.default_rng(0)
    moves = rng.dirichlet(np.ones(STATES), STATES)
    y = (3.0 + 2.0 * rng.normal(size=(count, num_steps))).astype(np.float32)
    truth, _ = by_hand(moves, y)

    def prepare(wing: str, alone: bool, other: bool = False):
        exact, program = smoother(wing, moves)
        with timed() as first:
            answer = exact(program, y)
        error = float(np.abs(marginals(answer) - truth).max())
        quality = {"largest error": error, "seconds of the first call": first.seconds}
        sums = answer._sums
        engine = importlib.import_module(f"deepgen_ppl.{wing}.engine")

        def once(seed: int) -> Run:
            data = y + np.float32(0.01 * seed) if other else y
            with timed() as clock:
                if not alone:
                    exact(program, data)
                else:
                    for group, tables in zip(sums.groups, sums.tables, strict=True):
                        unary = [i for i, s in enumerate(group.plan.stacks) if s.unary]
                        engine.marginals(group.plan, tables, unary)
            return Run(clock.seconds, 0.0, quality)

        once(0)
        return once

    def hand():
        by_hand(moves, y)

        def once(seed: int) -> Run:
            with timed() as clock:
                by_hand(moves, y)
            return Run(clock.seconds)

        return once

    contenders = [Contender("hand-written JAX scan", hand)]
    for wing in ("numpyro", "pyro"):
        contenders.append(Contender(f"{wing}: sums alone", partial(prepare, wing, True)))
        contenders.append(Contender(f"{wing}: exact", partial(prepare, wing, False)))
        other = partial(prepare, wing, False, True)
        contenders.append(Contender(f"{wing}: exact, other data", other))
    return Case(
        work=count,
        unit="sequences",
        contenders=tuple(contenders),
        targets=(
            Target("numpyro: sums alone", "hand-written JAX scan", 0.5),
            Target("pyro: sums alone", "hand-written JAX scan"),
            Target("numpyro: exact", "hand-written JAX scan", 0.5),
            Target("numpyro: exact, other data", "hand-written JAX scan", 0.5),
            Target("pyro: exact, other data", "hand-written JAX scan"),
        ),
        limits=(Limit("numpyro: sums alone", "largest error", 1e-4),),
        notes=("the program is `dg.hmm` with normal emissions",),
    )


def by_hand(moves: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth by the baseline."""
    from benchmarks.baselines.hmm_jax import smooth

    residual = y.T[:, :, None] - np.arange(STATES, dtype=np.float32)
    like = -0.5 * residual**2 - 0.5 * np.log(2 * np.pi).astype(np.float32)
    first = np.full(STATES, -np.log(STATES), np.float32)
    found = smooth(np.log(moves).astype(np.float32), first, like)
    return np.asarray(found[0]), np.asarray(found[1])


def smoother(wing: str, moves: np.ndarray):
    """Return `exact` and the program of one wing."""
    dg = importlib.import_module(f"deepgen_ppl.{wing}")
    dist = importlib.import_module(f"{wing}.distributions")

    def emission():
        return lambda state: dist.Normal(1.0 * state, 1.0)

    return dg.exact, dg.hmm(STATES, emission, transition=moves)


def marginals(answer) -> np.ndarray:
    """Return smoothing marginals, `(T, N, K)`, whatever the sites of the program are called."""
    found = answer.marginals
    return np.stack(list(found.values())) if len(found) > 1 else next(iter(found.values()))
