"""The log density of one run of a program: by row of the data plates, and shared."""

from collections.abc import Collection

import torch
from torch import Tensor

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.structure import Program


def terms(
    run: handlers.record,
    program: Program,
    size: int | None,
    total: int | None,
    *,
    skip: Collection[str] = (),
    only_score: bool = False,
    only: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the log density of a recorded run, by row of the data plates and shared.

    Args:
        run: The record.
        program: The program it is a record of.
        size: Rows it was called with.
        total: Rows of the full data.
        skip: Sites to leave out.
        only_score: Keep only latent sites that are not reparametrised, whatever scale they carry:
            a score is the log density of the draw itself.
        only: Keep only the site of this name.

    Returns:
        Terms per row, unscaled, shape `(rows,)` (empty without data plates), and the sum of all
        others.
    """
    plates = program.data_plates
    rows: Tensor | None = None
    shared: Tensor | None = None
    sequential: dict[int, Tensor] = {}
    for msg in run.sites.values():
        latent = not msg["is_observed"]
        if msg["infer"].get("_deterministic") or msg["name"] in skip:
            continue
        if only_score and (not latent or msg["fn"].has_rsample):
            continue
        if only is not None and msg["name"] != only:
            continue
        mask = msg["mask"]
        if mask is False:
            continue
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        if isinstance(mask, Tensor):
            log_prob = torch.where(mask, log_prob, log_prob.new_zeros(()))
        frame = next((f for f in msg["cond_indep_stack"] if f.name in plates), None)
        scale = 1.0 if only_score else msg["scale"]
        if not only_score and frame is not None and total is not None and size != total:
            scale = scale / (total / size)  # type: ignore[operator]
        if isinstance(scale, Tensor) or scale != 1.0:
            log_prob = scale * log_prob
        if frame is None:
            term = log_prob.sum() if log_prob.dim() else log_prob
            shared = term if shared is None else shared + term
        elif frame.dim is None:
            term = log_prob.sum()
            old = sequential.get(frame.counter)
            sequential[frame.counter] = term if old is None else old + term
        else:
            if log_prob.dim() != 1:
                log_prob = log_prob.movedim(frame.dim, 0).flatten(1).sum(1)
            rows = log_prob if rows is None else rows + log_prob
    if sequential:
        stacked = torch.stack([sequential[i] for i in sorted(sequential)])
        rows = stacked if rows is None else rows + stacked
    like = rows if rows is not None else shared
    blank = torch.zeros(()) if like is None else like.new_zeros(())
    return (
        rows if rows is not None else blank.new_zeros(size if plates and size else 0),
        shared if shared is not None else blank,
    )
