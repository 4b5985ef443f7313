"""Flows of torch libraries, and how long those of torch take: densities, training steps, draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.case import Run, timed

BATCH, UNITS = 1024, (128, 128)


def zuko_of(name: str, size: int, seed: int = 0) -> nn.Module:
    """Zuko's flow of 8 couplings of splines or affine maps, or 5 masked layers.

    Its switch of torch's validation is put back.
    """
    before = torch.distributions.Distribution._validate_args
    import zuko

    torch.distributions.Distribution.set_default_validate_args(before)
    torch.manual_seed(seed)
    if name == "nsf":
        return zuko.flows.NSF(size, transforms=8, bins=8, passes=2, hidden_features=UNITS)
    if name == "nsf-autoregressive":
        return zuko.flows.NSF(size, transforms=5, bins=8, hidden_features=UNITS)
    if name == "maf":
        return zuko.flows.MAF(size, transforms=5, hidden_features=UNITS)
    return zuko.flows.MAF(size, transforms=8, passes=2, hidden_features=UNITS)


class PyroFlow(nn.Module):
    """Pyro's own transforms: 8 couplings of rational splines, or 5 masked affine layers.

    Args:
        name: "nsf" or "maf".
        size: number of features.
        seed: seed of the weights.
    """

    def __init__(self, name: str, size: int, seed: int = 0) -> None:
        from pyro.distributions import transforms

        super().__init__()
        torch.manual_seed(seed)
        self.size, self.steps, self.nets = size, [], nn.ModuleList()
        for number in range(8 if name == "nsf" else 5):
            if number:
                self.steps.append(transforms.Permute(torch.arange(size).flip(0)))
            if name == "nsf":
                moved = transforms.spline_coupling(size, hidden_dims=UNITS, bound=5.0)
            else:
                moved = transforms.affine_autoregressive(size, hidden_dims=list(UNITS))
            self.nets.append(moved)
            self.steps.append(moved if name == "nsf" else moved.inv)

    def forward(self) -> torch.distributions.Distribution:
        """The distribution, which remembers what it made of the very tensor it saw last."""
        import pyro.distributions as dist

        base = dist.Normal(torch.zeros(self.size), torch.ones(self.size)).to_event(1)
        return dist.TransformedDistribution(base, self.steps)


def worker(
    make: Callable[[str, int], nn.Module],
    name: str,
    size: int,
    kind: str,
    calls: int,
    times: int = 1,
    compiled: bool = False,
) -> Callable[[], Callable[[int], Run]]:
    """Return how a contender prepares: `calls` batches of densities, training steps or draws.

    Args:
        make: the flow of a name and a size; called, it gives a distribution.
        name: which flow.
        size: number of features.
        kind: "log_prob", "train" or "sample".
        calls: batches in a run.
        times: the seconds told are those of so many runs, where fewer batches tell enough.
        compiled: whether `torch.compile` makes the densities, with their gradients.
    """
    x = torch.randn(BATCH, size, generator=torch.Generator().manual_seed(0))

    def prepare() -> Callable[[int], Run]:
        flow = make(name, size)
        optimizer = torch.optim.Adam(flow.parameters(), 1e-3, fused=True)

        def log_prob(x: torch.Tensor) -> torch.Tensor:
            return flow().log_prob(x)

        density = torch.compile(log_prob) if compiled else log_prob

        def once() -> None:
            if kind == "train":
                optimizer.zero_grad()
                (-density(x.clone()).mean()).backward()
                optimizer.step()
                return
            with torch.no_grad():
                if kind == "sample":
                    flow().sample((BATCH,))
                else:
                    density(x.clone())

        def run(seed: int) -> Run:
            torch.manual_seed(seed)
            with timed() as clock:
                for _ in range(calls):
                    once()
            number = sum(p.numel() for p in flow.parameters())
            return Run(times * clock.seconds, 0.0, {"parameters": number})

        run(0)
        return run

    return prepare
