"""Options and fixtures shared by all tests."""

import importlib
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C interrupt: a shell's background processes start with it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the wing under test."""
    parser.addoption("--wing", default="numpyro", choices=("numpyro", "pyro"))


@pytest.fixture(scope="session")
def wing(request: pytest.FixtureRequest) -> str:
    """Name of the wing under test."""
    return request.config.getoption("--wing")


@pytest.fixture(scope="session")
def dg(wing: str) -> ModuleType:
    """The wing under test, as a user imports it."""
    return importlib.import_module(f"deepgen_ppl.{wing}")


@pytest.fixture(scope="module", autouse=True)
def compiled_code_goes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let machine code go after each file: a process holds a bounded number of memory maps."""
    yield
    if request.config.getoption("--wing") == "numpyro" and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        compilation = sys.modules.get("deepgen_ppl.numpyro.compilation")
        if compilation is not None:
            compilation._KEPT.clear()
