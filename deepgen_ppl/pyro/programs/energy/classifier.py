"""A classifier that is an energy: class-conditional energies, trained on values and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.pyro.nets import MLP, check_registered
from deepgen_ppl.pyro.programs.energy.experts import Held
from deepgen_ppl.pyro.programs.energy.neural import EnergyModel
from deepgen_ppl.pyro.programs.energy.ready import Energy, run


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
        >>> import torch
        >>> base = dist.Normal(0.0, torch.tensor(2.0)).expand([2]).to_event(1)
        >>> energy = EnergyClassifier(MLP(2, 3, (16,)), base)
        >>> energy.classify(torch.zeros(5, 2)).probs.shape
        torch.Size([5, 3])
    """

    negative: ClassVar[tuple[str, ...]] = ("x",)

    log_z: Evidence | None

    def __init__(self, net: Callable[..., Any], base: Any) -> None:
        super().__init__()
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

    def logits(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch C"]:
        """Return the logits of the classes.

        Args:
            x: values.
        """
        return self.net(x, None) if isinstance(self.net, MLP) else self.net(x)

    def classify(self, x: Float[Tensor, "*batch *event"]) -> Any:
        """Return the native distribution of the labels of values.

        Args:
            x: values.
        """
        return dist.Categorical(logits=self.logits(x))

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log density of values, labels summed out, but for log Z.

        Args:
            x: values.
        """
        return self.base().log_prob(x) + self.logits(x).logsumexp(-1)

    def given(self, label: int) -> EnergyModel:
        """Return the energy of the values of one class.

        Args:
            label: number of the class.
        """
        return EnergyModel(_OneClass(self, label), self.base())

    @property
    def model(self) -> Callable[..., None]:
        """The native program of rows: sites "x", and "y" where labels are given, in "data"."""

        def model(x: Tensor | None = None, y: Tensor | None = None) -> None:
            energy: Any = pyro.module("energy", self)
            run(energy, x, None if y is None else lambda x: _label(energy, x, y))

        return model


def _label(energy: EnergyClassifier, x: Tensor, y: Tensor) -> None:
    pyro.sample("y", energy.classify(x), obs=y)


class _OneClass(nn.Module):
    def __init__(self, energy: EnergyClassifier, label: int) -> None:
        super().__init__()
        self.energy, self.label = energy, label

    def forward(self, x: Tensor) -> Tensor:
        return -self.energy.logits(x)[..., self.label]
