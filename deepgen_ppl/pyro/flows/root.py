"""The numerical inverse of increasing functions, elementwise, with the implicit gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl.pyro.flows.layer import is_concrete

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]


def invert(
    f: Increasing,
    y: Float[Tensor, "*shape"],
    low: Tensor,
    high: Tensor,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> Float[Tensor, "*shape"]:
    r"""Return x with f(x) = y by Newton's steps, and a bisection where one leaves the bracket.

    Its gradient is that of the implicit function theorem,
    \( dx = (dy - \partial_\theta f\,d\theta) / f'(x) \), whatever the steps were.

    Args:
        f: an increasing function; it returns value and log slope, and may be differentiated to what
            it closes over.
        y: the values.
        low: a point below x.
        high: a point above x.
        max_steps: most steps; values that need more are NaN.
        tolerance: width of the bracket, or error of f, that is enough, relative to 1 + |x| or
            1 + |y|; 4 times the precision of the numbers when None.

    Cost:
        One f a step, about 5 steps for smooth functions and 60 at most in float64; all `max_steps`
        where values cannot be looked at, as under `vmap`.

    Example:
        >>> f = lambda x: (x + torch.tanh(x), torch.log1p(1.0 - torch.tanh(x) ** 2))
        >>> x = invert(f, torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0]))
        >>> round(x.item(), 4)
        1.1743
    """
    enough = 4.0 * torch.finfo(y.dtype).eps if tolerance is None else tolerance
    with torch.no_grad():
        target = y.detach()
        low, high = (v.detach().expand(y.shape).to(y.dtype) for v in (low, high))
        x = 0.5 * (low + high)
        done = torch.zeros_like(target, dtype=torch.bool)
        for _ in range(max_steps):
            value, log_slope = (v.detach() for v in f(x))
            error = value - target
            low, high = torch.where(error <= 0, x, low), torch.where(error >= 0, x, high)
            newton = x - error * torch.exp(-log_slope)
            inside = (newton > low) & (newton < high)
            done = (error.abs() <= enough * (1.0 + target.abs())) | (
                high - low <= enough * (1.0 + x.abs())
            )
            better = torch.where(inside, newton, 0.5 * (low + high))
            x = torch.where(done, x, better)
            if is_concrete(done) and bool(done.all()):
                break
        x = torch.where(done, x, torch.nan).detach()
    value, log_slope = f(x)
    return x - (value - y) * torch.exp(-log_slope.detach())


def bracket(f: Increasing, y: Float[Tensor, "*shape"], most: int = 40) -> tuple[Tensor, Tensor]:
    """Return a point below and one above the x with f(x) = y, by doubling from -1 and 1.

    Args:
        f: an increasing function.
        y: the values.
        most: most doublings.

    Example:
        >>> [v.tolist() for v in bracket(lambda x: (x, x), torch.tensor([3.0]))]
        [[-1.0], [4.0]]
    """
    with torch.no_grad():
        target = y.detach()
        low, high = -torch.ones_like(target), torch.ones_like(target)
        for _ in range(most):
            below, above = f(low)[0].detach() > target, f(high)[0].detach() < target
            low, high = torch.where(below, 2.0 * low, low), torch.where(above, 2.0 * high, high)
            if is_concrete(target) and not bool((below | above).any()):
                break
    return low, high
