"""What exact inference keeps of Pyro programs: weights, the param store and objects are seen."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pyro = pytest.importorskip("pyro", reason="the Pyro wing is not installed")

import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from pyro.nn import PyroModule, PyroParam  # noqa: E402
from torch import nn  # noqa: E402

import deepgen_ppl.pyro as dg  # noqa: E402
from deepgen_ppl.pyro import tables  # noqa: E402

X = np.array([-0.7, 0.4, 1.9], "float32")


@pytest.fixture(autouse=True)
def _this_wing_alone(wing: str) -> None:
    if wing != "pyro":
        pytest.skip("these are features of Pyro's language")


@pytest.fixture(autouse=True)
def _empty_store() -> Any:
    with pyro.get_param_store().scope():
        yield


def found(model: Any, x: Any = X) -> np.ndarray:
    return dg.exact(model, x).marginals["z"][:, 1]


def law(means: Any, first: float = 0.5, x: np.ndarray = X) -> np.ndarray:
    """The probability of the second of two states with normal data of these means."""
    joint = np.array([1 - first, first]) * np.exp(-((x[:, None] - np.asarray(means)) ** 2) / 2)
    return joint[:, 1] / joint.sum(1)


def two_states(x: torch.Tensor, means: Any, first: Any = 0.5) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(first))
        pyro.sample("x", dist.Normal(means[z.long()], 1.0), obs=x)


def test_the_param_store_is_looked_at() -> None:
    def model(x: torch.Tensor) -> None:
        two_states(x, pyro.param("means", torch.tensor([0.0, 1.0])))

    pyro.param("means", torch.tensor([0.0, 1.0]))
    for means in ([0.0, 1.0], [-1.0, 2.0], [0.0, 1.0]):
        with torch.no_grad():
            pyro.param("means").copy_(torch.tensor(means))
        np.testing.assert_allclose(found(model), law(means), atol=1e-6)
    pyro.get_param_store()["means"] = torch.tensor([0.5, 3.0])
    np.testing.assert_allclose(found(model), law([0.5, 3.0]), atol=1e-6)


class Mixture(PyroModule):
    """Two states, one of the means from a network, the share a constrained parameter."""

    low = -1.0

    def __init__(self) -> None:
        super().__init__()
        self.high = nn.Linear(1, 1)
        self.first: Any = PyroParam(torch.tensor(0.3), constraint=dist.constraints.unit_interval)
        self.register_buffer("by", torch.zeros(()))
        self.settings = SimpleNamespace(lift={"step": 0.0})

    def forward(self, x: torch.Tensor) -> None:
        high = self.high(torch.ones(1))[0] + self.by + self.settings.lift["step"]
        two_states(x, torch.stack([torch.tensor(self.low), high]), self.first)


def test_weights_buffers_and_attributes_of_a_module_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Mixture()
    linear = model.high

    def expected() -> np.ndarray:
        high = (linear.weight + linear.bias + model.by).item() + model.settings.lift["step"]
        return law([model.low, high], model.first.item())

    def weights() -> None:
        with torch.no_grad():
            linear.weight.add_(0.7)

    def share() -> None:
        model.first = torch.tensor(0.8)

    changes = [
        lambda: None,
        weights,
        share,
        lambda: model.by.fill_(0.4),
        lambda: model.settings.lift.update(step=-0.9),
        lambda: monkeypatch.setattr(Mixture, "low", 0.5),
    ]
    before = None
    for change in changes:
        change()
        for _ in range(2):
            now = found(model)
            np.testing.assert_allclose(now, expected(), atol=1e-6)
        assert before is None or np.abs(now - before).max() > 0.01
        before = now


def test_tensors_and_distributions_of_a_closure_are_looked_at() -> None:
    means, prior = torch.tensor([0.0, 2.0]), dist.Bernoulli(torch.tensor(0.4))

    def model(x: torch.Tensor) -> None:
        two_states(x, means, prior.probs)

    for mean, first in ((2.0, 0.4), (3.0, 0.4), (3.0, 0.7), (3.0, 0.7)):
        means[1] = mean
        prior.probs.fill_(first)
        np.testing.assert_allclose(found(model), law([0.0, mean], first), atol=1e-6)


def test_control_flow_on_data_is_followed() -> None:
    """Branches that a traced program would not see again."""

    def model(x: torch.Tensor) -> None:
        swapped = bool(x.sum() < 0)
        two_states(x, torch.tensor([2.0, 0.0] if swapped else [0.0, 2.0]))

    for sign in (1.0, -1.0, -1.0, 1.0):
        x = sign * X
        np.testing.assert_allclose(found(model, x), law([0.0, 2.0][:: int(sign)], x=x), atol=1e-6)


def test_sites_that_come_with_the_data_are_seen() -> None:
    def model(x: torch.Tensor) -> None:
        two_states(x, torch.tensor([0.0, 2.0]))
        if x[0] > 0:
            pyro.sample("late", dist.Bernoulli(0.25))

    assert list(dg.exact(model, X).marginals) == ["z"]
    assert list(dg.exact(model, X + 1).marginals) == ["z", "late"]
    assert list(dg.exact(model, X).marginals) == ["z"]


def test_state_that_cannot_be_seen_is_never_relied_on() -> None:
    steps = itertools.count()

    def model(x: torch.Tensor) -> None:
        next(steps)
        two_states(x, torch.tensor([0.0, 2.0]))

    found(model)
    once = next(steps)
    found(model)
    assert next(steps) > once + 1


def test_other_data_take_few_runs_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = dg.exact.__globals__["Tables"].evaluate

    def counted(self: Any, x: np.ndarray) -> np.ndarray:
        runs.append(len(x))
        return run(self, x)

    monkeypatch.setattr(tables.Tables, "evaluate", counted)

    def model(x: torch.Tensor) -> None:
        two_states(x, torch.tensor([0.0, 2.0]))

    found(model)
    runs.clear()
    found(model, X + 1)
    assert len(runs) == 2  # one that checks, one for the tables
