"""What only Pyro has: modules trained in place, the param store, plates opened at the batch."""

import signal
from functools import partial

import numpy as np
import pytest

pyro = pytest.importorskip("pyro", reason="the Pyro wing is not installed")

import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import (  # noqa: E402
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal  # noqa: E402
from pyro.infer.reparam import LocScaleReparam  # noqa: E402
from pyro.nn import PyroModule, PyroSample  # noqa: E402
from torch import nn  # noqa: E402

import deepgen_ppl.pyro as dg  # noqa: E402
from deepgen_ppl.pyro.parameters import private_store, resolve  # noqa: E402
from deepgen_ppl.pyro.program import log_weights, read, read_pair  # noqa: E402


@pytest.fixture(autouse=True)
def _this_wing_alone(wing: str) -> None:
    if wing != "pyro":
        pytest.skip("these are features of Pyro's language")


X = torch.as_tensor(np.random.default_rng(0).normal(1.0, 1.0, (24, 2)), dtype=torch.float32)
QUIET = {"num_steps": 20, "progress": False}


def hierarchy(x):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class Net(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2) if norm else nn.Identity()

    def forward(self, x):
        return self.norm(self.linear(x))


def coder(norm: bool = False):
    net = Net(norm)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, scale).to_event(1))

    return model, guide, net


# ------------------------------------------------------------------------------ nothing left behind


def test_store_random_state_and_validation_stay_as_they_were() -> None:
    model, guide, _ = coder()
    pyro.clear_param_store()
    pyro.param("scale", torch.tensor([7.0, 7.0]))
    pyro.settings.set(validate_infer=False)
    before = pyro.settings.get()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    fit = dg.svi(model, guide, X, **QUIET)
    fit.importance(num_particles=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.settings.get() == before
    assert dict(pyro.get_param_store().items()).keys() == {"scale"}
    assert torch.equal(pyro.param("scale"), torch.tensor([7.0, 7.0]))
    pyro.clear_param_store()
    pyro.settings.set(validate_infer=True)


def test_modules_are_trained_in_place_and_the_fit_keeps_copies() -> None:
    model, guide, net = coder()
    before = net.linear.weight.detach().clone()
    fit = dg.svi(model, guide, X, **QUIET)
    assert not torch.equal(net.linear.weight, before)
    assert torch.equal(fit.params["net.linear.weight"], net.linear.weight)
    kept = fit.params["net.linear.weight"].clone()
    first = fit.importance(num_particles=10).log_weights
    with torch.no_grad():
        net.linear.weight.zero_()
    assert torch.equal(fit.params["net.linear.weight"], kept)
    np.testing.assert_array_equal(fit.importance(num_particles=10).log_weights, first)
    assert bool((net.linear.weight == 0).all())


def test_a_loaded_fit_fills_modules_and_buffers(tmp_path) -> None:
    model, guide, net = coder(norm=True)
    fit = dg.svi(model, guide, X, batch_size=8, **QUIET)
    assert int(fit.params["net.norm.num_batches_tracked"]) >= 20
    path = fit.save(tmp_path / "fit.dgp")
    other, other_guide, other_net = coder(norm=True)
    loaded = dg.load_fit(path, other, other_guide)
    for name, value in net.state_dict().items():
        assert torch.equal(other_net.state_dict()[name], value)
    assert torch.equal(loaded.params["scale"], fit.params["scale"])


def test_an_unannounced_module_is_pointed_out() -> None:
    net = Net()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(x), pyro.param("s", torch.ones(2))).to_event(1), obs=x)

    with pytest.warns(UserWarning, match="belong to no module or parameter"):
        dg.svi(model, None, X, **QUIET)


def test_scoring_without_learned_values_is_refused() -> None:
    model, guide, _ = coder()
    with pytest.raises(ValueError, match="'scale'"):
        dg.importance(model, guide, X, num_particles=5)


# --------------------------------------------------------------------------------------- the reader


def test_plates_that_follow_the_data_and_those_that_do_not() -> None:
    def model(x):
        with pyro.plate("feature", 2, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x.T)
        with pyro.plate("more", len(x)):
            pyro.sample("w", dist.Normal(0.0, 1.0), obs=x[:, 0])

    program = read(model, (X,), batch_size=8)
    assert program.data_plates == ("data", "more")
    assert not program.plates["feature"].follows_data
    assert program.sites["x"].plates == ("feature", "data")
    assert program.local


def test_nested_plates_and_sequential_ones_sum_to_the_same_rows() -> None:
    def vectorised(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("feature", 2, dim=-1):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def looped(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"x{i}", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x[i])

    rows = torch.arange(3, 9)
    found = []
    for model in (vectorised, looped):
        pair = read_pair(model, None, (X,), batch_size=6)
        found.append(log_weights(pair, {}, (X,), rows))
    exact = dist.Normal(0.0, 1.0).log_prob(X[3:9]).sum(1)
    for weights in found:
        torch.testing.assert_close(weights.rows, exact)
        torch.testing.assert_close(weights.total, exact.sum() * 24 / 6)


def test_a_table_of_an_autoguide_is_gathered() -> None:
    guide = AutoNormal(hierarchy)
    pair = read_pair(hierarchy, guide, (X,), batch_size=6)
    assert pair.guide is not None
    assert pair.guide.tables == {"AutoNormal.locs.z": 0, "AutoNormal.scales.z": 0}
    assert pair.params["AutoNormal.locs.z"].leaf.shape == (24, 2)
    values = resolve(pair.params, {"AutoNormal.locs.z": X, "AutoNormal.scales.z": 0 * X + 1e-4})
    rows = torch.tensor([20, 1, 5])
    with private_store():
        drawn = log_weights(pair, values, (X,), rows, 0).latents["z"]
    torch.testing.assert_close(drawn, X[rows], atol=1e-2, rtol=0.0)


def test_a_table_of_a_plain_guide_is_gathered() -> None:
    def guide(x):
        pyro.sample("mean", dist.Normal(pyro.param("m", torch.zeros(2)), 1e-4).to_event(1))
        loc = pyro.param("loc", lambda: torch.zeros(len(x), 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1e-4).to_event(1))

    pair = read_pair(hierarchy, guide, (X,), batch_size=6)
    assert pair.guide is not None
    assert pair.guide.tables == {"loc": 0}
    rows = torch.tensor([20, 1, 5])
    values = resolve(pair.params, {"loc": X, "m": torch.zeros(2)})
    drawn = log_weights(pair, values, (X,), rows, 0).latents["z"]
    torch.testing.assert_close(drawn, X[rows], atol=1e-2, rtol=0.0)


def test_a_packed_autoguide_of_local_latents_is_refused_in_batches() -> None:
    with pytest.raises(ValueError, match="'z'"):
        dg.svi(hierarchy, AutoMultivariateNormal(hierarchy), X, batch_size=6, **QUIET)


def test_an_autoguide_set_up_for_other_rows_is_refused() -> None:
    guide = AutoNormal(hierarchy)
    dg.svi(hierarchy, guide, X, **QUIET)
    with pytest.raises(ValueError, match="set up for 24 rows of plate 'data' and is now given 10"):
        dg.importance(hierarchy, guide, X[:10], num_particles=5)


HANDLED = {
    "reparam": lambda m: poutine.reparam(m, config={"z": LocScaleReparam(0.0)}),
    "scale": lambda m: poutine.scale(m, scale=0.5),
    "mask": lambda m: poutine.mask(m, mask=torch.tensor(True)),
    "condition": lambda m: poutine.condition(m, data={"mean": torch.zeros(2)}),
    "block": lambda m: poutine.block(m, hide=["nothing"]),
    "partial": lambda m: partial(m),
}


@pytest.mark.parametrize("name", list(HANDLED))
def test_handlers_around_a_model_compose(name: str) -> None:
    model = HANDLED[name](hierarchy)
    fit = dg.svi(model, AutoNormal(model), X, batch_size=8, **QUIET)
    assert np.isfinite(fit.losses).all()


def test_bound_arrays_and_model_kwargs_reach_the_program() -> None:
    def model(scale, x, shift=0.0):
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.zeros(2)) + shift
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    bound = partial(model, np.ones(2))
    options = {"num_steps": 300, "optim": partial(torch.optim.Adam, lr=0.05), "progress": False}
    fit = dg.svi(bound, None, X, model_kwargs={"shift": np.full(2, 3.0)}, **options)
    torch.testing.assert_close(fit.params["loc"], X.mean(0) - 3.0, atol=1e-2, rtol=0.0)


def test_a_bayesian_module_with_priors_on_its_weights() -> None:
    class Line(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = PyroModule[nn.Linear](2, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

        def forward(self, x, y):
            loc = self.linear(x).squeeze(-1)
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(loc, 0.1), obs=y)

    model = Line()
    y = X @ torch.tensor([1.0, -2.0])
    fit = dg.svi(
        model,
        AutoDelta(model),
        X,
        y,
        batch_size=12,
        num_steps=600,
        optim=partial(torch.optim.Adam, lr=0.03),
        progress=False,
    )
    assert "linear.bias" in fit.params
    found = fit.params["AutoDelta.linear.weight"]
    torch.testing.assert_close(found, torch.tensor([[1.0, -2.0]]), atol=0.1, rtol=0.0)


# --------------------------------------------------------------------------- objectives, optimizers


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO])
def test_elbos_of_pyro_agree_with_ours(loss) -> None:
    model, guide, _ = coder()
    still = partial(torch.optim.SGD, lr=0.0)
    options = {"num_steps": 300, "batch_size": 8, "optim": still, "progress": False}
    ours = dg.svi(model, guide, X, **options)
    theirs = dg.svi(model, guide, X, loss=loss(), **options)
    error = np.hypot(ours.losses.std(), theirs.losses.std()) / 300**0.5
    assert abs(ours.losses.mean() - theirs.losses.mean()) < 5 * error


def test_renyi_of_pyro_runs_on_all_rows_only() -> None:
    model, guide, _ = coder()
    loss = RenyiELBO(alpha=0.5, num_particles=3)
    assert np.isfinite(dg.svi(model, guide, X, loss=loss, **QUIET).losses).all()
    with pytest.raises(ValueError, match=r"RenyiELBO .* Use dg\.IWAE\(\) or dg\.Renyi\(\)"):
        dg.svi(model, guide, X, loss=loss, batch_size=8, **QUIET)


def test_enumeration_of_discrete_latents() -> None:
    def mixture(x):
        loc = pyro.param("loc", torch.tensor([[-1.0, -1.0], [2.0, 2.0]]))
        with pyro.plate("data", len(x)):
            k = pyro.sample(
                "k", dist.Categorical(logits=torch.zeros(2)), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(loc[k], 1.0).to_event(1), obs=x)

    fit = dg.svi(mixture, lambda x: None, X, loss=TraceEnum_ELBO(), batch_size=24, **QUIET)
    loc = torch.tensor([[-1.0, -1.0], [2.0, 2.0]])
    parts = torch.stack([dist.Normal(m, 1.0).log_prob(X).sum(1) for m in loc])
    exact = -(torch.logsumexp(parts, 0) - np.log(2)).mean()
    assert fit.losses[0] == pytest.approx(float(exact), rel=1e-5)


OPTIMIZERS = {
    "class": torch.optim.Adam,
    "partial": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "pyro": pyro.optim.ClippedAdam({"lr": 1e-3}),
    "pyro by name": pyro.optim.Adam(lambda name: {"lr": 1e-2 if "net" in name else 1e-3}),
    "pyro schedule": pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.9}
    ),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("mode", ["eager", "traced"])
def test_optimizers_of_torch_and_pyro(name: str, mode: str) -> None:
    model, guide, _ = coder()
    fit = dg.svi(model, guide, X, optim=OPTIMIZERS[name], batch_size=8, compile=mode, **QUIET)
    assert fit.compiled == mode
    assert np.isfinite(fit.losses).all()


@pytest.mark.parametrize("mode", ["eager", "traced"])
def test_gradients_that_come_transposed_are_applied_where_they_belong(mode: str) -> None:
    """Fused Adam reads gradients in the order of memory, whatever their strides."""
    slopes = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

    def model() -> None:
        weight = pyro.param("weight", torch.zeros(2, 3))
        pyro.factor("slope", (weight.mT * slopes).sum())

    options = {"num_steps": 5, "compile": mode, "progress": False}
    fit = dg.svi(model, None, optim=partial(torch.optim.Adam, lr=0.1), **options)
    torch.testing.assert_close(torch.as_tensor(fit.params["weight"]), 0.5 * slopes.mT)


def test_a_schedule_moves_once_a_step() -> None:
    rates = []

    def optim(parameters):
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.1)
        rates.append(optimizer)
        return optimizer, schedule

    dg.svi(*coder()[:2], X, optim=optim, **{**QUIET, "clip_norm": 1e-3})
    assert rates[0].param_groups[0]["lr"] == pytest.approx(1e-4)


def test_an_optimizer_instance_is_refused() -> None:
    model, guide, net = coder()
    with pytest.raises(TypeError, match="holds its own parameters already"):
        dg.svi(model, guide, X, optim=torch.optim.Adam(net.parameters()), **QUIET)


# --------------------------------------------------------------------------------- ways of running


@pytest.mark.parametrize("loss", [dg.ELBO(), dg.ELBO(3), dg.IWAE(4), TraceMeanField_ELBO()])
def test_the_traced_step_is_the_eager_step(loss) -> None:
    fits = []
    for mode in ("eager", "traced"):
        torch.manual_seed(0)
        model, guide, _ = coder(norm=isinstance(loss, TraceMeanField_ELBO))
        fits.append(dg.svi(model, guide, X, batch_size=8, loss=loss, compile=mode, **QUIET))
    assert [fit.compiled for fit in fits] == ["eager", "traced"]
    np.testing.assert_allclose(fits[0].losses, fits[1].losses, rtol=1e-5)
    for name, value in fits[0].params.items():
        torch.testing.assert_close(value, fits[1].params[name], rtol=1e-4, atol=1e-5)


def test_a_program_that_asks_for_values_runs_eagerly_and_says_why() -> None:
    def model(x):
        loc = pyro.param("loc", torch.zeros(2))
        scale = 1.0 if loc.sum().item() < 100 else 2.0
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    fit = dg.svi(model, None, X, compile="traced", **QUIET)
    assert fit.compiled == "eager"
    assert "cannot be traced" in fit.reason


def test_a_short_run_is_not_traced() -> None:
    fit = dg.svi(*coder()[:2], X, batch_size=8, **QUIET)
    assert fit.compiled == "eager"
    assert "more than the" in fit.reason


def test_a_traced_run_resumes_exactly(tmp_path) -> None:
    def run(**options):
        torch.manual_seed(0)
        model, guide, _ = coder()
        start = {"num_steps": 200, "batch_size": 8, "compile": "traced", "progress": False}
        return dg.svi(model, guide, X, **{**start, **options})

    def press(told) -> None:
        if told.step == 100:
            signal.raise_signal(signal.SIGINT)

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "run.ckpt", callbacks=[press])
    again = run(checkpoint=tmp_path / "run.ckpt")
    assert again.compiled == "traced"
    np.testing.assert_array_equal(whole.losses, again.losses)
    for name, value in whole.params.items():
        assert torch.equal(value, again.params[name])


def test_data_outside_the_support_are_refused() -> None:
    def coin(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    def masked(x, keep):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    ink = torch.tensor([0.0, 0.25, 1.0, -3.0])
    for verb in (
        lambda: dg.svi(coin, AutoNormal(coin), ink, **QUIET),
        lambda: dg.importance(coin, None, ink, num_particles=10),
        lambda: dg.mcmc(coin, ink, num_warmup=2, num_samples=2, num_chains=1, progress=False),
    ):
        with pytest.raises(ValueError, match=r"'x' are outside its support .* rows 1, 3: .*0\.25"):
            verb()
    keep = torch.tensor([True, False, True, False])
    assert np.isfinite(dg.svi(masked, AutoNormal(masked), ink, keep, **QUIET).losses).all()
    torch.distributions.Distribution.set_default_validate_args(False)
    try:  # grey pixels under a Bernoulli, as its users without validation have them
        assert np.isfinite(dg.svi(coin, AutoNormal(coin), ink, **QUIET).losses).all()
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)


def test_particles_run_vectorised() -> None:
    calls = []

    def model(x):
        calls.append(len(x))
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Exponential(torch.tensor(2.0)))
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
            centre = pyro.sample("centre", dist.Cauchy(1.0, 0.5))
            pyro.sample("x", dist.Normal(rate + 0.0 * (shift + centre), 100.0), obs=x)

    found = dg.importance(model, None, torch.zeros(5), num_particles=4000)
    assert len(calls) < 40
    draws = {name: value[0] for name, value in found.draws.items()}
    assert len(np.unique(draws["shift"])) > 19_000  # each particle and row draws its own
    for name, value, below in (("rate", np.log(2) / 2, 0.5), ("shift", 1.0, 0.8413447),
                               ("centre", 1.5, 0.75)):  # fmt: skip
        share = (draws[name] < value).mean()
        assert abs(share - below) < 5 * (below * (1 - below) / draws[name].size) ** 0.5


def test_exact_sums_over_one_hot_vectors() -> None:
    """Values with an event: marginals over the vectors, best values are vectors."""

    def model() -> None:
        kind = pyro.sample("kind", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
        pyro.sample("seen", dist.Normal(kind[..., 0] - kind[..., 2], 1.0), obs=torch.tensor(0.9))

    joint = np.array([0.2, 0.5, 0.3]) * np.exp(-((0.9 - np.array([1.0, 0.0, -1.0])) ** 2) / 2)
    answer = dg.exact(model)
    np.testing.assert_allclose(answer.marginals["kind"], joint / joint.sum(), rtol=1e-5)
    np.testing.assert_array_equal(answer.map().values["kind"], [0, 1, 0])
    known = dg.exact(model, given={"kind": [0, 0, 1]})
    assert known.log_evidence == pytest.approx(np.log(joint[2] / np.sqrt(2 * np.pi)), abs=1e-5)
