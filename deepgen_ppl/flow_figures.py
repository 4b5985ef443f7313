"""Pictures of flows: densities of the plane, draws beside data, and maps of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deepgen_ppl.figures import BLUE, INK, ORANGE, _canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def densities(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], extent: tuple[float, float, float, float]
) -> Figure:
    """Densities of the plane, each below the data it was fitted to.

    Args:
        panels: by name, data of shape (rows, 2) and the density on a regular grid, shape
            (rows of the grid, columns), first coordinate along the columns.
        extent: left, right, bottom and top of the grid.

    Returns:
        The figure: data above, densities below.

    Example:
        >>> data, grid = np.zeros((5, 2)), np.ones((10, 10))
        >>> len(densities({"square": (data, grid)}, (0.0, 1.0, 0.0, 1.0)).axes)
        2
    """
    figure, axes = _canvas(2, len(panels), height=4.4)
    for column, (name, (data, grid)) in enumerate(panels.items()):
        above, below = axes[column], axes[column + len(panels)]
        above.plot(data[:, 0], data[:, 1], ".", color=BLUE, markersize=1.5, alpha=0.6)
        above.set(xlim=extent[:2], ylim=extent[2:])
        above.set_title(name, color=INK, fontsize=10.5)
        below.imshow(grid, origin="lower", extent=extent, cmap="viridis", aspect="auto")
        for one in (above, below):
            one.set(xticks=[], yticks=[])
            one.grid(False)
    return figure


def maps(panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Points before and after maps of the plane or of the line.

    Args:
        panels: by name, points before and after, shape (points,) or (points, 2); those of the line
            are drawn as histograms.

    Returns:
        The figure, one panel a map.

    Example:
        >>> u = np.linspace(0.0, 1.0, 50)
        >>> len(maps({"times four": (u, 4.0 * u)}).axes)
        1
    """
    figure, axes = _canvas(1, len(panels), height=2.6)
    for one, (name, (before, after)) in zip(axes, panels.items(), strict=True):
        for points, color, label in ((before, BLUE, "before"), (after, ORANGE, "after")):
            if points.ndim == 1:
                one.hist(points, 40, density=True, color=color, alpha=0.7, label=label)
            else:
                one.plot(*points.T, ".", color=color, markersize=1.5, alpha=0.7, label=label)
        one.set_title(name, color=INK, fontsize=10.5)
        one.legend(frameon=False, fontsize=9, labelcolor=INK, markerscale=5)
    return figure


def images(panels: Mapping[str, np.ndarray]) -> Figure:
    """Rows of images, such as data above draws.

    Args:
        panels: by name, images of shape (number, height, width).

    Returns:
        The figure, one row a name.

    Example:
        >>> len(images({"data": np.zeros((3, 8, 8))}).axes)
        3
    """
    columns = max(len(found) for found in panels.values())
    figure, axes = _canvas(len(panels), columns, height=0.9 * len(panels) + 0.3)
    for row, (name, found) in enumerate(panels.items()):
        for column in range(columns):
            one = axes[row * columns + column]
            one.set(xticks=[], yticks=[])
            one.grid(False)
            if column < len(found):
                one.imshow(found[column], cmap="gray_r", aspect="equal")
            if column == 0:
                one.set_ylabel(name, color=INK, fontsize=9.5)
    return figure
