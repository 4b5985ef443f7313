"""Autoregressive modules of the NumPyro wing as functions of NumPy arrays, for the shared laws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.module import eqx_module

from .flows_numpyro import double, leaves, perturbed, quick

__all__ = ["double", "leaves", "perturbed"]
BITS = np.int32


def _array(value: Any) -> Any:
    return None if value is None else jnp.asarray(value, float)


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def tried(net: Any, u: Any, events: Any, context: Any, more: bool) -> dict[str, Any]:
    """What the laws need, in one compiled function.

    `x`: draws of uniform numbers; `log_prob` of them; `again`: draws of the same numbers from the
    parameters that one pass gives; `all`: log densities of all events, by context; and, where it is
    asked for by `more`, `mapped`: log densities of rows under vmap, `single`: of the first event,
    `slope`: parameters by encoded inputs.
    """
    u, context, output = _array(u), _array(context), net.output

    @quick
    def everything(net: Any, u: Any, context: Any) -> dict[str, Any]:
        density = net(context)
        x = density.from_uniforms(u)
        rows, params, batch = density._parameters(x)
        flat = density._ordered(u.reshape(-1, net.about.features, output.uniforms))
        again = density._events(output.draw(params, flat), batch)
        found = {"x": x, "again": again, "log_prob": density.log_prob(x)}
        if events is not None:
            wide = jnp.asarray(events)
            found["all"] = density.log_prob(wide if context is None else wide[:, None])
        if more:
            event, own = (x[0], None) if context is None else (x[0, 0], context[0])
            found["single"] = net(own).log_prob(event)
            found["mapped"] = jax.vmap(density.log_prob)(x)
            inputs, own = output.encode(rows[:1], u.dtype), None if own is None else own[None]
            found["slope"] = jax.jacfwd(lambda a: net.parallel(a, own)[0])(inputs)[:, :, 0]
        return found

    return _numpy(everything(net, u, context))


def gradients(net: Any, x: Any, context: Any = None) -> dict[str, np.ndarray]:
    """Gradients of the mean log density to all that is learned and to the context."""

    def loss(net: Any, context: Any) -> Any:
        return net(context).log_prob(jnp.asarray(x)).mean()

    found, of_context = quick(jax.grad(loss, (0, 1)))(net, _array(context))
    return leaves(found) | ({} if context is None else {"context": np.asarray(of_context)})


def log_prob(net: Any, x: Any, context: Any = None) -> np.ndarray:
    """Log densities as a user asks for them, values looked at."""
    return np.asarray(net(_array(context)).log_prob(jnp.asarray(x)))


@quick
def _density(net: Any, x: Any, context: Any) -> Any:
    return net(context).log_prob(x)


def density(net: Any, x: Any, context: Any = None) -> np.ndarray:
    """Log densities by compiled code."""
    return np.asarray(_density(net, jnp.asarray(x), _array(context)))


def draw(net: Any, u: Any, context: Any = None) -> np.ndarray:
    of = quick(lambda net, u, context: net(context).from_uniforms(u))
    return np.asarray(of(net, _array(u), _array(context)))


@functools.partial(jax.jit, static_argnums=2)
def _sample(net: Any, key: Any, shape: tuple[int, ...]) -> Any:
    return net().sample(key, shape)


def sample(net: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.asarray(_sample(net, jax.random.key(seed), shape))


def rsample(net: Any) -> np.ndarray:
    return np.asarray(net().rsample(jax.random.key(0)))


def expanded(net: Any, x: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Log density of the expanded and masked distribution, and the shape of its draws."""
    wide = net().expand(shape).mask(True)
    return np.asarray(wide.log_prob(jnp.asarray(x))), wide.sample(jax.random.key(0), (2,)).shape


def complete(net: Any, x: Any, mask: Any, number: int = 64, context: Any = None) -> Any:
    density = net(_array(context))
    found = density.complete(jnp.asarray(x), jnp.asarray(mask), num_particles=number, seed=3)
    return tuple(map(np.asarray, found))


def conditionals(net: Any, x: Any) -> Any:
    """The native distribution's name, and its log densities."""
    found = net().conditionals(jnp.asarray(x))
    return type(found).__name__, np.asarray(found.log_prob(jnp.asarray(x)))


def mean_slope(output: Any, params: Any, u: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the sine of each draw, and of its mean by quadrature, to the parameters."""
    grid = jnp.linspace(-30.0, 30.0, 8001)

    def expected(params: Any) -> Any:
        density = jnp.exp(output.log_prob(params, grid))
        return (density * jnp.sin(grid)).sum() * (grid[1] - grid[0])

    one = jax.grad(lambda params, u: jnp.sin(output.draw(params, u)))
    both = quick(
        lambda params, u: (jax.vmap(one, (None, 0))(params, u), jax.grad(expected)(params))
    )
    return _numpy(both(_array(params), _array(u)))


def mass(output: Any, params: Any, x: Any) -> np.ndarray:
    """Densities of values at parameters, shape (rows of parameters, values)."""
    of = quick(lambda params, x: jnp.exp(output.log_prob(params[:, None], x)))
    return np.asarray(of(_array(params), jnp.asarray(x)))


def pair(prior: Any, guide: Any) -> tuple[Any, Any]:
    """Bits with an autoregressive prior, seen by their noisy sum; a guide with that as context."""

    def model(y: Any) -> None:
        bits: Any = eqx_module("prior", prior)
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", bits())
            numpyro.sample("y", dist.Normal(z.sum(-1), 0.7), obs=y[:, 0])

    def amortised(y: Any) -> None:
        density = eqx_module("guide", guide)
        with numpyro.plate("data", len(y)):
            numpyro.sample("z", density(y))

    return model, amortised


def normal_pair(guide: Any) -> tuple[Any, Any]:
    """Two real latents of each datum, seen by their noisy sum; a guide with that as context."""

    def model(y: Any) -> None:
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("y", dist.Normal(z.sum(-1), 0.5), obs=y[:, 0])

    def amortised(y: Any) -> None:
        density = eqx_module("guide", guide)
        with numpyro.plate("data", len(y)):
            numpyro.sample("z", density(y))

    return model, amortised


def adam(rate: float) -> Any:
    return optax.adam(rate)
