"""Mixtures as programs: EM climbs on every family, verbs agree, draws are relabelled."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(0)
FIRST = RNG.random(300) < 0.4
PAIR = np.where(FIRST, 0, 1)


def groups(first, second) -> np.ndarray:
    """Rows of the first kind where `FIRST` says so."""
    return np.where(FIRST[:, None], first, second)


REALS = groups(RNG.normal(-2, 1, (300, 2)), RNG.normal(2, 1, (300, 2))).astype("float32")
TAILS = groups(RNG.normal(-2, 1, (300, 2)), 2 + RNG.standard_t(3, (300, 2))).astype("float32")
BITS = (RNG.random((300, 6)) < groups(0.2, 0.85)).astype("float32")
COUNTS = RNG.poisson(groups(2, 9) * np.ones(2)).astype("float32")
SPREAD = RNG.negative_binomial(3, 1 / (1 + groups(0.7, 6) * np.ones(2))).astype("float32")
STATES = groups(
    RNG.choice(3, (300, 5), p=[0.7, 0.2, 0.1]), RNG.choice(3, (300, 5), p=[0.1, 0.2, 0.7])
)
TABLE = {
    "gaussian full": ("gaussian", REALS, {"covariance": "full"}),
    "gaussian tied": ("gaussian", REALS, {"covariance": "tied"}),
    "gaussian diagonal": ("gaussian", REALS, {"covariance": "diagonal"}),
    "gaussian spherical": ("gaussian", REALS, {"covariance": "spherical"}),
    "gaussian of one column": ("gaussian", REALS[:, 0], {}),
    "student_t": ("student_t", TAILS, {}),
    "student_t of given df": ("student_t", TAILS, {"df": 4.0, "covariance": "diagonal"}),
    "bernoulli": ("bernoulli", BITS, {}),
    "categorical": ("categorical", STATES, {"num_states": 3}),
    "poisson": ("poisson", COUNTS, {}),
    "negative_binomial": ("negative_binomial", SPREAD, {}),
}
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def language(wing: str) -> ModuleType:
    """The language's distributions."""
    return importlib.import_module(f"{wing}.distributions")


def number(wing: str, value: float):
    return importlib.import_module("torch").tensor(value) if wing == "pyro" else value


@pytest.mark.parametrize("row", TABLE)
def test_em_climbs_and_separates(dg: ModuleType, row: str) -> None:
    name, x, options = TABLE[row]
    model = dg.mixture(name, 2, **options)
    fit = dg.em(model, x, num_starts=2, num_steps=60, **QUIET)
    assert (np.diff(fit.losses) <= 1e-6 * abs(fit.losses[0])).all()
    assert fit.losses[0] - fit.losses[-1] >= 0
    found = model.responsibilities(fit, x)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    agree = (found.argmax(1) == PAIR).mean()
    assert max(agree, 1 - agree) > 0.85
    # The log likelihood that EM reports is the evidence of the program at these parameters.
    evidence = fit.importance(num_particles=4).evidence.log_evidence
    assert abs(evidence / len(x) + fit.losses[-1]) < 1e-4 * abs(fit.losses[-1])


@pytest.mark.parametrize(
    ("row", "weights"),
    [
        ("gaussian full", "stick_breaking"),
        ("bernoulli", "dirichlet"),
        ("negative_binomial", "dirichlet"),
    ],
)
def test_em_climbs_to_the_highest_point_with_priors(dg: ModuleType, row: str, weights: str) -> None:
    name, x, options = TABLE[row]
    options = {**options, "weights": weights, "concentration": 2.0}
    model = dg.mixture(name, 2, priors=True, **options)
    fit = dg.em(model, x, num_starts=1, num_steps=10, **QUIET)
    assert (np.diff(fit.losses) <= 1e-6 * abs(fit.losses[0])).all()
    draws = fit.posterior(num_samples=2)
    sites = {"weights" if weights == "dirichlet" else "sticks", *(
        n.removesuffix("_point") for n in fit.params)}  # fmt: skip
    assert sites <= set(draws.draws)
    assert abs(draws.stats["lp"][0, 0] / len(x) + fit.losses[-1]) < 1e-4 * abs(fit.losses[-1])
    tables = model.responsibilities(draws, x)[0]
    np.testing.assert_allclose(tables[0], model.responsibilities(fit, x), atol=1e-3)


def test_any_native_distribution_is_learned(dg, language, wing: str) -> None:
    x = RNG.gamma(np.where(FIRST, 2, 30), 1.0).astype("float32")
    fit = dg.em(dg.mixture(language.Gamma, 2), x, num_starts=1, num_steps=20, **QUIET)
    assert (np.diff(fit.losses) <= 1e-6 * abs(fit.losses[0])).all()
    means = np.asarray(fit.params["concentration"]) / np.asarray(fit.params["rate"])
    se = 5 * np.array([2**0.5 / FIRST.sum() ** 0.5, 30**0.5 / (~FIRST).sum() ** 0.5])
    assert (np.abs(np.sort(means) - [2, 30]) < se + 0.3).all()  # 0.3: a few rows change sides
    fixed = [language.Gamma(number(wing, a), number(wing, 1.0)) for a in (2.0, 30.0)]
    found = dg.em(dg.mixture(fixed), x, **QUIET)
    assert abs(np.asarray(found.params["weights"])[0] - 0.4) < 5 * (0.24 / 300) ** 0.5


def test_missing_cells_are_left_out(dg: ModuleType) -> None:
    mask = RNG.random(REALS.shape) < 0.7
    spoiled = np.where(mask, REALS, 1e3).astype("float32")
    model = dg.mixture("gaussian", 2, covariance="diagonal")
    fit = dg.em(model, spoiled, mask, num_starts=2, **QUIET)
    other = dg.em(model, np.where(mask, REALS, -7.0).astype("float32"), mask, num_starts=2, **QUIET)
    np.testing.assert_allclose(fit.losses[-1], other.losses[-1], rtol=1e-5)
    loc = np.sort(np.asarray(fit.params["loc"])[:, 0])
    count = (mask[:, 0] & FIRST).sum()
    assert (np.abs(loc - [-2, 2]) < 5 / count**0.5).all()


def test_gradients_end_where_em_does(dg: ModuleType, zoo: ModuleType, wing: str) -> None:
    programs = importlib.import_module(f"{__package__}.mixtures_{wing}")
    model = dg.mixture("gaussian", 2, covariance="diagonal")
    options = {"loss": programs.trace_enum(), "optim": zoo.adam(0.05), "num_steps": 500, **QUIET}
    fit = dg.svi(model, model.guide, REALS, **options)
    best = dg.em(model, REALS, num_starts=2, **QUIET)
    assert abs(fit.losses[-1] - best.losses[-1]) < 1e-4
    np.testing.assert_allclose(
        np.sort(model.responsibilities(fit, REALS), 1),
        np.sort(model.responsibilities(best, REALS), 1), atol=0.02,
    )  # fmt: skip
    batches = {**options, "batch_size": 100, "num_steps": 300}
    assert abs(dg.svi(model, model.guide, REALS, **batches).losses[-50:].mean() - 3.5) < 0.3


def test_singular_data_are_handled_and_said(dg: ModuleType) -> None:
    flat = np.repeat(np.array([[0.0, 0.0], [3.0, 3.0]], "float32"), 20, axis=0)
    with pytest.warns(UserWarning, match=r"In each of 3 starts component \d collapsed onto 20.0 r"):
        fit = dg.em(dg.mixture("gaussian", 2), flat, num_starts=3, **QUIET)
    assert np.isfinite(fit.losses).all()
    assert "collapsed onto 20.0 rows" in fit.stopped
    spike = np.concatenate([REALS, np.repeat(REALS[:1] + 20, 5, 0)])
    start = {"loc": [[-2, -2], [2, 2], spike[-1]], "scale": np.ones((3, 2)),
             "correlation_tril": [np.eye(2)] * 3, "weights": np.full(3, 1 / 3)}  # fmt: skip
    start = {name: np.asarray(value, "float32") for name, value in start.items()}
    with pytest.warns(UserWarning, match=r"component 2 collapsed onto 5.0 rows.*a larger floor="):
        dg.em(dg.mixture("gaussian", 3), spike, params=start, **QUIET)
    wide = dg.mixture("gaussian", 3, floor=0.1)
    assert dg.em(wide, spike, num_starts=2, **QUIET).losses[-1] < 4.5
    line = np.stack([REALS[:, 0], REALS[:, 0]], 1)  # a covariance without full rank
    with pytest.warns(UserWarning, match="collapsed onto"):
        fit = dg.em(dg.mixture("gaussian", 2), line, num_starts=1, **QUIET)
    assert np.isfinite(fit.losses).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"components": "gauss"}, ValueError, "no components 'gauss'"),
        ({"components": 3}, TypeError, "components must be a name such as 'gaussian'"),
        ({"num_components": 0}, ValueError, "num_components=0"),
        ({"num_components": None}, ValueError, "num_components must be a whole number, got None"),
        ({"weights": [0.5, 0.6]}, ValueError, "sum to one"),
        ({"weights": [0.5, 0.2, 0.3]}, ValueError, "3 weights are given for 2 components"),
        ({"weights": "sticks"}, ValueError, "weights must be one of"),
        ({"concentration": -1.0}, ValueError, "concentration must be a positive number"),
    ],
)
def test_bad_options_are_refused(dg, options: dict, error: type, message: str) -> None:
    options = {"components": "gaussian", "num_components": 2, **options}
    with pytest.raises(error, match=message):
        dg.mixture(options.pop("components"), options.pop("num_components"), **options)


def test_bad_data_are_refused(dg: ModuleType, language: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"em fits what dg\.mixture and dg\.naive_bayes make"):
        dg.em(lambda x: None, REALS)
    with pytest.raises(ValueError, match="do not suit site 'x': row 1, column 0 holds 2"):
        dg.em(dg.mixture("bernoulli", 2), np.array([[0.0], [2.0]], "float32"))
    with pytest.raises(ValueError, match=r"distinct rows: 1"):
        dg.em(dg.mixture("gaussian", 2), np.ones((5, 2), "float32"), **QUIET)
    with pytest.raises(ValueError, match="no cell may be missing"):
        dg.em(dg.mixture("gaussian", 2), REALS, np.ones(REALS.shape, bool))
    with pytest.raises(ValueError, match="mask must be a bool array of x's shape"):
        dg.em(dg.mixture("poisson", 2), COUNTS, np.ones(3, bool))
    with pytest.raises(ValueError, match="NaN in 1 of 300 rows: 2"):
        spoiled = REALS.copy()
        spoiled[2, 0] = np.nan
        dg.em(dg.mixture("gaussian", 2), spoiled, **QUIET)
    with pytest.raises(ValueError, match=r"priors= has 'mean', which the components lack"):
        model = dg.mixture("gaussian", 2, priors={"mean": language.Normal(0.0, 1.0)})
        dg.em(model, REALS, **QUIET)
    with pytest.raises(ValueError, match="has no maximum"):
        model = dg.mixture("gaussian", 2, weights="dirichlet", concentration=0.5)
        dg.em(model, REALS, **QUIET)
    with pytest.raises(ValueError, match="params= has 'mean'"):
        dg.em(dg.mixture("gaussian", 2), REALS, params={"mean": np.zeros(2)}, **QUIET)


def test_a_fit_of_em_is_saved_and_read_back(dg: ModuleType, tmp_path: Path) -> None:
    for priors in (None, True):
        model = dg.mixture("poisson", 2, priors=priors)
        fit = dg.em(model, COUNTS, num_starts=1, **QUIET)
        path = fit.save(tmp_path / "fit.dgz")
        again = dg.load_fit(path, model, fit.guide)
        np.testing.assert_array_equal(
            model.responsibilities(again, COUNTS), model.responsibilities(fit, COUNTS)
        )


def test_exact_answers_are_the_responsibilities(dg: ModuleType) -> None:
    model = dg.mixture("poisson", 2)
    fit = dg.em(model, COUNTS, num_starts=1, **QUIET)
    answer = dg.exact(model, COUNTS, params=fit)
    found = np.asarray(answer.marginals["assignment"])
    np.testing.assert_allclose(found, model.responsibilities(fit, COUNTS), atol=1e-4)
    total = float(np.asarray(answer.log_evidence).sum())
    assert abs(total / len(COUNTS) + fit.losses[-1]) < 1e-4
