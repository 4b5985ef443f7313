"""M steps: each is the maximum of its weighted log density, with and without missing cells."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from deepgen_ppl.families import Gaussian, StudentT, family
from deepgen_ppl.moments import tril

RNG = np.random.default_rng(0)
WEIGHTS = RNG.dirichlet([0.7, 0.7], 60)
CELLS = RNG.random((60, 2)) < 0.7
REALS = RNG.normal(size=(60, 2)) @ [[1.0, 0.6], [0.0, 0.8]] + [3.0, -1.0]
COUNTS = RNG.negative_binomial(2, 0.2, (60, 2)).astype(float)
BITS = (RNG.random((60, 2)) < 0.3).astype(float)
STATES = RNG.integers(3, size=(60, 2)).astype(float)


def by_column(name: str, values: dict, x: np.ndarray) -> np.ndarray:
    """Log density of every cell under every component, (N, K, D)."""
    v = {n: np.asarray(a) for n, a in values.items()}
    x = x[:, None, :]
    if name == "gaussian":
        scale = v["scale"] if v["scale"].ndim > 1 else v["scale"][:, None]
        return stats.norm.logpdf(x, v["loc"], scale)
    if name == "bernoulli":
        return stats.bernoulli.logpmf(x.astype(int), v["probs"])
    if name == "poisson":
        return stats.poisson.logpmf(x, v["rate"])
    if name == "negative_binomial":
        c, m = v["concentration"], v["mean"]
        return stats.nbinom.logpmf(x, c, c / (c + m))
    picked = np.take_along_axis(v["probs"][None], x[..., None].astype(int), axis=-1)
    return np.log(picked[..., 0])


def nearby(name: str, values: dict, rng: np.random.Generator) -> dict:
    """Other parameters, a little aside of the given ones."""
    out = {}
    for key, value in values.items():
        noise = 0.02 * rng.normal(size=np.shape(value))
        if key == "probs" and name == "categorical":
            moved = value * np.exp(noise)
            out[key] = moved / moved.sum(-1, keepdims=True)
        elif key == "probs":
            out[key] = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + noise)))
        elif key == "loc":
            out[key] = value + noise
        else:
            out[key] = value * np.exp(noise)
    return out


TABLE = {
    "gaussian diagonal": ("gaussian", {"covariance": "diagonal", "floor": 1e-12}, REALS),
    "gaussian spherical": ("gaussian", {"covariance": "spherical", "floor": 1e-12}, REALS),
    "bernoulli": ("bernoulli", {}, BITS),
    "categorical": ("categorical", {"num_states": 3}, STATES),
    "poisson": ("poisson", {}, COUNTS),
    "negative_binomial": ("negative_binomial", {}, COUNTS),
}


@pytest.mark.parametrize("missing", [False, True], ids=["whole", "missing"])
@pytest.mark.parametrize("row", TABLE)
def test_the_m_step_is_the_highest_point_around(row: str, missing: bool) -> None:
    name, options, x = TABLE[row]
    cells = CELLS if missing else None
    counted = np.ones_like(x) if cells is None else cells
    values = family(name, **options).maximise(x, WEIGHTS, cells, None)

    def height(values: dict) -> float:
        table = by_column(name, values, x) * counted[:, None, :]
        return float((WEIGHTS * table.sum(-1)).sum())

    rng, top = np.random.default_rng(1), height(values)
    assert all(height(nearby(name, values, rng)) < top for _ in range(200))


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_correlated_gaussians_have_weighted_moments(covariance: str) -> None:
    values = Gaussian(covariance, floor=0.0).maximise(REALS, WEIGHTS, None, None)
    expected = []
    for k in range(2):
        mean = np.average(REALS, axis=0, weights=WEIGHTS[:, k])
        np.testing.assert_allclose(values["loc"][k], mean, rtol=1e-12)
        expected.append(np.cov(REALS.T, aweights=WEIGHTS[:, k], ddof=0))
    if covariance == "tied":
        expected = np.average(expected, axis=0, weights=WEIGHTS.sum(0))
    factors = tril(values)
    np.testing.assert_allclose(factors @ np.swapaxes(factors, -1, -2), expected, rtol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_student_t_steps_climb_to_the_maximum(covariance: str) -> None:
    x = stats.multivariate_t([1, -1], [[1, 0.5], [0.5, 1]], df=4).rvs(400, random_state=2)
    one, made = np.ones((400, 1)), StudentT(covariance)

    def height(values: dict) -> float:
        factor = np.broadcast_to(tril(values), (1, 2, 2))[0]
        shape = factor @ factor.T
        return stats.multivariate_t(values["loc"][0], shape, df=values["df"][0]).logpdf(x).sum()

    values = made.maximise(x, one, None, None)
    heights = [height(values)]
    for _ in range(300):
        values = made.maximise(x, one, None, values)
        heights.append(height(values))
    assert (np.diff(heights) > -1e-4).all()  # the floor of 1e-6 costs a little
    assert heights[-1] - heights[-2] < 1e-6
    if covariance == "full":

        def cost(z: np.ndarray) -> float:
            factor = np.array([[np.exp(z[2]), 0.0], [z[3], np.exp(z[4])]])
            fn = stats.multivariate_t(z[:2], factor @ factor.T, df=np.exp(z[5]))
            return -fn.logpdf(x).sum()

        found = minimize(cost, np.array([0, 0, 0, 0, 0, 1.0]), method="BFGS")
        assert abs(heights[-1] + found.fun) < 1e-3


def test_data_without_columns_have_parameters_without_them() -> None:
    for name, options, x in TABLE.values():
        made = family(name, **options)
        values = made.maximise(x[:, 0], WEIGHTS, None, None)
        expected = {n: p.shape for n, p in made.parameters(2, ()).items()}
        assert {n: np.shape(v) for n, v in values.items()} == expected
    for covariance in ("full", "tied", "diagonal", "spherical"):
        for count in (1, 2):
            for made in (Gaussian(covariance), StudentT(covariance)):
                weights = WEIGHTS[:, :count]
                values = made.maximise(REALS[:, 0], weights, None, None)
                expected = {n: p.shape for n, p in made.parameters(count, ()).items()}
                assert {n: np.shape(v) for n, v in values.items()} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "gauss"}, "no components 'gauss': choose 'gaussian'"),
        ({"name": "poisson", "covariance": "full"}, "poisson components take no covariance="),
        ({"name": "categorical"}, "num_states= of 2 or more, not None"),
        ({"name": "gaussian", "covariance": "diag"}, "covariance must be one of 'full'"),
        ({"name": "student_t", "df": -1.0}, "df must be a positive number, got -1.0"),
    ],
)
def test_options_that_do_not_suit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(**options)


@pytest.mark.parametrize(
    ("name", "options", "x", "message"),
    [
        ("bernoulli", {}, [[0.0], [2.0]], "row 1, column 0 holds 2, where 0 or 1 is asked"),
        ("poisson", {}, [[0.5]], "row 0, column 0 holds 0.5"),
        ("negative_binomial", {}, [[-1.0]], "holds -1"),
        ("categorical", {"num_states": 3}, [[3.0]], "from 0 to 2 is asked"),
    ],
)
def test_data_outside_the_support_are_told(name, options, x, message) -> None:
    made, x = family(name, **options), np.array(x)
    assert message in made.trouble(x, None)
    assert made.trouble(x, np.zeros(x.shape, bool)) == ""
