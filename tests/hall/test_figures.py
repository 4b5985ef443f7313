"""The pictures: they draw what they are given and leave nothing behind."""

import subprocess
import sys

import numpy as np
import pytest

from deepgen_ppl import figures, flow_figures
from deepgen_ppl.calibration_figures import reliability_curves
from deepgen_ppl.classes import reliability

RNG = np.random.default_rng(0)
CHAINS = {"a": RNG.normal(size=(4, 200)), "b[0]": RNG.normal(size=(4, 200))}

PICTURES = {
    "loss": lambda: figures.loss_curve(RNG.normal(size=300)),
    "loss with validation": lambda: figures.loss_curve(
        RNG.normal(size=300), validation=(np.arange(3), np.ones(3))
    ),
    "loss of one step": lambda: figures.loss_curve(np.ones(1)),
    "loss that turned nan": lambda: figures.loss_curve(np.array([2.0, 1.0, np.nan])),
    "traces": lambda: figures.traces(CHAINS),
    "traces of few draws": lambda: figures.traces({"a": RNG.normal(size=(1, 5))}),
    "continuous check": lambda: figures.predictive_check(
        "x", RNG.normal(size=50), RNG.normal(size=(60, 50))
    ),
    "check of columns": lambda: figures.predictive_check(
        "x", RNG.normal(size=(50, 3)), RNG.normal(size=(60, 50, 3))
    ),
    "check with missing data": lambda: figures.predictive_check(
        "x", np.array([0.5, np.nan, 1.5]), RNG.normal(size=(60, 3))
    ),
    "discrete check": lambda: figures.predictive_check(
        "x", RNG.integers(0, 9, size=50), RNG.integers(0, 9, size=(60, 50))
    ),
    "check of images": lambda: figures.predictive_check(
        "x", RNG.integers(0, 17, size=(50, 9)), RNG.integers(0, 17, size=(60, 50, 9))
    ),
    "check of black and white images": lambda: figures.predictive_check(
        "x", RNG.integers(0, 2, size=(50, 9)), RNG.integers(0, 2, size=(60, 50, 9))
    ),
    "check of booleans": lambda: figures.predictive_check(
        "x", RNG.normal(size=50) > 0, RNG.normal(size=(60, 50)) > 0
    ),
    "check of a scalar": lambda: figures.predictive_check(
        "x", np.float64(1.5), RNG.normal(size=60)
    ),
    "pareto k": lambda: figures.pareto_k(RNG.normal(size=300)),
    "pareto k of one": lambda: figures.pareto_k(np.array(0.3)),
    "pareto k unknown": lambda: figures.pareto_k(np.array([np.nan, -np.inf, 0.9])),
    "reliability": lambda: reliability_curves(
        {"all": {"coin": reliability(np.full((9, 2), 0.5), RNG.integers(0, 2, size=9))}}
    ),
    "row evidence": lambda: figures.row_evidence(RNG.normal(size=300)),
    "row evidence with zeros": lambda: figures.row_evidence(np.array([-np.inf, -1.0, -2.0])),
    "densities of the plane": lambda: flow_figures.densities(
        {n: (RNG.normal(size=(50, 2)), RNG.random((20, 20))) for n in ("a", "b")},
        (-1.0, 1.0, -1.0, 1.0),
    ),
    "maps of line and plane": lambda: flow_figures.maps(
        {"line": (RNG.random(50), RNG.random(50)), "plane": (RNG.random((50, 2)),) * 2}
    ),
    "rows of images": lambda: flow_figures.images(
        {"data": RNG.random((3, 8, 8)), "draws": RNG.random((2, 8, 8))}
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_becomes_a_png(name: str) -> None:
    assert figures.to_png(PICTURES[name](), resolution=30).startswith(b"\x89PNG")


def test_drawing_leaves_no_window_and_changes_no_setting() -> None:
    code = """
import matplotlib, numpy as np
before = dict(matplotlib.rcParams)
from deepgen_ppl import figures
figures.to_png(figures.pareto_k(np.ones(9)))
assert dict(matplotlib.rcParams) == before
import matplotlib.pyplot as plt
assert not plt.get_fignums()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shares_of_pareto_k_count_unknown_values_as_bad() -> None:
    bars = figures.pareto_k(np.array([0.1, 0.6, 0.9, np.nan])).axes[1]
    assert [text.get_text() for text in bars.texts] == ["25%", "25%", "50%"]
