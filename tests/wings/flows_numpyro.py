"""Flows of the NumPyro wing as functions of NumPy arrays, for the laws that both wings share."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import random
from numpyro.contrib.module import eqx_module

from deepgen_ppl.numpyro.flows.layer import Layer

# these functions run once: most of their time is the compiler's
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@contextmanager
def double(wanted: bool = True) -> Iterator[None]:
    """Double precision inside, where wanted."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", wanted)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _names(path: Any, leaf: Any) -> list[str]:
    """The names that the other wing gives to a leaf, one for each of the layers of a stack."""
    name = jax.tree_util.keystr(path).translate({ord("["): ".", ord("]"): None, ord("'"): None})
    name = name.removeprefix(".")
    if "stacked" not in name:
        return [name]
    return [name.replace("stacked", f"layers.{i}", 1) for i in range(len(leaf))]


def leaves(module: Any) -> dict[str, np.ndarray]:
    """The learned arrays by name, those of stacked layers one by one."""
    found: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree.leaves_with_path(module):
        if eqx.is_inexact_array(leaf):
            names = _names(path, leaf)
            each = leaf if "stacked" in jax.tree_util.keystr(path) else [leaf]
            found |= {name: np.asarray(own) for name, own in zip(names, each, strict=True)}
    return found


def perturbed(module: Any, scale: float = 0.3, seed: int = 0) -> Any:
    """The module with noise on all that it learns, the same as on the other wing."""
    order = {name: i for i, name in enumerate(sorted(leaves(module)))}

    def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return scale * np.random.default_rng([seed, order[name]]).normal(size=shape)

    def moved(path: Any, leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        names = _names(path, leaf)
        if "stacked" in jax.tree_util.keystr(path):
            return leaf + jnp.stack([jnp.asarray(noise(n, leaf.shape[1:]), leaf.dtype)
                                     for n in names])  # fmt: skip
        return leaf + jnp.asarray(noise(names[0], leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(moved, module)


def _array(value: Any) -> Any:
    return None if value is None else jnp.asarray(value, float)


def push(layer: Layer, z: Any, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
    x, log_det = layer(_array(context)).push(_array(z))
    return np.asarray(x), np.asarray(log_det)


def pull(layer: Layer, x: Any, context: Any = None) -> tuple[np.ndarray, np.ndarray]:
    z, log_det = layer(_array(context)).pull(_array(x))
    return np.asarray(z), np.asarray(log_det)


def tried(layer: Layer, z: Any, context: Any = None) -> dict[str, np.ndarray]:
    """What the laws need of a batch of shape (2, 3), in one compiled function.

    `x, log_det, back, log_det_back` of the batch; the same of rows under vmap, `rows`, and of
    single events, `events`; the native log determinant; the Jacobian; and, with a context, `one`:
    the batch pushed with the first context, `many`: the first event with all contexts.
    """

    def both(z: Any, context: Any) -> Any:
        transform = layer(context)
        x, log_det = transform.push(z)
        return x, log_det, *transform.pull(x)

    def everything(z: Any, context: Any) -> dict[str, Any]:
        transform, axes = layer(context), (0, None if context is None else 0)
        x, log_det, back, log_det_back = both(z, context)
        mapped = jax.vmap(both, axes)
        slope = jax.jacfwd(lambda z, c: layer.push(z, c)[0])
        found = {
            "x": x, "log_det": log_det, "back": back, "log_det_back": log_det_back,
            "rows": mapped(z, context), "events": jax.vmap(mapped, axes)(z, context),
            "native": transform.log_abs_det_jacobian(z, transform(z)),
            "native_back": transform.inv(transform(z)),
            "jacobian": jax.vmap(jax.vmap(slope, axes), axes)(z, context),
        }  # fmt: skip
        if context is not None:
            found["one"] = layer.push(z, context[0, 0])[0]
            found["many"] = layer(context).push(z[0, 0])[0]
        return found

    return jax.tree.map(np.asarray, quick(everything)(_array(z), _array(context)))


def gradients(flow: Any, x: Any, context: Any = None) -> list[dict[str, np.ndarray]]:
    """Gradients of the mean log density, and of a function of draws, to parameters and context."""

    def densities(learned: Any, context: Any) -> Any:
        return eqx.combine(learned, static)(context).log_prob(_array(x)).mean()

    def draws(learned: Any, context: Any) -> Any:
        density = eqx.combine(learned, static)(context)
        return jnp.mean(jnp.sin(density.rsample(random.key(1), (4,))))

    @quick
    def both(learned: Any, context: Any) -> Any:
        return [jax.grad(loss, (0, 1))(learned, context) for loss in (densities, draws)]

    learned, static = eqx.partition(flow, eqx.is_inexact_array)
    found = both(learned, _array(context))
    return [
        leaves(eqx.combine(of_params, static))
        | ({} if context is None else {"context": np.asarray(of_context)})
        for of_params, of_context in found
    ]


def log_prob(flow: Any, x: Any, context: Any = None) -> np.ndarray:
    return np.asarray(flow(_array(context)).log_prob(_array(x)))


def native_log_prob(flow: Any, x: Any, context: Any = None) -> np.ndarray:
    """The density by the language's own class, from the transform alone."""
    density = flow(_array(context))
    plain = dist.TransformedDistribution(density.base_dist, density.transforms)
    return np.asarray(plain.log_prob(_array(x)))


def draw(flow: Any, context: Any = None, shape: tuple = (), seed: int = 0) -> Any:
    """Draws and log densities of one pass."""
    found = flow(_array(context)).sample_and_log_prob(random.key(seed), shape)
    return tuple(map(np.asarray, found))


def expanded_log_prob(flow: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Density of draws of the expanded and masked distribution, and of the plain one."""
    wide = flow().expand(shape).mask(True)
    value, intermediates = wide.sample_with_intermediates(random.key(0), (2,))
    kept = wide.log_prob(value, intermediates)
    np.testing.assert_allclose(kept, wide.log_prob(value), rtol=1e-4, atol=1e-4)
    return np.asarray(kept), np.asarray(flow().log_prob(value))


def pair(flow: Any, dim: int) -> tuple[Any, Any]:
    """A latent with an amortised flow as guide: z ~ N(0, I), x = z + noise."""

    def model(x: Any) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Any) -> None:
        density = eqx_module("flow", flow)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", density(x))

    return model, guide


def banana(y: Any) -> None:
    """A curved posterior of two latents: what is seen is their sum, the second near a parabola."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(a**2, 0.2))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(b, 1.0), obs=y)


def positive_latents(x: Any) -> None:
    """Each datum has a positive latent and a real one: log s ~ N(0, 1), m ~ N(0, 1)."""
    with numpyro.plate("data", len(x)):
        s = numpyro.sample("s", dist.LogNormal(0.0, 1.0))
        m = numpyro.sample("m", dist.Normal(jnp.zeros(1), 1.0).to_event(1))
        seen = jnp.stack([jnp.log(s), m[..., 0]], -1)
        numpyro.sample("x", dist.Normal(seen, 0.5).to_event(1), obs=x)


def shared_and_local(x: Any) -> None:
    """A latent outside of the data plate, which an amortised guide refuses."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(mean, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def diagonal_guide(model: Any) -> Any:
    """The language's own independent normals."""
    from numpyro.infer.autoguide import AutoNormal

    return AutoNormal(model)


def adam(rate: float) -> Any:
    """The language's Adam."""
    return optax.adam(rate)


unit_interval = dist.constraints.unit_interval
positive = dist.constraints.positive


def unconstrained(density: Any, value: float) -> np.ndarray:
    """A number as chains and guides map it into the density's support."""
    event = np.full(density.event_shape, value, np.float32)
    return np.asarray(dist.biject_to(density.support)(event))


def by_hand(name: str, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of native transformed distributions, and draws of them."""
    transforms = dist.transforms
    uniform = dist.Uniform(0.0, 1.0)
    cube = uniform.expand((3,)).to_event(1)
    found = {
        "scaled": lambda: dist.TransformedDistribution(
            uniform, transforms.AffineTransform(0.0, 4.0)
        ),
        "exponential": lambda: dist.TransformedDistribution(uniform, transforms.ExpTransform()),
        "cube": lambda: dist.TransformedDistribution(
            cube, transforms.LowerCholeskyAffine(jnp.zeros(3), jnp.asarray(MATRIX, float))
        ),
    }[name]()
    value = _array(x)
    return np.asarray(found.log_prob(value)), np.asarray(found.sample(random.key(0), (1000,)))


MATRIX = np.array([[2.0, 0.0, 0.0], [1.0, 3.0, 0.0], [-1.0, 0.5, 0.5]])
