"""Autoencoders of classes and styles: labels observed, summed over, and refused."""

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

CLASSES, FEATURES, LATENTS = 3, 5, 2


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """The wing's autoencoders as functions of arrays."""
    return importlib.import_module(f"tests.wings.vae_{wing}")


def data(rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Bits, and labels of every other row."""
    x = np.random.default_rng(0).integers(0, 2, (rows, FEATURES)).astype("float32")
    return x, np.where(np.arange(rows) % 2, np.arange(rows) % CLASSES, -1)


def made(dg: ModuleType, alpha: float = 0.0, **options: Any) -> Any:
    """A small one."""
    sizes: dict[str, Any] = {"features": FEATURES, "latents": LATENTS, "classes": CLASSES}
    return dg.SemiSupervisedVAE((6,), (6,), (6,), alpha=alpha, **{**sizes, **options})


@pytest.fixture(scope="module")
def fitted(dg: ModuleType) -> tuple[Any, Any]:
    """One trained for some steps in minibatches, on labels that are the first bits."""
    x = np.random.default_rng(1).integers(0, 2, (120, FEATURES)).astype("float32")
    y = np.where(np.arange(120) % 3 == 0, x[:, 0] + x[:, 1], -1).astype(int)
    model = made(dg, alpha=10.0)
    options: dict[str, Any] = {"num_steps": 250, "batch_size": 40, "progress": False}
    options["optim"] = _programs(dg).adam(0.02, 250)
    return model, dg.svi(*model, x, y, loss=dg.EnumeratedELBO(), **options)


def test_the_bound_of_a_row_is_that_of_its_label_or_the_sum_over_labels(
    dg: ModuleType, on: ModuleType
) -> None:
    """Against the conditional autoencoder's weights at each label, many draws of the same code."""
    x, y = data()
    model, count = made(dg), 400
    many, known = np.repeat(x, count, 0), np.repeat(y, count)
    options = {"num_steps": 1, "progress": False, "loss": dg.EnumeratedELBO()}
    q = model.predict(_start(dg, model, x, y), x)
    rng, each = np.random.default_rng(2), []
    for label in range(CLASSES):
        hot = np.tile(np.eye(CLASSES, dtype="float32")[label], (len(many), 1))
        code = rng.normal(size=(len(many), LATENTS)).astype("float32")
        log_p, log_q = on.densities(model.vae, code, many, hot)
        # Draws of a standard normal, weighed to be draws of the posterior.
        share = np.exp(log_q + 0.5 * (code**2).sum(1) + LATENTS * 0.5 * np.log(2 * np.pi))
        each.append((share * (log_p - log_q)).reshape(len(x), count))
    weights = np.stack(each) - np.log(CLASSES)  # the prior of the label
    own, noise = weights.mean(2), weights.std(2) / count**0.5
    certain = np.where(y[:, None] >= 0, np.eye(CLASSES)[y], q).T
    entropy = -np.sum(certain * np.log(np.maximum(certain, 1e-30)), 0)
    expected = (certain * own).sum(0) + entropy
    error = np.sqrt((certain**2 * noise**2).sum(0).mean() / len(x))
    fit = dg.svi(*model, many, known, **options)
    assert abs(fit.losses[0] + expected.mean()) < 5 * np.hypot(error, error) + 1e-4


@pytest.mark.parametrize("name", ["guide", "taught_guide"])
def test_the_bound_and_what_teaches_the_classifier_are_the_enumerated_ones(
    dg: ModuleType, on: ModuleType, zoo: ModuleType, name: str
) -> None:
    """Where z is not used, U = sum_k q_k (L_k - log q_k), with slopes q_k (L_k - log q_k - U).

    Rows with a label pull by alpha (one-hot - q); to `taught_guide` they alone.
    """
    rng, rate, alpha = np.random.default_rng(4), 0.01, 2.0
    x, y = data(30)
    model = dg.SemiSupervisedVAE(
        (), (), (), features=FEATURES, latents=1, classes=CLASSES, alpha=alpha
    )
    table, begin = rng.normal(size=(CLASSES, FEATURES)), rng.normal(size=(FEATURES, CLASSES))
    blind = np.zeros((FEATURES, 2)), np.zeros(2), np.zeros((CLASSES, 2))
    on.set_linear(model.vae, "encoder", *blind)  # q(z | x, y) is the prior
    on.set_linear(model.vae, "decoder", np.zeros((1, FEATURES)), np.zeros(FEATURES), table)
    held = SimpleNamespace(modules={"classifier": model.classifier})
    on.set_linear(held, "classifier", begin, np.zeros(CLASSES))
    model.classifier = held.modules["classifier"]
    log_q = x @ begin - np.logaddexp.reduce(x @ begin, 1)[:, None]
    bounds = x @ table.T - np.logaddexp(0, table).sum(1) - np.log(CLASSES)
    q, known, hot = np.exp(log_q), y[:, None] >= 0, np.eye(CLASSES)[y]
    summed = (q * (bounds - log_q)).sum(1, keepdims=True)
    own = (hot * (bounds + alpha * log_q)).sum(1, keepdims=True)
    pull = np.where(known, alpha * (hot - q), q * (bounds - log_q - summed))
    if name == "taught_guide":
        pull = pull * known
    options = {"num_steps": 1, "optim": zoo.sgd(rate), "progress": False}
    fit = dg.svi(model.model, getattr(model, name), x, y, loss=dg.EnumeratedELBO(), **options)
    np.testing.assert_allclose(fit.losses[0], -np.where(known, own, summed).mean(), rtol=1e-5)
    probes = np.vstack([np.zeros(FEATURES), np.eye(FEATURES)]).astype("float32")
    ones = np.hstack([np.ones((len(x), 1)), x])  # of bias and weights
    moved = rate * ones.T @ pull
    moved[1:] += begin + moved[0]
    expected = moved - moved.mean(1, keepdims=True)
    found = np.log(model.predict(fit, probes))
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected, atol=2e-5)


def _programs(dg: ModuleType) -> ModuleType:
    """Optimizers of the wing's language."""
    return importlib.import_module(f"tests.exactness.programs_{dg.__name__.rsplit('.', 1)[1]}")


def _start(dg: ModuleType, model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """A fit of one step that goes nowhere."""
    still = _programs(dg).standing_still()
    options = {"optim": still, "loss": dg.EnumeratedELBO(), "progress": False}
    return dg.svi(*model, x, y, num_steps=1, **options)


def test_labels_teach_the_classifier(fitted: tuple[Any, Any]) -> None:
    model, fit = fitted
    x = np.random.default_rng(3).integers(0, 2, (200, FEATURES)).astype("float32")
    found = model.predict(fit, x)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)
    wrong = (found.argmax(1) != x[:, 0] + x[:, 1]).mean()
    assert wrong < 0.2  # of three classes, half of the rows in the most frequent one


def test_the_verbs(dg: ModuleType, fitted: tuple[Any, Any]) -> None:
    model, fit = fitted
    x, _ = data()
    drawn = model.generate(fit, [0, 1, 2, 2])
    assert drawn.shape == (4, FEATURES)
    assert np.isin(drawn, (0, 1)).all()
    assert model.encode(fit, x, np.zeros(len(x), int)).shape == (len(x), LATENTS)
    means = model.generate(fit, np.repeat([0, 2], 50), mean=True)[:, :2].sum(1)
    assert means[:50].mean() < means[50:].mean() - 0.5  # the first two bits make the label
    evidence = dg.importance(*model, x, num_particles=200, params=fit, seed=1).evidence
    assert np.isfinite(evidence.per_row).all()
    assert "3 classes" in repr(model)


def test_networks_of_images_take_labels(dg: ModuleType) -> None:
    """Convolutions on all three sides: each class lights a row of its own."""
    rng, nets = np.random.default_rng(5), dg.vae
    truth = np.arange(120) % CLASSES
    x = (rng.random((120, 6, 6)) < 0.15).astype("float32")
    x[np.arange(120), 2 * truth] = 1.0
    y = np.where(np.arange(120) % 4 == 0, truth, -1)
    model = dg.SemiSupervisedVAE(
        nets.ConvEncoder((6, 6), 2 * LATENTS, (4,), context=CLASSES),
        nets.ConvDecoder(LATENTS, (6, 6), 1, (4,), context=CLASSES),
        nets.ConvEncoder((6, 6), CLASSES, (4,)),
        features=(6, 6), latents=LATENTS, classes=CLASSES, alpha=5.0,
    )  # fmt: skip
    options: dict[str, Any] = {"num_steps": 150, "progress": False}
    options["optim"] = _programs(dg).adam(0.02, 150)
    fit = dg.svi(*model, x, y, loss=dg.EnumeratedELBO(), **options)
    assert (model.predict(fit, x).argmax(1) != truth).mean() < 0.1
    rows = model.generate(fit, np.arange(CLASSES), mean=True).mean(2)  # the light of each row
    assert (rows.argmax(1) == 2 * np.arange(CLASSES)).all()


MISTAKES: dict[str, tuple[Any, str]] = {
    "a label too large": (lambda x, y: (x, np.where(y == 1, 7, y)), r"rows? \d.*7"),
    "a label below": (lambda x, y: (x, y - 1), "none of 3 classes: rows 0"),
    "no whole label": (lambda x, y: (x, y + 0.5), "none of 3 classes"),
    "another shape": (lambda x, y: (x, y[:, None]), r"of shape \(12,\)"),
    "data out of range": (lambda x, y: (2 * x, y), "values that likelihood 'bernoulli'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_bad_labels_are_refused_by_row(dg: ModuleType, name: str) -> None:
    change, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        dg.svi(*made(dg), *change(*data()), loss=dg.EnumeratedELBO(), num_steps=1, progress=False)


def test_options_are_checked(dg: ModuleType, fitted: tuple[Any, Any]) -> None:
    model, fit = fitted
    with pytest.raises(ValueError, match="alpha must be a number"):
        made(dg, alpha=-1.0)
    with pytest.raises(ValueError, match="classes must be"):
        made(dg, classes=1)
    with pytest.raises(TypeError, match="classifier must be a module"):
        dg.SemiSupervisedVAE((), (), None, features=2, latents=1, classes=2)
    with pytest.raises(ValueError, match="labels is not known: row 1"):
        model.generate(fit, [0, -1])
    wide = dg.SemiSupervisedVAE((), (), lambda x: x, features=FEATURES, latents=1, classes=CLASSES)
    with pytest.raises(ValueError, match="classifier's output has shape"):
        dg.svi(*wide, *data(), loss=dg.EnumeratedELBO(), num_steps=1, progress=False)
