"""Draws under `torch.func.vmap`: samplers that fill a new tensor in place, in a form it can map."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ROOMS = ("torch.distributions", "pyro.distributions")


def _normal(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return mean + std * torch.randn(x.shape, dtype=x.dtype, device=x.device)


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(x.shape, dtype=x.dtype, device=x.device)


def _exponential(x: Tensor, lambd: float = 1.0) -> Tensor:
    return -torch.log1p(-_uniform(x)).clamp(max=-torch.finfo(x.dtype).tiny) / lambd


def _cauchy(x: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    return median + sigma * torch.tan(math.pi * (_uniform(x) - 0.5))


_DRAWS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    Tensor.normal_: _normal,
    Tensor.uniform_: _uniform,
    Tensor.exponential_: _exponential,
    Tensor.cauchy_: _cauchy,
}


class _OutOfPlace(TorchFunctionMode):
    """Let the distributions' own code draw a new tensor where it would fill an empty one."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        draw = _DRAWS.get(func)
        if draw is not None and sys._getframe(1).f_globals["__name__"].startswith(_ROOMS):
            return draw(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def mappable_draws() -> Iterator[None]:
    r"""Let the samplers of torch and Pyro run under `torch.func.vmap`, each draw its own.

    `torch.func.vmap` refuses to fill an empty tensor with different numbers for each of its copies,
    which is how normal, exponential and Cauchy draws are made; inside this context they are made
    out of place, as \(-\log(1 - u)\) and \(\tan \pi(u - \frac12)\) of uniform numbers for the
    latter two.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros(2), 1.0)
        >>> mapped = torch.func.vmap(lambda _: normal.rsample(), randomness="different")
        >>> with mappable_draws():
        ...     mapped(torch.ones(3)).shape
        torch.Size([3, 2])
    """
    with _OutOfPlace():
        yield
