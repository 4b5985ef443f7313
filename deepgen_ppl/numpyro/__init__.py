"""The NumPyro wing: native NumPyro programs fitted, weighed, sampled and checked."""

try:
    import numpyro as _numpyro  # noqa: F401
    import optax as _optax  # noqa: F401
except ImportError as error:
    raise ImportError(
        "deepgen_ppl.numpyro needs JAX, NumPyro and optax: pip install 'deepgen_ppl[numpyro]'"
    ) from error

from deepgen_ppl import Check, Diagnosis, Evidence, Posterior
from deepgen_ppl.loop import NonFiniteError, Progress
from deepgen_ppl.numpyro.compilation import use_compilation_cache
from deepgen_ppl.numpyro.infer.fit import Fit, load_fit
from deepgen_ppl.numpyro.infer.importance import importance
from deepgen_ppl.numpyro.infer.mcmc import mcmc
from deepgen_ppl.numpyro.infer.predict import predict
from deepgen_ppl.numpyro.infer.svi import svi
from deepgen_ppl.numpyro.objectives import ELBO, IWAE, Renyi
from deepgen_ppl.report import report

__all__ = [
    "ELBO",
    "IWAE",
    "Check",
    "Diagnosis",
    "Evidence",
    "Fit",
    "NonFiniteError",
    "Posterior",
    "Progress",
    "Renyi",
    "importance",
    "load_fit",
    "mcmc",
    "predict",
    "report",
    "svi",
    "use_compilation_cache",
]
