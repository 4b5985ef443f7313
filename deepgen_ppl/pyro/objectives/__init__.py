"""Training objectives, one a file: each reduces log weights to a loss."""

from deepgen_ppl.pyro.objectives.elbo import ELBO
from deepgen_ppl.pyro.objectives.enumerated import EnumeratedELBO
from deepgen_ppl.pyro.objectives.exact_marginal import ExactMarginal
from deepgen_ppl.pyro.objectives.iwae import IWAE
from deepgen_ppl.pyro.objectives.native import Native, as_objective
from deepgen_ppl.pyro.objectives.relaxed import RelaxedELBO
from deepgen_ppl.pyro.objectives.renyi import Renyi

__all__ = [
    "ELBO",
    "IWAE",
    "EnumeratedELBO",
    "ExactMarginal",
    "Native",
    "RelaxedELBO",
    "Renyi",
    "as_objective",
]
