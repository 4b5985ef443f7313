"""Autoencoders against closed forms, their verbs, programs of one's own, and bad input."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

FEATURES, LATENTS, ROWS = 5, 2, 200


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """The wing's autoencoders as functions of arrays."""
    return importlib.import_module(f"tests.wings.vae_{wing}")


class Linear:
    """Probabilistic PCA in closed form: Tipping, Bishop, JRSS B 61, 1999."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        loading = rng.normal(size=(LATENTS, FEATURES)) * np.array([[2.0], [1.0]])
        noise = 0.4 * rng.normal(size=(ROWS, FEATURES))
        self.x = (rng.normal(size=(ROWS, LATENTS)) @ loading + noise + 1.0).astype("float32")
        self.mean = self.x.mean(0)
        values, vectors = np.linalg.eigh(np.cov(self.x.T, bias=True))
        self.directions = vectors[:, ::-1][:, :LATENTS]
        self.variance = values[:-LATENTS].mean()
        self.weight = self.directions * np.sqrt(values[::-1][:LATENTS] - self.variance)
        self.covariance = self.weight @ self.weight.T + self.variance * np.eye(FEATURES)
        inner = self.weight.T @ self.weight + self.variance * np.eye(LATENTS)
        self.encoder = self.weight @ np.linalg.inv(inner)  # inner is diagonal
        self.spread = np.sqrt(self.variance / np.diag(inner))

    def log_evidence(self, x: np.ndarray, cells: Any = slice(None)) -> np.ndarray:
        """Log evidence of rows, of some of their cells."""
        covariance = self.covariance[cells][:, cells]
        return multivariate_normal(self.mean[cells], covariance).logpdf(x[:, cells])

    def put_into(self, on: ModuleType, vae: Any) -> None:
        """Give an autoencoder without hidden layers these weights."""
        on.set_linear(vae, "decoder", self.weight.T, self.mean)
        encoder = np.concatenate([self.encoder, np.zeros_like(self.encoder)], 1)
        bias = np.concatenate([-self.mean @ self.encoder, np.log(self.spread)])
        on.set_linear(vae, "encoder", encoder, bias)
        on.set_value(vae, "likelihood", "log_scale", 0.5 * np.log(self.variance))


@pytest.fixture(scope="module")
def pca() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def linear(dg: ModuleType, on: ModuleType, pca: Linear) -> tuple[Any, Any]:
    """A linear Gaussian autoencoder with the best weights, and its parameters."""
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    pca.put_into(on, vae)
    return vae, on.params(vae, pca.x)


@pytest.fixture(scope="module")
def broad(dg: ModuleType, on: ModuleType, pca: Linear) -> tuple[Any, Any]:
    """The same with a guide that is the prior: wide enough where cells are missing."""
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    pca.put_into(on, vae)
    on.set_linear(vae, "encoder", np.zeros((FEATURES, 2 * LATENTS)), np.zeros(2 * LATENTS))
    return vae, on.params(vae, pca.x)


SEEN, GONE = [0, 2, 3], [1, 4]


@pytest.fixture(scope="module")
def informed(dg: ModuleType, on: ModuleType, pca: Linear) -> tuple[Any, Any]:
    """The same with a guide made for the cells that are seen: the posterior's means, wider."""
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    pca.put_into(on, vae)
    weight = pca.weight[SEEN]
    covariance = np.linalg.inv(np.eye(LATENTS) + weight.T @ weight / pca.variance)
    encoder = np.zeros((FEATURES, 2 * LATENTS))
    encoder[SEEN, :LATENTS] = weight @ covariance / pca.variance
    bias = np.concatenate([-pca.mean @ encoder[:, :LATENTS], 0.5 * np.log(2 * np.diag(covariance))])
    on.set_linear(vae, "encoder", encoder, bias)
    return vae, on.params(vae, pca.x)


@pytest.fixture(scope="module")
def narrow(dg: ModuleType, on: ModuleType, pca: Linear) -> tuple[Any, Any]:
    """The same with a guide that is too narrow, and amiss where cells are missing."""
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    pca.put_into(on, vae)
    encoder = np.concatenate([pca.encoder, np.zeros_like(pca.encoder)], 1)
    bias = np.concatenate([-pca.mean[SEEN] @ pca.encoder[SEEN], np.log(0.5 * pca.spread)])
    on.set_linear(vae, "encoder", encoder, bias)
    return vae, on.params(vae, pca.x)


@pytest.fixture(scope="module")
def digits(dg: ModuleType, on: ModuleType) -> tuple[Any, Any, np.ndarray]:
    """A small autoencoder of binary rows, not trained, with its parameters and data."""
    x = np.random.default_rng(0).integers(0, 2, (12, 6)).astype("float32")
    vae = on.stirred(dg.VAE((4,), (4,), features=6, latents=2))
    return vae, on.params(vae, x), x


def test_the_best_linear_autoencoder_has_no_gap(pca: Linear, linear: tuple[Any, Any]) -> None:
    """Each weight is the evidence, whatever the draw: no error and no gap."""
    vae, params = linear
    found = vae.log_evidence(params, pca.x, num_particles=50)
    np.testing.assert_allclose(found.per_row, pca.log_evidence(pca.x), atol=2e-4)
    assert found.standard_error < 1e-3


def test_training_finds_the_principal_subspace(dg: ModuleType, on: ModuleType, pca: Linear) -> None:
    """The trained decoder spans it, and the ELBO reaches the exact log evidence."""
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    fit = dg.svi(*vae, pca.x, num_steps=2400, optim=on.adam(0.05, 400), progress=False)
    exact = -pca.log_evidence(pca.x).mean()
    late = fit.losses[-300:]
    assert abs(late.mean() - exact) < 5 * late.std() / np.sqrt(len(late)) + 2e-3
    ends = vae.decode(fit, np.concatenate([np.zeros((1, 2)), np.eye(2)]).astype("float32"))
    found, _ = np.linalg.qr((ends[1:] - ends[0]).T)
    assert np.linalg.svd(found.T @ pca.directions)[1].min() > 0.999


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_learned_priors_are_climbed(
    dg: ModuleType, on: ModuleType, pca: Linear, prior: str
) -> None:
    """A prior whose own draws carry no gradients lets those of the guide's draws through.

    No bound is above the greatest log likelihood of a linear model; a prior that learns can only
    help, so the trained bound comes near to that of the normal prior at the same cost.
    """
    vae = dg.VAE((), (), features=FEATURES, latents=LATENTS, likelihood="gaussian", prior=prior)
    fit = dg.svi(*vae, pca.x, num_steps=800, optim=on.adam(0.05), progress=False)
    exact = -pca.log_evidence(pca.x).mean()
    assert fit.losses[-200:].mean() < exact + 0.15


def test_missing_cells_are_left_out_of_the_evidence(pca: Linear, broad: tuple[Any, Any]) -> None:
    vae, params = broad
    mask = np.zeros_like(pca.x[:20], bool)
    mask[:, [0, 2, 3]] = True
    found = vae.log_evidence(params, pca.x[:20], None, mask, num_particles=20_000)
    exact = pca.log_evidence(pca.x[:20], [0, 2, 3])
    assert (abs(found.per_row - exact) < 5 * found.per_row_standard_error + 1e-4).all()


def halves(pca: Linear, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the linear model with two cells missing, and these cells' conditional law."""
    x = np.random.default_rng(3).multivariate_normal(pca.mean, pca.covariance, rows)
    mask = np.zeros_like(x, bool)
    mask[:, SEEN] = True
    gain = pca.covariance[GONE][:, SEEN] @ np.linalg.inv(pca.covariance[SEEN][:, SEEN])
    mean = pca.mean[GONE] + (x[:, SEEN] - pca.mean[SEEN]) @ gain.T
    covariance = pca.covariance[GONE][:, GONE] - gain @ pca.covariance[SEEN][:, GONE]
    return x.astype("float32"), mask, mean, covariance


def test_imputed_cells_follow_the_conditional(pca: Linear, informed: tuple[Any, Any]) -> None:
    """Of the linear model it is normal: mean and covariance of draws against it."""
    vae, params = informed
    x, mask, mean, covariance = halves(pca, 10)
    spread = np.sqrt(np.diag(covariance))
    x[:, GONE] = 77.0  # what stands there does not count
    found = vae.impute(params, x, mask, num_samples=500, num_particles=4000)
    assert found.draws.shape == (500, *x.shape) and found.diagnosis.ok
    np.testing.assert_array_equal(found.draws[:, mask], np.broadcast_to(x[mask], (500, mask.sum())))
    got = found.draws[:, :, GONE]
    count = 400  # some particles are drawn twice
    assert (abs(got.mean(0) - mean) < 5 * spread / np.sqrt(count)).all()
    scale = np.sqrt((np.outer(spread**2, spread**2) + covariance**2) / count)
    for row in range(10):
        assert (abs(np.cov(got[:, row].T) - covariance) < 5 * scale).all()


@pytest.mark.parametrize("method", ["importance", "smc"])
def test_intervals_of_imputed_cells_cover(
    pca: Linear, informed: tuple[Any, Any], narrow: tuple[Any, Any], method: str
) -> None:
    """90% hold nine cells of ten; a guide too narrow is noticed, and climbed away from by smc."""
    x, mask, _, _ = halves(pca, 100)
    (vae, params), count = (informed, 1000) if method == "importance" else (narrow, 256)
    options: dict[str, Any] = {"num_samples": 100, "num_particles": count, "method": method}
    found = vae.impute(params, x, mask, **options)
    assert found.diagnosis.ok
    share, error, _ = found.coverage(x, 0.9)
    assert abs(share - 0.9) < 5 * error
    assert found.calibration(x).diagnose(0.9999).ok  # their sum too
    if method == "smc":
        blind = vae.impute(params, x, mask, **{**options, "method": "importance"})
        assert not blind.diagnosis.ok and (blind.pareto_k > 0.7).mean() > 0.5
        assert blind.coverage(x, 0.9).share < 0.9 - 5 * error


def test_one_row_is_imputed_too(pca: Linear, informed: tuple[Any, Any]) -> None:
    vae, params = informed
    x, mask, mean, covariance = halves(pca, 1)
    found = vae.impute(params, x, mask, num_samples=400, num_particles=4000)
    error = np.sqrt(np.diag(covariance) / 350)
    assert (abs(found.mean[0, GONE] - mean[0]) < 5 * error).all()
    with pytest.raises(ValueError, match="method must be 'importance' or 'smc', got 'hmc'"):
        vae.impute(params, x, mask, method="hmc")


def test_codes_and_reconstructions(pca: Linear, linear: tuple[Any, Any]) -> None:
    vae, params = linear
    z = (pca.x - pca.mean) @ pca.encoder
    np.testing.assert_allclose(vae.encode(params, pca.x), z, atol=1e-4)
    draws = vae.encode(params, pca.x[:5], num_samples=4000)
    assert draws.shape == (4000, 5, LATENTS)
    assert (abs(draws.mean(0) - z[:5]) < 5 * pca.spread / np.sqrt(4000)).all()
    back = z @ pca.weight.T + pca.mean
    np.testing.assert_allclose(vae.reconstruct(params, pca.x), back, atol=1e-4)
    np.testing.assert_allclose(vae.decode(params, z[None, :3])[0], back[:3], atol=1e-4)


def test_generated_data_have_the_moments(pca: Linear, linear: tuple[Any, Any]) -> None:
    vae, params = linear
    found, count = vae.generate(params, 4000), 4000
    error = np.sqrt(np.diag(pca.covariance) / count)
    assert (abs(found.mean(0) - pca.mean) < 5 * error).all()
    scale = np.sqrt(np.outer(np.diag(pca.covariance), np.diag(pca.covariance)) * 2 / count)
    assert (abs(np.cov(found.T) - pca.covariance) < 5 * scale).all()
    means = vae.generate(params, 4000, mean=True)
    np.testing.assert_array_less(np.linalg.matrix_rank(means - pca.mean, tol=1e-2), LATENTS + 1)


def test_ways_between_codes_and_along_latents(pca: Linear, linear: tuple[Any, Any]) -> None:
    vae, params = linear
    first, second = pca.x[:3], pca.x[3:6]
    way = vae.interpolate(params, first, second, num_steps=5)
    assert way.shape == (5, 3, FEATURES)
    np.testing.assert_allclose(way[0], vae.reconstruct(params, first), atol=1e-4)
    np.testing.assert_allclose(way[-1], vae.reconstruct(params, second), atol=1e-4)
    straight = vae.interpolate(params, first, second, num_steps=3, spherical=False)
    np.testing.assert_allclose(straight[1], (straight[0] + straight[2]) / 2, atol=1e-4)
    moved = vae.traverse(params, first, [1], span=(-1.0, 1.0), num_steps=3)
    assert moved.shape == (1, 3, 3, FEATURES)
    step = np.broadcast_to(pca.weight[:, 1], (3, FEATURES))
    np.testing.assert_allclose(moved[0, 2] - moved[0, 1], step, atol=1e-4)


def test_scores(pca: Linear, linear: tuple[Any, Any]) -> None:
    vae, params = linear
    x = pca.x[:6].copy()
    x[0] += 20.0
    for method in ("evidence", "complexity", "reconstruction"):
        scores = vae.anomaly_score(params, x, method=method)
        assert scores.shape == (6,) and scores.argmax() == 0


def test_a_table_keeps_the_posterior_of_each_datum(
    dg: ModuleType, on: ModuleType, pca: Linear
) -> None:
    """Trained by batches, the decoder known, it finds the exact posterior of every row."""
    vae = dg.VAE(None, (), features=FEATURES, latents=LATENTS, likelihood="gaussian")
    on.set_linear(vae, "decoder", pca.weight.T, pca.mean)
    on.set_value(vae, "likelihood", "log_scale", 0.5 * np.log(pca.variance))
    options = {"num_steps": 1200, "batch_size": 100, "optim": on.adam(0.05), "progress": False}
    fit = dg.svi(*vae, pca.x, **options)
    table = np.asarray(fit.params["table"])
    assert table.shape == (ROWS, 2 * LATENTS)
    codes = vae.encode(fit, pca.x)
    np.testing.assert_array_equal(codes, table[:, :LATENTS])
    kept = (pca.x - pca.mean) @ pca.encoder
    assert abs(codes - kept).mean() < 0.2 * kept.std()
    with pytest.raises(ValueError, match="in a table, and 3 rows"):
        vae.encode(fit, pca.x[:3])


OWN: dict[str, Any] = {
    "encoder of a distribution": lambda on: {"encoder": on.own_encoder(2)},
    "encoder of two arrays": lambda on: {"encoder": on.two_heads(2)},
    "decoder of a distribution": lambda on: {"decoder": on.own_decoder(4), "likelihood": None},
    "decoder with a parameter": lambda on: {"decoder": on.with_param(4)},
    "prior of the language": lambda on: {"prior": on.normal_prior(2, 2.0)},
}


@pytest.mark.parametrize("name", OWN)
def test_what_users_bring(dg: ModuleType, on: ModuleType, name: str) -> None:
    """Modules, functions and distributions of their own train, and every verb takes them."""
    axes = {"encoder": (4,), "decoder": (4,), "likelihood": "gaussian", **OWN[name](on)}
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    vae = dg.VAE(axes.pop("encoder"), axes.pop("decoder"), features=4, latents=2, **axes)
    fit = dg.svi(*vae, x, num_steps=20, progress=False)
    assert np.isfinite(fit.losses).all()
    assert vae.reconstruct(fit, x).shape == x.shape
    assert vae.generate(fit, 3).shape == (3, 4)
    assert np.isfinite(vae.log_evidence(fit, x, num_particles=10).log_evidence)


def test_conditions(dg: ModuleType, on: ModuleType) -> None:
    """With conditions that tell the data, generated data follow them."""
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, 200)].astype("float32")
    x = (3.0 * y[:, :1] + 0.1 * rng.normal(size=(200, 3))).astype("float32")
    prior = dg.flows.NICE(2, 2, transforms=2, hidden=(4,))
    vae = dg.VAE((), (), features=3, latents=2, context=2, likelihood="gaussian", prior=prior)
    fit = dg.svi(*vae, x, y, num_steps=400, optim=on.adam(0.05), progress=False)
    found = vae.generate(fit, 40, np.repeat(np.eye(2, dtype="float32"), 20, 0))
    assert abs(found[:20].mean() - 3.0) < 0.5 and abs(found[20:].mean()) < 0.5
    assert vae.reconstruct(fit, x, y).shape == x.shape
    with pytest.raises(ValueError, match=r"context=2: pass y of shape \(200, 2\)"):
        vae.encode(fit, x)
    with pytest.raises(ValueError, match="num_samples=3, but y has 2 rows"):
        vae.generate(fit, 3, y[:2])


def test_taken_apart_in_a_program_of_ones_own(dg: ModuleType, on: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)).astype("float32")
    vae = dg.VAE((4,), (4,), features=4, latents=2, likelihood="gaussian")
    data = (x, (x[:, 0] > 0).astype("float32"))
    fit = dg.svi(*on.in_a_program(vae), *data, num_steps=50, batch_size=10, progress=False)
    assert np.isfinite(fit.losses).all()
    assert vae.encode(fit, x).shape == (30, 2)


def test_a_saved_fit_serves_the_verbs(
    dg: ModuleType, digits: tuple[Any, Any, np.ndarray], tmp_path: Any
) -> None:
    vae, _, x = digits
    fit = dg.svi(*vae, x, num_steps=3, progress=False)
    again = dg.load_fit(fit.save(tmp_path / "fit"), *vae)
    np.testing.assert_allclose(vae.encode(again, x), vae.encode(fit, x))


def test_blocks_of_rows_are_the_whole(pca: Linear, linear: tuple[Any, Any]) -> None:
    """The evidence of more rows than fit in a block has each of them once, in order."""
    vae, params = linear
    many = np.tile(pca.x, (6, 1))
    found = vae.log_evidence(params, many, num_particles=8192)  # 1024 rows a block
    np.testing.assert_allclose(found.per_row, np.tile(pca.log_evidence(pca.x), 6), atol=2e-4)
    assert abs(found.log_evidence - found.per_row.sum()) < 1e-6 * abs(found.log_evidence)


BAD: dict[str, tuple[Any, str]] = {
    "counts to Bernoulli": (
        lambda x: (x + 2 * np.eye(12, 6, dtype="float32"),),
        r"6 of 12 rows hold values that likelihood 'bernoulli' .*rows 0, 1, 2, 3, 4, 5.* hold 2, 3",
    ),
    "grey values to Bernoulli": (lambda x: (x * 0.5,), "continuous_bernoulli"),
    "another number of features": (lambda x: (x[:, :5],), r"\(12, 5\), but .*features=\(6,\)"),
    "y without context": (lambda x: (x, x[:, :2]), "made without context. Make it with context=2"),
    "a mask of another shape": (lambda x: (x, None, x[0] == 1), r"mask has shape \(6,\)"),
    "rows without a cell": (
        lambda x: (x, None, np.arange(12)[:, None] + 0 * x < 10),
        "2 of 12 rows have no observed cell: rows 10, 11",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_refused(
    dg: ModuleType, digits: tuple[Any, Any, np.ndarray], name: str
) -> None:
    """By every entry point, before anything is compiled, in the same words."""
    (vae, params, x), (spoil, words) = digits, BAD[name]
    data = spoil(x)
    for attempt in (
        lambda: dg.svi(*vae, *data, num_steps=2, progress=False),
        lambda: dg.importance(*vae, *data, params=params),
        lambda: vae.encode(params, *data),
        lambda: vae.log_evidence(params, *data),
    ):
        with pytest.raises(ValueError, match=words):
            attempt()


def test_values_that_nobody_learned(dg: ModuleType, wing: str, pca: Linear, linear: Any) -> None:
    """Arrays do not stand for them on NumPyro; modules of torch hold what they learned."""
    vae, params = linear
    if wing == "pyro":
        np.testing.assert_array_equal(vae.encode({}, pca.x), vae.encode(params, pca.x))
        return
    with pytest.raises(ValueError, match=r"no learned value for 'encoder\$params'. Pass the Fit"):
        vae.encode({}, pca.x)
    with pytest.raises(ValueError, match=r"no learned value for 'decoder\$params'"):
        vae.generate({}, 3)


def test_what_is_no_fit_is_refused(dg: ModuleType, pca: Linear, linear: Any) -> None:
    with pytest.raises(TypeError, match="params must be a dict of arrays or a Fit, not int"):
        linear[0].encode(3, pca.x)


def test_outputs_of_wrong_shape_are_refused(dg: ModuleType, on: ModuleType) -> None:
    x = np.ones((8, 4), "float32")
    wide = on.two_heads(3)
    vae = dg.VAE(wide, (), features=4, latents=2)
    with pytest.raises(ValueError, match=r"takes \(8, 4\): 2 locations and 2 log scales"):
        dg.svi(*vae, x, num_steps=2, progress=False)
    vae = dg.VAE((), on.with_param(4), features=4, latents=2, likelihood=dg.vae.Categorical(3))
    with pytest.raises(ValueError, match=r"3 numbers for each of 4 features.* 12 outputs"):
        dg.svi(*vae, x, num_steps=2, progress=False)
    vae = dg.VAE((), on.own_decoder(5), features=4, latents=2, likelihood=None)
    with pytest.raises(ValueError, match="let its shape end in that"):
        dg.svi(*vae, x, num_steps=2, progress=False)


def test_a_module_inside_a_function_is_refused_since_it_would_not_learn(
    dg: ModuleType, on: ModuleType
) -> None:
    for net in on.around(on.one_datum(4, 4)):
        words = r"encoder is a function around a module \(Linear\), .* would not be learned"
        with pytest.raises(TypeError, match=words):
            dg.VAE(net, (), features=4, latents=2)
        with pytest.raises(TypeError, match="decoder is a function around a module"):
            dg.VAE((), net, features=4, latents=2)
        made = {"features": 4, "latents": 2, "classes": 3}
        with pytest.raises(TypeError, match="classifier is a function around a module"):
            dg.SemiSupervisedVAE((), (), net, **made)
        base = on.normal_prior(4, 1.0)
        for make in (dg.EnergyModel, dg.EnergyClassifier, lambda net, _: dg.CRF(net, 4)):
            with pytest.raises(TypeError, match="net is a function around a module"):
                make(net, base)


def test_a_module_for_one_datum_is_told_how_to_take_a_batch(
    dg: ModuleType, on: ModuleType, wing: str
) -> None:
    """Equinox's modules take one datum; wrapped by equinox they are registered, and learn."""
    if wing == "pyro":
        pytest.skip("modules of torch take batches")
    import equinox as eqx

    x, net = np.ones((8, 4), "float32"), on.one_datum(4, 4)
    vae = dg.VAE(net, (), features=4, latents=2)
    with pytest.raises(TypeError, match=r"shape \(8, 4\): pass .* as equinox.filter_vmap\(module"):
        dg.svi(*vae, x, num_steps=2, progress=False)
    vae = dg.VAE(eqx.filter_vmap(net), (), features=4, latents=2)
    assert set(dg.svi(*vae, x, num_steps=2, progress=False).params) == {
        "encoder$params",
        "decoder$params",
    }
    energy = dg.EnergyModel(on.one_datum(4, 1), on.normal_prior(4, 1.0))
    with pytest.raises(TypeError, match=r"The Linear was given a batch of shape \(8, 4\)"):
        energy.energy(x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"likelihood": "mse"}, "likelihood must be 'bernoulli', .* got 'mse'"),
        ({"posterior": "normal"}, "posterior must be 'diagonal', .* got 'normal'"),
        ({"prior": "gaussian"}, "prior must be 'normal', .* got 'gaussian'"),
        ({"latents": 0}, "latents must be a whole number of at least 1"),
        ({"features": "mnist"}, "features must be a number, or a shape"),
        ({"encoder": 3}, "encoder must be a module, a function, or the units"),
        ({"encoder": None, "prior": "vamp"}, "a VampPrior is made of the encoder"),
        ({"likelihood": 3}, "likelihood must be one of"),
        ({"prior": 3}, "prior must be one of"),
    ],
)
def test_bad_options_are_refused(dg: ModuleType, options: dict[str, Any], words: str) -> None:
    made = {"encoder": (), "decoder": (), "features": 4, "latents": 2, **options}
    with pytest.raises((ValueError, TypeError), match=words):
        dg.VAE(made.pop("encoder"), made.pop("decoder"), **made)
