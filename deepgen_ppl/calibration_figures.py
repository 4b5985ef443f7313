"""Pictures of a calibration: the distribution functions of ranks inside their bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepgen_ppl.calibration import Calibration
from deepgen_ppl.figures import BLUE, GREEN, INK, RED, _canvas

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
