"""Optimizers as one pair of functions: optax's, NumPyro's and JAX's example optimizers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.example_libraries import optimizers
from jaxtyping import Array
from numpyro.optim import Minimize, _NumPyroOptim

from deepgen_ppl.numpyro.fingerprint import fingerprint

Params = Any


class Optimizer(NamedTuple):
    """An optimizer as the training loop uses it.

    Attributes:
        init: params -> state.
        update: (gradients, state, params, loss) -> (params, state).
        code: what the code of the two depends on.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params, Array], tuple[Params, Any]]
    code: Hashable


def as_optimizer(optim: Any, clip_norm: float | None = None) -> Optimizer:
    """Return an optimizer from None (Adam, step 1e-3), optax, NumPyro or a JAX example optimizer.

    Args:
        optim: the optimizer; learning-rate schedules are part of it.
        clip_norm: largest Euclidean norm of the whole gradient, None for no limit.

    Raises:
        TypeError: `optim` is none of these.
        ValueError: `clip_norm` is not positive.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, got {clip_norm}.")
    optim = optax.adam(1e-3) if optim is None else optim
    if isinstance(optim, optimizers.Optimizer):
        optim = _NumPyroOptim(lambda *triple: triple, *optim)
    if isinstance(optim, Minimize):
        raise TypeError(
            "numpyro.optim.Minimize evaluates its own loss. Use optax or numpyro.optim."
        )
    if isinstance(optim, _NumPyroOptim):
        inner = _numpyro(optim)
    elif isinstance(optim, optax.GradientTransformation):
        inner = _optax(optim)
    else:
        raise TypeError(
            "optim must be an optax.GradientTransformation or a numpyro.optim optimizer, got "
            f"{optim!r}. For example optax.adam(1e-3)."
        )
    if clip_norm is None:
        return inner

    def update(grads: Params, state: Any, params: Params, loss: Array) -> tuple[Params, Any]:
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        shrink = jnp.minimum(1.0, clip_norm / (norm + 1e-12))
        return inner.update(jax.tree.map(lambda g: g * shrink, grads), state, params, loss)

    return Optimizer(inner.init, update, (inner.code, clip_norm))


def _optax(optim: optax.GradientTransformation) -> Optimizer:
    extended = optax.with_extra_args_support(optim)

    def update(grads: Params, state: Any, params: Params, loss: Array) -> tuple[Params, Any]:
        try:
            changes, state = extended.update(grads, state, params, value=loss, grad=grads)
        except TypeError as error:
            if "value_fn" not in str(error):
                raise
            raise TypeError(
                "optim searches along a line and evaluates the loss itself, which a stochastic "
                "loss does not allow. Use one that needs gradients only, such as optax.adam(1e-3)."
            ) from error
        return optax.apply_updates(params, changes), state

    return Optimizer(optim.init, update, fingerprint(optim))


def _numpyro(optim: _NumPyroOptim) -> Optimizer:
    def update(grads: Params, state: Any, _: Params, loss: Array) -> tuple[Params, Any]:
        state = optim.update(grads, state, value=loss)
        return optim.get_params(state), state

    return Optimizer(optim.init, update, fingerprint(type(optim), vars(optim)))
