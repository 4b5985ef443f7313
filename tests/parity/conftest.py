"""Parity is checked in double precision on both sides."""

from collections.abc import Iterator

import jax
import pytest
import torch


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Double precision as the default of both languages, put back afterwards."""
    before = jax.config.jax_enable_x64, torch.get_default_dtype()
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    yield
    jax.config.update("jax_enable_x64", before[0])
    torch.set_default_dtype(before[1])
