"""All marginals of published Bayesian networks under evidence: exact against pyAgrum and pgmpy.

A unit of work is one row of evidence with the posterior marginals of all variables. On child, alarm
and hepar2 a fifth of the variables is observed, another set in each row; on the wide andes, water
and barley one set is observed in all rows, which the graph is summed out without. Rows that the
peers are too slow for are fewer, and their seconds scaled to all rows. Everything runs on one core.
pgmpy is no dependency of development, since it brings many: `pip install pgmpy` lets it take part.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.case import Case, Contender, Limit, Run, Skip, Target, timed
from benchmarks.data import SHARED
from deepgen_ppl import BayesNet

REQUIRES = ("jax", "pyro", "pyagrum")
VARIANTS = ("child", "alarm", "hepar2", "andes", "water", "barley")

# at least so many times faster than pyAgrum: NumPyro wing, Pyro wing
_AIMS = {
    "child": (300.0, 30.0), "alarm": (300.0, 30.0), "hepar2": (300.0, 30.0),
    "andes": (100.0, None), "water": (20.0, None), "barley": (8.0, None),
}  # fmt: skip
_WIDE = ("andes", "water", "barley")
_ROWS_OF_PEERS = {"andes": 100, "water": 50, "barley": 10}
_CHECKED = 5
_SECONDS = (
    0.3  # that a run takes at least, as those of the peers do: caches are warm in all of them
)


def build(variant: str, quick: bool) -> Case:
    """Return the case of one network."""
    path = SHARED / "bayes_nets" / f"{variant}.bif.gz"
    if not path.exists():
        raise Skip(f"{variant} is not here: expected ../shared/data/bayes_nets/{variant}.bif.gz")
    net = BayesNet.from_bif(path)
    wide = variant in _WIDE
    num_rows = (50 if quick else 2000) if not wide else (8 if quick else 500)
    rows, observed = evidence(net, num_rows, one_set=wide)
    sets = [
        {v: int(rows[n, i]) for i, v in enumerate(net.variables) if observed[n, i]}
        for n in range(num_rows)
    ]
    given = {
        v: rows[:, i] if observed[:, i].all() else np.ma.MaskedArray(rows[:, i], ~observed[:, i])
        for i, v in enumerate(net.variables) if observed[:, i].any()
    }  # fmt: skip

    def ours(wing: str):
        import importlib

        dg = importlib.import_module(f"deepgen_ppl.{wing}")
        with timed() as first:
            answer = dg.exact(net, given=given)
        with timed() as second:
            dg.exact(net, given=given)
        found = {
            "seconds to compile": max(0.0, first.seconds - second.seconds),
            "largest error": _error(net, sets[:_CHECKED], answer.marginals),
            "width": answer.cost.width,
        }

        calls = 1 if quick else max(1, round(_SECONDS / max(second.seconds, 1e-3)))

        def run(seed: int) -> Run:
            with timed() as clock:
                for _ in range(calls):
                    dg.exact(net, given=given)
            return Run(clock.seconds / calls, quality=found)

        return run

    def agrum():
        from benchmarks.baselines.nets_pyagrum import Propagation

        engine, few = Propagation(net), sets[: min(num_rows, _ROWS_OF_PEERS.get(variant, 300))]
        engine.run(few[:2])
        return partial(_scaled, engine.run, few, num_rows)

    def pgmpy():
        import importlib.util

        if importlib.util.find_spec("pgmpy") is None:
            raise Skip("pgmpy is not installed")
        if wide:
            raise Skip("minutes a row")
        from benchmarks.baselines import nets_pgmpy

        run, few = nets_pgmpy.make(net), sets[: 2 if quick else 10]
        run(few[:1])
        return partial(_scaled, run, few, num_rows)

    numpyro_aim, pyro_aim = _AIMS[variant]
    return Case(
        work=num_rows,
        unit="rows",
        contenders=(
            Contender("numpyro", partial(ours, "numpyro")),
            Contender("pyro", partial(ours, "pyro")),
            Contender("pyAgrum", agrum),
            Contender("pgmpy", pgmpy),
        ),
        targets=(
            Target("numpyro", "pyAgrum", numpyro_aim),
            Target("pyro", "pyAgrum", pyro_aim),
            *(() if wide else (Target("numpyro", "pgmpy", 3000.0),)),
        ),
        limits=(
            Limit("numpyro", "seconds to compile", 30.0 if wide else 10.0),
            Limit("numpyro", "largest error", 1e-5),
        ),
        repeats=1 if quick else 3,
        notes=(
            f"{num_rows} rows; a fifth of the {len(net.variables)} variables is observed, "
            + ("one set for all rows" if wide else "another set in each row"),
            "single precision; errors against pyAgrum in double precision",
        ),
    )


def evidence(net: BayesNet, num_rows: int, *, one_set: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rows drawn from the network and which of their cells are observed, a fifth of them."""
    rng = np.random.default_rng(0)
    rows = net.sample(num_rows, seed=0)
    size = round(len(net.variables) / 5)
    scores = rng.random((1 if one_set else num_rows, len(net.variables)))
    observed = scores.argsort(axis=1).argsort(axis=1) < size
    return rows, np.broadcast_to(observed, rows.shape)


def _scaled(run, few, num_rows: int, seed: int) -> Run:
    with timed() as clock:
        run(few)
    return Run(clock.seconds * num_rows / len(few), quality={"rows that were run": len(few)})


def _error(net: BayesNet, sets, marginals) -> float:
    """Return the largest difference from pyAgrum's marginals in a few rows."""
    from benchmarks.baselines.nets_pyagrum import Propagation

    engine = Propagation(net)
    expected = [engine.marginals(evidence) for evidence in sets]
    return max(
        float(np.abs(marginals[v][n] - found[v]).max())
        for n, found in enumerate(expected)
        for v in net.variables
    )
