"""The continuous layer: points move along a learned vector field for one unit of time (FFJORD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array

from deepgen_ppl import flow_checks
from deepgen_ppl.numpyro.flows.layer import About, Context, Layer, Pushed
from deepgen_ppl.numpyro.nets import MLP


class Continuous(Layer):
    r"""Points follow a vector field v from time 0 (the base) to time 1 (the data).

    \[ \frac{dz}{dt} = v(z, t; c), \qquad
       \frac{d}{dt} \log|\det J| = \operatorname{tr} \frac{\partial v}{\partial z} \]

    by the Runge-Kutta method of order 4 in equal steps, backwards in time to pull. Round trips and
    log determinants have an error of order `num_steps`\(^{-4}\): see `dg.check_flow`.

    Args:
        features: number of features D.
        context: number of context features.
        hidden: units of each hidden layer of the field.
        num_steps: number of steps.
        trace: "exact" takes D directional derivatives; "hutchinson" estimates the trace by
            \(\epsilon^\top J \epsilon\) with random signs, of its own for each row, which leaves
            log densities unbiased over rows and noisy by row.
        activation: a smooth one: "tanh", "silu", "elu" or "softplus".
        seed: seed of the initial weights and of the signs, or a NumPy generator.

    Raises:
        ValueError: an unknown trace, or an activation that is not smooth.

    Cost:
        Four passes of the network for each step in both directions, each with D derivatives for the
        exact trace, or one.

    References:
        Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud: FFJORD, free-form continuous dynamics for
        scalable reversible generative models. ICLR 2019. https://arxiv.org/abs/1810.01367

    Example:
        >>> Continuous(2)()(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    net: MLP
    number: np.ndarray  # seed of the signs
    num_steps: int = eqx.field(static=True)
    trace: str = eqx.field(static=True)
    about: About = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        *,
        num_steps: int = 16,
        trace: str = "exact",
        activation: str = "tanh",
        seed: int | np.random.Generator = 0,
    ) -> None:
        flow_checks.sizes(features, context, hidden)
        flow_checks.choice("trace", trace, ("exact", "hutchinson"))
        flow_checks.choice("activation of a vector field", activation, flow_checks.ACTIVATIONS[1:])
        self.num_steps = flow_checks.whole("num_steps", num_steps)
        rng = np.random.default_rng(seed)
        options: dict[str, Any] = {"activation": activation, "zero": True, "seed": rng}
        self.net = MLP(features + 1, features, hidden, context, **options)
        self.trace, self.number = trace, np.asarray(rng.integers(2**31), np.uint32)
        self.about = About((features,), context)

    def push(self, z: Array, context: Context = None) -> Pushed:
        """Follow the field from time 0 to 1."""
        return self._follow(z, context, 0.0, 1.0)

    def pull(self, x: Array, context: Context = None) -> Pushed:
        """Follow the field from time 1 to 0."""
        return self._follow(x, context, 1.0, 0.0)

    def _directions(self, z: Array) -> Array:
        """Return the vectors whose quadratic forms add up to the trace."""
        if self.trace == "exact":
            eye = jnp.eye(z.shape[-1], dtype=z.dtype)
            shape = (len(eye), *(1,) * (z.ndim - 1), z.shape[-1])
            return jnp.broadcast_to(eye.reshape(shape), (len(eye), *z.shape))
        return random.rademacher(random.key(self.number), (1, *z.shape), z.dtype)

    def _follow(self, z: Array, context: Context, start: float, end: float) -> Pushed:
        directions = self._directions(z)
        h = (end - start) / self.num_steps

        def rate(t: Array, z: Array) -> Pushed:
            def field(z: Array) -> Array:
                time = jnp.broadcast_to(t, (*z.shape[:-1], 1))
                return self.net(jnp.concatenate([z, time], -1), context)

            v, derivative = jax.linearize(field, z)
            trace = jnp.sum(jax.vmap(derivative)(directions) * directions, (0, -1))
            return v, trace

        def step(state: Pushed, number: Array) -> tuple[Pushed, None]:
            z, log_det = state
            t = start + h * number.astype(z.dtype)
            v1, r1 = rate(t, z)
            v2, r2 = rate(t + 0.5 * h, z + 0.5 * h * v1)
            v3, r3 = rate(t + 0.5 * h, z + 0.5 * h * v2)
            v4, r4 = rate(t + h, z + h * v3)
            z = z + h / 6.0 * (v1 + 2.0 * v2 + 2.0 * v3 + v4)
            return (z, log_det + h / 6.0 * (r1 + 2.0 * r2 + 2.0 * r3 + r4)), None

        zero = jnp.zeros(z.shape[:-1], z.dtype)
        return lax.scan(step, (z, zero), jnp.arange(self.num_steps))[0]
