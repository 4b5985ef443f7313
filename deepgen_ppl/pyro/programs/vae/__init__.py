"""Variational autoencoders: their axes as objects with options."""

from deepgen_ppl.latent_axes import (
    BinaryPosterior,
    BinaryPrior,
    CategoricalPosterior,
    CategoricalPrior,
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
from deepgen_ppl.pyro.image_nets import ConvDecoder, ConvEncoder, ResidualMLP
from deepgen_ppl.pyro.relaxation import OneHots

__all__ = [
    "Bernoulli",
    "BinaryPosterior",
    "BinaryPrior",
    "Categorical",
    "CategoricalPosterior",
    "CategoricalPrior",
    "ContinuousBernoulli",
    "ConvDecoder",
    "ConvEncoder",
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
    "OneHots",
    "Poisson",
    "ResidualMLP",
    "StandardNormal",
    "StudentT",
    "VampPrior",
]
