"""Likelihoods of decoders: their options, how many outputs they take, which data they accept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from deepgen_ppl import flow_checks

_WHERE = ("shared", "feature", "decoder")


class Likelihood(ABC):
    """What every likelihood of a decoder tells of itself.

    Attributes:
        name: its name as a string option.
        domain: the values it takes, in words.
        cure: what to do with other values.
        states: number of states of a feature that the encoder sees one-hot, 0 for numbers.
    """

    name: ClassVar[str]
    domain: str
    cure: str
    states: int = 0

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Outputs of the decoder for each feature."""

    @abstractmethod
    def inside(self, x: np.ndarray) -> np.ndarray:
        """Return which values it takes."""

    def own(self, features: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the values that it learns beside the decoder, as they are at first."""
        return {}

    def encoded(self, x: Any) -> Any:
        """Return data as an encoder sees them, on arrays of either language."""
        return x


def _where(name: str, value: Any) -> Any:
    """Check where a scale comes from.

    Raises:
        ValueError: it is neither a positive number nor one of the words.
    """
    if isinstance(value, str):
        return flow_checks.choice(name, value, _WHERE)
    return flow_checks.positive(name, value)


def _own(name: str, where: Any, features: tuple[int, ...]) -> dict[str, np.ndarray]:
    shapes: dict[Any, tuple[int, ...]] = {"shared": (), "feature": features}
    return {name: np.zeros(shapes[where])} if where in shapes else {}


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    r"""Binary features: \(p(x \mid z) = \sigma(f)^x (1 - \sigma(f))^{1 - x}\), f the decoder.

    Example:
        >>> Bernoulli().outputs
        1
    """

    name: ClassVar[str] = "bernoulli"
    domain: ClassVar[str] = "0 or 1"
    cure: ClassVar[str] = (
        "Binarise them, or take likelihood='continuous_bernoulli' for values in [0, 1]."
    )

    @property
    def outputs(self) -> int:
        """One logit."""
        return 1

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take zeros and ones."""
        return (x == 0) | (x == 1)


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    r"""Features in [0, 1], normalised: \(p(x \mid z) = C(\lambda) \lambda^x (1 - \lambda)^{1-x}\).

    References:
        Loaiza-Ganem, Cunningham: The continuous Bernoulli, fixing a pervasive error in variational
        autoencoders. NeurIPS 2019. https://arxiv.org/abs/1907.06845

    Example:
        >>> ContinuousBernoulli().inside(np.array([0.5, 2.0])).tolist()
        [True, False]
    """

    name: ClassVar[str] = "continuous_bernoulli"
    domain: ClassVar[str] = "in [0, 1]"
    cure: ClassVar[str] = "Scale them to [0, 1], or take likelihood='gaussian' for other numbers."

    @property
    def outputs(self) -> int:
        """One logit of λ."""
        return 1

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take numbers from zero to one."""
        return (x >= 0) & (x <= 1)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    r"""Real features: \(p(x \mid z) = \mathcal N(x; f, s^2)\).

    Args:
        scale: s: "shared" (one learned number), "feature" (one learned for each feature), "decoder"
            (an output of the decoder, its logarithm) or a fixed positive number.

    Raises:
        ValueError: a scale that is none of these.

    Example:
        >>> Gaussian(scale="decoder").outputs
        2
    """

    name: ClassVar[str] = "gaussian"
    domain: ClassVar[str] = "finite"
    cure: ClassVar[str] = "Drop these rows, or mask the cells."
    scale: float | str = "shared"

    def __post_init__(self) -> None:
        _where("scale", self.scale)

    @property
    def outputs(self) -> int:
        """The mean, and the logarithm of a scale of the decoder's."""
        return 1 + (self.scale == "decoder")

    def own(self, features: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the logarithm of a learned scale."""
        return _own("log_scale", self.scale, features)

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take finite numbers."""
        return np.isfinite(x)


@dataclass(frozen=True)
class StudentT(Likelihood):
    r"""Real features with outliers: Student's t around the decoder's output.

    Args:
        df: degrees of freedom, a positive number or "shared" to learn it.
        scale: as of `Gaussian`.

    Raises:
        ValueError: options that are none of these.

    Example:
        >>> sorted(StudentT(df="shared").own((2,)))
        ['log_df', 'log_scale']
    """

    name: ClassVar[str] = "student_t"
    domain: ClassVar[str] = "finite"
    cure: ClassVar[str] = "Drop these rows, or mask the cells."
    df: float | str = 4.0
    scale: float | str = "shared"

    def __post_init__(self) -> None:
        _where("scale", self.scale)
        if self.df != "shared":
            flow_checks.positive("df", self.df)

    @property
    def outputs(self) -> int:
        """The location, and the logarithm of a scale of the decoder's."""
        return 1 + (self.scale == "decoder")

    def own(self, features: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the logarithms of what is learned."""
        found = _own("log_scale", self.scale, features)
        return found | ({"log_df": np.log(np.full((), 4.0))} if self.df == "shared" else {})

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take finite numbers."""
        return np.isfinite(x)


@dataclass(frozen=True)
class DiscretizedLogistic(Likelihood):
    r"""Whole numbers from 0 to levels - 1, as of pixels: a logistic density, summed by level.

    $$p(x \mid z) = \sum_k w_k \bigl[\sigma((x^+ - \mu_k)/s_k) - \sigma((x^- - \mu_k)/s_k)\bigr]$$

    with the edges of the level on a scale from -1 to 1; the outermost levels hold the tails.

    Args:
        levels: number of levels.
        components: number K of logistics; each takes a weight, a location and a scale.

    Raises:
        ValueError: no whole numbers, or fewer than two levels.

    References:
        Salimans, Karpathy, Chen, Kingma: PixelCNN++. ICLR 2017. https://arxiv.org/abs/1701.05517

    Example:
        >>> DiscretizedLogistic(256, components=5).outputs
        15
    """

    name: ClassVar[str] = "discretized_logistic"
    levels: int = 256
    components: int = 1

    def __post_init__(self) -> None:
        flow_checks.whole("levels", self.levels, 2)
        flow_checks.whole("components", self.components)

    @property
    def domain(self) -> str:  # type: ignore[override]
        """The levels."""
        return f"a whole number from 0 to {self.levels - 1}"

    @property
    def cure(self) -> str:  # type: ignore[override]
        """What to do with other values."""
        return f"Round them to {self.levels} levels, or pass DiscretizedLogistic(levels=...)."

    @property
    def outputs(self) -> int:
        """Location and log scale, and a logit of each component of several."""
        return 2 if self.components == 1 else 3 * self.components

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take levels."""
        return (x == np.round(x)) & (x >= 0) & (x < self.levels)

    def encoded(self, x: Any) -> Any:
        """Return levels scaled to -1 to 1."""
        return 2.0 * x / (self.levels - 1) - 1.0


@dataclass(frozen=True)
class Categorical(Likelihood):
    r"""States without an order: \(p(x = s \mid z) = \mathrm{softmax}(f)_s\). Encoders see one-hot.

    Args:
        states: number of states.

    Raises:
        ValueError: fewer than two states.

    Example:
        >>> Categorical(4).outputs
        4
    """

    name: ClassVar[str] = "categorical"
    states: int = 2

    def __post_init__(self) -> None:
        flow_checks.whole("states", self.states, 2)

    @property
    def domain(self) -> str:  # type: ignore[override]
        """The states."""
        return f"a whole number from 0 to {self.states - 1}"

    @property
    def cure(self) -> str:  # type: ignore[override]
        """What to do with other values."""
        return "Number the states from 0, or pass Categorical(states=...)."

    @property
    def outputs(self) -> int:
        """A logit of each state."""
        return self.states

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take states."""
        return (x == np.round(x)) & (x >= 0) & (x < self.states)


@dataclass(frozen=True)
class Poisson(Likelihood):
    r"""Counts: \(p(x \mid z) = \mathrm{Poisson}(x; e^f)\), some of them zero for another reason.

    Args:
        zero_inflated: whether a further output is the logit of a zero that is no count.

    Example:
        >>> Poisson(zero_inflated=True).outputs
        2
    """

    name: ClassVar[str] = "poisson"
    domain: ClassVar[str] = "a whole number of at least 0"
    cure: ClassVar[str] = "Pass counts, or take likelihood='gaussian' for other numbers."
    zero_inflated: bool = False

    @property
    def outputs(self) -> int:
        """The log rate, and the logit of a zero."""
        return 1 + self.zero_inflated

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take counts."""
        return (x == np.round(x)) & (x >= 0) & np.isfinite(x)


@dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    r"""Counts that vary more than Poisson's: mean \(\mu = e^f\), variance \(\mu + \mu^2 / r\).

    Args:
        concentration: r: "feature" (one learned for each feature), "shared", "decoder" (an output
            of the decoder, its logarithm) or a fixed positive number.
        zero_inflated: whether a further output is the logit of a zero that is no count.

    Raises:
        ValueError: a concentration that is none of these.

    References:
        Lopez, Regier, Cole, Jordan, Yosef: Deep generative modeling for single-cell
        transcriptomics. Nature Methods 15, 2018.

    Example:
        >>> NegativeBinomial("decoder", zero_inflated=True).outputs
        3
    """

    name: ClassVar[str] = "negative_binomial"
    domain: ClassVar[str] = "a whole number of at least 0"
    cure: ClassVar[str] = "Pass counts, or take likelihood='gaussian' for other numbers."
    concentration: float | str = "feature"
    zero_inflated: bool = False

    def __post_init__(self) -> None:
        _where("concentration", self.concentration)

    @property
    def outputs(self) -> int:
        """The log mean, the log concentration of the decoder's, and the logit of a zero."""
        return 1 + (self.concentration == "decoder") + self.zero_inflated

    def own(self, features: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the logarithm of a learned concentration."""
        return _own("log_concentration", self.concentration, features)

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Take counts."""
        return (x == np.round(x)) & (x >= 0) & np.isfinite(x)


NAMED: dict[str, Likelihood] = {
    "bernoulli": Bernoulli(),
    "continuous_bernoulli": ContinuousBernoulli(),
    "gaussian": Gaussian(),
    "student_t": StudentT(),
    "discretized_logistic": DiscretizedLogistic(),
    "categorical": Categorical(),
    "poisson": Poisson(),
    "zero_inflated_poisson": Poisson(zero_inflated=True),
    "negative_binomial": NegativeBinomial(),
    "zero_inflated_negative_binomial": NegativeBinomial(zero_inflated=True),
}


def likelihood(value: Any) -> Likelihood:
    """Return the likelihood that is meant.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a likelihood.

    Example:
        >>> likelihood("poisson")
        Poisson(zero_inflated=False)
    """
    if isinstance(value, str):
        return NAMED[flow_checks.choice("likelihood", value, tuple(NAMED))]
    if not isinstance(value, Likelihood):
        raise TypeError(
            f"likelihood must be one of {', '.join(map(repr, NAMED))} or one of dg.vae such as "
            f"Gaussian(scale=0.1), not {type(value).__name__}. A decoder that returns a "
            "distribution of the language brings its own."
        )
    return value
