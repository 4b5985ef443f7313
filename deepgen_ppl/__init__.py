"""deepgen_ppl: deep generative models as Pyro and NumPyro programs, fitted, checked and handed to ArviZ.

Import one wing: ``import deepgen_ppl.numpyro as dg`` or ``import deepgen_ppl.pyro as dg``. This package itself holds
the rooms that both wings share and needs NumPy only: it imports neither JAX nor PyTorch.
"""

from deepgen_ppl.evidence import Evidence

__version__ = "0.1.0"

__all__ = ["Evidence", "__version__"]
