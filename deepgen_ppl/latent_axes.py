"""Priors and posteriors of latent codes: their options, and how many outputs encoders give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from deepgen_ppl import flow_checks
from deepgen_ppl.discrete_axes import (
    BinaryPosterior,
    BinaryPrior,
    CategoricalPosterior,
    CategoricalPrior,
)


@dataclass(frozen=True)
class StandardNormal:
    r"""The prior \(p(z) = \mathcal N(z; 0, I)\).

    Example:
        >>> StandardNormal().own(2)
        {}
    """

    name: ClassVar[str] = "normal"

    def own(self, latents: int) -> dict[str, np.ndarray]:
        """Return nothing: it learns nothing."""
        return {}


@dataclass(frozen=True)
class MixturePrior:
    r"""The prior \(p(z) = \sum_k w_k\, \mathcal N(z; m_k, \mathrm{diag}(s_k^2))\), all learned.

    Args:
        components: number of components.
        spread: standard deviation of the locations at first.
        seed: seed of the locations at first.

    Raises:
        ValueError: options that are no such numbers.

    Example:
        >>> sorted(MixturePrior(3).own(2))
        ['locs', 'log_scales', 'logits']
    """

    name: ClassVar[str] = "mixture"
    components: int = 10
    spread: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        flow_checks.whole("components", self.components)
        flow_checks.positive("spread", self.spread)

    def own(self, latents: int) -> dict[str, np.ndarray]:
        """Return logits, locations and log scales at first."""
        size, rng = self.components, np.random.default_rng(self.seed)
        return {
            "logits": np.zeros(size),
            "locs": self.spread * rng.normal(size=(size, latents)),
            "log_scales": np.zeros((size, latents)),
        }


@dataclass(frozen=True, eq=False)
class VampPrior:
    r"""The prior \(p(z) = \sum_k w_k\, q(z \mid u_k)\): the encoder at learned pseudo-inputs.

    Args:
        components: number of pseudo-inputs.
        inputs: pseudo-inputs at first, as the encoder sees data, shape (components, *features);
            rows of the training data are a good choice. Noise around 1/2 when None.
        seed: seed of that noise.

    Raises:
        ValueError: options that are no such numbers.

    References:
        Tomczak, Welling: VAE with a VampPrior. AISTATS 2018. https://arxiv.org/abs/1705.07120

    Example:
        >>> VampPrior(3).own((4,))["inputs"].shape
        (3, 4)
    """

    name: ClassVar[str] = "vamp"
    components: int = 10
    inputs: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        flow_checks.whole("components", self.components)

    def own(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return logits and pseudo-inputs at first.

        Args:
            shape: shape of a datum as the encoder sees it.

        Raises:
            ValueError: inputs of another shape.
        """
        return {"logits": np.zeros(self.components), "inputs": self._inputs(shape)}

    def _inputs(self, shape: tuple[int, ...]) -> np.ndarray:
        expected = (self.components, *shape)
        if self.inputs is None:
            return 0.5 + 0.1 * np.random.default_rng(self.seed).normal(size=expected)
        found = np.asarray(self.inputs, float)
        if found.shape != expected:
            raise ValueError(
                f"inputs of VampPrior({self.components}) must have shape {expected}, as the "
                f"encoder sees data, got {found.shape}."
            )
        return found


@dataclass(frozen=True)
class HierarchicalPrior:
    r"""The prior \(p(z) = p(z_L) \prod_{l<L} p(z_l \mid z_{l+1})\), latents in layers.

    The topmost layer is standard normal, each other one normal given the one above, location and
    log scale by a perceptron. The layers stand side by side in z, the lowest first; it alone is
    what the decoder sees.

    Args:
        sizes: number of latents of each layer, the lowest first, any number of layers.
        hidden: units of the hidden layers of each perceptron.
        activation: of the perceptrons.
        seed: seed of their weights.

    Raises:
        ValueError: fewer than two layers, or options that are no such numbers.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther: Ladder variational autoencoders. NeurIPS 2016.
        https://arxiv.org/abs/1602.02282

    Example:
        >>> HierarchicalPrior((8, 4, 2)).bottom
        8
    """

    name: ClassVar[str] = "hierarchical"
    sizes: tuple[int, ...]
    hidden: tuple[int, ...] = (64,)
    activation: str = "relu"
    seed: int = 0

    def __post_init__(self) -> None:
        for number, size in enumerate(self.sizes):
            flow_checks.whole(f"sizes[{number}]", size)
        if len(self.sizes) < 2:
            raise ValueError(
                f"sizes={self.sizes}: a hierarchical prior has two layers at least, the lowest "
                "first, such as (8, 4)."
            )

    @property
    def bottom(self) -> int:
        """Number of latents of the lowest layer, which the decoder sees."""
        return self.sizes[0]


@dataclass(frozen=True)
class Diagonal:
    r"""The posterior \(q(z \mid x) = \mathcal N(z; m, \mathrm{diag}(s^2))\).

    The encoder gives \(m\), then \(\log s\).

    Example:
        >>> Diagonal().outputs(5)
        10
    """

    name: ClassVar[str] = "diagonal"

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return 2 * latents

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        return f"{latents} locations and {latents} log scales"


@dataclass(frozen=True)
class FullCovariance:
    r"""The posterior \(q(z \mid x) = \mathcal N(z; m, L L^\top)\) with all correlations.

    The encoder gives \(m\), then the logarithms of the diagonal of \(L\), then what is below it,
    row by row.

    Example:
        >>> FullCovariance().outputs(3)
        9
    """

    name: ClassVar[str] = "full"

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return 2 * latents + latents * (latents - 1) // 2

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        below = latents * (latents - 1) // 2
        return f"{latents} locations, {latents} log scales and {below} entries below the diagonal"


@dataclass(frozen=True)
class MixturePosterior:
    r"""The posterior \(q(z \mid x) = \sum_k w_k\, \mathcal N(z; m_k, \mathrm{diag}(s_k^2))\).

    The encoder gives K logits, then K rows of locations, then K rows of log scales. Gradients are
    those of its distribution function, so that no score function is needed.

    Args:
        components: number K of components.

    Raises:
        ValueError: no whole number.

    References:
        Figurnov, Mohamed, Mnih: Implicit reparameterization gradients. NeurIPS 2018.
        https://arxiv.org/abs/1805.08498

    Example:
        >>> MixturePosterior(3).outputs(2)
        15
    """

    name: ClassVar[str] = "mixture"
    components: int = 5

    def __post_init__(self) -> None:
        flow_checks.whole("components", self.components)

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return self.components * (1 + 2 * latents)

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        return f"{self.components} logits and as many rows of {latents} locations and log scales"


@dataclass(frozen=True)
class FlowPosterior:
    r"""The posterior \(z = m + s \odot f(\epsilon; h)\), \(\epsilon \sim \mathcal N(0, I)\).

    The encoder gives \(m\), \(\log s\) and the context \(h\) of the flow \(f\).

    Args:
        flow: name of a flow of `dg.flows`, such as "IAF" or "NSF", or a function of (features,
            context, seed) that makes one.
        embedding: number of context features.
        options: further options of the flow, such as {"transforms": 2, "hidden": (32,)}.
        seed: seed of its weights.

    Raises:
        ValueError: an embedding that is no whole number.

    References:
        Kingma et al.: Improved variational inference with inverse autoregressive flow. NeurIPS
        2016. https://arxiv.org/abs/1606.04934

    Example:
        >>> FlowPosterior("IAF", embedding=8).outputs(2)
        12
    """

    name: ClassVar[str] = "flow"
    flow: str | Callable[..., Any] = "IAF"
    embedding: int = 16
    options: Mapping[str, Any] = field(default_factory=lambda: {"transforms": 2, "hidden": (64,)})
    seed: int = 0

    def __post_init__(self) -> None:
        flow_checks.whole("embedding", self.embedding)

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return 2 * latents + self.embedding

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        return f"{latents} locations, {latents} log scales and {self.embedding} context features"


@dataclass(frozen=True)
class LadderPosterior:
    r"""The posterior of a `HierarchicalPrior` that goes down with it and merges both at each layer.

    $$q(z_l \mid z_{l+1}, x) \propto p(z_l \mid z_{l+1})\,
      \mathcal N\bigl(z_l; \hat m_l(x), \hat s_l^2(x)\bigr)$$

    The topmost layer is normal with the encoder's numbers alone. The encoder gives the locations
    of all layers, the lowest first, then their log scales; one made from hidden layers goes up from
    layer to layer.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther: Ladder variational autoencoders. NeurIPS 2016.
        https://arxiv.org/abs/1602.02282

    Example:
        >>> LadderPosterior().outputs(6)
        12
    """

    name: ClassVar[str] = "ladder"

    def outputs(self, latents: int) -> int:
        """Outputs of the encoder."""
        return 2 * latents

    def parts(self, latents: int) -> str:
        """What the outputs are, in words."""
        return f"{latents} locations and {latents} log scales, of all layers"


PRIORS: dict[str, Any] = {
    "normal": StandardNormal,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "binary": BinaryPrior,
    "categorical": CategoricalPrior,
}
POSTERIORS: dict[str, Any] = {
    "diagonal": Diagonal,
    "full": FullCovariance,
    "flow": FlowPosterior,
    "mixture": MixturePosterior,
    "ladder": LadderPosterior,
    "binary": BinaryPosterior,
    "categorical": CategoricalPosterior,
}


def posterior(value: Any) -> Any:
    """Return the posterior that is meant.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a posterior.

    Example:
        >>> posterior("full")
        FullCovariance()
    """
    if isinstance(value, str):
        return POSTERIORS[flow_checks.choice("posterior", value, tuple(POSTERIORS))]()
    if not isinstance(value, tuple(POSTERIORS.values())):
        raise TypeError(
            f"posterior must be one of {', '.join(map(repr, POSTERIORS))} or one of dg.vae such as "
            f"MixturePosterior(3), not {type(value).__name__}. An encoder that returns a "
            "distribution of the language brings its own."
        )
    return value


def check_layers(prior: Any, posterior: Any, latents: int) -> None:
    """Refuse layers of latents that do not fit.

    Raises:
        ValueError: naming the axes that do not go together.

    Example:
        >>> check_layers(HierarchicalPrior((4, 2)), Diagonal(), 4)
        Traceback (most recent call last):
        ...
        ValueError: the layers of the prior have 4 + 2 = 6 latents, but latents=4. Make both equal.
    """
    sizes = getattr(prior, "sizes", None) if getattr(prior, "name", "") == "hierarchical" else None
    if sizes is None and posterior.name == "ladder":
        raise ValueError(
            "posterior='ladder' goes down with a prior in layers: take "
            "prior=dg.vae.HierarchicalPrior((8, 4)) or the like, or another posterior."
        )
    if sizes is not None and sum(sizes) != latents:
        raise ValueError(
            f"the layers of the prior have {' + '.join(map(str, sizes))} = {sum(sizes)} latents, "
            f"but latents={latents}. Make both equal."
        )
