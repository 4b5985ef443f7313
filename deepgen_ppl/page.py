"""The page: the small HTML vocabulary of the report; every function returns HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgen_ppl.figures import data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def card(title: str, body: str, *, why: str = "", kind: str = "") -> str:
    """A framed part of the page; `why` is the small print under it."""
    below = f'<p class="why">{text(why)}</p>' if why else ""
    return f'<div class="card {kind}"><h3>{text(title)}</h3>{body}{below}</div>'


def picture(title: str, figure: Figure, *, why: str = "") -> str:
    """A card that holds a picture."""
    return card(title, f'<img alt="{text(title)}" src="{data_uri(figure)}">', why=why)


def steps(items: Sequence[str]) -> str:
    """A numbered list of items that are HTML already."""
    return f'<ol class="next">{"".join(f"<li>{item}</li>" for item in items)}</ol>'


def table(head: Sequence[str], body: Sequence[Sequence[Any]], *, numeric: Sequence[int]) -> str:
    """A table of cells that are HTML already; a pair is a class and its cell."""
    kinds = ["n" if i in numeric else "" for i in range(len(head))]
    top = "".join(f'<th class="{k}">{text(h)}</th>' for k, h in zip(kinds, head, strict=True))
    rows = ""
    for row in body:
        cells = [c if isinstance(c, tuple) else (k, c) for k, c in zip(kinds, row, strict=True)]
        rows += "<tr>" + "".join(f'<td class="{k}">{cell}</td>' for k, cell in cells) + "</tr>"
    return f'<div class="scroll"><table><tr>{top}</tr>{rows}</table></div>'


def sparkline(draws: np.ndarray, num_bins: int = 24) -> str:
    """The histogram of some draws as a word-sized inline SVG."""
    low, high = np.quantile(draws, [0.002, 0.998])
    counts = np.histogram(np.clip(draws, low, high), num_bins)[0]
    bars = "".join(
        f'<rect x="{4 * i}" y="{22 - height:.1f}" width="3.4" height="{height:.1f}"/>'
        for i, height in enumerate(21 * counts / counts.max())
    )
    return f'<svg class="spark" viewBox="0 0 {4 * num_bins} 22" aria-hidden="true">{bars}</svg>'


def number(value: float) -> str:
    """Three or four significant digits, thousands separated: 1,234 or 0.0123 or 3.2e-05."""
    value = float(value)
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    if 1 <= abs(value) < 1000:
        digits = f"{value:.4g}"
    return digits.replace("-", "−") if "e" not in digits else digits


def text(value: Any) -> str:
    """Anything as escaped text."""
    return html.escape(str(value))
