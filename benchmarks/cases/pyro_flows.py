"""Flows on Pyro beside Zuko's and Pyro's own, of equal size: densities, training, draws."""

from __future__ import annotations

from typing import Any

import deepgen_ppl.pyro as dg
from benchmarks.baselines.flows_torch import BATCH, UNITS, PyroFlow, worker, zuko_of
from benchmarks.case import Case, Contender, Target

REQUIRES = ("torch", "pyro", "zuko")
VARIANTS = (
    "nsf-8-log_prob", "nsf-8-train", "nsf-8-sample", "nsf-64-log_prob", "nsf-64-train",
    "nsf-64-sample", "maf-8-log_prob", "maf-8-train", "maf-8-sample", "maf-64-log_prob",
    "maf-64-train", "maf-64-sample",
)  # fmt: skip


def flow_of(name: str, size: int, seed: int = 0, **own: Any):
    """Ours: 8 couplings of splines or of affine maps, or 5 masked layers, of 128 x 2 units."""
    if name.startswith("nsf"):
        masked = name == "nsf-autoregressive"
        own |= {"autoregressive": masked, "transforms": 5 if masked else 8}
        return dg.flows.NSF(size, hidden=UNITS, bins=8, bound=5.0, seed=seed, **own)
    if name == "maf":
        return dg.flows.MAF(size, transforms=5, hidden=UNITS, seed=seed, **own)
    return dg.flows.RealNVP(size, transforms=8, hidden=UNITS, seed=seed, **own)


def build(variant: str, quick: bool) -> Case:
    """Return the case of one flow, number of features and kind of work."""
    name, text, kind = variant.split("-")
    size, calls = int(text), 1 if quick else 10
    sides = {"ours": flow_of, "Zuko": zuko_of, "Pyro": PyroFlow}
    contenders = [
        Contender(side, worker(make, name, size, kind, calls)) for side, make in sides.items()
    ]
    if name == "maf" and kind == "train" and not quick:  # it takes half a minute, and pays
        step = worker(flow_of, name, size, kind, calls, compiled=True)
        contenders.append(Contender("ours, compiled", step))
    ours = [contender.name for contender in contenders if contender.name.startswith("ours")]
    return Case(
        work=calls,
        unit="batches",
        contenders=tuple(contenders),
        targets=tuple(Target(side, peer, 1.0) for side in ours for peer in ("Zuko", "Pyro")),
        repeats=2 if quick else 5,
        notes=(f"{BATCH} rows of {size} features, networks of 128 x 2 units, eager unless said",),
    )
