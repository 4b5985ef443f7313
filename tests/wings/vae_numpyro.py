"""Autoencoders of the NumPyro wing as functions of NumPy arrays, for laws of both wings."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import random

from deepgen_ppl.likelihoods import Likelihood
from deepgen_ppl.numpyro import distributions
from deepgen_ppl.numpyro.program import init_params, log_density, read_pair
from deepgen_ppl.numpyro.programs.vae.evaluate import evaluated
from deepgen_ppl.numpyro.programs.vae.likelihood import native
from deepgen_ppl.numpyro.programs.vae.modules import Values

from .flows_numpyro import leaves, perturbed


def stirred(vae: Any, scale: float = 0.3) -> Any:
    """The same autoencoder with noise on all that it learns, the same as on the other wing."""
    for number, (name, module) in enumerate(sorted(vae.modules.items())):
        vae.modules[name] = perturbed(module, scale, number)
    return vae


def weights(vae: Any) -> dict[str, np.ndarray]:
    """All that it learns, by module and in the order of the names."""
    return {
        f"{name} {i}": leaf
        for name, module in sorted(vae.modules.items())
        for i, (_, leaf) in enumerate(sorted(leaves(module).items()))
    }


def set_linear(
    vae: Any, module: str, weight: np.ndarray, bias: np.ndarray, context: np.ndarray | None = None
) -> None:
    """Give a perceptron without hidden layers its weight, its bias and that of its context."""
    import equinox as eqx

    if context is not None:
        at, own = lambda n: n.from_context, jnp.asarray(context, float)
        vae.modules[module] = eqx.tree_at(at, vae.modules[module], own)
    found = (jnp.asarray(weight, float),), (jnp.asarray(bias, float),)
    vae.modules[module] = eqx.tree_at(lambda n: (n.weights, n.biases), vae.modules[module], found)


def set_layer(vae: Any, level: int, weight: np.ndarray, bias: np.ndarray) -> None:
    """Give the network of a layer of the prior, without hidden layers, its weight and bias."""
    import equinox as eqx

    net, found = vae.modules["prior"], ((jnp.asarray(weight, float),), (jnp.asarray(bias, float),))
    at = lambda prior: (prior.nets[level].weights, prior.nets[level].biases)  # noqa: E731
    vae.modules["prior"] = eqx.tree_at(at, net, found)


def set_value(vae: Any, module: str, name: str, value: Any) -> None:
    """Give a module its value of some name."""
    arrays = {k: np.asarray(v) for k, v in vae.modules[module].arrays.items()}
    vae.modules[module] = Values({**arrays, name: np.asarray(value)})


def params(vae: Any, *data: Any) -> dict[str, Any]:
    """The values that a fit would begin with."""
    return init_params(read_pair(vae.model, vae.guide, data), data)


def densities(vae: Any, z: Any, *data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log p(x, z) and log q(z | x) of every row."""
    pair = read_pair(vae.model, vae.guide, data)
    values = init_params(pair, data)
    latents = {"z": jnp.asarray(z, float)}

    def both(values: Any, latents: Any) -> Any:
        return [log_density(p, values, latents, data)[0] for p in pair.programs]

    model, guide = jax.jit(both)(values, latents)
    return np.asarray(model), np.asarray(guide)


def prior_log_prob(vae: Any, z: Any) -> np.ndarray:
    """Log p(z)."""
    values = params(vae, np.zeros((2, *vae.features)))

    def fn(z: Any) -> Any:
        return vae.prior_at().log_prob(z)

    return evaluated(vae, values, "log_prior", fn, np.asarray(z, float), size=len(z))


def log_prob(kind: Likelihood, raw: Any, own: Any, x: Any) -> np.ndarray:
    """Log density of a likelihood at outputs of a decoder."""
    own = {name: jnp.asarray(value, float) for name, value in own.items()}
    x = jnp.asarray(x, int if kind.states else float)
    return np.asarray(native(kind, jnp.asarray(raw, float), own).log_prob(x))


def draws(kind: Likelihood, raw: Any, own: Any, count: int) -> np.ndarray:
    """Draws of a likelihood."""
    own = {name: jnp.asarray(value, float) for name, value in own.items()}
    return np.asarray(native(kind, jnp.asarray(raw, float), own).sample(random.key(0), (count,)))


def mean(kind: Likelihood, raw: Any, own: Any) -> np.ndarray:
    """Mean of a likelihood."""
    own = {name: jnp.asarray(value, float) for name, value in own.items()}
    return np.asarray(native(kind, jnp.asarray(raw, float), own).mean)


def mixture(logits: Any, locs: Any, scales: Any, count: int) -> tuple[np.ndarray, Any]:
    """Draws of a mixture, and the gradients of each draw's sin(z_0) z_1 + z_1 to its parameters."""
    args = tuple(jnp.asarray(v, float) for v in (logits, locs, scales))

    def one(key: Any) -> Any:
        def value(args: Any) -> Any:
            z = distributions.DiagonalMixture(*args).sample(key)
            return jnp.sin(z[0]) * z[1] + z[1], z

        return jax.grad(value, has_aux=True)(args)

    found, z = jax.jit(jax.vmap(one))(random.split(random.key(0), count))
    return np.asarray(z), jax.tree.map(np.asarray, found)


def one_datum(inputs: int, outputs: int) -> Any:
    """A module that takes one datum at a time."""
    return eqx.nn.Linear(inputs, outputs, key=random.key(0))


def around(net: Any) -> list[Any]:
    """Functions around a module."""
    return [jax.vmap(net), partial(net), jax.vmap(partial(net))]


def own_encoder(latents: int) -> Any:
    """A function of the data that returns a distribution of the language."""
    return lambda x: dist.Normal(x[..., :latents], 0.5).to_event(1)


def own_decoder(features: int) -> Any:
    """A function of the latents that returns a distribution of the language."""
    return lambda z: dist.Laplace(jnp.sum(z, -1, keepdims=True) + jnp.zeros(features), 1.0)


def normal_prior(latents: int, scale: float) -> Any:
    """A distribution of the language."""
    return dist.Normal(jnp.zeros(latents), scale).to_event(1)


def with_param(features: int) -> Any:
    """A decoder that is a function with a parameter of its own."""

    def decoder(z: Any) -> Any:
        weight = numpyro.param("weight", jnp.ones((z.shape[-1], features)))
        return z @ weight

    return decoder


def two_heads(latents: int) -> Any:
    """An encoder that returns locations and log scales apart."""
    return lambda x: (x[..., :latents], jnp.zeros_like(x[..., :latents]))


def in_a_program(vae: Any) -> Any:
    """A larger program of the user's: a label that depends on the latents of an autoencoder."""

    def model(x: Any, label: Any) -> None:
        with numpyro.plate("data", len(x)):
            z: Any = numpyro.sample("z", vae.prior_at())
            numpyro.sample("x", vae.observed(vae.likelihood_at(z), None), obs=x)
            numpyro.sample("label", dist.Bernoulli(logits=z[..., 0]), obs=label)

    def guide(x: Any, label: Any) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", vae.proposal(x))

    return model, guide


def adam(rate: float, half_life: int = 300) -> Any:
    return optax.adam(optax.exponential_decay(rate, half_life, 0.5))
