"""Flows on Pyro beside Zuko: densities, training steps and draws of equal architectures."""

from __future__ import annotations

import torch

import deepgen_ppl.pyro as dg
from benchmarks.case import Case, Contender, Run, Target, timed

REQUIRES = ("torch", "pyro", "zuko")
VARIANTS = (
    "nsf-8-log_prob", "nsf-8-train", "nsf-8-sample", "nsf-64-log_prob", "nsf-64-train",
    "nsf-64-sample", "maf-8-log_prob", "maf-8-train", "maf-8-sample", "maf-64-log_prob",
    "maf-64-train", "maf-64-sample",
)  # fmt: skip
BATCH = 1024


def flow_of(name: str, size: int, seed: int = 0):
    """Ours: 8 couplings of splines or of affine maps, or 5 masked layers, of 128 x 2 units."""
    if name == "nsf":
        options = {"transforms": 8, "bins": 8, "bound": 5.0}
        return dg.flows.NSF(size, hidden=(128, 128), seed=seed, **options)
    if name == "maf":
        return dg.flows.MAF(size, transforms=5, hidden=(128, 128), seed=seed)
    return dg.flows.RealNVP(size, transforms=8, hidden=(128, 128), seed=seed)


def zuko_of(name: str, size: int, seed: int = 0):
    """The same of Zuko, whose switch of torch's validation is put back."""
    before = torch.distributions.Distribution._validate_args
    import zuko

    torch.distributions.Distribution.set_default_validate_args(before)
    torch.manual_seed(seed)
    hidden = {"hidden_features": (128, 128)}
    if name == "nsf":
        return zuko.flows.NSF(size, transforms=8, bins=8, passes=2, **hidden)
    if name == "maf":
        return zuko.flows.MAF(size, transforms=5, **hidden)
    return zuko.flows.MAF(size, transforms=8, passes=2, **hidden)


def build(variant: str, quick: bool) -> Case:
    """Return the case of one flow, number of features and kind of work."""
    name, text, kind = variant.split("-")
    size, calls = int(text), 1 if quick else 10
    x = torch.randn(BATCH, size, generator=torch.Generator().manual_seed(0))

    def contender(make):
        def prepare():
            flow = make(name, size)
            optimizer = torch.optim.Adam(flow.parameters(), 1e-3, fused=True)

            def once() -> None:
                if kind == "train":
                    optimizer.zero_grad()
                    (-flow().log_prob(x).mean()).backward()
                    optimizer.step()
                    return
                with torch.no_grad():
                    if kind == "sample":
                        flow().sample((BATCH,))
                    else:
                        flow().log_prob(x)

            def run(seed: int) -> Run:
                torch.manual_seed(seed)
                with timed() as clock:
                    for _ in range(calls):
                        once()
                number = sum(p.numel() for p in flow.parameters())
                return Run(clock.seconds, 0.0, {"parameters": number})

            run(0)
            return run

        return prepare

    return Case(
        work=calls,
        unit="batches",
        contenders=(Contender("ours", contender(flow_of)), Contender("Zuko", contender(zuko_of))),
        targets=(Target("ours", "Zuko", 1.0),),
        repeats=2 if quick else 5,
        notes=(f"{BATCH} rows of {size} features, networks of 128 x 2 units, eager",),
    )
