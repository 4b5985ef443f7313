"""The importance-weighted bound: the log of the mean of several weights per datum."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepgen_ppl.pyro.objectives.renyi import Renyi


@dataclass(frozen=True)
class IWAE(Renyi):
    r"""The negative importance-weighted bound with K particles, row by row where latents are local.

    $$\mathcal L_K = \sum_i \mathbb E\Bigl[\log \frac1K \sum_{k=1}^K w_{ik}\Bigr] \le \log p(x),
    \qquad w_{ik} = \frac{p(x_i, z_{ik})}{q(z_{ik} \mid x_i)}$$

    It is the Rényi bound of order 0 and approaches the log evidence as K grows.

    Args:
        num_particles: draws K of the latents per step.

    Raises:
        ValueError: `num_particles` is not positive.

    Cost:
        K passes through model and guide per step.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. 2016.
        https://arxiv.org/abs/1509.00519

    Example:
        >>> IWAE(num_particles=16)
        IWAE(num_particles=16)
    """

    alpha: float = field(default=0.0, init=False, repr=False)
    num_particles: int = 8
