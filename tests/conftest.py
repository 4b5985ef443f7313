"""Options shared by all tests."""

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C interrupt: a shell's background processes start with it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the wing under test."""
    parser.addoption("--wing", default="numpyro", choices=("numpyro", "pyro"))
