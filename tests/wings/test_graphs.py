"""Flat graphs of Pyro's density: simplified, they are the same functions and do less."""

import signal

import pytest

pyro = pytest.importorskip("pyro", reason="the Pyro wing is not installed")

import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from deepgen_ppl.pyro import graphs  # noqa: E402


@pytest.fixture(autouse=True)
def _this_wing_alone(wing: str) -> None:
    if wing != "pyro":
        pytest.skip("these are graphs of torch")


ROWS = torch.linspace(-1.0, 2.0, 7 * 2).reshape(7, 1, 2)


def mixture(z):
    """Chains of a mixture of two components in two columns, and the gradient."""

    def energy(z):
        means, scales, weights = z[:4].reshape(2, 2), z[4:8].reshape(2, 2).exp(), z[8:]
        parts = dist.Normal(means, scales, validate_args=False).to_event(1)
        over = dist.Categorical(logits=weights, validate_args=False)
        return dist.MixtureSameFamily(over, parts, validate_args=False).log_prob(ROWS[:, 0]).sum()

    return torch.func.vmap(torch.func.grad_and_value(energy))(z)


def rows_and_columns(z):
    """Repeated along rows, along columns, and both at once."""
    a = z.reshape(-1, 10, 1).expand(-1, 10, 6).exp()
    b = z[:, :6].reshape(-1, 1, 6).expand(-1, 10, 6).sin()
    return (a * b).log1p().sum(-1), (a + 1).reshape(len(z), -1), torch.where(b > 0, a, b)


def slices(z):
    """A softmax of what is repeated in front of it, and one along what is repeated."""
    wide = z.reshape(-1, 1, 10).expand(-1, 5, 10)
    return wide.log_softmax(-1) - wide.softmax(-1), wide.log_softmax(-2)


def types(z):
    """A number in double precision does not make the rest double, a repeated one does."""
    number = torch.tensor(2.0, dtype=torch.float64)
    wide = z[0, 0].double().expand(10)
    return z * number, z * wide, wide * 2


def wide_units(z):
    """Silent units whose gradient fills an array with ones: too large to be kept as it is."""

    def energy(z):
        return torch.nn.functional.silu(z.repeat(200)).square().mean()

    return torch.func.vmap(torch.func.grad_and_value(energy))(z)


def network(z):
    """Two silent layers with biases, and a slope of one's own beside theirs."""
    first, second = (torch.linspace(-9.0, 9.0, 10 * n).sin().reshape(n, -1) for n in (7, 5))
    second = second[:, :7]

    def energy(z):
        near = z.sigmoid() * (2.0 + z * (1.0 - z.sigmoid()))  # almost the slope of silu
        inner = functional.silu(functional.linear(z, first, first[:, 0]))
        return (
            functional.silu(functional.linear(inner, second, second[:, 0])).square().sum()
            + near.sum()
        )

    return torch.func.vmap(torch.func.grad_and_value(energy))(z)


FUNCTIONS = [mixture, rows_and_columns, slices, types, wide_units, network]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("chains", [1, 3, 64])
def test_a_simplified_graph_is_the_function(function, chains: int) -> None:
    torch.manual_seed(0)
    z, other = torch.rand(2, chains, 10)
    graph = graphs.flat(function, z)
    for values in (z, other):
        for got, expected in zip(graph(values), function(values), strict=True):
            assert got.dtype == expected.dtype
            torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)
    for got, expected in zip(graphs.script(graph, [z])(other), function(other), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)


def elements(graph, name: str) -> list[int]:
    """Numbers of elements of which an operation is computed."""
    found = [n for n in graph.graph.nodes if name in str(n.target) and n.op == "call_function"]
    return [n.meta["val"].numel() for n in found]


def test_what_a_plate_repeats_is_computed_once() -> None:
    graph = graphs.flat(mixture, torch.rand(3, 10))
    assert max(elements(graph, "aten.log.")) <= 3 * 2 * 2  # of the scales, not of 7 rows of them
    assert elements(graph, "aten._log_softmax.default") == [3 * 2]


def test_what_torch_has_one_operation_for_is_one() -> None:
    """Products with their biases, and slopes of silu, with no view between them."""
    z = torch.rand(3, 10)
    graph = graphs.flat(network, z)
    names = [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
    assert sum("addmm" in name for name in names) == 2
    assert sum("silu_backward" in name for name in names) == 2
    assert not [name for name in names if "squeeze" in name or "view" in name]
    assert len(names) < 30


def test_repeated_rows_and_repeated_columns_do_not_meet_in_short_loops() -> None:
    """One of them is put in place first: loops over two elements cost more than the copy."""

    def function(z):
        rows = z.reshape(-1, 1, 5, 2).expand(-1, 400, 5, 2).exp()
        columns = z[:, :5].reshape(-1, 1, 5, 1).expand(-1, 400, 5, 2)
        return (columns + torch.arange(400.0).reshape(-1, 1, 1)).sin() * rows

    z = torch.rand(64, 10)
    graph = graphs.flat(function, z)
    torch.testing.assert_close(graph(z), function(z))
    assert elements(graph, "aten.exp.") == [64 * 5 * 2]


def test_constants_are_not_changed_in_place() -> None:
    """The log density of bits at given log odds works on temporaries that hold no argument."""
    logits = torch.tensor([0.3, -1.0, 2.0])

    def one(x):
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(x)

    function = torch.func.vmap(one)
    x = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    traced = graphs.Traced(function)
    for value in (x, 1.0 - x, x):
        torch.testing.assert_close(traced(value), function(value))


def test_ctrl_c_while_tracing_leaves_torch_whole() -> None:
    def pressed(x):
        signal.raise_signal(signal.SIGINT)
        return x.exp()

    with pytest.raises(KeyboardInterrupt):
        graphs.flat(pressed, torch.zeros(3))
    assert float(torch.zeros(3).exp()[0]) == 1.0  # no mode of tracing is left on torch's stack
    assert graphs.flat(torch.exp, torch.zeros(3))(torch.ones(3)).shape == (3,)
