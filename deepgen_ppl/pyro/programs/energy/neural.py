"""The neural energy: a network beside a base distribution, over vectors, images, or any event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl import energies
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.pyro.nets import MLP, check_registered
from deepgen_ppl.pyro.programs.energy.ready import Energy, replaced


class EnergyModel(Energy):
    r"""A base distribution times the exponential of a network's negative output.

    \[ \log p^*(x) = \log b(x) - \beta E_\theta(x) \]

    A bounded network, or a base whose tails fall off faster than -E grows, keeps it integrable. It
    is a ready energy: train it by `dg.contrastive(energy, x)`, `dg.score_matching` or
    `dg.noise_contrastive`, draw from it by `dg.mcmc(energy.program, None)` or from the chains of
    the fit, find its log Z with `dg.noise_contrastive` or `dg.log_z`.

    Args:
        net: E, a torch module or function of a batch (*batch, *event), to (*batch) or (*batch, 1);
            an `MLP` takes the last axis.
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
        >>> import deepgen_ppl.pyro as dg, pyro.distributions as dist
        >>> base = dist.Normal(0.0, 2.0).expand([2]).to_event(1)
        >>> energy = dg.EnergyModel(MLP(2, 1, (16,)), base)
        >>> x = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
        >>> energy.rank(x).tolist()  # the anomaly first
        [1, 0]
    """

    log_z: Evidence | None

    def __init__(self, net: Callable[..., Any], base: Any, *, power: float = 1.0) -> None:
        super().__init__()
        check_registered("net", net)
        self.net = net
        is_held = hasattr(base, "log_prob")
        self.learned_base = None if is_held else base
        self.held_base = base if is_held else None
        self.power = energies.check_number("power", power)
        self.log_z = None
        energies.check_base(self.base())

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return tuple(self.base().event_shape)

    def base(self) -> Any:
        """Return the base distribution."""
        make: Any = self.learned_base
        return self.held_base if self.held_base is not None else make()

    def energy(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the network's energy E, without base and power.

        Args:
            x: values.
        """
        found = self.net(x, None) if isinstance(self.net, MLP) else self.net(x)
        batch = x.shape[: x.dim() - len(self.event_shape)]
        return found.reshape(batch)

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
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
        x: Float[Tensor, "N ..."],
        *,
        num_steps: int = 500,
        step_size: float = 0.02,
    ) -> Float[Tensor, "N ..."]:
        """Return where the density's gradient leads from some values: modes, as MAP estimates.

        Args:
            x: values to set out from.
            num_steps: number of steps.
            step_size: length of the first steps, as Adam takes them, shrinking to zero.

        Cost:
            A gradient a step.
        """
        transform = biject_to(self.base().support)
        z = transform.inv(torch.as_tensor(x)).detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=step_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        for _ in range(num_steps):
            loss = -self.unnormalised_log_prob(transform(z)).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            optimizer.step()
            schedule.step()
        return transform(z).detach()
