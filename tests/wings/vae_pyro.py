"""Autoencoders of the Pyro wing as functions of NumPy arrays, for laws of both wings."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from deepgen_ppl.likelihoods import Likelihood
from deepgen_ppl.pyro import distributions
from deepgen_ppl.pyro.data import to_tensors
from deepgen_ppl.pyro.parameters import forked_rng, resolve, snapshot
from deepgen_ppl.pyro.program import log_density, read_pair
from deepgen_ppl.pyro.programs.vae.evaluate import evaluated
from deepgen_ppl.pyro.programs.vae.likelihood import native

from .flows_pyro import leaves, perturbed


def _tensor(value: Any) -> Any:
    return torch.tensor(np.asarray(value), dtype=torch.get_default_dtype())


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
    net = vae.modules[module]
    with torch.no_grad():
        if context is not None:
            net.from_context.copy_(_tensor(context))
        net.weights[0].copy_(_tensor(weight))
        net.biases[0].copy_(_tensor(bias))


def set_layer(vae: Any, level: int, weight: np.ndarray, bias: np.ndarray) -> None:
    """Give the network of a layer of the prior, without hidden layers, its weight and bias."""
    net = vae.modules["prior"].nets[level]
    with torch.no_grad():
        net.weights[0].copy_(_tensor(weight))
        net.biases[0].copy_(_tensor(bias))


def set_value(vae: Any, module: str, name: str, value: Any) -> None:
    """Give a module its value of some name."""
    with torch.no_grad():
        vae.modules[module][name].copy_(_tensor(value))


def params(vae: Any, *data: Any) -> dict[str, Any]:
    """The values that a fit would begin with."""
    return snapshot(read_pair(vae.model, vae.guide, to_tensors(data)).params.values())


def densities(vae: Any, z: Any, *data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log p(x, z) and log q(z | x) of every row."""
    data = to_tensors(data)
    pair = read_pair(vae.model, vae.guide, data)
    values = resolve(pair.params, None)
    with torch.no_grad():
        found = [log_density(p, values, {"z": _tensor(z)}, data)[0] for p in pair.programs]
    return found[0].numpy(), found[1].numpy()


def prior_log_prob(vae: Any, z: Any) -> np.ndarray:
    """Log p(z)."""
    values = params(vae, np.zeros((2, *vae.features)))

    def fn(z: Any) -> Any:
        return vae.prior_at().log_prob(z)

    return evaluated(vae, values, "log_prior", fn, np.asarray(z, float), size=len(z))


def log_prob(kind: Likelihood, raw: Any, own: Any, x: Any) -> np.ndarray:
    """Log density of a likelihood at outputs of a decoder."""
    own = {name: _tensor(value) for name, value in own.items()}
    return native(kind, _tensor(raw), own).log_prob(_tensor(x)).numpy()


def draws(kind: Likelihood, raw: Any, own: Any, count: int) -> np.ndarray:
    """Draws of a likelihood."""
    own = {name: _tensor(value) for name, value in own.items()}
    with forked_rng(0):
        return native(kind, _tensor(raw), own).sample((count,)).numpy()


def mean(kind: Likelihood, raw: Any, own: Any) -> np.ndarray:
    """Mean of a likelihood."""
    own = {name: _tensor(value) for name, value in own.items()}
    fn: Any = native(kind, _tensor(raw), own)
    return fn.mean.numpy()


def mixture(logits: Any, locs: Any, scales: Any, count: int) -> tuple[np.ndarray, Any]:
    """Draws of a mixture, and the gradients of each draw's sin(z_0) z_1 + z_1 to its parameters."""
    args = tuple(
        _tensor(v).expand(count, *np.shape(v)).clone().requires_grad_()
        for v in (logits, locs, scales)
    )
    with forked_rng(0):
        z = distributions.DiagonalMixture(*args).rsample()
    value = torch.sin(z[:, 0]) * z[:, 1] + z[:, 1]
    found = torch.autograd.grad(value.sum(), args)
    return z.detach().numpy(), tuple(g.numpy() for g in found)


def one_datum(inputs: int, outputs: int) -> Any:
    """A module that takes one datum at a time, as all of torch do, or a batch."""
    return torch.nn.Linear(inputs, outputs)


def around(net: Any) -> list[Any]:
    """Functions around a module."""
    return [torch.vmap(net), partial(net), net.forward]


def own_encoder(latents: int) -> Any:
    """A function of the data that returns a distribution of the language."""
    return lambda x: dist.Normal(x[..., :latents], 0.5).to_event(1)


def own_decoder(features: int) -> Any:
    """A function of the latents that returns a distribution of the language."""
    return lambda z: dist.Laplace(z.sum(-1, keepdim=True) + torch.zeros(features), 1.0)


def normal_prior(latents: int, scale: float) -> Any:
    """A distribution of the language."""
    return dist.Normal(torch.zeros(latents), scale).to_event(1)


def with_param(features: int) -> Any:
    """A decoder that is a function with a parameter of its own."""

    def decoder(z: Any) -> Any:
        return z @ pyro.param("weight", torch.ones(z.shape[-1], features))

    return decoder


def two_heads(latents: int) -> Any:
    """An encoder that returns locations and log scales apart."""
    return lambda x: (x[..., :latents], torch.zeros_like(x[..., :latents]))


def in_a_program(vae: Any) -> Any:
    """A larger program of the user's: a label that depends on the latents of an autoencoder."""

    def model(x: Any, label: Any) -> None:
        with pyro.plate("data", len(x)):
            z: Any = pyro.sample("z", vae.prior_at())
            pyro.sample("x", vae.observed(vae.likelihood_at(z), None), obs=x)
            pyro.sample("label", dist.Bernoulli(logits=z[..., 0]), obs=label)

    def guide(x: Any, label: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.proposal(x))

    return model, guide


def adam(rate: float, half_life: int = 300) -> Any:
    def make(parameters: Any) -> Any:
        optimizer = torch.optim.Adam(parameters, rate)
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5 ** (1 / half_life))

    return make
