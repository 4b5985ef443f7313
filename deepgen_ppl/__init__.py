"""deepgen_ppl: deep generative models as Pyro and NumPyro programs, and how good the answer is.

Import one wing: ``import deepgen_ppl.numpyro as dg`` or ``import deepgen_ppl.pyro as dg``. This
package itself holds the rooms both wings share: it imports neither JAX nor PyTorch.
"""

__version__ = "0.1.0"

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.bounds import Bound, EvidenceBounds
from deepgen_ppl.calibration import Calibration
from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.exact_posterior import ExactPosterior
from deepgen_ppl.factor_graph import Factor, FactorGraph
from deepgen_ppl.posterior import Posterior

__all__ = [
    "BayesNet", "Bound", "Calibration", "Check", "Diagnosis", "Evidence", "EvidenceBounds",
    "ExactPosterior", "Factor", "FactorGraph", "Posterior", "__version__",
]  # fmt: skip
