"""The log density of one run of a program: by row of the data plates, and shared."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro import poutine
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.compilation import without_host_values
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
        only_score: Keep only latent sites that are not reparametrised, whatever scale and mask they
            carry: a score is the log density of the draw itself.
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
        mask, fn = (None, unmasked(msg["fn"])) if only_score else (msg["mask"], msg["fn"])
        if mask is False:
            continue
        log_prob = fn.log_prob(msg["value"], *msg["args"], **msg["kwargs"])
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


def unmasked(fn: Any) -> Any:
    """Return the distribution that a draw is from, below the masks of its log density."""
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, Independent):
        return Independent(unmasked(fn.base_dist), fn.reinterpreted_batch_ndims)
    if isinstance(fn, ExpandedDistribution):
        return unmasked(fn.base_dist).expand(fn.batch_shape)
    return fn


def enumerated(
    program: Program, data: Sequence[Any], names: Collection[str], *around: Messenger
) -> poutine.Trace:
    """Run a program whose discrete sites take all their values at once, a dimension for each site.

    Args:
        program: The program.
        data: Its data.
        names: The discrete sites.
        *around: Handlers that give its other sites, the first outermost.
    """

    def parallel(msg: Any) -> Any:
        return {"enumerate": "parallel" if msg["name"] in names else None}

    model = poutine.infer_config(program.fn, parallel)
    model = poutine.enum(model, first_available_dim=-1 - program.max_plate_nesting)
    args, kwargs = (*program.args, *data), dict(program.kwargs)
    return handlers.run(poutine.trace(model).get_trace, args, kwargs, *around)


def enumerated_terms(
    program: Program,
    data: Sequence[Any],
    names: Collection[str],
    size: int | None,
    *around: Messenger,
) -> tuple[Tensor, Tensor]:
    """Return the log density of a run with discrete sites summed out, as `terms` does.

    It stands by row where the sites are the rows' own, and all together otherwise.

    Args:
        program: The program.
        data: Its data.
        names: The discrete sites.
        size: Rows it is called with.
        *around: Handlers that give its other sites, the first outermost.
    """
    with without_host_values(), _detached_data():
        trace = enumerated(program, data, names, *around)
        evaluator = TraceEinsumEvaluator(trace, True, program.max_plate_nesting)
        factors = evaluator._get_log_factors(trace)
        sites = [program.sites[name] for name in names]
        own = all(site.row_plate in site.plates for site in sites if site.row_plate)
        own = own and all(site.row_plate for site in sites) and not program.touches_shared
        symbols = [trace.plate_to_symbol[p] for p in program.data_plates if own]
        shared = [o for o in factors if not o & set(symbols)]
        rows = torch.zeros(size if program.data_plates and size else 0)
        for symbol in symbols:
            inside = OrderedDict((o, term) for o, term in factors.items() if symbol in o)
            if inside:
                target = (symbol,) if len(rows) > 1 else ()  # one row has no dimension
                rows = rows + _contracted(inside, evaluator, *target).expand(len(rows))
        rest = OrderedDict((o, factors[o]) for o in shared)
        return rows, _contracted(rest, evaluator) if rest else torch.zeros(())


class _detached_data(TorchFunctionMode):
    """Let `x.data`, whose shape Pyro's enumeration asks for, be `x.detach()`, known to vmap."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DATA:
            return args[0].detach()
        return func(*args, **(kwargs or {}))


_DATA: Any = vars(torch._C.TensorBase)["data"].__get__


def _contracted(factors: OrderedDict, evaluator: TraceEinsumEvaluator, *target: str) -> Tensor:
    with shared_intermediates() as cache:
        return contract_to_tensor(
            factors, evaluator._enum_dims, target_ordinal=frozenset(target), cache=cache
        )
