"""Run once per wing: `pytest tests/exactness --wing numpyro` and again with `--wing pyro`."""

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def programs(wing: str) -> ModuleType:
    """The conjugate programs in the wing's language."""
    return importlib.import_module(f"{__package__}.programs_{wing}")


@pytest.fixture
def float64(wing: str) -> Iterator[None]:
    """Double precision as the default of the wing's language, put back afterwards."""
    if wing == "numpyro":
        import jax

        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", before)
    else:
        import torch

        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(default)
