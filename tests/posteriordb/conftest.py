"""Each language's tests run in a process of its own: `--wing` chooses whose are collected."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the other wing's file out of a run of the folder."""
    other = "pyro" if config.getoption("--wing") == "numpyro" else "numpyro"
    return True if collection_path.name.endswith(f"_{other}.py") else None
