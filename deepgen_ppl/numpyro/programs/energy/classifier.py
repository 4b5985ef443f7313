"""A classifier that is an energy: class-conditional energies, trained on values and labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float
from numpyro.contrib.module import eqx_module

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.numpyro.nets import MLP, check_registered, on_batch
from deepgen_ppl.numpyro.programs.energy.experts import Held
from deepgen_ppl.numpyro.programs.energy.neural import EnergyModel
from deepgen_ppl.numpyro.programs.energy.ready import Energy, run


class EnergyClassifier(Energy):
    r"""A classifier whose logits are the energies of values with their labels.

    \[ p^*(x, y) = b(x) \exp f_y(x), \qquad p(y \mid x) = \frac{e^{f_y(x)}}{\sum_c e^{f_c(x)}},
       \quad \log p^*(x) = \log b(x) + \log \sum_c e^{f_c(x)} \]

    `dg.contrastive(energy, x, y)` maximises the joint likelihood of values and labels: the labels
    enter as a classifier's do, the chains move values alone, labels summed out. As an energy it is
    that of the values; `given` is that of one class.

    Args:
        net: f, a function of values (*batch, *event), to (*batch, C); an `MLP` takes the last axis.
        base: b, a distribution whose event shape is that of a value, held as it is.

    Raises:
        TypeError: the base is no distribution, or net a function around a module.
        ValueError: the base has a batch shape, or is discrete.

    References:
        Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky: Your classifier is secretly an energy
        based model and you should treat it like one. ICLR 2020. https://arxiv.org/abs/1912.03263

    Example:
        >>> base = dist.Normal(0.0, 2.0).expand([2]).to_event(1)
        >>> energy = EnergyClassifier(MLP(2, 3, (16,)), base)
        >>> energy.classify(jnp.zeros((5, 2))).probs.shape
        (5, 3)
    """

    negative: ClassVar[tuple[str, ...]] = ("x",)

    net: Any
    held_base: Held
    log_z: Evidence | None = eqx.field(static=True)

    def __init__(self, net: Callable[..., Any], base: Any) -> None:
        energies.check_base(base)
        check_registered("net", net)
        self.net, self.held_base, self.log_z = net, Held(base), None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return tuple(self.base().event_shape)

    def base(self) -> Any:
        """Return the base distribution."""
        return self.held_base()

    def logits(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch C"]:
        """Return the logits of the classes.

        Args:
            x: values.
        """
        x = jnp.asarray(x, float)
        return self.net(x, None) if isinstance(self.net, MLP) else on_batch(self.net, x)

    def classify(self, x: Float[Array, "*batch *event"]) -> Any:
        """Return the native distribution of the labels of values.

        Args:
            x: values.
        """
        return dist.Categorical(logits=self.logits(x))

    def unnormalised_log_prob(self, x: Float[Array, "*batch *event"]) -> Float[Array, "*batch"]:
        """Return the log density of values, labels summed out, but for log Z.

        Args:
            x: values.
        """
        return self.base().log_prob(x) + jax.nn.logsumexp(self.logits(x), -1)

    def given(self, label: int) -> EnergyModel:
        """Return the energy of the values of one class.

        Args:
            label: number of the class.
        """
        return EnergyModel(_OneClass(self, label), self.base())

    @property
    def model(self) -> Callable[..., None]:
        """The native program of rows: sites "x", and "y" where labels are given, in "data"."""
        return partial(_rows, self.without_log_z())


def _rows(energy: Any, x: Array | None = None, y: Array | None = None) -> None:
    energy = eqx_module("energy", energy)
    run(energy, x, None if y is None else lambda x: _label(energy, x, y))


def _label(energy: EnergyClassifier, x: Array, y: Array) -> None:
    numpyro.sample("y", energy.classify(x), obs=y)


class _OneClass(eqx.Module):
    energy: EnergyClassifier
    label: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return -self.energy.logits(x)[..., self.label]
