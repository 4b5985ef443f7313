"""Reading programs: every claim of the minibatch contract, handlers, and bound constants."""

from functools import partial
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(1)
X = RNG.normal(1.0, 1.0, 24).astype(np.float32)
XY = (X, RNG.normal(1.0, 1.0, 24).astype(np.float32))
TABLE = RNG.normal(1.0, 1.0, (24, 3)).astype(np.float32)
STEPS = 1200


def losses(dg: ModuleType, zoo: ModuleType, model, guide, *data, **options) -> np.ndarray:
    """Losses per datum of many steps at parameters that stand still."""
    settings = {"num_steps": STEPS, "optim": zoo.sgd(0.0), "progress": False, **options}
    return np.asarray(dg.svi(model, guide, *data, **settings).losses, float)


def mean_and_error(values: np.ndarray, epoch: int = 1) -> tuple[float, float]:
    """Mean and standard error over whole epochs, whose batches are not independent."""
    means = values[: len(values) // epoch * epoch].reshape(-1, epoch).mean(1)
    return float(means.mean()), float(means.std(ddof=1) / len(means) ** 0.5)


# ------------------------------------------------------- minibatches: what is scaled, and is right

SCALED = [
    ("hierarchical", "hierarchical_guide", (X,)),
    ("hierarchical", "hierarchical_table", (X,)),
    ("hierarchical", "auto_normal", (X,)),
    ("local_normal", "local_normal_guide", (X,)),
    ("two_sources", "two_sources_guide", XY),
    ("nested", "nested_guide", (TABLE,)),
    ("plated_factor", "mean_guide", (X,)),
]


@pytest.mark.parametrize(("model", "guide", "data"), SCALED)
def test_the_mean_minibatch_loss_is_the_full_loss(
    dg: ModuleType, zoo: ModuleType, model: str, guide: str, data: tuple
) -> None:
    program = getattr(zoo, model)
    proposal = zoo.auto_normal(program) if guide == "auto_normal" else getattr(zoo, guide)
    full, error = mean_and_error(losses(dg, zoo, program, proposal, *data))
    batch, noise = mean_and_error(losses(dg, zoo, program, proposal, *data, batch_size=8), epoch=3)
    assert abs(batch - full) < 5 * np.hypot(error, noise)


def test_the_remainder_waits_for_a_later_epoch(dg: ModuleType, zoo: ModuleType) -> None:
    full, error = mean_and_error(losses(dg, zoo, zoo.normal_mean, zoo.loose_guide, X))
    found = losses(dg, zoo, zoo.normal_mean, zoo.loose_guide, X, batch_size=7)
    batch, noise = mean_and_error(found, epoch=3)
    assert abs(batch - full) < 5 * np.hypot(error, noise)


def test_a_table_trains_the_rows_it_is_given(dg: ModuleType, zoo: ModuleType) -> None:
    fit = dg.svi(
        zoo.hierarchical, zoo.hierarchical_table, X,
        batch_size=6, num_steps=2000, optim=zoo.adam(0.02), progress=False,
    )  # fmt: skip
    table = zoo.to_numpy(fit.params["table"])
    assert table.shape == X.shape
    # E[z_i | x] = (x_i + mu) / 2: the rows of the table follow the rows of the data.
    # Adam's own noise at this rate is a third of their spread.
    assert np.corrcoef(table, X)[0, 1] > 0.8


# -------------------------------------------------------------------------------- what is refused


def test_a_plate_that_does_not_follow_the_data_is_no_data_plate(
    dg: ModuleType, zoo: ModuleType
) -> None:
    fit = dg.svi(zoo.nested, zoo.nested_guide, TABLE, batch_size=8, num_steps=3, progress=False)
    assert fit.posterior(num_samples=5).draws["mean"].shape == (1, 5, 3)


def test_a_guide_that_draws_all_rows_at_once_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="batch_size=6"):
        dg.svi(zoo.local_normal, zoo.auto_full(zoo.local_normal), X, batch_size=6, progress=False)


def test_an_autoguide_of_other_rows_is_refused(dg: ModuleType, zoo: ModuleType) -> None:
    guide = zoo.auto_normal(zoo.local_normal)
    dg.svi(zoo.local_normal, guide, X, num_steps=2, progress=False)
    with pytest.raises(ValueError, match="parameters for each row"):
        dg.svi(zoo.local_normal, guide, X[:10], num_steps=2, progress=False)


# --------------------------------------------------------------------- handlers around the model


def exact_evidence(x: np.ndarray, mean: float, variance: float, noise: float) -> float:
    """Log density of x_i = m + e_i, m ~ N(mean, variance), e_i ~ N(0, noise)."""
    cov = np.full((len(x), len(x)), variance) + noise * np.eye(len(x))
    gap = x - mean
    _, log_det = np.linalg.slogdet(2 * np.pi * cov)
    return float(-0.5 * (log_det + gap @ np.linalg.solve(cov, gap)))


HANDLED = {
    "reparam": exact_evidence(X[:4], 0.0, 1.0, 2.0),
    "mask": 0.0,
    "block": 0.0,
    "condition": exact_evidence(X[:4], 0.7, 0.0, 2.0) - 0.5 * (0.49 + np.log(2 * np.pi)),
}


@pytest.mark.parametrize("name", sorted(HANDLED))
def test_handlers_around_the_model(dg: ModuleType, zoo: ModuleType, name: str) -> None:
    options = {"num_particles": 20_000, "keep_draws": False}
    found = dg.importance(zoo.handled(name), None, X[:4], **options).evidence
    assert abs(found.log_evidence - HANDLED[name]) < 5 * found.standard_error + 1e-4


@pytest.mark.parametrize("name", ["reparam", "scale", "condition"])
def test_handlers_compose_with_minibatches(dg: ModuleType, zoo: ModuleType, name: str) -> None:
    model = zoo.handled(name)
    guide = zoo.auto_normal(model)
    full, error = mean_and_error(losses(dg, zoo, model, guide, X))
    batch, noise = mean_and_error(losses(dg, zoo, model, guide, X, batch_size=8), epoch=3)
    assert abs(batch - full) < 5 * np.hypot(error, noise)


def test_a_reparametrised_site_stays_among_the_draws(dg: ModuleType, zoo: ModuleType) -> None:
    options = {"num_warmup": 50, "num_samples": 20, "num_chains": 1, "progress": False}
    draws = dg.mcmc(zoo.handled("reparam"), X[:4], **options).draws
    np.testing.assert_allclose(
        draws["z"], draws["mu"][..., None] + draws["z_decentered"], rtol=1e-5, atol=1e-5
    )


def test_a_scale_of_two_counts_every_term_twice(dg: ModuleType, zoo: ModuleType) -> None:
    options = {"num_steps": 1, "optim": zoo.sgd(0.0), "progress": False}
    once, twice = (
        dg.svi(model, None, X, **options).losses[0] for model in (zoo.unit_normal, zoo.doubled)
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


# ------------------------------------------------------------------------------ bound constants


def test_bound_constants_reach_the_model(dg: ModuleType, zoo: ModuleType) -> None:
    weights = np.array([2.0, 0.5], np.float32)
    model = partial(zoo.scaled_prior, weights)
    found = dg.importance(model, None, X[:4], num_particles=20_000, keep_draws=False).evidence
    exact = exact_evidence(X[:4], 2.0, 0.25, 1.0)
    assert abs(found.log_evidence - exact) < 5 * found.standard_error


def test_model_kwargs_reach_model_and_guide(dg: ModuleType, zoo: ModuleType) -> None:
    options = {"model_kwargs": {"sd": 2.0}, "num_steps": 2, "progress": False}
    fit = dg.svi(zoo.with_constant, zoo.with_constant_guide, X, batch_size=6, **options)
    assert np.isfinite(fit.losses).all()
