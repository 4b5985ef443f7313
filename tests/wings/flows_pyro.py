"""Flows of the Pyro wing as functions of NumPy arrays, for the laws that both wings share."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from deepgen_ppl.pyro.flows.layer import Layer


@contextmanager
def double(wanted: bool = True) -> Iterator[None]:
    """Double precision inside, where wanted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if wanted else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def leaves(module: Any) -> dict[str, np.ndarray]:
    """The learned tensors by name."""
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def perturbed(module: Any, scale: float = 0.3, seed: int = 0) -> Any:
    """The module with noise on all that it learns, the same as on the other wing."""
    module = copy.deepcopy(module)
    named = dict(module.named_parameters())
    with torch.no_grad():
        for i, name in enumerate(sorted(named)):
            noise = scale * np.random.default_rng([seed, i]).normal(size=named[name].shape)
            named[name].add_(torch.tensor(noise, dtype=named[name].dtype))
    return module


def _array(value: Any) -> Any:
    return None if value is None else torch.tensor(value, dtype=torch.get_default_dtype())


def _numpy(*values: torch.Tensor) -> Any:
    return tuple(value.detach().numpy() for value in values)


def push(layer: Layer, z: Any, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
    return _numpy(*layer(_array(context)).push(_array(z)))


def pull(layer: Layer, x: Any, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
    return _numpy(*layer(_array(context)).pull(_array(x)))


def tried(layer: Layer, z: Any, context: Any = None) -> dict[str, Any]:
    """What the laws need of a batch of shape (2, 3).

    `x, log_det, back, log_det_back` of the batch; the same of rows under vmap, `rows`, and of
    single events, `events`; the native log determinant; the Jacobian; and, with a context, `one`:
    the batch pushed with the first context, `many`: the first event with all contexts.
    """

    def both(z: Any, context: Any = None) -> Any:
        transform = layer(context)
        x, log_det = transform.push(z)
        return x, log_det, *transform.pull(x)

    z, context = _array(z), _array(context)
    rows = (z,) if context is None else (z, context)
    mapped, transform = torch.func.vmap(both), layer(context)
    events = z.reshape(6, *z.shape[2:]), [None] * 6 if context is None else context.reshape(6, -1)
    single = [both(*pair) for pair in zip(*events, strict=True)]
    x, log_det, back, log_det_back = _numpy(*both(z, context))
    jacobians = [
        torch.autograd.functional.jacobian(lambda z, c=c: layer.push(z, c)[0], row)
        for row, c in zip(*events, strict=True)
    ]
    native = transform.log_abs_det_jacobian(z, transform(z)), transform.inv(transform(z))
    found = {
        "x": x, "log_det": log_det, "back": back, "log_det_back": log_det_back,
        "rows": _numpy(*mapped(*rows)),
        "events": [_numpy(torch.stack(part).reshape(2, 3, *part[0].shape))[0]
                   for part in zip(*single, strict=True)],
        "native": _numpy(native[0])[0], "native_back": _numpy(native[1])[0],
        "jacobian": _numpy(torch.stack(jacobians).reshape(2, 3, *jacobians[0].shape))[0],
    }  # fmt: skip
    if context is not None:
        found["one"] = _numpy(layer.push(z, context[0, 0])[0])[0]
        found["many"] = _numpy(layer(context).push(z[0, 0])[0])[0]
    return found


def gradients(flow: Any, x: Any, context: Any = None) -> list[dict[str, np.ndarray]]:
    """Gradients of the mean log density, and of a function of draws, to parameters and context."""
    context = _array(context)
    if context is not None:
        context.requires_grad_()
    torch.manual_seed(1)
    density = flow(context)
    losses = density.log_prob(_array(x)).mean(), density.rsample((4,)).sin().mean()
    named = dict(flow.named_parameters()) | ({} if context is None else {"context": context})
    return [
        {
            name: np.zeros(named[name].shape) if g is None else g.numpy()
            for name, g in zip(
                named, torch.autograd.grad(loss, list(named.values()), allow_unused=True),
                strict=True,
            )
        }
        for loss in losses
    ]  # fmt: skip


def log_prob(flow: Any, x: Any, context: Any = None) -> np.ndarray:
    return _numpy(flow(_array(context)).log_prob(_array(x)))[0]


def native_log_prob(flow: Any, x: Any, context: Any = None) -> np.ndarray:
    """The density by the language's own class, from the transform alone."""
    density = flow(_array(context))
    plain = dist.TransformedDistribution(density.base_dist, density.transforms)
    return _numpy(plain.log_prob(_array(x)))[0]


def draw(flow: Any, context: Any = None, shape: tuple = (), seed: int = 0) -> Any:
    """Draws and log densities of one pass."""
    torch.manual_seed(seed)
    return _numpy(*flow(_array(context)).sample_and_log_prob(shape))


def expanded_log_prob(flow: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Density of draws of the expanded and masked distribution, and of the plain one."""
    wide = flow().expand(shape).mask(True)
    value = wide.rsample((2,))
    kept = wide.log_prob(value)
    np.testing.assert_allclose(*_numpy(kept, wide.log_prob(value.clone())), rtol=1e-4, atol=1e-4)
    return _numpy(kept, flow().log_prob(value))


def pair(flow: Any, dim: int) -> tuple[Any, Any]:
    """A latent with an amortised flow as guide: z ~ N(0, I), x = z + noise."""

    def model(x: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Any) -> None:
        density: Any = pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", density(x))

    return model, guide


def banana(y: Any) -> None:
    """A curved posterior of two latents: what is seen is their sum, the second near a parabola."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a**2, 0.2))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(b, 1.0), obs=y)


def positive_latents(x: Any) -> None:
    """Each datum has a positive latent and a real one: log s ~ N(0, 1), m ~ N(0, 1)."""
    with pyro.plate("data", len(x)):
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        m = pyro.sample("m", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        seen = torch.stack([torch.log(s), m[..., 0]], -1)
        pyro.sample("x", dist.Normal(seen, 0.5).to_event(1), obs=x)


def shared_and_local(x: Any) -> None:
    """A latent outside of the data plate, which an amortised guide refuses."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def diagonal_guide(model: Any) -> Any:
    """The language's own independent normals."""
    from pyro.infer.autoguide import AutoNormal

    return AutoNormal(model)


def adam(rate: float) -> Any:
    """The language's Adam."""
    return lambda params: torch.optim.Adam(params, rate)


unit_interval = dist.constraints.unit_interval
positive = dist.constraints.positive


def unconstrained(density: Any, value: float) -> np.ndarray:
    """A number as chains and guides map it into the density's support."""
    event = torch.full(density.event_shape, value)
    return torch.distributions.biject_to(density.support)(event).numpy()


def by_hand(name: str, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of native transformed distributions, and draws of them."""
    transforms = torch.distributions.transforms
    uniform = dist.Uniform(torch.tensor(0.0), torch.tensor(1.0))
    cube = uniform.expand((3,)).to_event(1)
    found = {
        "scaled": lambda: dist.TransformedDistribution(
            uniform, [transforms.AffineTransform(0.0, 4.0)]
        ),
        "exponential": lambda: dist.TransformedDistribution(uniform, [transforms.ExpTransform()]),
        "cube": lambda: dist.TransformedDistribution(
            cube, [dist.transforms.LowerCholeskyAffine(torch.zeros(3), _array(MATRIX))]
        ),
    }[name]()
    torch.manual_seed(0)
    return _numpy(found.log_prob(_array(x)), found.sample((1000,)))


MATRIX = np.array([[2.0, 0.0, 0.0], [1.0, 3.0, 0.0], [-1.0, 0.5, 0.5]])
