"""Contract tests, run once per wing: `pytest tests/wings --wing numpyro`, then `--wing pyro`."""

import importlib
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def zoo(wing: str) -> ModuleType:
    """The same native programs in the wing's language: `tests/wings/zoo_<wing>.py`."""
    path = f"{__package__}.zoo_{wing}" if __package__ else f"zoo_{wing}"
    return importlib.import_module(path)


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest, wing: str) -> ModuleType:
    """The programs of a test file in the wing's language: `tests/wings/<PROGRAMS>_<wing>.py`."""
    return importlib.import_module(f"{__package__}.{request.module.PROGRAMS}_{wing}")


@pytest.fixture(scope="session")
def exact(dg: ModuleType) -> Any:
    """The verb, without the package around it."""
    return dg.exact
