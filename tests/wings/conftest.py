"""Contract tests, run once per wing: `pytest tests/wings --wing numpyro`, then `--wing pyro`."""

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def zoo(wing: str) -> ModuleType:
    """The same native programs in the wing's language: `tests/wings/zoo_<wing>.py`."""
    path = f"{__package__}.zoo_{wing}" if __package__ else f"zoo_{wing}"
    return importlib.import_module(path)
