"""Pictures of a calibration: ranks inside their bands, confidence beside accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deepgen_ppl.calibration import Calibration
from deepgen_ppl.classes import Reliability
from deepgen_ppl.figures import BLUE, CHAINS, GREEN, INK, RED, _canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LINES = 50


def rank_ecdf(calibration: Calibration, *, prob: float = 0.95) -> Figure:
    """The distribution function of the ranks of every site, less that of uniform ones.

    One line an element, the worst fifty of many; the bands are those of `Calibration.diagnose`. A
    line that leaves them is red. A posterior that is too narrow rises to the left and falls to the
    right; one that is too wide does the opposite; a shifted one leaves to one side.

    Args:
        calibration: The ranks.
        prob: Probability that an exact posterior stays inside everywhere.

    Returns:
        The figure, one panel a site or test quantity.

    References:
        Säilynoja, Bürkner, Vehtari 2022. https://arxiv.org/abs/2103.10522

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 100, 200)
        >>> len(rank_ecdf(Calibration({"z": ranks}, np.full(200, 99))).axes)
        1
    """
    names = list(calibration.ranks)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, panels = _canvas(rows, columns, height=2.6 * rows)
    for axes, name in zip(panels, names, strict=False):
        found = calibration.bands(name, prob)
        x = np.concatenate([[0.0], found.points, [1.0]])
        low, high = (
            np.concatenate([[0.0], edge - found.points, [0.0]])
            for edge in (found.lower, found.upper)
        )
        axes.fill_between(x, low, high, color=GREEN, alpha=0.18, linewidth=0)
        axes.plot(x, low, color=GREEN, linewidth=0.8)
        axes.plot(x, high, color=GREEN, linewidth=0.8)
        pit = calibration.pit(name).reshape(len(calibration.ranks[name]), -1)
        lines = (pit[:, :, None] <= found.points).mean(0) - found.points
        edges = np.stack([found.lower, found.upper]) - found.points
        beyond = np.maximum(edges[0] - lines, lines - edges[1]).max(axis=1)
        for i in np.argsort(beyond)[-_MOST_LINES:]:
            outside = beyond[i] > 1e-9
            axes.plot(x, np.concatenate([[0.0], lines[i], [0.0]]), linewidth=1.3,
                      color=RED if outside else BLUE, alpha=0.9 if outside else 0.6)  # fmt: skip
        axes.axhline(0.0, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        axes.set_xlim(0.0, 1.0)
        axes.set_title(name, loc="left", color=INK, fontsize=10.5, fontweight="bold")
        axes.set_xlabel("rank of the true value")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("ECDF − uniform")
    return figure


def reliability_curves(curves: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """How often classifiers are right where they say how sure they are, a panel a situation.

    On the dashed line stated confidence is accuracy; below it a classifier is overconfident. A
    dot's area grows with its share of the rows.

    Args:
        curves: Reliability by panel and by classifier.

    Returns:
        The figure.

    Example:
        >>> from deepgen_ppl.classes import reliability
        >>> found = reliability(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))
        >>> len(reliability_curves({"all rows": {"a classifier": found}}).axes)
        1
    """
    figure, panels = _canvas(1, len(curves), height=4.2)
    low = min(f.confidence.min() for found in curves.values() for f in found.values())
    for axes, (title, found) in zip(panels, curves.items(), strict=True):
        axes.plot([low, 1], [low, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1.0)
        for colour, (name, one) in zip(CHAINS, found.items(), strict=False):
            label = f"{name}: log loss {one.log_loss:.3f}, ECE {one.ece:.3f}"
            axes.plot(one.confidence, one.accuracy, color=colour, linewidth=1.6, label=label)
            share = one.count / one.count.sum()
            axes.scatter(one.confidence, one.accuracy, s=14 + 140 * share, color=colour)
        axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
        axes.set_xlabel("confidence, mean of a bin")
        axes.set_xlim(low - 0.02, 1.02)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=9
        )
        for text in legend.get_texts():
            text.set_color(INK)
    panels[0].set_ylabel("accuracy")
    return figure
