"""Variational autoencoders: their axes as objects with options."""

from deepgen_ppl.latent_axes import (
    Diagonal,
    FlowPosterior,
    FullCovariance,
    HierarchicalPrior,
    LadderPosterior,
    MixturePosterior,
    MixturePrior,
    StandardNormal,
    VampPrior,
)
from deepgen_ppl.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Diagonal",
    "DiscretizedLogistic",
    "FlowPosterior",
    "FullCovariance",
    "Gaussian",
    "HierarchicalPrior",
    "LadderPosterior",
    "MixturePosterior",
    "MixturePrior",
    "NegativeBinomial",
    "Poisson",
    "StandardNormal",
    "StudentT",
    "VampPrior",
]
