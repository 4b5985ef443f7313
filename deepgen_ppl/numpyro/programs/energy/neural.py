"""The neural energy: a network beside a base distribution, over vectors, images, or any event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.numpyro.nets import MLP, check_registered, on_batch
from deepgen_ppl.numpyro.programs.energy.ready import Energy, replaced


class EnergyModel(Energy):
    r"""A base distribution times the exponential of a network's negative output.

    \[ \log p^*(x) = \log b(x) - \beta E_\theta(x) \]

    A bounded network, or a base whose tails fall off faster than -E grows, keeps it integrable. It
    is a ready energy: train it by `dg.contrastive(energy, x)`, `dg.score_matching` or
    `dg.noise_contrastive`, draw from it by `dg.mcmc(energy.program, None)` or from the chains of
    the fit, find its log Z with `dg.noise_contrastive` or `dg.log_z`.

    Args:
        net: E, an equinox module or function of a batch (*batch, *event), to (*batch) or
            (*batch, 1); an `MLP` takes the last axis.
        base: b, a distribution whose event shape is that of a value, held as it is; or a module
            that gives one, such as a flow, which is learned along.
        power: beta, the inverse temperature; negative values turn the energy round.

    Raises:
        ValueError: a base without an event shape, or a power that is no number.
        TypeError: a function around a module, whose parameters would not be learned.

    References:
        LeCun, Chopra, Hadsell, Ranzato, Huang: A tutorial on energy-based learning. 2006.

        Du and Mordatch: Implicit generation and modeling with energy-based models. NeurIPS 2019.
        https://arxiv.org/abs/1903.08689

    Example:
        >>> import deepgen_ppl.numpyro as dg, numpyro.distributions as dist
        >>> base = dist.Normal(0.0, 2.0).expand([2]).to_event(1)
        >>> energy = dg.EnergyModel(MLP(2, 1, (16,)), base)
        >>> x = jnp.array([[0.0, 0.0], [9.0, 9.0]])
        >>> energy.rank(x).tolist()  # the anomaly first
        [1, 0]
    """

    net: Any
    learned_base: Any
    held_base: Any = eqx.field(static=True)
    power: float = eqx.field(static=True)
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(self, net: Callable[..., Any], base: Any, *, power: float = 1.0) -> None:
        check_registered("net", net)
        self.net = net
        is_held = hasattr(base, "log_prob")
        self.learned_base = None if is_held else base
        self.held_base = _Held(base) if is_held else None
        self.power = energies.check_number("power", power)
        self.log_z = None
        energies.check_base(self.base())

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return tuple(self.base().event_shape)

    def base(self) -> Any:
        """Return the base distribution."""
        return self.held_base.value if self.held_base is not None else self.learned_base()

    def energy(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the network's energy E, without base and power.

        Args:
            x: values.
        """
        x = jnp.asarray(x, float)
        found = self.net(x, None) if isinstance(self.net, MLP) else on_batch(self.net, x)
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return found.reshape(batch)

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density but for log Z.

        Args:
            x: values.
        """
        return self.base().log_prob(x) - self.power * self.energy(x)

    def tempered(self, power: float) -> EnergyModel:
        """Return a copy whose energy counts `power` times as much; the base stays.

        Args:
            power: factor of the energy.
        """
        return replaced(self, power=self.power * energies.check_number("power", power), log_z=None)

    def modes(
        self,
        x: Float[Array, "N ..."],
        *,
        num_steps: int = 500,
        step_size: float = 0.02,
    ) -> Float[Array, "N ..."]:
        """Return where the density's gradient leads from some values: modes, as MAP estimates.

        Args:
            x: values to set out from.
            num_steps: number of steps.
            step_size: length of the first steps, as Adam takes them, shrinking to zero.

        Cost:
            A gradient a step.
        """
        return _modes(self, jnp.asarray(x, float), num_steps, step_size)


class _Held:
    """A distribution that is no parameter: known by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value


@eqx.filter_jit
def _modes(energy: EnergyModel, x: Array, num_steps: int, step_size: float) -> Array:
    import optax

    transform = biject_to(energy.base().support)
    optimizer = optax.adam(optax.cosine_decay_schedule(step_size, num_steps))

    def loss(z: Array) -> Array:
        return -jnp.sum(energy.unnormalised_log_prob(transform(z)))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        z, state = carry
        change, state = optimizer.update(jax.grad(loss)(z), state)
        return (optax.apply_updates(z, change), state), None

    z = transform.inv(x)
    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), None, num_steps)
    return transform(z)
