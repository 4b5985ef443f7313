"""Sphinx: MyST pages, docstrings read with napoleon, warnings as errors."""

import re
from importlib.metadata import version as installed

project = "deepgen_ppl"
author = "The deepgen_ppl authors"
project_copyright = f"2026, {author}"
release = version = installed("deepgen_ppl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes once, in the class's own text
napoleon_custom_sections = [("Cost", "notes_style"), ("Shapes", "notes_style")]

html_theme = "furo"
html_title = f"deepgen_ppl {release}"

_DISPLAY = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]", re.DOTALL)
_STAR = re.compile(r"(?<![\w*`])\*(?=\w+(?![\w*]))")
_INLINE = re.compile(r"(?<![\w$`])\$([^$\n`]+?)\$(?![\w$`])")


def _read_formulas(app, what, name, obj, options, lines):
    """Docstrings write formulas as the pages do, and shapes such as (chain, draw, *event)."""
    text = "\n".join(lines)
    text = _STAR.sub(r"\*", text)
    text = _DISPLAY.sub(_display, text)
    text = _INLINE.sub(r":math:`\1`", text)
    lines[:] = text.split("\n")


def _display(match):
    body = " ".join(line.strip() for line in (match[1] or match[2]).strip().splitlines())
    return f"\n.. math:: {body}\n"


def setup(app):
    """Register the hook that reads formulas."""
    app.connect("autodoc-process-docstring", _read_formulas, priority=1000)
    return {"parallel_read_safe": True}
