"""Data, reference draws and summaries of posteriordb, and the comparison with draws of our own."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "posteriordb"

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One posterior: its program, and how the data file becomes the program's arguments.

    Attributes:
        program: Name of the program in `programs_numpyro.py` and `programs_pyro.py`.
        inputs: The program's positional data, from the data file.
        sites: The reference's parameters, as they are called in our draws.
        constants: The program's keyword constants, from the data file.
        float64: Whether the posterior is out of reach of single precision.
    """

    program: str
    inputs: Callable[[Data], tuple[np.ndarray, ...]]
    sites: tuple[str, ...]
    constants: Callable[[Data], dict[str, Any]] = lambda data: {}
    float64: bool = False


def _arrays(*names: str) -> Callable[[Data], tuple[np.ndarray, ...]]:
    return lambda data: tuple(np.asarray(data[name], dtype=float) for name in names)


def _nes_inputs(data: Data) -> tuple[np.ndarray, ...]:
    """The response and the nine columns of the design matrix, three of which mark age groups."""
    age = np.asarray(data["age_discrete"])
    design = [np.ones(len(age)), data["real_ideo"], data["race_adj"]]
    design += [age == group for group in (2, 3, 4)]
    design += [data["educ1"], data["gender"], data["income"]]
    return np.asarray(data["partyid7"], dtype=float), np.column_stack(design).astype(float)


def _poisson_inputs(data: Data) -> tuple[np.ndarray, ...]:
    return np.asarray(data["k"], dtype=int), np.asarray(data["x"], dtype=float)


_SCHOOLS = ("theta", "mu", "tau")
_REGRESSION = ("beta", "sigma")

CASES: dict[str, Case] = {
    "eight_schools-eight_schools_centered": Case(
        "eight_schools_centered", _arrays("y", "sigma"), _SCHOOLS
    ),
    "eight_schools-eight_schools_noncentered": Case(
        "eight_schools_noncentered", _arrays("y", "sigma"), _SCHOOLS
    ),
    "kidiq-kidscore_momiq": Case("kidscore_momiq", _arrays("kid_score", "mom_iq"), _REGRESSION),
    "earnings-logearn_height": Case("logearn_height", _arrays("earn", "height"), _REGRESSION),
    "nes1972-nes": Case("nes", _nes_inputs, _REGRESSION),
    "sblrc-blr": Case("blr", _arrays("y", "X"), _REGRESSION),
    "arK-arK": Case(
        "ark", _arrays("y"), ("alpha", "beta", "sigma"), lambda data: {"order": data["K"]}
    ),
    "garch-garch11": Case(
        "garch11",
        _arrays("y"),
        ("mu", "alpha0", "alpha1", "beta1"),
        lambda data: {"sigma1": data["sigma1"]},
    ),
    "gp_pois_regr-gp_pois_regr": Case(
        "gp_pois_regr", _poisson_inputs, ("rho", "alpha", "f"), float64=True
    ),
    "low_dim_gauss_mix-low_dim_gauss_mix": Case(
        "low_dim_gauss_mix", _arrays("y"), ("mu", "sigma", "theta")
    ),
    "hmm_example-hmm_example": Case("hmm_example", _arrays("y"), ("theta1", "theta2", "mu")),
    "hudson_lynx_hare-lotka_volterra": Case(
        "lotka_volterra", _arrays("y", "y_init"), ("theta", "z_init", "sigma")
    ),
}


class Reference(NamedTuple):
    """What posteriordb says of one posterior.

    Attributes:
        data: The data file.
        draws: The kept draws of each parameter, (10 chains, 100 draws, *shape).
        summaries: Mean, sd and their errors over all draws upstream, by name (`theta[1]`).
        thinning: Number of draws upstream for each draw kept.
    """

    data: Data
    draws: dict[str, np.ndarray]
    summaries: dict[str, dict[str, float]]
    thinning: float


def folder() -> Path:
    """The data beside the repository; without them the test that asks is skipped and names them."""
    if not (FOLDER / "summaries.json").exists():
        pytest.skip(f"posteriordb is absent: no {FOLDER}/summaries.json")
    return FOLDER


@cache
def load(name: str) -> Reference:
    """Read one posterior's data, draws and summaries."""
    entry = json.loads((folder() / "summaries.json").read_text())[name]
    with gzip.open(folder() / entry["data"]) as stream:
        data = json.load(stream)
    with np.load(folder() / entry["reference_draws"]) as archive:
        names = archive["names"].tolist()
        columns = dict(zip(names, np.moveaxis(archive["draws"], 2, 0), strict=True))
    draws = {}
    for site, size in entry["dimensions"].items():
        elements = [columns.get(f"{site}[{i + 1}]") for i in range(size)]
        draws[site] = columns[site] if site in columns else np.stack(elements, axis=-1)
    thinning = entry["n_draws_upstream"] / entry["n_draws_kept"]
    return Reference(data, draws, entry["parameters"], thinning)


class Row(NamedTuple):
    """Agreement of one scalar parameter, its errors in combined Monte Carlo standard errors."""

    parameter: str
    mean: float
    reference_mean: float
    mean_error: float
    sd: float
    reference_sd: float
    sd_error: float

    def __str__(self) -> str:
        """One line of the table that a failing test prints."""
        return (
            f"{self.parameter:>10s}  mean {self.mean:11.5g} for {self.reference_mean:11.5g}"
            f" ({self.mean_error:+.2f} errors)   sd {self.sd:10.4g} for"
            f" {self.reference_sd:10.4g} ({self.sd_error:+.2f} errors)"
        )


def compare(name: str, draws: Mapping[str, np.ndarray]) -> list[Row]:
    """Compare the means and sds of `draws` (chain, draw, *shape) with the reference.

    The error of a mean joins our Monte Carlo standard error with upstream's. That of an sd joins
    ours with the standard error over the kept draws, scaled to the number of draws upstream (which
    are as good as independent).
    """
    from arviz_stats.base import array_stats

    reference = load(name)
    rows = []
    for site in CASES[name].sites:
        kept = reference.draws[site]
        parameters = [f"{site}[{i + 1}]" for i in range(kept.shape[-1])]
        parameters = [site] if kept.ndim == 2 else parameters
        ours = np.asarray(draws[site], dtype=float)
        ours = ours.reshape(*ours.shape[:2], len(parameters))
        kept = kept.reshape(*kept.shape[:2], len(parameters))
        for i, parameter in enumerate(parameters):
            x, stated = ours[..., i], reference.summaries[parameter]
            kept_se = array_stats.mcse(kept[..., i], method="sd") / np.sqrt(reference.thinning)
            mean_se = np.hypot(array_stats.mcse(x, method="mean"), stated["mcse_mean"])
            sd_se = np.hypot(array_stats.mcse(x, method="sd"), kept_se)
            mean, sd = x.mean(), x.std(ddof=1)
            mean_error = (mean - stated["mean"]) / mean_se
            sd_error = (sd - stated["sd"]) / sd_se
            row = (mean, stated["mean"], mean_error, sd, stated["sd"], sd_error)
            rows.append(Row(parameter, *map(float, row)))
    return rows


def worst(rows: list[Row]) -> float:
    """Largest error of a mean or an sd, in combined Monte Carlo standard errors."""
    return max(max(abs(row.mean_error), abs(row.sd_error)) for row in rows)
