"""Expectation maximisation of a Gaussian mixture beside scikit-learn's: same start, same steps."""

from __future__ import annotations

import importlib
import warnings
from functools import partial

import numpy as np

from benchmarks.case import Case, Contender, Run, Target, timed

REQUIRES = ()
VARIANTS = ("numpyro-full", "numpyro-diagonal", "pyro-full", "pyro-diagonal")
KINDS = {"full": "full", "diagonal": "diag"}
COMPONENTS, COLUMNS = 8, 8


def build(variant: str, quick: bool) -> Case:
    """Return the case of one wing and covariance: eight components of eight columns."""
    wing, covariance = variant.split("-")
    rows, steps = (2_000, 10) if quick else (50_000, 30)
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 2, (COMPONENTS, COLUMNS))
    x = centres[rng.integers(COMPONENTS, size=rows)] + rng.normal(size=(rows, COLUMNS))
    x = x.astype("float32")
    start = x[rng.choice(rows, COMPONENTS, replace=False)].astype(float)
    return Case(
        work=steps,
        unit="steps",
        contenders=(
            Contender("ours", partial(_ours, wing, covariance, x, start, steps)),
            Contender("scikit-learn", partial(_theirs, covariance, x, start, steps)),
        ),
        targets=(Target("ours", "scikit-learn"),),
        repeats=1 if quick else 3,
        notes=(
            f"{rows} rows of {COLUMNS} columns in single precision, {COMPONENTS} components",
            "scikit-learn keeps single precision too; our M step is in double",
        ),
    )


def _ours(wing: str, covariance: str, x: np.ndarray, start: np.ndarray, steps: int):
    dg = importlib.import_module(f"deepgen_ppl.{wing}")
    model = dg.mixture("gaussian", COMPONENTS, covariance=covariance)
    params = {
        "weights": np.full(COMPONENTS, 1 / COMPONENTS, "float32"),
        "loc": start.astype("float32"),
        "scale": np.ones((COMPONENTS, COLUMNS), "float32"),
    }
    if covariance == "full":
        params["correlation_tril"] = np.tile(np.eye(COLUMNS, dtype="float32"), (COMPONENTS, 1, 1))

    def run(seed: int) -> Run:
        options = {"num_steps": steps, "tolerance": 1e-300, "progress": False}
        with timed() as clock:
            fit = dg.em(model, x, params=params, **options)
        return Run(clock.seconds, 0.0, {"log likelihood per row": -float(fit.losses[-1])})

    run(0)
    return run


def _theirs(covariance: str, x: np.ndarray, start: np.ndarray, steps: int):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    eye = np.ones((COMPONENTS, COLUMNS), x.dtype)
    if covariance == "full":
        eye = np.tile(np.eye(COLUMNS, dtype=x.dtype), (COMPONENTS, 1, 1))

    def run(seed: int) -> Run:
        model = GaussianMixture(
            COMPONENTS,
            covariance_type=KINDS[covariance],
            tol=0.0,
            max_iter=steps,
            weights_init=np.full(COMPONENTS, 1 / COMPONENTS, x.dtype),
            means_init=start.astype(x.dtype),
            precisions_init=eye,
        )
        with warnings.catch_warnings(), timed() as clock:
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x)
        return Run(clock.seconds, 0.0, {"log likelihood per row": float(model.score(x))})

    return run
