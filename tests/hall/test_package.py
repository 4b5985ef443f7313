"""Package: importing it stays light."""

import subprocess
import sys

HEAVY = ("jax", "torch", "numpyro", "pyro", "matplotlib", "xarray", "arviz_base", "arviz_stats")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, deepgen_ppl; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_and_draws_are_made_without_arviz():
    code = (
        "import sys, numpy as np\n"
        "from deepgen_ppl import Posterior\n"
        "Posterior({'z': np.zeros((1, 20))}, log_weights=np.zeros((1, 20))).resample()\n"
        "print('arviz_stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
