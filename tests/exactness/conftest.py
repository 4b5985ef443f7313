"""Run once per wing: `pytest tests/exactness --wing numpyro` and again with `--wing pyro`."""

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def programs(wing: str) -> ModuleType:
    """The conjugate programs in the wing's language."""
    return importlib.import_module(f"{__package__}.programs_{wing}")
