"""Reading a native program by runs at two row counts: which plates follow the data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from deepgen_ppl import checks
from deepgen_ppl.energy_checks import check_guide_factors
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers, refusals
from deepgen_ppl.pyro.autoguides import autoguide_rows
from deepgen_ppl.pyro.data import unwrap
from deepgen_ppl.pyro.parameters import (
    Param,
    collect,
    forked_rng,
    merge,
    modules_of,
    preserved,
    private_store,
)
from deepgen_ppl.pyro.structure import Pair, Plate, Program, Site, site_of


def read(
    model: Callable[..., Any],
    data: Sequence[Any],
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    role: str = "model",
    data_plates: Sequence[str] = (),
    known: Program | None = None,
) -> Program:
    """Read a native program by runs at the data's shape and at another row count.

    The runs leave no mark: param store, random state, validation settings and buffers are put back.

    Args:
        model: The Pyro program.
        data: Its positional data (arrays or tensors).
        model_kwargs: Constants passed by name.
        params: Learned values, for statements that bring no initial value.
        batch_size: Read it as it will run on batches of so many rows.
        seed: Seed of the draws and of random initial values.
        role: `"model"` or `"guide"`, for messages.
        data_plates: Data plates of the model, when a guide is read.
        known: The same program as it was read with other tensors of the same shapes. Where one run
            shows the same sites and plates, no more is read.

    Raises:
        ValueError: With `batch_size`, the program subsamples by itself, has data-shaped statements
            outside its data plates, or cannot run on part of the rows; or a site's data do not fit
            its support.

    Cost:
        Two or three runs without gradients, at `batch_size` rows when it is given.
    """
    fn, args, kwargs = unwrap(model)
    kwargs |= {name: data_.to_tensor(value) for name, value in (model_kwargs or {}).items()}
    device = data_.device_of(modules_of(fn))
    data = data_.to_tensors(data, device)
    if role == "model":
        data_.check(data_.argument_names(fn, len(args), len(data)), data, batch_size)
        data_.check_own(fn, data)
    reader = _Reader(fn, args, kwargs, data, params or {}, seed, role, tuple(data_plates))
    with private_store(), torch.no_grad():
        found = None if known is None else reader.again(known)
        return found or reader.read(batch_size)


def read_pair(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequence[Any],
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    prior: bool = False,
    enumerated: bool = False,
    partial: bool = False,
    alone: bool = False,
    known: Program | None = None,
) -> Pair:
    """Read a model and its guide and check that their sites match.

    Args:
        model: The model.
        guide: The guide, None for no latents.
        data: Data arguments of both.
        model_kwargs: Constants passed by name to both.
        params: Learned values, for statements that bring no initial value.
        batch_size: Rows per minibatch.
        seed: Seed of the draws and of random initial values.
        prior: With `guide=None`, allow latents: they are drawn from the prior.
        enumerated: Allow discrete latents that the guide lacks: they are summed out.
        partial: Allow latents that the guide lacks: they are drawn from the model.
        alone: Sum discrete latents out without a guide too.
        known: The model as it was read with other tensors of the same shapes.

    Returns:
        Both programs, their parameters and whether all their sites are local to the data plates.

    Raises:
        ValueError: The sites of model and guide do not match, or what `read` raises.
    """
    options: dict[str, Any] = dict(
        model_kwargs=model_kwargs, params=params, batch_size=batch_size, seed=seed
    )
    checks.check_guide(guide)
    with private_store():
        first = read(model, data, known=known, **options)
        latents = {name: site.shape for name, site in first.latents.items()}
        if guide is None:
            summed = tuple(n for n in latents if alone and first.sites[n].is_discrete)
            if not prior:
                left = {name: shape for name, shape in latents.items() if name not in summed}
                checks.check_pair(left, first.observed, None)
            return Pair(first, None, first.params, first.local, summed)
        second = read(guide, data, role="guide", data_plates=first.data_plates, **options)
    check_guide_factors(second.factors)
    drawn = {name: s.shape for name, s in second.latents.items() if not s.auxiliary}
    absent = [n for n in latents if partial or (enumerated and first.sites[n].is_discrete)]
    checks.check_pair(latents, first.observed, drawn, second.observed, absent)
    summed = () if partial else tuple(name for name in absent if name not in drawn)
    checks.check_enumerable(name for name in summed if not first.sites[name].enumerable)
    if batch_size is not None and batch_size != first.num_rows:
        checks.check_local(
            [n for n in drawn if first.sites[n].row_plate and not second.sites[n].row_plate],
            batch_size,
        )
    params_ = merge(first.params, second.params)
    by_leaf = {id(p.leaf): p for p in params_.values()}
    own = [by_leaf[id(p.leaf)] for p in second.params.values()]
    names = {id(p.leaf): name for name, p in second.params.items()}
    tables = {
        p.name: second.tables[names[id(p.leaf)]] for p in own if names[id(p.leaf)] in second.tables
    }
    second = replace(second, params={p.name: p for p in own}, tables=tables)
    return Pair(first, second, params_, first.local and second.local, summed)


class _Reader:
    """One reading of one program: runs it at two row counts and compares."""

    def __init__(self, fn, args, kwargs, data, params, seed, role, data_plates) -> None:
        self.fn, self.args, self.kwargs, self.data = fn, args, kwargs, data
        self.params, self.seed, self.role, self.outer = params, seed, role, data_plates
        self.modules = tuple(modules_of(fn))
        self.total = data_.num_rows(data)
        self.inner = [m for root in self.modules for m in root.modules()]

    def read(self, batch_size: int | None) -> Program:
        """Run at the first row count, compare with another, and put the program together."""
        self._set_up_autoguides()
        if batch_size is not None and batch_size != self.total:
            refusals.check_packed(self.inner, self.outer, batch_size)
        first = batch_size if batch_size is not None else self.total
        run = self._run_part(first, batch_size)
        other = self._other(first)
        second = None
        if other is not None and first is not None:
            try:
                with pyro.get_param_store().scope():
                    second = self._run_part(other, batch_size)
            except (ValueError, RuntimeError, IndexError, KeyError, NotImplementedError):
                if batch_size is not None:
                    raise
                other = None
        plates = self._plates(run, second, first, other)
        names = {p.name for p in plates.values() if p.follows_data and not p.subsampled}
        refusals.check_observed(run)
        if batch_size is not None:
            refusals.check_plates(run, plates, names, batch_size)
            if self.role == "model" and first is not None and first != self.total:
                moved = self._run_part(first, first, last=True)
                counts = (first, other, self.total)
                refusals.check_outside((run, second, moved), names, counts)
        modules = (*self.modules, *(m for m in run.modules.values() if m not in self.modules))
        params = collect(run, self.modules)
        tables = self._tables(run, second, params, first, other, batch_size)
        if batch_size is not None and tables and first != self.total:
            params = self._at_full_rows(params, tables)
        sites = {name: site_of(msg, names) for name, msg in run.sites.items()}
        dims = [-f.dim for m in run.sites.values() for f in m["cond_indep_stack"] if f.dim]
        return Program(
            self.fn, self.args, self.kwargs, sites, plates, params, tables, self.total,
            max(dims, default=0), modules,
        )  # fmt: skip

    def again(self, known: Program) -> Program | None:
        """Run once, and return what is known of the program where the run shows the same."""
        run = self._run(self.data)
        sites = {name: site_of(msg, known.data_plates) for name, msg in run.sites.items()}
        plates = {name: int(msg["fn"].size) for name, msg in run.plates.items()}
        if plates != {p.name: p.size for p in known.plates.values()}:
            return None
        if list(sites) != list(known.sites) or not all(
            _is_alike(site, known.sites[name]) for name, site in sites.items()
        ):
            return None
        refusals.check_observed(run)
        modules = (*self.modules, *(m for m in run.modules.values() if m not in self.modules))
        return replace(
            known, fn=self.fn, args=self.args, kwargs=self.kwargs,
            params=collect(run, self.modules), modules=modules, notes={},
        )  # fmt: skip

    def _set_up_autoguides(self) -> None:
        """Let autoguides make their parameters at all rows: tables keep their first size."""
        fresh = [m for m in self.inner if isinstance(m, AutoGuide) and m.prototype_trace is None]
        if fresh:
            self._run(self.data)
            self.inner = [m for root in self.modules for m in root.modules()]
        for module in self.inner:
            frames = module._prototype_frames if isinstance(module, AutoGuide) else {}
            for name, frame in frames.items():
                if name in self.outer and frame.size != self.total:
                    raise ValueError(
                        f"the guide was set up for {frame.size} rows of plate '{name}' and is now "
                        f"given {self.total}: it has parameters for each row. Make a new "
                        f"{type(module).__name__}(model), or use an amortised guide."
                    )

    def _run(self, data: Sequence[Any], *around: Any) -> handlers.record:
        recorder = handlers.record(with_params=True)
        defaults = handlers.answer(self.params, only_bare=True)
        around = (recorder, *around, defaults, handlers.feasible())
        try:
            with forked_rng(self.seed), preserved(self.modules), handlers.validation(False):
                handlers.run(self.fn, (*self.args, *data), dict(self.kwargs), *around)
        except Exception as error:
            if type(error) not in (ValueError, TypeError, RuntimeError, IndexError):
                raise
            names = data_.argument_names(self.fn, len(self.args), len(data))
            arrays = zip(names, data, strict=True)
            shapes = {name: tuple(x.shape) for name, x in arrays if isinstance(x, Tensor)}
            raise checks.stopped(self.role, list(recorder.sites), shapes, error) from error
        finally:
            recorder.restore_buffers()
        return recorder

    def _run_part(
        self, count: int | None, batch_size: int | None, last: bool = False
    ) -> handlers.record:
        """Run on the first (or last) `count` rows as a batch of all."""
        if count is None or self.total is None or count == self.total:
            return self._run(self.data)
        start = self.total - count if last and count < self.total else 0
        rows = torch.arange(start, start + count) % self.total
        part = data_.take(self.data, rows)
        around = (handlers.minibatch(rows, self.total, self.outer),) if self.outer else ()
        try:
            with autoguide_rows(self.inner, self.outer, self.total, count):
                return self._run(part, *around)
        except (ValueError, RuntimeError, IndexError) as error:
            if batch_size is None:
                raise
            self._check_own_subsampling(batch_size)
            raise ValueError(
                f"batch_size={batch_size}: the {self.role} runs on {self.total} rows but not on "
                f"{count}: {str(error).splitlines()[0]} Write its sizes as len(x), and pass arrays "
                "with a row per datum as data."
            ) from error

    def _other(self, first: int | None) -> int | None:
        if first is None or self.total is None:
            return None
        if first == self.total == 1:
            return 2  # the same row twice
        if first > 2:
            return first - 1
        if first + 1 <= self.total:
            return first + 1
        return first - 1 if first > 1 else None

    def _plates(
        self,
        run: handlers.record,
        second: handlers.record | None,
        first: int | None,
        other: int | None,
    ) -> dict[str, Plate]:
        dims = {f.name: f.dim for m in run.sites.values() for f in m["cond_indep_stack"]}
        plates = {}
        for name, msg in run.plates.items():
            size, part = int(msg["fn"].size), msg["fn"].subsample_size
            asked = msg["infer"]["subsampled"] or (part is not None and part < size)
            follows = name in self.outer and (size in (first, self.total))
            if second is not None and name in second.plates and not follows:
                follows = size == first and second.plates[name]["fn"].size == other
            # An autoguide's plate was given its rows by us.
            asked = bool(asked) and not (name in self.outer and part == first)
            plates[name] = Plate(name, dims.get(name), size, asked, follows)
        return plates

    def _check_own_subsampling(self, batch_size: int) -> None:
        """Tell a plate that subsamples all rows by itself, which part of the rows may hide."""
        try:
            run = self._run(self.data)
        except (ValueError, TypeError, RuntimeError, IndexError):
            return
        sizes = {n: (int(m["fn"].size), len(m["value"])) for n, m in run.plates.items()}
        checks.check_subsampling({n: s for n, s in sizes.items() if s[1] < s[0]}, batch_size)

    def _tables(self, run, second, params, first, other, batch_size) -> dict[str, int]:
        """Find parameters whose shape follows the rows, as the program sees them."""
        tables: dict[str, int] = {}
        if second is None:
            return tables
        for name, param in params.items():
            if param.site is None or param.site not in second.params:
                continue
            shape, shape2 = (tuple(r.params[param.site]["value"].shape) for r in (run, second))
            if shape == shape2:
                continue
            axes = [
                a
                for a, (m, n) in enumerate(zip(shape, shape2, strict=False))
                if (m, n) == (first, other)
            ]
            if len(shape) == len(shape2) and len(axes) == 1:
                tables[name] = axes[0]
            elif batch_size is not None:
                raise ValueError(
                    f"Parameter '{name}' changes its shape with the rows ({shape} at {first}, "
                    f"{shape2} at {other}) but has no axis of one entry a row, so batches cannot "
                    "be gathered from it."
                )
        return tables

    def _at_full_rows(
        self, params: Mapping[str, Param], tables: Mapping[str, int]
    ) -> dict[str, Param]:
        """Make the tables at all rows: one run at full size for their initial values."""
        short = [n for n, axis in tables.items() if params[n].leaf.shape[axis] != self.total]
        if not short:
            return dict(params)
        with pyro.get_param_store().scope():
            run = self._run(self.data)
        return {
            name: param._replace(leaf=run.leaves[param.site])
            if name in short and param.site
            else param
            for name, param in params.items()
        }


def _is_alike(one: Site, other: Site) -> bool:
    """Whether two sites are the same but for the numbers of their supports."""
    same = type(one.support) is type(other.support)
    return same and one._replace(support=None) == other._replace(support=None)
