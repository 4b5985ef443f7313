"""How a flow computes: what it remembers of a draw, and how compile time grows with depth."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def only(wing: str) -> Any:
    """Skip a test of what one language has."""

    def check(name: str) -> None:
        if wing != name:
            pytest.skip(f"this is a feature of the {name} wing")

    return check


def test_no_density_depends_on_what_a_distribution_remembers(dg: Any, only: Any) -> None:
    """A changed draw, a changed parameter, and a draw without gradients get a pass of their own."""
    only("pyro")
    import torch

    torch.manual_seed(0)
    flow = dg.flows.IAF(3, transforms=2, hidden=(8,))
    with torch.no_grad():
        for value in flow.parameters():
            value.add_(0.3 * torch.randn_like(value))

    def fresh(x: Any) -> Any:
        return flow().log_prob(x.detach().clone())

    density = flow()
    x = density.rsample((5,))
    kept = density.log_prob(x)
    torch.testing.assert_close(kept, fresh(x), rtol=1e-4, atol=1e-4)
    passes = []
    original = type(flow.layer).pull
    try:
        type(flow.layer).pull = lambda *a: passes.append(1) or original(*a)
        density.log_prob(x)
        assert not passes, "the latest draw takes no pass"
        density.log_prob(x.clone())
        assert passes, "another tensor takes one"
    finally:
        type(flow.layer).pull = original
    with torch.no_grad():
        next(flow.parameters()).add_(0.5)
    torch.testing.assert_close(density.log_prob(x), fresh(x), rtol=1e-4, atol=1e-4)
    assert (density.log_prob(x) - kept).abs().max() > 1e-3

    density = flow()
    x = density.sample((5,))
    with torch.no_grad():
        before = density.log_prob(x)
        x[0] += 1.0
        assert (density.log_prob(x)[0] - before[0]).abs() > 1e-3
    density = flow()
    x = density.sample((5,))
    names, values = zip(*flow.named_parameters(), strict=True)
    score = torch.autograd.grad(density.log_prob(x).sum(), values)
    truth = torch.autograd.grad(fresh(x).sum(), values)
    for name, a, b in zip(names, score, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def test_importing_a_flow_library_leaves_validation_as_it_was(dg: Any, only: Any) -> None:
    """No flow switches torch's argument checks off, and a flow's own distribution has them."""
    only("pyro")
    import torch

    before = torch.distributions.Distribution._validate_args
    density = dg.flows.NSF(2, support=torch.distributions.constraints.unit_interval)()
    assert torch.distributions.Distribution._validate_args is before
    with pytest.raises(ValueError, match="support"):
        density.log_prob(torch.tensor([[0.5, 1.5]]))


def test_compiled_code_does_not_grow_with_depth(dg: Any, only: Any) -> None:
    """Layers are one loop: the program of 16 has as many operations as that of 4."""
    only("numpyro")
    import jax
    import jax.numpy as jnp

    def size(depth: int) -> int:
        flow = dg.flows.NSF(4, transforms=depth, hidden=(8,), bins=3)
        program = jax.make_jaxpr(jax.grad(lambda f, x: f().log_prob(x).sum(), 1))(
            flow, jnp.ones((2, 4))
        )
        return str(program).count(" = ")

    assert size(16) == size(4)


def test_the_steps_of_an_autoregressive_flow_are_the_arithmetic_of_few_passes(
    dg: Any, only: Any
) -> None:
    """XLA's count: drawing 32 features takes less than eight densities, not 32 of them."""
    only("numpyro")
    import jax
    import jax.numpy as jnp

    layer = dg.flows.Autoregressive(32, hidden=(128, 128))
    rows = 64

    def flops(fn: Any) -> float:
        cost = jax.jit(fn).lower(jnp.ones((rows, 32))).compile().cost_analysis()
        return float(cost["flops"])

    one_pass = flops(lambda x: layer.pull(x))
    one_step = flops(lambda x: layer.push(x))  # the body of the loop is counted once
    assert 32 * one_step < 8 * one_pass
    assert np.isfinite(one_step)


def test_a_guide_in_a_plate_of_the_data_trains_its_context(dg: Any, wing: str) -> None:
    """The gradient to the context is not stopped: what a network of the data gives is learned."""
    flow = dg.flows.RealNVP(2, 2, transforms=2, hidden=(8,), activation="tanh")
    if wing == "numpyro":
        import equinox as eqx
        import jax
        import jax.numpy as jnp

        learned, static = eqx.partition(flow, eqx.is_inexact_array)
        moved = eqx.combine(jax.tree.map(lambda v: v + 0.1, learned), static)
        x = jnp.ones((3, 2))
        gradient = jax.grad(lambda c: moved(c).log_prob(x).sum())(jnp.ones((3, 2)))
        found = np.asarray(gradient)
    else:
        import torch

        with torch.no_grad():
            for value in flow.parameters():
                value.add_(0.1)
        context = torch.ones(3, 2, requires_grad=True)
        flow(context).log_prob(torch.ones(3, 2)).sum().backward()
        found = context.grad.numpy()
    assert np.all(found != 0)
