"""Posteriors on the Pyro wing: each program's density, and `mcmc` against the reference draws."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.reparam import LocScaleReparam

import deepgen_ppl.pyro as dg

from . import programs_pyro as programs
from .densities import DENSITIES, latents
from .reference import CASES, compare, load, worst

CENTRED = "eight_schools-eight_schools_centered"
NAMES = [name for name, case in CASES.items() if hasattr(programs, case.program)]
UNIMODAL = [name for name in NAMES if name != CENTRED]
# At the default acceptance "chees" diverges in the tail of its alpha and misses it.
FUNNEL = "gp_pois_regr-gp_pois_regr"
TOGETHER: dict[str, Any] = {"kernel": "chees", "num_warmup": 300, "num_samples": 300}
FAST = {"eight_schools-eight_schools_noncentered"}
SHORT = {"num_warmup": 500, "num_samples": 500}
OPTIONS: dict[str, dict[str, Any]] = {
    CENTRED: {"target_accept_prob": 0.99, "num_samples": 2000},
    "eight_schools-eight_schools_noncentered": SHORT,
}


def state(name: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A posterior's program with its constants bound, and its data in the precision it needs."""
    case, data = CASES[name], load(name).data
    program = partial(getattr(programs, case.program), **case.constants(data))
    precision = torch.float64 if case.float64 else torch.float32
    tensors = [torch.as_tensor(x) for x in case.inputs(data)]
    return program, tuple(x.to(precision) if x.is_floating_point() else x for x in tensors)


@pytest.fixture
def float64():
    """Double precision by default, as the latents of a Pyro program take theirs from it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", NAMES)
def test_program_has_the_stated_density(name: str, float64: None) -> None:
    """At reference draws the program's log density differs from the oracle's by one constant."""
    case, reference = CASES[name], load(name)
    program, inputs = state(name)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    differences = []
    for i in range(5):
        draw = {site: x[2 * i, 7 * i] for site, x in reference.draws.items()}
        values = latents(case.program, draw, reference.data)
        tensors = {site: torch.as_tensor(x) for site, x in values.items()}
        conditioned = pyro.condition(program, data=tensors)
        if case.program == "low_dim_gauss_mix":
            elbo = TraceEnum_ELBO(max_plate_nesting=1)
            ours = -elbo.loss(conditioned, lambda *data: None, *inputs)
        else:
            ours = float(poutine.trace(conditioned).get_trace(*inputs).log_prob_sum())
        differences.append(ours - DENSITIES[case.program](values, reference.data))
    assert np.ptp(differences) < 1e-6


def sample(name: str, program: Any, inputs: tuple[torch.Tensor, ...], **options: Any):
    """Four chains in the precision that the posterior needs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if CASES[name].float64 else before)
    try:
        return dg.mcmc(program, *inputs, progress=False, seed=1, **options)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in NAMES]
)
def test_mcmc_agrees_with_the_reference(name: str) -> None:
    """Means and sds within four combined Monte Carlo standard errors."""
    posterior = sample(name, *state(name), **OPTIONS.get(name, {}))
    rows = compare(name, posterior.draws)
    assert worst(rows) < 4, "\n".join(map(str, rows))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in UNIMODAL],
)
def test_chees_agrees_with_the_reference(name: str) -> None:
    """64 chains that move together: means and sds within four combined standard errors."""
    options = {**TOGETHER, **({"target_accept_prob": 0.95} if name == FUNNEL else {})}
    posterior = sample(name, *state(name), **options)
    assert posterior.attrs["mixed"]
    rows = compare(name, posterior.draws)
    assert worst(rows) < 4, "\n".join(map(str, rows))


def test_a_flat_prior_cannot_be_drawn() -> None:
    """Prior predictive draws of a model with a flat prior are refused by name."""
    program, inputs = state("kidiq-kidscore_momiq")
    with pytest.raises(ValueError, match="site 'beta' has an improper prior"):
        dg.predict(program, *inputs, num_samples=10)


def test_centred_schools_report_their_divergences() -> None:
    """At default settings the funnel diverges; the diagnosis says so and what to do."""
    posterior = sample(CENTRED, *state(CENTRED), **SHORT)
    assert posterior.stats["diverging"].sum() > 0
    diagnosis = posterior.diagnose()
    assert not diagnosis.ok
    (check,) = [c for c in diagnosis.checks if "diverge" in c.name.lower()]
    assert check.ok is False
    assert "target_accept_prob" in check.advice
    assert "reparam" in check.advice


@pytest.mark.slow
def test_reparametrised_schools_agree() -> None:
    """With the language's own handler around it the centred program hardly diverges, and agrees."""
    program, inputs = state(CENTRED)
    program = poutine.reparam(program, config={"theta": LocScaleReparam(centered=0.0)})
    posterior = sample(CENTRED, program, inputs, target_accept_prob=0.95)
    rows = compare(CENTRED, posterior.draws)
    assert worst(rows) < 4, "\n".join(map(str, rows))
    assert posterior.stats["diverging"].sum() <= 4
