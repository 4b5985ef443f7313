"""`sbc`: exact inferences pass, wrong ones are caught, and data go back where they came from."""

import warnings
from functools import partial

import numpy as np
import pytest

RNG = np.random.default_rng(0)
Y = np.zeros(3, "float32")
X = RNG.normal(size=(20, 3)).astype("float32")
ROWS = np.zeros(60, "float32")


def exact_mean(dg, scale=1.0, shift=0.0):
    """The posterior of `normal_mean` in closed form, its standard deviation scaled."""

    def infer(model, y, seed):
        variance = 1.0 / (1.0 + len(y))
        noise = np.random.default_rng(seed).normal(size=(1, 99))
        draws = variance * y.sum() + np.sqrt(variance) * (shift + scale * noise)
        return dg.Posterior({"mean": draws}, method="exact")

    return infer


def exact_weights(dg, scale=1.0):
    """The posterior of `regression` in closed form, its standard deviations scaled."""

    def infer(model, x, y, seed):
        covariance = np.linalg.inv(np.eye(3) + x.T @ x / 0.25)
        noise = np.random.default_rng(seed).normal(size=(1, 99, 3))
        root = np.linalg.cholesky(covariance)
        draws = covariance @ x.T @ y / 0.25 + scale * noise @ root.T
        return dg.Posterior({"weights": draws}, method="exact")

    return infer


def verdicts(check):
    return {row.name: row.ok for row in check.diagnose().checks}


QUANTITY = "log likelihood (quantity)"


def test_exact_posteriors_pass(dg, zoo):
    check = dg.sbc(zoo.normal_mean, exact_mean(dg), Y, progress=False)
    assert verdicts(check) == {"mean": True, QUANTITY: True}
    assert check.num_simulations == 200
    assert check.wanted_draws == 99
    check = dg.sbc(zoo.regression, exact_weights(dg), X, X[:, 0], progress=False)
    assert check.ranks["weights"].shape == (200, 3)
    assert verdicts(check) == {"weights": True, QUANTITY: True}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 0.7}, "too narrow"),
        ({"scale": 1.5}, "too wide"),
        ({"shift": 0.5}, "draws are too high"),
    ],
)
def test_wrong_posteriors_are_caught(dg, zoo, options, words):
    infer = exact_mean(dg, **options)
    check = dg.sbc(zoo.normal_mean, infer, Y, progress=False)
    row = check.diagnose().checks[0]
    assert row.ok is False
    assert words in row.advice


def test_the_prior_in_place_of_the_posterior_shows_in_the_log_likelihood(dg, zoo):
    def prior(model, y, seed):
        draws = np.random.default_rng(seed).normal(size=(1, 99))
        return dg.Posterior({"mean": draws}, method="exact")

    check = dg.sbc(zoo.normal_mean, prior, Y, progress=False)
    assert verdicts(check) == {"mean": True, QUANTITY: False}


def test_wrong_scales_of_several_elements_are_caught(dg, zoo):
    check = dg.sbc(zoo.regression, exact_weights(dg, 0.5), X, X[:, 0], progress=False)
    assert verdicts(check)["weights"] is False


def test_importance_runs_on_all_simulations_at_once(dg, zoo):
    check = dg.sbc(zoo.two_sources, "importance", Y, np.zeros(4, "float32"))
    assert verdicts(check) == {"mean": True, QUANTITY: True}
    one = partial(dg.importance, keep_draws=True)  # an option that only one by one knows
    check = dg.sbc(zoo.normal_mean, one, Y, num_simulations=10, progress=False)
    assert check.ranks["mean"].shape == (10,)


def test_too_few_particles_are_caught(dg, zoo):
    few = partial(dg.importance, num_particles=3)
    check = dg.sbc(zoo.normal_mean, few, np.zeros(30, "float32"))
    assert verdicts(check)["mean"] is False


def test_rows_of_local_latents_are_simulations_of_their_own(dg, zoo):
    check = dg.sbc(zoo.local_normal, "importance", ROWS, num_simulations=10)
    assert check.rows == "data"
    assert check.ranks["z"].shape == check.ranks["log likelihood"].shape == (600,)
    assert check.diagnose().ok
    # rows that touch each other are not
    check = dg.sbc(zoo.random_walk, "importance", Y, num_simulations=10)
    assert check.rows is None
    assert check.ranks["z"].shape == (10, 3)


def fitted(dg, zoo, guide):
    data = np.sqrt(2.0) * RNG.normal(size=200).astype("float32")
    return dg.svi(
        zoo.local_normal, guide, data, num_steps=300, optim=zoo.adam(0.02), progress=False
    )


def test_amortised_guides_are_calibrated_without_training(dg, zoo):
    fit = fitted(dg, zoo, zoo.slope_guide)
    assert abs(float(zoo.to_numpy(fit.params["slope"])) - 0.5) < 0.05
    check = dg.sbc(zoo.local_normal, fit, ROWS, num_simulations=10)
    assert check.rows == "data"
    assert check.diagnose().ok, check.diagnose()


@pytest.mark.parametrize(
    ("guide", "words"),
    [("local_normal_guide", "too wide"), ("shifted_guide", "draws are too high")],
)
def test_wrong_amortised_guides_are_caught(dg, zoo, guide, words):
    fit = fitted(dg, zoo, getattr(zoo, guide))
    row = dg.sbc(zoo.local_normal, fit, ROWS, num_simulations=10).diagnose().checks[0]
    assert row.ok is False
    assert words in row.advice


def test_a_guide_that_does_not_read_the_data_is_refused(dg, zoo):
    fit = dg.svi(zoo.normal_mean, zoo.loose_guide, Y, num_steps=2, progress=False)
    with pytest.raises(ValueError, match="without reading the data"):
        dg.sbc(zoo.normal_mean, fit, Y)


def test_guides_are_trained_on_every_simulation(dg, zoo):
    kind = type(zoo.auto_normal(zoo.normal_mean))
    for guide in (kind, zoo.auto_normal(zoo.normal_mean)):
        infer = partial(dg.svi, guide=guide, num_steps=200, optim=zoo.adam(0.05))
        check = dg.sbc(zoo.normal_mean, infer, Y, num_simulations=5, progress=False)
        assert check.infer == "svi"
        ranks = check.ranks["mean"]
        assert ranks.shape == (5,)
        assert len(set(ranks.tolist()) - {0, 99}) >= 3  # each near its own data's posterior


def test_chains_are_ranked_among_effective_draws(dg, zoo):
    infer = partial(dg.mcmc, kernel="chees", num_chains=8, num_warmup=200, num_samples=200)
    check = dg.sbc(zoo.normal_mean, infer, Y, num_simulations=12, progress=False)
    assert check.infer == "mcmc"
    assert check.num_draws.max() <= 99
    assert check.num_draws.min() > 10
    assert check.diagnose().ok


def test_warnings_are_said_once(dg, zoo):
    def infer(model, y, seed):
        warnings.warn("not mixed", UserWarning, stacklevel=2)
        return exact_mean(dg)(model, y, seed)

    with pytest.warns(UserWarning, match=r"5 of 5 inferences warned.*not mixed") as said:
        dg.sbc(zoo.normal_mean, infer, Y, num_simulations=5, progress=False)
    assert len(said) == 1


def test_covariates_stay_and_columns_are_found(dg, zoo):
    seen = []

    def prior(model, *data):
        seen.append(data)
        return dg.Posterior({"slope": RNG.normal(size=(1, 9))}, method="exact")

    x, y = X[:, 0], X[:, 1]
    dg.sbc(zoo.line, prior, x, y, num_simulations=3, num_draws=9, progress=False)
    xy = X[:6, :2].copy()
    dg.sbc(zoo.columns, prior, xy, num_simulations=3, num_draws=9, progress=False)
    for kept, drawn in seen[:3]:
        np.testing.assert_array_equal(kept, x)
        assert not np.array_equal(drawn, y)
    for (both,) in seen[3:]:
        np.testing.assert_array_equal(both[:, 0], xy[:, 0])
        assert not np.array_equal(both[:, 1], xy[:, 1])
    check = dg.sbc(zoo.columns, "importance", xy)
    assert check.diagnose().ok


def test_quantities_of_the_user_are_ranked_beside(dg, zoo):
    def excess(draws, y):
        return draws["mean"] - y.mean()

    check = dg.sbc(
        zoo.normal_mean, exact_mean(dg), Y, test_quantities={"excess": excess}, progress=False
    )
    assert verdicts(check) == {"mean": True, QUANTITY: True, "excess (quantity)": True}
    with pytest.raises(ValueError, match="must begin with the 100 draws"):
        dg.sbc(
            zoo.normal_mean, exact_mean(dg), Y, num_simulations=2, progress=False,
            test_quantities={"mean": lambda draws, y: y},
        )  # fmt: skip


def test_what_is_summed_out_has_no_rank(dg, zoo):
    infer = partial(dg.importance, guide=zoo.shift_guide)
    check = dg.sbc(zoo.two_coins, infer, np.zeros(5, "float32"))
    assert verdicts(check) == {"shift": True}


def test_learned_parameters_are_held(dg, zoo):
    params = {"weight": np.float32(3.0), "bias": np.float32(1.0)}
    check = dg.sbc(zoo.decoder, "importance", ROWS, num_simulations=10, params=params)
    assert check.diagnose().ok
    with pytest.raises(ValueError, match=r"'weight'.*svi would train"):
        dg.sbc(zoo.decoder, partial(dg.svi, guide=zoo.exact_guide), ROWS, params=params)


def test_transformed_data_are_simulated_by_the_user(dg, zoo):
    y = np.ones(3, "float32")
    with pytest.raises(ValueError, match=r"'log_y' observes no entries.*pass simulate="):
        dg.sbc(zoo.logarithms, "importance", y)

    def simulate(sites, rng):
        return np.exp(sites["log_y"])

    assert dg.sbc(zoo.logarithms, "importance", y, simulate=simulate).diagnose().ok
    with pytest.raises(ValueError, match="returned 2 data arguments"):
        dg.sbc(zoo.logarithms, "importance", y, simulate=lambda sites, rng: (y, y))


BAD = {
    "tilted": ("factor statements ('tilt')", (Y,)),
    "flat_mean": ("'mean' has an improper prior", (Y,)),
    "autoregression": ("'x' depend on the data", (Y,)),
    "subsampling": ("subsamples", (np.zeros(20, "float32"),)),
    "line": ("observes nothing", (Y,)),
}


@pytest.mark.parametrize("name", BAD)
def test_models_that_running_forwards_does_not_draw_from_are_refused(dg, zoo, name):
    words, data = BAD[name]
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        dg.sbc(getattr(zoo, name), "importance", *data)


def test_other_bad_input(dg, zoo):
    with pytest.raises(ValueError, match="num_simulations must be"):
        dg.sbc(zoo.normal_mean, "importance", Y, num_simulations=0)
    with pytest.raises(ValueError, match="none of 'mcmc', 'importance'"):
        dg.sbc(zoo.normal_mean, "svi", Y)
    with pytest.raises(TypeError, match="must return a Posterior or a Fit"):
        dg.sbc(zoo.normal_mean, lambda model, y: 3, Y, progress=False)
    other = dg.Posterior({"other": np.zeros((1, 9))}, method="exact")
    with pytest.raises(ValueError, match="none of them of the model's latent sites"):
        dg.sbc(zoo.normal_mean, lambda model, y: other, Y, progress=False)


def test_seeds_repeat_and_differ(dg, zoo):
    one, again, other = (
        dg.sbc(zoo.normal_mean, "importance", Y, num_simulations=20, seed=s).ranks["mean"]
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
