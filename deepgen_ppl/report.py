"""The report: one self-contained HTML page about a result, made to be looked at."""

from __future__ import annotations

import os
import platform
import string
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgen_ppl import archive, page
from deepgen_ppl import figures as draw
from deepgen_ppl.diagnosis import Check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deepgen_ppl.posterior import Posterior

_TEMPLATE = Path(__file__).with_name("report.html")
_MAX_ROWS = 12  # scalar quantities in the summary table
_MAX_TRACES = 6
_NUM_PREDICTIVE = 100  # replications in a predictive check
_MAX_LOO = 5_000_000  # log likelihoods computed for leave-one-out
_PACKAGES = (
    *("deepgen_ppl", "numpyro", "jax", "pyro-ppl", "torch"),
    *("numpy", "arviz-base", "arviz-stats", "arviz-plots", "xarray"),
)


@dataclass(frozen=True)
class Section:
    """One result on a page.

    Attributes:
        title: Its heading.
        posterior: Draws, or None.
        fit: A wing's `Fit`, or None.
        scores: The `Posterior` of `importance`, whose evidence gives Pareto k and log p(x); by
            default the evidence of `posterior` where it has one.
        figures: Further pictures by caption.
        note: A sentence or two under the heading.
    """

    title: str
    posterior: Posterior | None = None
    fit: Any = None
    scores: Posterior | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    note: str = ""


def report(
    result: Any,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    fit: Any = None,
    figures: Mapping[str, Figure] | None = None,
    note: str = "",
) -> Path:
    """Write one HTML page about a result: verdict, draws, loss, predictions, checks, what is next.

    The page needs no network: styles, pictures and numbers stand inside it. It follows the reader's
    choice of a light or a dark page.

    Args:
        result: A `Posterior`; or a `Fit`, whose guide is then sampled and scored by importance
            sampling; or a list of `Section` objects.
        path: The file to write; folders are made as needed.
        title: Heading of the page.
        fit: The `Fit` that a `Posterior` came from, for its losses and parameters.
        figures: Further pictures by caption.
        note: A sentence or two under the heading.

    Returns:
        The path of the page.

    Raises:
        TypeError: If `result` is none of these.

    Cost:
        A second or two, most of it drawing; for a `Fit` also 500 draws and 500 particles a datum.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from deepgen_ppl import Posterior
        >>> posterior = Posterior({"x": np.random.default_rng(0).normal(size=(4, 100))})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = report(posterior, f"{folder}/report.html", title="A normal").read_text()
        >>> text.count("<h1>A normal</h1>")
        1
    """
    sheets = [_Sheet(section) for section in _sections(result, title, fit, figures or {}, note)]
    links = "".join(
        f'<a href="#s{i}"><i class="{sheet.state}"></i>{page.text(sheet.section.title)}</a>'
        for i, sheet in enumerate(sheets, 1)
    )
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=page.text(title or sheets[0].section.title),
        subtitle=f"written {datetime.now():%d %B %Y, %H:%M}",
        nav=f"<nav>{links}</nav>" if len(sheets) > 1 else "",
        body="".join(sheet.render(f"s{i}") for i, sheet in enumerate(sheets, 1)),
        versions=page.text(_versions()),
    )
    with archive.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _sections(
    result: Any, title: str | None, fit: Any, figures: Mapping[str, Figure], note: str
) -> list[Section]:
    from deepgen_ppl.posterior import Posterior

    if isinstance(result, Posterior):
        names = {"mcmc": "Posterior by MCMC", "svi": "Posterior by SVI"}
        name = title or names.get(result.method, "Posterior by importance sampling")
        return [Section(name, result, fit, figures=figures, note=note)]
    if isinstance(result, list | tuple):
        if result and all(isinstance(part, Section) for part in result):
            return list(result)
    elif hasattr(result, "losses") and hasattr(result, "guide"):
        posterior = scores = None
        if result.guide is not None:
            posterior = result.posterior(num_samples=500)
            scores = result.importance(num_particles=500)
        return [Section(title or "Fit by SVI", posterior, result, scores, figures, note)]
    raise TypeError(
        f"report takes a Posterior, a Fit or a list of Sections, not {type(result).__name__}."
    )


class _Sheet:
    """One section being written, with what several of its parts need computed once."""

    def __init__(self, section: Section) -> None:
        self.section, self.fit = section, section.fit
        self.posterior = None if section.posterior is None else section.posterior.resample()
        scored = section.scores if section.scores is not None else section.posterior
        self.evidence = None if scored is None else scored.evidence
        checks: dict[str, Check] = {}
        for part in (section.fit, section.scores):  # the scores see all rows, the fit a few
            if part is not None:
                checks |= {check.name: check for check in part.diagnose().checks}
        if section.posterior is not None:
            found = {check.name: check for check in section.posterior.diagnose().checks}
            checks = found | checks
        self.checks = sorted(checks.values(), key=lambda check: check.ok is None)
        self.failed = [check for check in self.checks if check.ok is False]
        self.state = "warn" if self.failed else "good"
        self.params = [] if section.fit is None else list(_shapes(section.fit.params))
        self.scalars = {} if self.posterior is None else _scalars(self.posterior.draws)

    def render(self, anchor: str) -> str:
        """The section as HTML."""
        passed = sum(check.ok is True for check in self.checks)
        judged = passed + len(self.failed)
        words = f"✓ all {judged} checks passed"
        if self.failed:
            words = f"! {len(self.failed)} of {judged} checks need a look"
        badge = f'<span class="badge">{words}</span>' if judged else ""
        note = (
            f'<p class="note soft">{page.text(self.section.note)}</p>' if self.section.note else ""
        )
        return (
            f'<section id="{anchor}" class="{self.state}"><div class="head">'
            f"<h2>{page.text(self.section.title)}</h2>{badge}</div>{note}{self._tiles()}"
            f'<div class="cards">{"".join(self._cards())}</div></section>'
        )

    def _cards(self) -> Iterator[str]:
        if self.failed:
            advice = [f"<b>{page.text(c.name)}</b>: {page.text(c.advice)}" for c in self.failed]
            yield page.card("Look at this first", page.steps(advice), kind="attention")
        for caption, figure in self.section.figures.items():
            yield page.picture(caption, figure)
        if self.posterior is not None:
            yield self._summary(self.posterior)
        if self.fit is not None:
            curve = draw.loss_curve(self.fit.losses, validation=_validation(self.fit))
            yield page.picture("Loss", curve)
        if self.posterior is not None:
            yield self._traces(self.posterior)
            yield from self._predictions(self.posterior)
            yield from self._pareto_k(self.posterior)
        yield self._table_of_checks()
        yield self._sites()
        yield self._next()

    def _tiles(self) -> str:
        """The few numbers that a reader looks for first."""
        tiles: list[tuple[str, str]] = []
        if self.evidence is not None:
            error = f"{self.evidence.standard_error:.2g}"
            tiles.append((page.number(self.evidence.log_evidence), f"log evidence ± {error}"))
        if self.fit is not None:
            last = np.asarray(self.fit.losses)[-max(1, len(self.fit.losses) // 20) :]
            size = sum(int(np.prod(shape)) for _, shape in self.params)
            tiles.append((page.number(float(np.mean(last))), "final loss per datum"))
            tiles.append((f"{size:,}", "learned numbers"))
            tiles.append((f"{len(self.fit.losses):,}", "optimiser steps"))
            tiles.append((f"{self.fit.seconds:.1f} s", "training time"))
        named = {"R-hat": "worst R-hat", "bulk ESS": "least bulk ESS", "Pareto k": "worst Pareto k"}
        for check in self.checks:
            if check.name in (*named, "divergences") and check.value is not None:
                tiles.append((page.number(check.value), named.get(check.name, check.name)))
        if self.posterior is not None and not self.posterior.independent:
            chains, draws = self.posterior.num_chains, self.posterior.num_draws
            tiles.append((f"{chains} × {draws:,}", "chains × draws"))
        cells = "".join(
            f'<div class="tile"><b>{value}</b><span>{page.text(label)}</span></div>'
            for value, label in tiles
        )
        return f'<div class="tiles">{cells}</div>'

    def _summary(self, posterior: Posterior) -> str:
        """Mean, sd, central 90 % and chain diagnostics of the scalar quantities."""
        from arviz_stats.base import array_stats

        chained = not posterior.independent and posterior.num_draws >= 4
        head = ["quantity", "", "mean", "sd", "5 %", "95 %"] + ["ESS", "R-hat"] * chained
        body = []
        for name, values in self.scalars.items():
            cells = [values.mean(), values.std(ddof=1), *np.quantile(values, [0.05, 0.95])]
            numbers = [page.number(cell) for cell in cells]
            if chained:
                bulk: Any = array_stats.ess(values, method="bulk")
                rhat: Any = array_stats.rhat(values)
                numbers += [page.number(round(float(bulk))), f"{float(rhat):.3f}"]
            body.append([f"<code>{page.text(name)}</code>", page.sparkline(values), *numbers])
        total = sum(int(np.prod(values.shape[2:])) for values in posterior.draws.values())
        why = f"{len(body)} of {total:,} scalar quantities are shown." if total > len(body) else ""
        return page.card("Posterior", page.table(head, body, numeric=range(2, 8)), why=why)

    def _traces(self, posterior: Posterior) -> str:
        chosen = dict(list(self.scalars.items())[:_MAX_TRACES])
        if not chosen or posterior.independent:
            return ""
        why = "Flat rank histograms mean that the chains explored the same distribution."
        return page.picture("Traces and ranks", draw.traces(chosen), why=why)

    def _predictions(self, posterior: Posterior) -> Iterator[str]:
        """Observed data beside replications from the posterior predictive distribution."""
        if "posterior_predictive" not in posterior.evaluators:
            return
        few = posterior.resample(min(_NUM_PREDICTIVE, posterior.num_chains * posterior.num_draws))
        for site, copies in few.evaluate("posterior_predictive").items():
            if site in posterior.observed_data:
                values = copies.reshape(-1, *copies.shape[2:])
                figure = draw.predictive_check(site, posterior.observed_data[site], values)
                why = "A model that fits replicates data that look like the observed ones."
                yield page.picture(f"Posterior predictive check of {site}", figure, why=why)

    def _pareto_k(self, posterior: Posterior) -> Iterator[str]:
        """Pareto k and log evidence of every datum; for chains Pareto k of leave-one-out."""
        if self.evidence is not None and self.evidence.per_row is not None:
            figure = draw.pareto_k(
                np.asarray(self.evidence.pareto_k), what=self.evidence.rows or ""
            )
            why = "How well the guide covers each datum's own posterior: green may be trusted."
            yield page.picture("Pareto k of every datum", figure, why=why)
            figure = draw.row_evidence(self.evidence.per_row)
            why = "The data that the model finds least likely: outliers, or what it did not learn."
            yield page.picture("Log evidence of every datum", figure, why=why)
        elif _can_leave_one_out(posterior):
            import arviz_stats

            tree = posterior.to_datatree(groups=["log_likelihood"])
            with warnings.catch_warnings():  # of large Pareto k, which the picture shows
                warnings.simplefilter("ignore", UserWarning)
                found: Any = arviz_stats.loo(tree, pointwise=True)
            why = (
                f"Expected log predictive density {found.elpd:.1f} ± {found.se:.1f} by leaving one "
                "datum out at a time; a red datum decides the fit more than it should."
            )
            figure = draw.pareto_k(np.asarray(found.pareto_k), what="datum")
            yield page.picture("Pareto k of leave-one-out", figure, why=why)

    def _table_of_checks(self) -> str:
        words = {True: ("yes", "✓ ok"), False: ("no", "! look"), None: ("na", "n/a")}
        rows: list[list[Any]] = []
        for check in self.checks:
            meaning = (
                f'{page.text(check.advice)} <span class="source">{page.text(check.source)}</span>'
            )
            value = "" if check.value is None else page.number(check.value)
            wanted = page.text(check.threshold.replace(">=", "≥").replace("<=", "≤"))
            rows.append([page.text(check.name), value, wanted, words[check.ok], meaning])
        head = ["check", "value", "wanted", "", "what it means"]
        return (
            page.card("Checks", page.table(head, rows, numeric=[1]), kind="checks") if rows else ""
        )

    def _sites(self) -> str:
        """What is drawn, observed and learned, in which plates and shapes."""
        rows: list[list[str]] = []
        if self.posterior is not None:
            dims = self.posterior.dims
            for name, values in self.posterior.draws.items():
                rows.append(_site(name, "latent", dims.get(name, ()), values.shape[2:]))
            for name, values in self.posterior.observed_data.items():
                rows.append(_site(name, "observed", dims.get(name, ()), np.shape(values)))
        if self.fit is not None:
            rows += [_site(name, "learned", (), shape) for name, shape in self.params]
        head = ["site", "role", "plates", "shape", "numbers"]
        kind = "half" if len(rows) <= 8 else ""  # beside what to do next
        return page.card("Model", page.table(head, rows, numeric=[4]), kind=kind) if rows else ""

    def _next(self) -> str:
        steps = ["Mend what stands under “Look at this first”, and run it again."] * bool(
            self.failed
        )
        available = set() if self.posterior is None else set(self.posterior.evaluators)
        if not self.failed and "log_likelihood" in available:
            steps.append("Compare it with another model: <code>arviz_stats.compare</code>.")
        if not self.failed and "log_prior" in available:
            steps.append("See how much the prior decides: <code>arviz_stats.psense</code>.")
        if self.posterior is not None:
            calls = "<code>posterior.to_datatree()</code>, <code>posterior.save(path)</code>"
            steps.append(f"Take the draws to ArviZ, or keep them: {calls}.")
        if self.fit is not None:
            steps.append("Keep the fit: <code>fit.save(path)</code>, <code>dg.load_fit</code>.")
        return page.card("What to do next", page.steps(steps), kind="half")


def _can_leave_one_out(posterior: Posterior) -> bool:
    if "log_likelihood" not in posterior.evaluators or posterior.independent:
        return False
    sizes = [np.size(value) for value in posterior.observed_data.values()]
    total = posterior.num_chains * posterior.num_draws
    return len(sizes) == 1 and sizes[0] * total <= _MAX_LOO


def _site(name: str, role: str, dims: Sequence[str | None], shape: tuple[int, ...]) -> list[str]:
    plates = ", ".join(f"{dim} ({size:,})" for dim, size in zip(dims, shape, strict=False) if dim)
    event = " × ".join(f"{size:,}" for size in shape[len(dims) :]) or "scalar"
    tag = f'<span class="role {role}">{role}</span>'
    return [
        f"<code>{page.text(name)}</code>",
        tag,
        page.text(plates),
        event,
        f"{int(np.prod(shape)):,}",
    ]


def _scalars(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A few scalar quantities of every site, those that vary, by their labels."""
    share = max(2, _MAX_ROWS // max(2, len(draws)))
    chosen: dict[str, np.ndarray] = {}
    for name, values in draws.items():
        shape = values.shape[2:]
        flat = values.reshape(*values.shape[:2], -1)[:, :, :share].astype(float)
        for index in range(flat.shape[2]):
            where = ", ".join(str(i) for i in np.unravel_index(index, shape)) if shape else ""
            if np.ptp(flat[:, :, index]) > 0:
                chosen[f"{name}[{where}]" if where else name] = flat[:, :, index]
    return chosen


def _shapes(params: Any, name: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the arrays in a nest of mappings, sequences and modules."""
    if hasattr(params, "shape"):
        yield name, tuple(params.shape)
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(params, Mapping):
        parts = params.items()
    elif isinstance(params, list | tuple):
        parts = enumerate(params)
    elif is_dataclass(params):
        parts = vars(params).items()
    for key, value in parts:
        yield from _shapes(value, f"{name}.{key}" if name else str(key))


def _validation(fit: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if "validation_loss" not in fit.history:
        return None
    return fit.history["validation_step"], fit.history["validation_loss"]


def _versions() -> str:
    known = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            known.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return " · ".join(known)
