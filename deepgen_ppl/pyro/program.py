"""The one place that runs a native program for its values: log weights, densities, draws."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_map

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, messages
from deepgen_ppl.pyro.autoguides import autoguide_rows
from deepgen_ppl.pyro.data import unwrap
from deepgen_ppl.pyro.parameters import installed
from deepgen_ppl.pyro.reading import read, read_pair
from deepgen_ppl.pyro.structure import Pair, Plate, Program, Site, Weights
from deepgen_ppl.pyro.terms import enumerated_terms, terms
from deepgen_ppl.pyro.vectorised import mappable_draws

__all__ = [
    "Pair", "Plate", "Program", "Site", "Weights", "call", "init_params",
    "log_density", "log_weights", "particles", "read", "read_pair", "terms", "unwrap",
]  # fmt: skip


def call(program: Program, data: Sequence[Any], *around: Messenger) -> handlers.record:
    """Run a program on data under handlers (the first outermost) and return its record."""
    recorder = handlers.record()
    handlers.run(program.fn, (*program.args, *data), dict(program.kwargs), recorder, *around)
    return recorder


def log_weights(
    pair: Pair,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Tensor | None = None,
    key: int | None = None,
    held: Mapping[str, Tensor] | None = None,
) -> Weights:
    r"""Return the log weights of one draw of the guide: the primitive all estimators reduce.

    \[ \log w = \log w_0 + \frac{N}{B} \sum_{i \in \text{rows}} \log w_i, \qquad
       \log w_i = \log p(x_i, z_i) - \log q(z_i \mid x_i) \]

    Discrete latents that the pair says so of are summed out. Without a guide the model's latents
    are drawn from their prior, and only observed sites and factors count.

    Args:
        pair: Model and guide as `read_pair` returns them.
        params: Constrained values by name, as `fit.params`.
        data: The full data, tensors.
        rows: Row numbers of a batch, shape `(B,)`; all rows when None.
        key: Seed of the draw; torch's current random state when None.
        held: Values of sites of the guide (or prior) that are not to be drawn.

    Cost:
        One run of guide and model on the batch.
    """
    if key is not None:
        torch.manual_seed(key)
    model, guide = pair.model, pair.guide
    total = data_.num_rows(data)
    batch = data_.take(data, rows)
    size = len(rows) if rows is not None else total
    with installed(pair.params.values(), params) as answers:
        if guide is None and pair.enumerated:
            p_rows, p_shared = _summed_out(model, params, batch, pair.enumerated, {}, rows, total)
            return Weights(p_rows, p_shared, _scale(total, size), None, None, {})
        if guide is None:
            around = (*batch_handlers(model, rows, total), answers)
            run = call(model, batch, *around, handlers.replay(held or {}))
            rows_, shared = terms(run, model, size, total, skip=model.latents)
            return Weights(rows_, shared, _scale(total, size), None, None, *_values(model, run))
        with autoguide_rows(guide.modules, guide.data_plates, total or 0, size or 0):
            around = (*batch_handlers(guide, rows, total), answers)
            proposal = call(guide, batch, *around, handlers.replay(held or {}))
        drawn = {n: m["value"] for n, m in proposal.sites.items() if not m["is_observed"]}
        indices = {n: m["value"] for n, m in proposal.plates.items()}
        given = (answers, handlers.replay(drawn, indices))
        # Latents that the guide lacks are summed out, or drawn from the model: then they cancel.
        if pair.enumerated:
            p_rows, p_shared = _summed_out(
                model, params, batch, pair.enumerated, drawn, rows, total, *given
            )
            values: tuple[dict, dict] = ({n: drawn[n] for n in model.latents if n in drawn}, {})
        else:
            run = call(model, batch, *batch_handlers(model, rows, total), *given)
            p_rows, p_shared = terms(run, model, size, total, skip=model.latents.keys() - drawn)
            values = _values(model, run)
    q_rows, q_shared = terms(proposal, guide, size, total)
    score_rows = score_shared = None
    if pair.scored:
        score_rows, score_shared = terms(proposal, guide, size, total, only_score=True)
    if len(p_rows) != len(q_rows):
        p_rows, q_rows = _padded(p_rows, q_rows)
    scale = _scale(total, size)
    log_q = q_shared + scale * q_rows.sum()
    score = (score_rows, score_shared)
    return Weights(p_rows - q_rows, p_shared - q_shared, scale, *score, *values, log_q)


def _summed_out(
    model: Program,
    params: Mapping[str, Tensor],
    batch: Sequence[Any],
    names: Collection[str],
    drawn: Mapping[str, Tensor],
    rows: Tensor | None,
    total: int | None,
    *given: Messenger,
) -> tuple[Tensor, Tensor]:
    """Return the terms of a run with discrete sites summed out: as prepared, or by the language."""
    from deepgen_ppl.pyro import marginal

    size = len(rows) if rows is not None else total
    around = batch_handlers(model, rows, total, scaled=False)
    how = marginal.prepared(model, size)
    if how is None:
        return enumerated_terms(model, batch, names, size, *around, *given)
    held = {name: drawn[name] for name in model.latents if name in drawn}
    return marginal.summed_out(how, params, batch, held, *around)


def _values(model: Program, run: handlers.record) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the values of the latent and of the deterministic sites of a recorded run."""
    kinds = ("latent", "deterministic")
    named = [[n for n, s in model.sites.items() if s.role == kind] for kind in kinds]
    latents, fixed = ({n: run.sites[n]["value"] for n in names} for names in named)
    return latents, fixed


def particles(
    pair: Pair,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Tensor | None,
    num_particles: int,
    hold_shared: bool = False,
) -> Weights:
    """Return the weights of several draws; every tensor has a leading axis of particles.

    The draws run under `torch.func.vmap` where the program allows it, else one after the other.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        rows: Row numbers of a batch, None for all.
        num_particles: Number of draws.
        hold_shared: Draw the shared latents once and the local ones for each particle.
    """
    held: dict[str, Tensor] = {}
    if hold_shared and pair.guide is not None:
        shared = [s.name for s in pair.guide.latents.values() if s.row_plate is None]
        if shared:
            run = propose(pair, params, data, rows)
            held = {name: run.sites[name]["value"] for name in shared}

    def draw(_: Any = None) -> tuple:
        w = log_weights(pair, params, data, rows, held=held)
        scores = () if w.score_rows is None else (w.score_rows, w.score_shared)
        log_q = () if w.log_q is None else (w.log_q,)
        return w.rows, w.shared, scores, w.latents, w.deterministic, log_q

    drawn = several(pair, draw, num_particles)
    rows_, shared_, scores, latents, fixed, log_q = drawn
    scale = _scale(data_.num_rows(data), None if rows is None else len(rows))
    score_rows, score_shared = scores or (None, None)
    found = log_q[0] if log_q else None
    return Weights(rows_, shared_, scale, score_rows, score_shared, latents, fixed, found)


def propose(
    pair: Pair,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    rows: Tensor | None,
    held: Mapping[str, Tensor] | None = None,
) -> handlers.record:
    """Run the guide (the model where there is none) on the batch once, and return its record.

    Args:
        pair: Model and guide.
        params: Constrained values by name.
        data: The full data.
        rows: Row numbers of a batch, None for all.
        held: Values of sites that are not to be drawn.
    """
    program, total = pair.guide or pair.model, data_.num_rows(data)
    size = len(rows) if rows is not None else total
    with (
        installed(pair.params.values(), params) as answers,
        autoguide_rows(program.modules, program.data_plates, total or 0, size or 0),
    ):
        around = (*batch_handlers(program, rows, total), answers, handlers.replay(held or {}))
        return call(program, data_.take(data, rows), *around)


def several(pair: Pair, draw: Callable[..., Any], num_particles: int, *args: Any) -> Any:
    """Return what a function draws several times, along a leading axis of every tensor.

    It runs under `torch.func.vmap` where the program allows it, else one time after the other.

    Args:
        pair: Model and guide, which note whether that failed.
        draw: The function, of a number of the draw and of the arguments' own entry.
        num_particles: Number of draws.
        *args: Arguments (tensors, or dicts of them) with a leading axis of draws.
    """
    if num_particles == 1:
        own = tree_map(lambda leaf: leaf[0], args)
        return tree_map(lambda leaf: leaf.unsqueeze(0), draw(0, *own))
    if pair.model.notes.get("vmap", True):
        try:
            index = torch.arange(num_particles)
            with warnings.catch_warnings(), mappable_draws():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                return torch.func.vmap(draw, randomness="different")(index, *args)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError):
            # A program may ask for values, or use an operation that has no batching rule.
            pair.model.notes["vmap"] = False
    own = [tree_map(lambda leaf, k=k: leaf[k], args) for k in range(num_particles)]
    draws = [draw(k, *own[k]) for k in range(num_particles)]
    return tree_map(lambda *leaves: torch.stack(leaves), *draws)


@contextmanager
def scaled_call(
    pair: Pair, params: Mapping[str, Tensor], data: Sequence[Any], rows: Tensor | None
) -> Iterator[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]]:
    """Give model and guide as functions whose data sites carry the scale N / B, and their batch.

    For objectives of the language itself, which run programs their own way.
    """
    total = data_.num_rows(data)
    size = len(rows) if rows is not None else total
    programs = {"model": pair.model, "guide": pair.guide}
    modules = pair.guide.modules if pair.guide is not None else ()
    with installed(pair.params.values(), params) as answers:

        def as_function(program: Program | None) -> Callable[..., Any]:
            if program is None:
                return lambda *args: None
            around = (*batch_handlers(program, rows, total), answers)
            fixed = (*program.args,)

            def fn(*args: Any) -> Any:
                return handlers.run(program.fn, (*fixed, *args), dict(program.kwargs), *around)

            return fn

        with autoguide_rows(modules, pair.data_plates, total or 0, size or 0):
            functions = [as_function(program) for program in programs.values()]
            yield functions[0], functions[1], data_.take(data, rows)


def _padded(*rows: Tensor) -> tuple[Tensor, ...]:
    size = max(len(r) for r in rows)
    return tuple(r if len(r) else r.new_zeros(size) for r in rows)


def _scale(total: int | None, size: int | None) -> float:
    return total / size if total and size else 1.0


def batch_handlers(
    program: Program, rows: Tensor | None, total: int | None, scaled: bool = True
) -> tuple:
    """Return the handlers under which a program runs on a batch of rows, none on all of them."""
    if rows is None or total is None or len(rows) == total:
        return ()
    tables = {
        p.site: program.tables[p.name]
        for p in program.params.values()
        if p.name in program.tables and p.site
    }
    return (handlers.minibatch(rows, total, program.data_plates, tables, scaled),)


def log_density(
    program: Program,
    params: Mapping[str, Tensor],
    latents: Mapping[str, Tensor],
    data: Sequence[Any],
    enumerated: Collection[str] = (),
) -> tuple[Tensor, Tensor]:
    r"""Return \(\log p(x, z)\) of given latents, by row of the data plate and shared.

    Args:
        program: The model.
        params: Constrained values by name.
        latents: Values of its latent sites; those left out are drawn.
        data: The full data.
        enumerated: Discrete latents to sum out.

    Returns:
        Terms per row `(rows,)` and the sum of the others `()`.
    """
    size = data_.num_rows(data)
    with installed(program.params.values(), params) as answers:
        given = (answers, handlers.replay(latents))
        if enumerated:
            return _summed_out(program, params, data, enumerated, latents, None, size, *given)
        return terms(call(program, data, *given), program, size, size)


def log_probs(
    program: Program,
    params: Mapping[str, Tensor],
    latents: Mapping[str, Tensor],
    data: Sequence[Any],
) -> dict[str, Tensor]:
    """Return the log density of each sample statement, of its batch shape, masked and scaled.

    Args:
        program: The model.
        params: Constrained values by name.
        latents: Values of its latent sites; those left out are drawn.
        data: The full data.
    """
    with installed(program.params.values(), params) as answers:
        run = call(program, data, answers, handlers.replay(latents))
    return {
        name: messages.log_prob(msg)
        for name, msg in run.sites.items()
        if not msg["infer"].get("_deterministic")
    }


def simulate(
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    latents: Mapping[str, Tensor] | None = None,
    redraw: Collection[str] | None = None,
    stand_in: bool = False,
) -> dict[str, Tensor]:
    """Run a model forwards and return the value of every sample and deterministic site.

    Args:
        program: The model.
        params: Constrained values by name.
        data: The data it is called with.
        latents: Values of latent sites; what is missing is drawn from the prior.
        redraw: Observed sites to draw again: None for all, () for none. Factors stay.
        stand_in: Give sites of improper prior some value, where only the data are looked at.

    Raises:
        ValueError: A site to be drawn has an improper prior.
    """
    improper = handlers.feasible() if stand_in else handlers.proper()
    around = (improper, handlers.unobserve(redraw), handlers.replay(latents or {}))
    with installed(program.params.values(), params) as answers:
        run = call(program, data, answers, *around)
    return {name: msg["value"] for name, msg in run.sites.items() if name not in program.factors}


def init_params(pair: Pair) -> dict[str, Tensor]:
    """Return the unconstrained tensors that training moves, by name."""
    return {name: param.leaf for name, param in pair.params.items() if param.trainable}
