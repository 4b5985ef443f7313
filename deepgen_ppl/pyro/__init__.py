"""The Pyro wing: fit, sample, check and predict with native Pyro programs."""

from deepgen_ppl.pyro.compilation import use_compilation_cache
from deepgen_ppl.pyro.infer.fit import Fit, load_fit
from deepgen_ppl.pyro.infer.importance import importance
from deepgen_ppl.pyro.infer.svi import svi
from deepgen_ppl.pyro.infer.train import NonFiniteError
from deepgen_ppl.pyro.objectives import ELBO, IWAE, Renyi
