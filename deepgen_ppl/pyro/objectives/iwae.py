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
        estimator: "standard", "dreg" (doubly reparametrised: unbiased, of less variance, with a
            signal that does not drown in noise as K grows) or "stl" (the score of q left out:
            biased where K > 1), as of `Renyi`.

    Raises:
        ValueError: `num_particles` is not positive, or the estimator is unknown.

    Cost:
        K passes through model and guide per step; "dreg" takes one more forward through the model
        and two through the guide, "stl" one through the guide.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. 2016.
        https://arxiv.org/abs/1509.00519
        Tucker, Lawson, Gu, Maddison: Doubly reparameterized gradient estimators. 2018.
        https://arxiv.org/abs/1810.04152
        Rainforth et al.: Tighter variational bounds are not necessarily better. 2018.
        https://arxiv.org/abs/1802.04537

    Example:
        >>> IWAE(num_particles=16, estimator="dreg")
        IWAE(num_particles=16, estimator='dreg')
    """

    alpha: float = field(default=0.0, init=False, repr=False)
    num_particles: int = 8
