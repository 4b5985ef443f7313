"""Run once per wing: `pytest tests/exactness --wing numpyro` and again with `--wing pyro`."""

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def wing(request: pytest.FixtureRequest) -> str:
    """Name of the wing under test."""
    return request.config.getoption("--wing")


@pytest.fixture(scope="session")
def dg(wing: str) -> ModuleType:
    """The wing under test, as a user imports it."""
    return importlib.import_module(f"deepgen_ppl.{wing}")


@pytest.fixture(scope="session")
def programs(wing: str) -> ModuleType:
    """The conjugate programs in the wing's language."""
    return importlib.import_module(f"{__package__}.programs_{wing}")
