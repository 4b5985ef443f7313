"""Pictures of a result, drawn from plain arrays: loss, traces, predictive checks, Pareto k.

Every function returns a `matplotlib.figure.Figure` that belongs to no window and changes no
setting; backgrounds are transparent and inks are mid-tones, so that a picture reads on a light page
and on a dark one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#808999"  # text and axes: legible on white and on near-black
BLUE, ORANGE, GREEN, PURPLE, RED = "#3f83e8", "#e8833a", "#2fa37c", "#a06ad4", "#dc4f5b"
CHAINS = (BLUE, ORANGE, GREEN, PURPLE, "#c9a227", "#4fb3c9", "#d86a9e", "#8a9a3b")
_WIDTH = 9.6
_MAX_BARS = 40


def loss_curve(
    losses: np.ndarray,
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    label: str = "loss per datum",
) -> Figure:
    """Training losses, their running median, and the validation losses where there are some.

    The vertical axis leaves out the first steps' outliers (above the 98th percentile), which would
    flatten the part that matters.

    Args:
        losses: `(num_steps,)`.
        validation: Steps and losses, each `(num_validations,)`.
        label: What a loss is, for the axis.

    Returns:
        The figure.

    Example:
        >>> import numpy as np
        >>> loss_curve(np.exp(-np.arange(100) / 20)).axes[0].get_xlabel()
        'step'
    """
    losses = np.asarray(losses, dtype=float)
    figure, (axes,) = _canvas(1, 1, height=2.9)
    steps = np.arange(1, losses.size + 1)
    axes.plot(steps, losses, color=BLUE, alpha=0.28, linewidth=0.8)
    window = max(1, losses.size // 50)
    centres, medians = _blocks(losses, window)
    axes.plot(centres, medians, color=BLUE, linewidth=2.0, label="training, running median")
    if validation is not None and len(validation[0]):
        axes.plot(*validation, "o-", color=ORANGE, linewidth=1.6, markersize=3, label="validation")
    finite = losses[np.isfinite(losses)]
    if finite.size:
        low, high = finite.min(), np.quantile(finite, 0.98)
        pad = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - pad, high + pad)
    axes.set_xlim(0, max(losses.size, 1))
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    _legend(axes)
    return figure


def traces(draws: Mapping[str, np.ndarray]) -> Figure:
    """A trace and a rank histogram of every scalar quantity, one colour a chain.

    Chains that explored the same distribution have flat rank histograms (the dashed line).

    Args:
        draws: Each quantity's name and its `(chain, draw)` draws.

    Returns:
        The figure, one row a quantity.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner. Rank-normalization, folding, and localization:
        an improved R-hat. Bayesian Analysis, 2021. arXiv:1903.08008.

    Example:
        >>> import numpy as np
        >>> len(traces({"x": np.random.default_rng(0).normal(size=(4, 100))}).axes)
        2
    """
    figure, panels = _canvas(len(draws), 2, height=1.2 * len(draws) + 0.5, widths=(2.2, 1))
    for row, (name, values) in enumerate(draws.items()):
        trace, ranks = panels[2 * row], panels[2 * row + 1]
        values = np.asarray(values, dtype=float)
        num_chains, num_draws = values.shape
        order = values.ravel().argsort(kind="stable").argsort().reshape(values.shape)
        bins = np.linspace(0, values.size, min(20, max(2, num_draws // 10)) + 1)
        for chain in range(num_chains):
            colour = CHAINS[chain % len(CHAINS)]
            stride = max(1, num_draws // 1000)
            shown = values[chain, ::stride]
            trace.plot(
                np.arange(0, num_draws, stride), shown, color=colour, alpha=0.65, linewidth=0.6
            )
            counts = np.histogram(order[chain], bins)[0] * (bins.size - 1) / num_draws
            ranks.stairs(counts, bins / values.size, baseline=None, color=colour, linewidth=1.4)
        ranks.axhline(1.0, color=INK, linestyle=(0, (4, 3)), linewidth=1.0)
        ranks.set_ylim(0, None)
        ranks.set_xlim(0, 1)
        trace.set_xlim(0, num_draws)
        trace.set_ylabel(name)
        if row == 0:
            _title(trace, "trace")
            _title(ranks, "ranks of each chain")
        if row < len(draws) - 1:
            trace.set_xticklabels([])
            ranks.set_xticklabels([])
    panels[-2].set_xlabel("draw")
    panels[-1].set_xlabel("rank among all draws")
    return figure


def predictive_check(name: str, observed: np.ndarray, replicated: np.ndarray) -> Figure:
    """Observed data beside data replicated from the posterior predictive distribution.

    Continuous data are drawn as histograms, at most fifty replications; discrete data of few values
    as the share of each value with the central 90 % of the replications. Data of more than four
    columns, such as images, are also compared by the mean of every column.

    Args:
        name: The observed site.
        observed: `(*data)`.
        replicated: `(replication, *data)`.

    Returns:
        The figure; data of two to four columns get a panel a column.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> figure = predictive_check("x", rng.normal(size=50), rng.normal(size=(20, 50)))
        >>> len(figure.axes)
        1
    """
    observed, replicated = (np.asarray(a, dtype=float) for a in (observed, replicated))
    num_columns = observed.shape[-1] if observed.ndim >= 2 else 1
    if num_columns > 4:
        binary = bool(np.isin(observed[np.isfinite(observed)], (0, 1)).all())
        figure, panels = _canvas(1, 1 if binary else 2, height=3.4)
        _compare_columns(panels[-1], name, observed, replicated)
        columns = [] if binary else [(name, observed, replicated)]
    elif num_columns > 1:
        figure, panels = _canvas(1, num_columns, height=2.9)
        columns = [
            (f"{name}[{j}]", observed[..., j], replicated[..., j]) for j in range(num_columns)
        ]
    else:
        figure, panels = _canvas(1, 1, height=2.9)
        columns = [(name, observed, replicated)]
    for axes, (title, data, copies) in zip(panels, columns, strict=False):
        values = data[np.isfinite(data)]
        whole = bool(np.all(values == np.round(values)))
        if whole and values.size and np.ptp(values) < _MAX_BARS:
            _compare_counts(axes, data, copies)
        else:
            _compare_histograms(axes, data, copies)
        axes.set_xlabel(title)
        _hide_heights(axes)
    _legend(panels[0])
    return figure


def pareto_k(values: np.ndarray, *, what: str = "datum") -> Figure:
    """The Pareto k of every datum, and the share of data below each threshold.

    Below 0.5 an importance estimate has a finite variance, up to 0.7 it is still usable, above 0.7
    it must not be trusted.

    Args:
        values: `(N,)`.
        what: What one value belongs to.

    Returns:
        The figure.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry. Pareto smoothed importance sampling. JMLR, 2024.
        arXiv:1507.02646.

    Example:
        >>> import numpy as np
        >>> pareto_k(np.linspace(-0.1, 0.9, 40)).axes[0].get_ylabel()
        'Pareto k'
    """
    values = np.atleast_1d(np.asarray(values, dtype=float)).ravel()
    figure, (axes, bars) = _canvas(1, 2, height=2.9, widths=(3, 1))
    index = np.arange(values.size)
    colours = np.select([values <= 0.5, values <= 0.7], [GREEN, ORANGE], RED)
    size = float(np.clip(4000 / max(values.size, 1), 5, 36))
    finite = np.where(np.isfinite(values), values, np.nan)
    axes.scatter(index, finite, c=colours, s=size, alpha=0.75, linewidths=0)
    for threshold, colour in ((0.5, ORANGE), (0.7, RED)):
        axes.axhline(threshold, color=colour, linestyle=(0, (4, 3)), linewidth=1.1)
        axes.text(1.0, threshold, f" {threshold}", color=colour, va="center", fontsize=9,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_xlim(-0.02 * values.size - 0.5, 1.02 * values.size + 0.5)
    axes.set_xlabel(what)
    axes.set_ylabel("Pareto k")
    good, bad = np.mean(values <= 0.5), np.mean(~(values <= 0.7))
    shares = (("≤ 0.5", good, GREEN), ("≤ 0.7", 1 - good - bad, ORANGE), ("> 0.7", bad, RED))
    for place, (_, share, colour) in enumerate(shares):
        bars.barh(place, share, color=colour, height=0.62)
        bars.text(share + 0.02, place, f"{share:.0%}", va="center", color=INK, fontsize=10)
    bars.set_yticks(range(3), [label for label, *_ in shares])
    bars.set_xlim(0, 1.3)
    bars.set_xticks([])
    bars.invert_yaxis()
    bars.grid(False)
    bars.spines[["left", "bottom"]].set_visible(False)
    bars.tick_params(length=0)
    _title(bars, "share of data")
    return figure


def row_evidence(values: np.ndarray) -> Figure:
    """The log evidence of every datum, `log p(x_i)`, the least expected data marked.

    Args:
        values: `(N,)`, in nats.

    Returns:
        The figure.

    Example:
        >>> import numpy as np
        >>> row_evidence(-np.arange(50.0)).axes[0].get_xlabel()
        'log p(x_i), nats'
    """
    values = np.asarray(values, dtype=float).ravel()
    figure, (axes,) = _canvas(1, 1, height=2.3)
    counts, edges = _histogram(values[np.isfinite(values)])
    axes.stairs(counts, edges, fill=True, color=PURPLE, alpha=0.35)
    axes.stairs(counts, edges, color=PURPLE, linewidth=1.5)
    for rank, row in enumerate(np.argsort(values)[: min(3, values.size)]):
        if np.isfinite(values[row]):
            axes.axvline(values[row], 0, 0.16, color=RED, linewidth=1.6)
            axes.annotate(f"row {row}", (values[row], 0.2 + 0.13 * rank), color=RED, fontsize=9,
                          xycoords=("data", "axes fraction"))  # fmt: skip
    axes.set_xlabel("log p(x_i), nats")
    _hide_heights(axes)
    return figure


def to_png(figure: Figure, *, resolution: int = 140) -> bytes:
    """The figure as a PNG file's bytes.

    Args:
        figure: Any matplotlib figure.
        resolution: Dots per inch.

    Returns:
        The bytes of the file.

    Example:
        >>> import numpy as np
        >>> to_png(row_evidence(np.arange(9.0)), resolution=20)[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=resolution, transparent=None)
    return buffer.getvalue()


def data_uri(figure: Figure, *, resolution: int = 140) -> str:
    """The figure as a `data:` address that stands inside an HTML page."""
    return (
        "data:image/png;base64," + base64.b64encode(to_png(figure, resolution=resolution)).decode()
    )


def _canvas(
    rows: int, columns: int, *, height: float, widths: Sequence[float] | None = None
) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"width_ratios": widths})
    panels = list(grid.ravel())
    for axes in panels:
        style(axes)
    return figure, panels


def style(axes: Axes) -> None:
    """Give axes the look of the other pictures."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=9.5, length=3, width=0.8)
    axes.grid(True, color=INK, alpha=0.18, linewidth=0.7)
    axes.set_axisbelow(True)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(10.5)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=10.5, fontweight="bold")


def _hide_heights(axes: Axes) -> None:
    """Leave out the vertical axis of a histogram, whose heights mean nothing by themselves."""
    axes.set_yticks([])
    axes.set_ylim(0, None)
    axes.spines["left"].set_visible(False)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9.5)


def _blocks(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and medians of consecutive blocks, the shorter last block joined to its neighbour."""
    num_blocks = max(1, values.size // window)
    parts = np.array_split(values, num_blocks) if values.size else []
    ends = np.cumsum([part.size for part in parts])
    centres = np.array([end - (part.size - 1) / 2 for end, part in zip(ends, parts, strict=True)])
    return centres, np.array([np.median(part) for part in parts])


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Density histogram of about 2 n^(1/3) bins; the outer 0.2 % stand in the end bins."""
    if values.size == 0:
        return np.zeros(1), np.array([0.0, 1.0])
    low, high = np.quantile(values, [0.002, 0.998])
    if low == high:
        low, high = low - 0.5, high + 0.5
    num_bins = int(np.clip(2 * values.size ** (1 / 3), 8, 60))
    return np.histogram(np.clip(values, low, high), num_bins, (low, high), density=True)


def _compare_histograms(axes: Axes, observed: np.ndarray, replicated: np.ndarray) -> None:
    data = observed[np.isfinite(observed)]
    low, high = (data.min(), data.max()) if data.size else (0.0, 1.0)
    pad = 0.15 * (high - low) or 1.0
    num_bins = int(np.clip(2 * data.size ** (1 / 3), 8, 60))
    edges = np.linspace(low - pad, high + pad, num_bins + 1)
    width = edges[1] - edges[0]
    for i, copy in enumerate(replicated[:50]):
        counts = np.histogram(copy, edges)[0] / (max(copy.size, 1) * width)
        label = "replicated" if i == 0 else None
        axes.stairs(counts, edges, color=BLUE, alpha=0.22, linewidth=0.9, label=label)
    counts = np.histogram(data, edges)[0] / (max(data.size, 1) * width)
    axes.stairs(counts, edges, color=ORANGE, linewidth=2.2, label="observed")


def _compare_columns(axes: Axes, name: str, observed: np.ndarray, replicated: np.ndarray) -> None:
    copies = np.nanmean(replicated, axis=tuple(range(1, replicated.ndim - 1)))
    lower, middle, upper = np.quantile(copies, [0.05, 0.5, 0.95], axis=0)
    means = np.nanmean(observed, axis=tuple(range(observed.ndim - 1)))
    axes.axline((means.mean(), means.mean()), slope=1, color=INK, linewidth=1.0)
    axes.errorbar(means, middle, (middle - lower, upper - middle), fmt="o", color=BLUE, alpha=0.7,
                  markersize=4, linewidth=1.4, label="a column, 90 % of replications")  # fmt: skip
    axes.set_xlabel(f"mean of each column of {name}, observed")
    axes.set_ylabel("replicated")


def _compare_counts(axes: Axes, observed: np.ndarray, replicated: np.ndarray) -> None:
    observed = observed[np.isfinite(observed)]
    replicated = replicated.reshape(len(replicated), -1)
    low = int(min(observed.min(), np.quantile(replicated, 0.005)))
    high = int(max(observed.max(), np.quantile(replicated, 0.995)))
    edges = np.arange(low, high + 2) - 0.5
    shares = np.stack([np.histogram(copy, edges)[0] / copy.size for copy in replicated])
    lower, middle, upper = np.quantile(shares, [0.05, 0.5, 0.95], axis=0)
    values = np.arange(low, high + 1)
    data = np.histogram(observed, edges)[0] / max(observed.size, 1)
    axes.bar(values, data, color=ORANGE, alpha=0.45, width=0.8, label="observed")
    axes.locator_params(axis="x", integer=True)
    axes.errorbar(values, middle, (middle - lower, upper - middle), fmt="o", color=BLUE,
                  markersize=4, linewidth=1.6, label="replicated, 90 %")  # fmt: skip
