"""Classifiers as programs: closed form, EM, gradients and chains agree."""

import importlib
from types import ModuleType

import numpy as np
import pytest

RNG = np.random.default_rng(0)
Y = (RNG.random(300) < 0.4).astype(int)
MIXED = np.stack(
    [RNG.normal(2 * Y, 1), RNG.random(300) < 0.3 + 0.4 * Y, RNG.poisson(2 + 4 * Y),
     RNG.normal(-Y, 1)], 1,
).astype("float32")  # fmt: skip
NAMES = ["gaussian", "bernoulli", "poisson", "gaussian"]
BITS = (RNG.random((300, 4)) < np.where(Y[:, None], 0.7, 0.3)).astype("float32")
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def language(wing: str) -> ModuleType:
    """The language's distributions."""
    return importlib.import_module(f"{wing}.distributions")


def by_hand(x: np.ndarray) -> np.ndarray:
    """Class probabilities of rows of `MIXED` by maximum likelihood."""
    from scipy import stats

    table = []
    for k in (0, 1):
        mine = MIXED[k == Y].astype(float)
        mean, spread = mine.mean(0), mine.std(0)
        parts = [
            stats.norm.logpdf(x[:, 0], mean[0], spread[0]),
            stats.bernoulli.logpmf(x[:, 1].astype(int), mean[1]),
            stats.poisson.logpmf(x[:, 2], mean[2]),
            stats.norm.logpdf(x[:, 3], mean[3], spread[3]),
            np.full(len(x), np.log((k == Y).mean())),
        ]
        table.append(np.stack(parts, 1))
    return np.stack(table, -1)


def test_labelled_rows_are_learned_in_one_step(dg: ModuleType) -> None:
    model = dg.naive_bayes(NAMES)
    fit = dg.em(model, MIXED, Y, **QUIET)
    assert len(fit.losses) == 2
    assert abs(fit.losses[0] - fit.losses[1]) < 1e-5
    joint = by_hand(MIXED).sum(1)
    expected = np.exp(joint - np.logaddexp(*joint.T)[:, None])
    np.testing.assert_allclose(model.probabilities(fit, MIXED), expected, atol=2e-3)
    assert abs(fit.losses[0] + joint[np.arange(300), Y].mean()) < 1e-3
    np.testing.assert_allclose(model.probabilities(fit, MIXED[:1]), expected[:1], atol=2e-3)


def test_missing_features_are_left_out_of_the_answer(dg: ModuleType) -> None:
    model = dg.naive_bayes(NAMES)
    fit = dg.em(model, MIXED, Y, **QUIET)
    mask = RNG.random(MIXED.shape) < 0.5
    parts = by_hand(MIXED)
    parts[:, :4] *= mask[:, :, None]
    joint = parts.sum(1)
    expected = np.exp(joint - np.logaddexp(*joint.T)[:, None])
    spoiled = np.where(mask, MIXED, 0).astype("float32")
    np.testing.assert_allclose(model.probabilities(fit, spoiled, mask), expected, atol=2e-3)


def test_unlabelled_rows_take_part(dg: ModuleType) -> None:
    model = dg.naive_bayes(NAMES)
    known = np.where(np.arange(300) < 15, Y, -1)
    fit = dg.em(model, MIXED, known, **QUIET)
    assert (np.diff(fit.losses) <= 1e-5).all()
    full = dg.em(model, MIXED, Y, **QUIET)
    gap = np.abs(model.probabilities(fit, MIXED) - model.probabilities(full, MIXED))
    few = dg.em(model, MIXED[:15], Y[:15], **QUIET)
    worse = np.abs(model.probabilities(few, MIXED) - model.probabilities(full, MIXED))
    assert gap.mean() < 0.6 * worse.mean()
    # The evidence of half-labelled rows: a label adds log p(y, x), no label log p(x).
    evidence = fit.importance(num_particles=4).evidence.log_evidence
    params = {n: np.asarray(v) for n, v in fit.params.items()}
    whole, bare = dg.em(model, MIXED, params=params, num_steps=1, **QUIET), fit.losses[-1]
    assert abs(evidence / 300 + bare) < 1e-4
    assert -whole.losses[0] > -bare  # log p(x) is above log p(x, y)


def test_closed_form_is_what_weights_find(
    dg: ModuleType, language: ModuleType, zoo: ModuleType, wing: str
) -> None:
    programs = importlib.import_module(f"{__package__}.mixtures_{wing}")
    model = dg.naive_bayes("bernoulli", priors={"probs": language.Beta(2.0, 2.0)})
    exact = model.conjugate(BITS, Y, num_samples=1000)
    options = {"loss": programs.trace_enum(), "optim": zoo.adam(0.03), "num_steps": 400, **QUIET}
    fit = dg.svi(model, model.guide, BITS, Y, **options)
    weighed = fit.importance(num_particles=1500)
    error = weighed.evidence.standard_error
    assert error < 0.2
    assert abs(weighed.evidence.log_evidence - exact.evidence.log_evidence) < 5 * error
    answers = [model.probabilities(r, BITS[:20]) for r in (exact, fit)]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)
    # Laplace's smoothing: the mode under Beta(2, 2).
    smoothed = dg.em(model, BITS, Y, **QUIET)
    expected = [(BITS[k == Y].sum(0) + 1) / ((k == Y).sum() + 2) for k in (0, 1)]
    np.testing.assert_allclose(np.asarray(smoothed.params["probs_point"]), expected, rtol=1e-5)
    tree = exact.to_datatree()
    assert tree["log_likelihood"]["data"].shape == (1, 1000, 300)


@pytest.mark.slow
def test_closed_form_is_what_chains_find(dg: ModuleType, language: ModuleType) -> None:
    model = dg.naive_bayes("bernoulli", priors={"probs": language.Beta(2.0, 2.0)})
    exact = model.conjugate(BITS, Y, num_samples=4000)
    chains = {"kernel": "chees", "num_chains": 64, "num_warmup": 240, "num_samples": 200}
    drawn = dg.mcmc(model, BITS, Y, **chains, **QUIET)
    table = drawn.summary(var_names=["probs"])
    truth = exact.draws["probs"][0].reshape(-1, 8)
    ours = drawn.draws["probs"].reshape(-1, 8)
    error = truth.std(0) * (1 / table["ess_bulk"].to_numpy() + 1 / 4000) ** 0.5
    assert (np.abs(ours.mean(0) - truth.mean(0)) < 5 * error).all()
    assert (np.abs(ours.std(0) / truth.std(0) - 1) < 0.1).all()
    answers = [model.probabilities(r, BITS[:20]) for r in (exact, drawn)]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_logistic_regression_is_that_of_scikit_learn(dg: ModuleType, zoo: ModuleType) -> None:
    from sklearn.linear_model import LogisticRegression

    model = dg.logistic_regression(prior_scale=None)
    options = {"optim": zoo.adam(0.05), "num_steps": 1500, **QUIET}
    fit = dg.svi(model, model.guide, BITS, Y, **options)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(BITS, Y)
    np.testing.assert_allclose(
        model.probabilities(fit, BITS), theirs.predict_proba(BITS), atol=5e-3
    )


def test_labels_that_are_unknown_do_not_count(dg: ModuleType, zoo: ModuleType) -> None:
    model = dg.logistic_regression(prior_scale=None)
    options = {"optim": zoo.sgd(0.1), "num_steps": 20, **QUIET}
    known = np.where(np.arange(300) < 100, Y, -1)
    params = {"weight": np.zeros((4, 2), "float32"), "bias": np.zeros(2, "float32")}
    fit = dg.svi(model, None, BITS, known, params=params, **options)
    few = dg.svi(model, None, BITS[:100], Y[:100], params=params, **options)
    np.testing.assert_allclose(fit.losses[0] * 300, few.losses[0] * 100, rtol=1e-4)


def test_a_network_learns_what_no_line_separates(dg: ModuleType, zoo: ModuleType) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (400, 2)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    model = dg.neural_classifier(hidden=(16,))
    options = {"optim": zoo.adam(0.03), "num_steps": 500, **QUIET}
    fit = dg.svi(model, model.guide, x, y, **options)
    sure = model.probabilities(fit, x)
    np.testing.assert_allclose(sure.sum(1), 1, atol=1e-5)
    assert (sure.argmax(1) == y).mean() > 0.9
    line = dg.logistic_regression(prior_scale=None)
    flat = dg.svi(line, line.guide, x, y, **options)
    assert (line.probabilities(flat, x).argmax(1) == y).mean() < 0.7


def test_bad_input_is_refused(dg: ModuleType) -> None:
    with pytest.raises(ValueError, match="student_t columns are not independent"):
        dg.naive_bayes("student_t")
    with pytest.raises(ValueError, match="num_states= of 2 or more"):
        dg.naive_bayes("categorical")
    model = dg.naive_bayes("bernoulli")
    with pytest.raises(ValueError, match=r"y of row 2 is 2: classes are 0 to 1, and -1"):
        dg.em(model, BITS[:3], np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"y must have the shape \(300,\), not \(3,\)"):
        dg.em(model, BITS, np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="row 0, column 0 holds"):
        dg.em(model, MIXED, Y)
    with pytest.raises(ValueError, match=r"x of shape \(300, 4\) has no column 7"):
        dg.em(dg.naive_bayes({"gaussian": [0, 7]}), MIXED, Y)
    with pytest.raises(ValueError, match="no closed form"):
        model.conjugate(BITS, Y)
    with pytest.raises(ValueError, match="no value for 'probs'"):
        model.probabilities({}, BITS)
    with pytest.raises(ValueError, match="num_classes must be whole numbers of at least 2"):
        dg.logistic_regression(1)
    with pytest.raises(TypeError, match="em fits what"):
        dg.em(dg.logistic_regression(), BITS, Y)
