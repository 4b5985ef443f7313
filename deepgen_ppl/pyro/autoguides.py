"""Pyro's autoguides on a batch of rows: the plates they open."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from pyro.infer.autoguide import AutoGuide
from torch import nn


@contextmanager
def autoguide_rows(
    modules: Collection[nn.Module], plates: Collection[str], num_rows: int, size: int
) -> Iterator[None]:
    """Let autoguides set up at N rows open their data plates for a batch of B rows.

    An autoguide asks for plates of the size it was set up with; Pyro reads that size from its
    prototype's frames.
    """
    changed: list[tuple[AutoGuide, dict[str, Any]]] = []
    if size != num_rows:
        for module in modules:
            if not isinstance(module, AutoGuide) or not module._prototype_frames:
                continue
            frames = module._prototype_frames
            changed.append((module, frames))
            module._prototype_frames = {
                name: frame._replace(size=size, full_size=num_rows)
                if name in plates and frame.size == num_rows
                else frame
                for name, frame in frames.items()
            }
    try:
        yield
    finally:
        for module, frames in changed:
            module._prototype_frames = frames
