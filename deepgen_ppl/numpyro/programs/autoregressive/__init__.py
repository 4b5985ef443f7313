"""Autoregressive distributions: modules that give native distributions by their conditionals."""

from deepgen_ppl.numpyro.programs.autoregressive.completion import Completion
from deepgen_ppl.numpyro.programs.autoregressive.distribution import AutoregressiveDistribution
from deepgen_ppl.numpyro.programs.autoregressive.fvsbn import FVSBN
from deepgen_ppl.numpyro.programs.autoregressive.logistic import DiscretizedLogisticMixture
from deepgen_ppl.numpyro.programs.autoregressive.made import MADE
from deepgen_ppl.numpyro.programs.autoregressive.module import Autoregressive, program
from deepgen_ppl.numpyro.programs.autoregressive.nade import NADE
from deepgen_ppl.numpyro.programs.autoregressive.outputs import (
    Bernoulli,
    Categorical,
    GaussianMixture,
    LogisticMixture,
    Output,
)
from deepgen_ppl.numpyro.programs.autoregressive.pixelcnn import PixelCNN
from deepgen_ppl.numpyro.programs.autoregressive.recurrent import Recurrent
from deepgen_ppl.numpyro.programs.autoregressive.transformer import Transformer

__all__ = [
    "FVSBN",
    "MADE",
    "NADE",
    "Autoregressive",
    "AutoregressiveDistribution",
    "Bernoulli",
    "Categorical",
    "Completion",
    "DiscretizedLogisticMixture",
    "GaussianMixture",
    "LogisticMixture",
    "Output",
    "PixelCNN",
    "Recurrent",
    "Transformer",
    "program",
]
