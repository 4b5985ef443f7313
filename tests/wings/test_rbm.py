"""Restricted Boltzmann machines: densities against enumeration, chains, log Z from both sides."""

import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

KINDS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "categorical": {"units": "categorical", "states": 3},
    "gaussian": {"units": "gaussian"},
}
VISIBLE, HIDDEN = 4, 5


@pytest.fixture(scope="module")
def on(wing: str) -> ModuleType:
    """Energies of the wing as functions of NumPy arrays."""
    return importlib.import_module(f"{__package__}.energies_{wing}")


@pytest.fixture(scope="module")
def made(dg: Any, on: Any) -> dict[str, Any]:
    """An RBM of each kind, away from its initial weights."""
    return {n: on.shaken(dg.RBM(VISIBLE, HIDDEN, **o, seed=1)) for n, o in KINDS.items()}


def all_values(kind: str) -> np.ndarray:
    states = range(KINDS[kind].get("states", 2))
    return np.array(list(itertools.product(states, repeat=VISIBLE)), float)


FAR = np.repeat([[1.0, -1.0], [-1.0, 1.0]], 4, 0).repeat(2, 1) * 3.0


@pytest.fixture(scope="module")
def far(dg: Any) -> tuple[Any, float]:
    """A machine whose draws have either half on, and how often they have the first."""
    hidden = np.array([0.0, 0.0, 0.2, 0.2]) - FAR.sum(0) / 2
    x = np.array(list(itertools.product((0.0, 1.0), repeat=8)))
    log_p = x @ (-FAR.sum(1) / 2) + np.logaddexp(0.0, x @ FAR + hidden).sum(1)
    first = x[:, :4].sum(1) > x[:, 4:].sum(1)
    share = float(np.exp(logsumexp(log_p[first]) - logsumexp(log_p)))
    return dg.RBM(8, 4).with_weights(FAR, -FAR.sum(1) / 2, hidden), share


def first_half(x: Any) -> float:
    """How often the first half is on."""
    x = np.asarray(x)
    return float((x[:, :4].sum(1) > x[:, 4:].sum(1)).mean())


def test_tempered_draws_weigh_modes_far_apart(far: Any, on: Any) -> None:
    """Where each plain chain stays in the mode that it fell into, half of them in each."""
    rbm, share = far
    assert abs(share - 0.4) < 0.01
    found = first_half(on.numpy(rbm.draws(2000, 300, num_temperatures=4, seed=1)))
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / 2000)
    with pytest.warns(UserWarning, match="swap in 0"):
        rbm.draws(50, 30, num_temperatures=2)


def test_tempered_chains_of_a_machine_leave_the_data(dg: Any, far: Any, on: Any) -> None:
    """Both halves are as frequent in the data, and the machine knows better."""
    rbm, share = far
    x = np.repeat([[1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4], 600, 0).astype("float32")
    fit = dg.contrastive(
        rbm, on.array(x), sampler=dg.ParallelTempering("gibbs", num_temperatures=4),
        persistent=False, chain_steps=100, num_steps=1, optim=_still(dg), progress=False,
    )  # fmt: skip
    assert abs(first_half(fit.chains["x"]) - share) < 5 * np.sqrt(share * (1 - share) / len(x))


def _still(dg: Any) -> Any:
    """Steps that go nowhere."""
    if "numpyro" in dg.__name__:
        return importlib.import_module("optax").sgd(0.0)
    return importlib.import_module("pyro.optim").SGD({"lr": 0.0})


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_are_summed_out(made: Any, on: Any, kind: str) -> None:
    """The free energy is the log sum of the joint density over all hidden states."""
    x = np.random.default_rng(0).integers(0, 2, (3, 2, VISIBLE)).astype(float)
    h = np.array(list(itertools.product((0.0, 1.0), repeat=HIDDEN)))
    free = on.numpy(made[kind].unnormalised_log_prob(on.array(x)))
    joint = on.numpy(made[kind].joint_log_prob(on.array(x)[..., None, :], on.array(h)))
    assert free.shape == (3, 2)
    np.testing.assert_allclose(free, logsumexp(joint, axis=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_exact_log_z_is_the_sum_over_visible_values(dg: Any, made: Any, on: Any, kind: str) -> None:
    """And log_prob then sums to one, as the native distribution too."""
    rbm, x = made[kind], on.array(all_values(kind))
    truth = logsumexp(on.numpy(rbm.unnormalised_log_prob(x)).astype(float))
    found = dg.log_z(rbm)
    assert abs(found.log_evidence - truth) < 1e-5
    assert found.standard_error == 0.0
    known = rbm.with_log_z(found)
    assert abs(logsumexp(on.numpy(known().log_prob(x))) - 0.0) < 1e-4


def test_exact_log_z_of_gaussian_units_is_an_integral(dg: Any, on: Any) -> None:
    """On a fine grid of two visible units."""
    rbm = on.shaken(dg.RBM(2, 3, units="gaussian"))
    line = np.linspace(-15.0, 15.0, 601)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    values = on.numpy(rbm.unnormalised_log_prob(on.array(x))).astype(float)
    truth = logsumexp(values) + 2 * np.log(line[1] - line[0])
    assert abs(dg.log_z(rbm).log_evidence - truth) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_annealing_estimates_log_z(dg: Any, made: Any, on: Any, kind: str) -> None:
    """Within five standard errors of the exact one, up and down; limits on either side."""
    rbm = made[kind]
    truth = dg.log_z(rbm).log_evidence
    about = {"num_chains": 200, "num_temperatures": 100, "progress": False}
    up = dg.log_z(rbm, method="ais", **about)
    down = dg.log_z(rbm, method="reverse", burn_in=100, **about)
    for found in (up, down):
        assert abs(found.log_evidence - truth) < 5 * found.standard_error
        assert 0.0 < found.standard_error < 0.3
        assert found.lower_limit < found.log_evidence < found.upper_limit
    assert "approximate" in down.method


@pytest.mark.parametrize("kind", KINDS)
def test_the_chain_leaves_exact_draws_exact(dg: Any, made: Any, on: Any, kind: str) -> None:
    """Exact draws (of the enumerated hidden states) have the same moments after ten sweeps."""
    from deepgen_ppl import harmonium

    rbm = made[kind]
    sides = rbm.sides()
    sides = harmonium.Sides(*sides[:2], *(on.numpy(part) for part in sides[2:])).swapped()
    rng, number = np.random.default_rng(0), 8000
    blocks = list(harmonium.states(sides))
    hidden = np.concatenate([block[0] for block in blocks])
    values = np.concatenate([block[1] for block in blocks])
    h = hidden[rng.choice(len(hidden), number, p=np.exp(values - logsumexp(values)))]
    eta = h @ np.asarray(sides.weight) + np.asarray(sides.second_bias)
    x = _draw(rng, rbm, kind, eta, on)
    after = on.chain(rbm, x, 10)
    for power in (1, 2):
        a, b = x.astype(float) ** power, after.astype(float) ** power
        error = np.sqrt((a.var(0) + b.var(0)) / number) + 1e-9
        assert (np.abs(a.mean(0) - b.mean(0)) < 5 * error).all()


def _draw(rng: Any, rbm: Any, kind: str, eta: np.ndarray, on: Any) -> np.ndarray:
    if kind == "bernoulli":
        return (rng.random(eta.shape) < 1 / (1 + np.exp(-eta))).astype(float)
    if kind == "gaussian":
        scale = np.exp(on.numpy(rbm.log_scale))
        return scale * (eta + rng.normal(size=eta.shape))
    table = eta.reshape(len(eta), VISIBLE, -1) + rng.gumbel(size=(len(eta), VISIBLE, 3))
    return table.argmax(-1).astype(float)


def test_uniform_numbers_are_uniform_and_independent(wing: str) -> None:
    """Means, correlations between neighbours, streams and keys; both words of a block."""
    if wing != "numpyro":
        pytest.skip("torch's own generator is used")
    import jax

    from deepgen_ppl.numpyro.programs.energy.bits import threefry, uniform

    n = 200_000
    draws = [np.asarray(uniform(jax.random.key(k), (n,), s)) for k in (0, 1) for s in (0, 1)]
    for u in draws:
        assert u.min() >= 0.0 and u.max() < 1.0
        counts = np.histogram(u, 64, (0.0, 1.0))[0]
        assert abs(((counts - n / 64) ** 2 / (n / 64)).sum() - 63) < 5 * np.sqrt(2 * 63)
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5 / np.sqrt(n)
        assert abs(np.corrcoef(u[: n // 2], u[n // 2 :])[0, 1]) < 5 / np.sqrt(n / 2)
    for a, b in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
    words = threefry(*(np.uint32(0),) * 2, np.zeros(1, np.uint32), np.uint32(0))
    assert [hex(int(w[0])) for w in words] == ["0x6b200159", "0x99ba4efe"]  # Random123's answer


def test_comparisons_need_no_log_z(dg: Any, made: Any, on: Any) -> None:
    """Ratios, ranks; log_prob refuses with the cure; a given log Z counts."""
    rbm, x = made["bernoulli"], all_values("bernoulli")
    values = on.numpy(rbm.unnormalised_log_prob(on.array(x)))
    ratio = on.numpy(rbm.log_ratio(on.array(x[:3]), on.array(x[3:6])))
    np.testing.assert_allclose(ratio, values[:3] - values[3:6], rtol=1e-5, atol=1e-5)
    assert rbm.rank(on.array(x)).tolist() == np.argsort(values, kind="stable").tolist()
    with pytest.raises(ValueError, match="with_log_z"):
        rbm.log_prob(on.array(x))
    low, high = rbm.with_log_z(dg.log_z(rbm)).log_prob_limits(on.array(x))
    np.testing.assert_allclose(low, high)
    with pytest.raises(NotImplementedError, match="Markov chains"):
        on.numpy(rbm().sample(None) if hasattr(rbm(), "tree_flatten") else rbm().sample())


def test_biases_at_base_rates(dg: Any, on: Any) -> None:
    """Independent units then have the means of the data."""
    x = (np.random.default_rng(0).random((200, 3)) < [0.1, 0.5, 0.9]).astype(float)
    rbm = dg.RBM(3, 2).at_base_rates(x)
    rate = 1 / (1 + np.exp(-on.numpy(rbm.visible_bias)))
    np.testing.assert_allclose(rate, (x.sum(0) + 0.5) / 201, rtol=1e-5)


def test_mistakes_are_told(dg: Any) -> None:
    """One deliberate mistake at each entry."""
    rbm = dg.RBM(3, 2)
    with pytest.raises(ValueError, match="states="):
        dg.RBM(3, 2, units="categorical")
    with pytest.raises(ValueError, match="visible must be"):
        dg.RBM(0, 2)
    with pytest.raises(ValueError, match="shape"):
        rbm.unnormalised_log_prob(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"weight has shape \(2, 3\)"):
        rbm.with_weights(np.zeros((2, 3)), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"row 0 holds 0\.5"):
        rbm.at_base_rates(np.full((2, 3), 0.5))
    with pytest.raises(TypeError, match=r"dg\.log_z"):
        rbm.with_log_z("high")
    with pytest.raises(ValueError, match="method must be"):
        dg.log_z(rbm, method="magic")
    with pytest.raises(ValueError, match="25 binary units"):
        dg.log_z(dg.RBM(30, 30), method="exact")
    with pytest.raises(TypeError, match="energy or a program"):
        dg.log_z(3.0)
