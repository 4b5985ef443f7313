"""Autoregressive modules of the Pyro wing as functions of NumPy arrays, for the shared laws."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from .flows_pyro import double, leaves, perturbed

__all__ = ["double", "leaves", "perturbed"]
BITS = np.float32


def _array(value: Any) -> Any:
    return None if value is None else torch.tensor(value, dtype=torch.get_default_dtype())


def _numpy(found: dict[str, Any]) -> Any:
    return {name: value.detach().numpy() for name, value in found.items()}


def tried(net: Any, u: Any, events: Any, context: Any, more: bool) -> dict[str, Any]:
    """What the laws need.

    `x`: draws of uniform numbers; `log_prob` of them; `again`: draws of the same numbers from the
    parameters that one pass gives; `all`: log densities of all events, by context; and, where it is
    asked for by `more`, `mapped`: log densities of rows under vmap, `single`: of the first event,
    `slope`: parameters by encoded inputs.
    """
    u, context, output = _array(u), _array(context), net.output
    density = net(context)
    with torch.no_grad():
        x = density.from_uniforms(u)
        rows, params, batch = density._parameters(x)
        flat = density._ordered(u.reshape(-1, net.about.features, output.uniforms))
        again = density._events(output.draw(params, flat), batch)
        found = {"x": x, "again": again, "log_prob": density.log_prob(x)}
        if events is not None:
            wide = torch.tensor(events, dtype=x.dtype)
            found["all"] = density.log_prob(wide if context is None else wide[:, None])
    if more:
        event, own = (x[0], None) if context is None else (x[0, 0], context[0])
        found["single"] = net(own).log_prob(event)
        found["mapped"] = torch.func.vmap(density.log_prob)(x)
        inputs, own = output.encode(rows[:1], u.dtype), None if own is None else own[None]
        slope = torch.autograd.functional.jacobian(lambda a: net.parallel(a, own)[0], inputs)
        found["slope"] = slope[:, :, 0]  # type: ignore[index]
    return _numpy(found)


def gradients(net: Any, x: Any, context: Any = None) -> dict[str, np.ndarray]:
    """Gradients of the mean log density to all that is learned and to the context."""
    context = _array(context)
    named = dict(net.named_parameters())
    if context is not None:
        named["context"] = context.requires_grad_()
    loss = net(context).log_prob(torch.tensor(x)).mean()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: np.zeros(1) if g is None else g.numpy()
            for name, g in zip(named, found, strict=True)}  # fmt: skip


def log_prob(net: Any, x: Any, context: Any = None) -> np.ndarray:
    with torch.no_grad():
        return net(_array(context)).log_prob(torch.tensor(x)).numpy()


density = log_prob


def draw(net: Any, u: Any, context: Any = None) -> np.ndarray:
    with torch.no_grad():
        return net(_array(context)).from_uniforms(_array(u)).numpy()


def sample(net: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return net().sample(shape).numpy()


def rsample(net: Any) -> np.ndarray:
    return net().rsample().detach().numpy()


def expanded(net: Any, x: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Log density of the expanded and masked distribution, and the shape of its draws."""
    wide = net().expand(shape).mask(True)
    return wide.log_prob(torch.tensor(x)).detach().numpy(), tuple(wide.sample((2,)).shape)


def complete(net: Any, x: Any, mask: Any, number: int = 64, context: Any = None) -> Any:
    density = net(_array(context))
    found = density.complete(torch.tensor(x), torch.tensor(mask), num_particles=number, seed=3)
    return tuple(part.numpy() for part in found)


def conditionals(net: Any, x: Any) -> Any:
    """The native distribution's name, and its log densities."""
    found = net().conditionals(torch.tensor(x))
    return type(found).__name__, found.log_prob(torch.tensor(x)).detach().numpy()


def mean_slope(output: Any, params: Any, u: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the sine of each draw, and of its mean by quadrature, to the parameters."""
    grid = torch.linspace(-30.0, 30.0, 8001, dtype=torch.get_default_dtype())

    def expected(params: Any) -> Any:
        density = torch.exp(output.log_prob(params, grid))
        return (density * torch.sin(grid)).sum() * (grid[1] - grid[0])

    wide = _array(params).expand(len(u), len(params)).clone().requires_grad_()
    (own,) = torch.autograd.grad(torch.sin(output.draw(wide, _array(u))).sum(), wide)
    return own.numpy(), torch.func.grad(expected)(_array(params)).numpy()


def mass(output: Any, params: Any, x: Any) -> np.ndarray:
    """Densities of values at parameters, shape (rows of parameters, values)."""
    params = _array(params)[:, None].expand(-1, len(x), -1)
    return torch.exp(output.log_prob(params, _array(x).expand(len(params), -1))).numpy()


def pair(prior: Any, guide: Any) -> tuple[Any, Any]:
    """Bits with an autoregressive prior, seen by their noisy sum; a guide with that as context."""

    def model(y: Any) -> None:
        bits: Any = pyro.module("prior", prior)
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", bits())
            pyro.sample("y", dist.Normal(z.sum(-1), 0.7), obs=y[:, 0])

    def amortised(y: Any) -> None:
        density: Any = pyro.module("guide", guide)
        with pyro.plate("data", len(y)):
            pyro.sample("z", density(y))

    return model, amortised


def normal_pair(guide: Any) -> tuple[Any, Any]:
    """Two real latents of each datum, seen by their noisy sum; a guide with that as context."""

    def model(y: Any) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z.sum(-1), 0.5), obs=y[:, 0])

    def amortised(y: Any) -> None:
        density: Any = pyro.module("guide", guide)
        with pyro.plate("data", len(y)):
            pyro.sample("z", density(y))

    return model, amortised


def adam(rate: float) -> Any:
    return partial(torch.optim.Adam, lr=rate)
