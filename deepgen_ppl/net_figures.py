"""Pictures of a network's graph: a plain layout in layers, or graphviz where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepgen_ppl.directed import Parents, layers
from deepgen_ppl.figures import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.85  # inches between two layers
_LETTER = 0.095  # inches of a letter at the size of a small graph's labels


def network(parents: Parents, *, title: str = "", engine: str = "matplotlib") -> Figure | Any:
    """The graph with parents above their children.

    Args:
        parents: Each node's parents.
        title: Written above.
        engine: "matplotlib", or "graphviz" for the optional package's `Source`.

    Returns:
        The figure, or the source.

    Raises:
        ValueError: Another engine.
        ImportError: graphviz is asked for and not installed.

    References:
        Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures.
        IEEE Transactions on Systems, Man, and Cybernetics 11(2), 1981.

    Example:
        >>> len(network({"a": (), "b": ("a",)}).axes[0].texts)
        2
    """
    if engine == "graphviz":
        try:
            import graphviz  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "engine='graphviz' needs the package: pip install graphviz; engine='matplotlib' "
                "needs nothing."
            ) from error
        return graphviz.Source(dot(parents, title=title))
    if engine != "matplotlib":
        raise ValueError(f"engine is 'matplotlib' or 'graphviz', not {engine!r}.")
    return _drawn(parents, title)


def dot(parents: Parents, *, title: str = "") -> str:
    """The graph in graphviz's language.

    Example:
        >>> print(dot({"a": (), "b": ("a",)}, title="two"))
        digraph "two" {
          "a";
          "b";
          "a" -> "b";
        }
    """
    nodes = [f"  {_quoted(v)};" for v in parents]
    arcs = [f"  {_quoted(p)} -> {_quoted(v)};" for v, above in parents.items() for p in above]
    return "\n".join([f"digraph {_quoted(title)} {{", *nodes, *arcs, "}"])


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _drawn(parents: Parents, title: str) -> Figure:
    from matplotlib.figure import Figure

    rows = layers(parents)
    widths = [sum(_LETTER * len(v) + 0.45 for v in row) for row in rows]
    width = float(np.clip(max(widths), 3.5, 16.0))
    size = 10.0 * min(1.0, width / max(widths))  # wide graphs get smaller letters
    figure = Figure(figsize=(width, max(1.6, _ROW * len(rows))), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    places = _places(rows, parents)
    texts = {
        v: axes.text(
            *places[v], v, ha="center", va="center", color=INK, fontsize=size, zorder=3,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "none", "edgecolor": BLUE, "lw": 1.1},
        )
        for v in parents
    }  # fmt: skip
    for variable, above in parents.items():
        for parent in above:
            _arrow(axes, texts[parent], texts[variable], places[variable][1] - places[parent][1])
    return figure


def _places(rows: list[list[str]], parents: Parents) -> dict[str, tuple[float, float]]:
    """Middle of each node: rows share the width by the lengths of their names."""
    places: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        lengths = np.array([_LETTER * len(v) + 0.45 for v in row])
        ends = np.cumsum(lengths) / lengths.sum()
        for variable, middle in zip(row, ends - lengths / lengths.sum() / 2, strict=True):
            places[variable] = (float(middle), float(depth))
    return places


def _arrow(axes: Axes, start: Any, end: Any, num_layers: float) -> None:
    """An arrow from box to box, bent where it passes a layer in between."""
    from matplotlib.patches import FancyArrowPatch

    bend = 0.0 if num_layers <= 1 else 0.12 * np.sign(end.get_position()[0] - 0.5 or 1.0)
    axes.add_patch(
        FancyArrowPatch(
            start.get_position(), end.get_position(), transform=axes.transData, color=INK,
            patchA=start.get_bbox_patch(), patchB=end.get_bbox_patch(), shrinkA=1, shrinkB=2,
            arrowstyle="-|>", mutation_scale=9, linewidth=0.9, alpha=0.8, zorder=2,
            connectionstyle=f"arc3,rad={bend}",
        )
    )  # fmt: skip
