"""Convolutional and residual networks of equal seeds are equal on both wings, to 1e-6."""

from typing import Any

import numpy as np
import pytest
import torch

import deepgen_ppl.numpyro as on_numpyro
import deepgen_ppl.pyro as on_pyro

RNG = np.random.default_rng(0)
IMAGES, CODES, CONTEXT = RNG.normal(size=(2, 3, 7, 6)), RNG.normal(size=(2, 3, 4)), np.ones(2)
NETS: dict[str, tuple[str, tuple, dict[str, Any], np.ndarray, tuple[int, ...]]] = {
    "images to features": ("ConvEncoder", ((7, 6), 5, (4, 6)), {}, IMAGES, (2, 3, 5)),
    "images to features, residual": (
        "ConvEncoder", ((7, 6), 5, (4,)), {"blocks": 2, "activation": "tanh"}, IMAGES, (2, 3, 5)),
    "colours to features": (
        "ConvEncoder", ((7, 6, 3), 5, (4,)), {}, RNG.normal(size=(7, 6, 3)), (5,)),
    "features to images": (
        "ConvDecoder", (4, (7, 6), 2, (6, 5, 4)), {}, CODES, (2, 3, 7, 6, 2)),
    "features to colours, residual": (
        "ConvDecoder", (4, (7, 6, 3), 1, (6,)), {"blocks": 1}, CODES, (2, 3, 7, 6, 3, 1)),
    "residual": ("ResidualMLP", (4, 3, 8), {"activation": "silu"}, CODES, (2, 3, 3)),
}  # fmt: skip


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def stirred(net: Any) -> dict[str, np.ndarray]:
    """Weights with noise, so that no block is the identity."""
    rng, found = np.random.default_rng(5), {}
    for name in sorted(net.weights):
        value = np.asarray(net.weights[name].detach() if hasattr(net.weights[name], "detach")
                           else net.weights[name])  # fmt: skip
        found[name] = value + 0.2 * rng.normal(size=value.shape)
    return found


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("name", NETS)
def test_networks_of_equal_seeds_are_equal(name: str, context: int) -> None:
    kind, args, options, x, shape = NETS[name]
    ours, theirs = (
        getattr(dg.vae, kind)(*args, context=context, seed=4, **options)
        for dg in (on_numpyro, on_pyro)
    )
    weights = stirred(ours)
    assert weights.keys() == dict(theirs.weights.items()).keys()
    for key, value in stirred(theirs).items():
        agree(value, weights[key])
    import equinox as eqx
    import jax.numpy as jnp

    own = {key: jnp.asarray(value) for key, value in weights.items()}
    ours = eqx.tree_at(lambda net: net.weights, ours, own)
    with torch.no_grad():
        for key, value in weights.items():
            theirs.weights[key].copy_(torch.as_tensor(value))
    given = (CONTEXT,) if context else ()
    found = ours(jnp.asarray(x), *map(jnp.asarray, given))
    assert found.shape == shape
    agree(found, theirs(torch.as_tensor(x), *map(torch.as_tensor, given)).detach().numpy())
    if context:
        assert abs(found - ours(jnp.asarray(x), 0.0 * jnp.asarray(CONTEXT))).max() > 1e-3


def test_a_batch_is_its_rows(name: str = "images to features") -> None:
    import jax.numpy as jnp

    net = on_numpyro.vae.ConvEncoder((7, 6), 5, (4, 6), 1)
    whole = net(jnp.asarray(IMAGES))
    agree(whole[1, 2], net(jnp.asarray(IMAGES[1, 2])))


@pytest.mark.parametrize("dg", [on_numpyro, on_pyro], ids=["numpyro", "pyro"])
def test_an_autoencoder_of_images(dg: Any) -> None:
    """Trains in minibatches, and the encoder of the wrong number of outputs is named."""
    x = (np.random.default_rng(1).uniform(size=(30, 6, 5)) < 0.3).astype(float)
    nets = dg.vae.ConvEncoder((6, 5), 4, (4,)), dg.vae.ConvDecoder(2, (6, 5), 1, (4,), 1)
    vae = dg.VAE(*nets, features=(6, 5), latents=2)
    fit = dg.svi(*vae, x, num_steps=60, batch_size=10, progress=False)
    assert fit.losses[-10:].mean() < fit.losses[:10].mean()
    assert vae.reconstruct(fit, x[:2]).shape == (2, 6, 5)
    flat = dg.vae.ResidualMLP(30, 4, 8), dg.vae.ResidualMLP(2, 30, 8)  # sees images as vectors
    dg.svi(*dg.VAE(*flat, features=(6, 5), latents=2), x, num_steps=2, progress=False)
    wrong = dg.VAE(dg.vae.ConvEncoder((6, 5), 3, (4,)), nets[1], features=(6, 5), latents=2)
    with pytest.raises(ValueError, match="Give the encoder 4 outputs"):
        dg.svi(*wrong, x, num_steps=1, progress=False)


@pytest.mark.parametrize("dg", [on_numpyro, on_pyro], ids=["numpyro", "pyro"])
def test_sizes_that_are_none_are_refused(dg: Any) -> None:
    for make, words in (
        (lambda: dg.vae.ConvEncoder((7,), 3), "image must be"),
        (lambda: dg.vae.ConvEncoder((7, 6), 3, ()), "channels must name"),
        (lambda: dg.vae.ConvDecoder(3, (7, 0)), "each size in image"),
        (lambda: dg.vae.ResidualMLP(3, 2, blocks=-1), "blocks"),
        (lambda: dg.vae.ConvEncoder((7, 6), 3, activation="swish"), "activation"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
