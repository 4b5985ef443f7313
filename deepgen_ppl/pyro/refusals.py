"""What a reading refuses: data off a site's support, and programs that batches would tear."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoContinuous
from torch import Tensor, nn

from deepgen_ppl import checks, data_checks
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import messages
from deepgen_ppl.pyro.handlers import record
from deepgen_ppl.pyro.structure import Plate, site_of


def check_observed(run: record) -> None:
    """Check the values of observed sites: their shape, dtype and support.

    Raises:
        ValueError: A value does not fit its site.
    """
    for name, msg in run.sites.items():
        value = msg["value"]
        site = site_of(msg, set())
        if site.role != "observed" or site.support is None or not isinstance(value, Tensor):
            continue
        data_checks.check_shape(name, value.shape, site.shape)
        if not site.is_discrete and not value.is_floating_point():
            data_checks.refuse_integers(name, str(value.dtype).removeprefix("torch."))
        event_dim = len(site.event_shape)
        data_.check_support(name, value, site.support, msg["mask"], event_dim)


def check_packed(modules: Sequence[nn.Module], plates: Collection[str], batch_size: int) -> None:
    """Refuse autoguides that pack the latents of all rows into one vector."""
    for module in modules:
        if isinstance(module, AutoContinuous):
            proto = module.prototype_trace.iter_stochastic_nodes()  # type: ignore[union-attr]
            local = [
                n for n, s in proto if any(f.name in plates for f in s.get("cond_indep_stack", ()))
            ]
            checks.check_local(local, batch_size)


def check_plates(
    run: record, plates: Mapping[str, Plate], names: Collection[str], batch_size: int
) -> None:
    """Refuse plates that subsample by themselves, and sites in two of the data plates `names`."""
    subsampled = {
        name: (plate.size, len(run.plates[name]["value"]))
        for name, plate in plates.items()
        if plate.subsampled
    }
    checks.check_subsampling(subsampled, batch_size)
    for name, msg in run.sites.items():
        held = [f.name for f in msg["cond_indep_stack"] if f.name in names]
        if len(held) > 1:
            raise ValueError(
                f"Site '{name}' stands in two data plates, {held[0]!r} and {held[1]!r}: pairs "
                "of rows cannot be drawn in batches. Drop batch_size."
            )


def check_outside(
    runs: tuple[record, record | None, record],
    names: Collection[str],
    counts: tuple[int, int | None, int | None],
) -> None:
    """Refuse statements outside the data plates that answer to the data's rows.

    Args:
        runs: Runs on the first rows, on another number of them, and on as many of the last ones.
        names: The data plates.
        counts: Numbers of rows of the first two runs, and of all rows.
    """
    run, second, moved = runs
    first, other, total = counts
    outside, free = [], []
    for name, msg in run.sites.items():
        held = any(f.name in names for f in msg["cond_indep_stack"])
        if held or not msg["is_observed"] or msg["infer"].get("_deterministic"):
            continue
        free.append(name)
        shapes = [_shape(r.sites[name]) for r in (run, second) if r and name in r.sites]
        follows = len(shapes) == 2 and len(shapes[0]) == len(shapes[1])
        pairs = zip(*shapes, strict=True) if follows else ()
        if any(pair == (first, other) for pair in pairs) or _differs(msg, moved.sites.get(name)):
            outside.append(name)
    checks.check_outside(outside, first, total or 0)
    if not names:
        checks.check_outside(free or list(run.sites), first, total or 0)


def _shape(msg: dict[str, Any]) -> tuple[int, ...]:
    return tuple(msg["fn"].shape()) if messages.is_factor(msg) else tuple(msg["value"].shape)


def _differs(first: dict[str, Any], second: dict[str, Any] | None) -> bool:
    """Whether a statement answers differently to other rows, at the same draws."""
    if second is None:
        return True
    if messages.is_factor(first):
        values = [m["fn"].log_prob(m["value"]) for m in (first, second)]
        return values[0].shape != values[1].shape or not torch.allclose(*values, equal_nan=True)
    values = [m["value"] for m in (first, second)]
    return values[0].shape != values[1].shape or not torch.equal(*values)
