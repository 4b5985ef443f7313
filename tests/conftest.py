"""Options shared by all tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the wing under test."""
    parser.addoption("--wing", default="numpyro", choices=("numpyro", "pyro"))
