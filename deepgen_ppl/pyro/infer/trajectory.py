"""A trajectory of the No-U-Turn sampler: traced leapfrog steps, bookkeeping in plain numbers."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepgen_ppl.pyro.infer.gradient import Vectors


class Point(NamedTuple):
    """A point of a trajectory: position, momentum, momentum over the mass's root, gradient."""

    z: Vectors
    r: Vectors
    unscaled: Vectors
    grad: Vectors


class Proposal(NamedTuple):
    """A point that may become the next draw, with its potential and its whole energy."""

    z: Vectors
    grad: Vectors
    potential: Tensor
    energy: float


class Tree(NamedTuple):
    """A balanced part of a trajectory.

    Attributes:
        left: Its first point in time.
        right: Its last point.
        proposal: A point drawn from it in proportion to its density.
        momentum: Sum of the momenta over the mass matrix's root.
        weight: Log of the sum of its points' densities, relative to the start.
        stopped: Whether it turns back somewhere.
        diverging: Whether its energy left the start's by more than a bound.
        accept: Sum of its points' acceptance probabilities.
        count: Number of leapfrog steps.
    """

    left: Point
    right: Point
    proposal: Proposal
    momentum: Vectors
    weight: float
    stopped: bool
    diverging: bool
    accept: float
    count: int


class Transition(NamedTuple):
    """What a transition leads to, and how it went."""

    proposal: Proposal
    accepted: bool
    diverging: bool
    accept_prob: float
    depth: int
    num_steps: int


class Trajectory:
    r"""A trajectory that doubles itself until it turns back: multinomial NUTS as in Pyro.

    Args:
        leapfrog: The traced step.
        step_size: Its size.
        inverse: Inverse mass matrix of each block.
        root: Transposed Cholesky factor of it: momenta times this are standard normal.
        max_energy: A trajectory diverges when its energy grows by more.

    References:
        Hoffman and Gelman: The No-U-Turn Sampler. JMLR 15, 2014. https://arxiv.org/abs/1111.4246

        Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo, appendix A. 2017.
        https://arxiv.org/abs/1701.02434
    """

    def __init__(
        self,
        leapfrog: Callable[..., Any],
        step_size: float,
        inverse: Vectors,
        root: Vectors,
        max_energy: float,
    ) -> None:
        self.leapfrog, self.inverse, self.root, self.max_energy = (
            leapfrog,
            inverse,
            root,
            max_energy,
        )
        self.steps = (inverse[0].new_tensor(-step_size), inverse[0].new_tensor(step_size))
        self.start = 0.0

    def run(self, point: Point, potential: Tensor, energy: float, max_depth: int) -> Transition:
        """Double it from a point until it turns back; draw from it, late parts preferred."""
        self.start = energy
        left = right = point
        proposal, accepted, diverging = (
            Proposal(point.z, point.grad, potential, energy),
            False,
            False,
        )
        momentum, weight, accept, count, depth = point.unscaled, 0.0, 0.0, 0, 0
        while depth < max_depth:
            way = int(_uniform() < 0.5)
            tree = self.build(right if way else left, way, depth)
            left, right = (left, tree.right) if way else (tree.left, right)
            accept, count, depth = accept + tree.accept, count + tree.count, depth + 1
            if tree.diverging or tree.stopped:
                diverging = tree.diverging
                break
            if _uniform() < math.exp(min(0.0, tree.weight - weight)):
                proposal, accepted = tree.proposal, True
            momentum = _sum(momentum, tree.momentum)
            if _turns(left, right, momentum):
                break
            weight = _logaddexp(weight, tree.weight)
        return Transition(proposal, accepted, diverging, accept / count, depth, count)

    def build(self, point: Point, way: int, depth: int) -> Tree:
        """Go on from a point by `2 ** depth` steps; `way` is 1 forwards and 0 backwards."""
        if depth == 0:
            return self._leaf(point, way)
        first = self.build(point, way, depth - 1)
        if first.stopped or first.diverging:
            return first
        second = self.build(first.right if way else first.left, way, depth - 1)
        weight = _logaddexp(first.weight, second.weight)
        takes_second = (
            _uniform() < math.exp(second.weight - weight) if second.weight > -math.inf else False
        )
        momentum = _sum(first.momentum, second.momentum)
        left, right = (first.left, second.right) if way else (second.left, first.right)
        return Tree(
            left,
            right,
            second.proposal if takes_second else first.proposal,
            momentum,
            weight,
            second.stopped or second.diverging or _turns(left, right, momentum),
            second.diverging,
            first.accept + second.accept,
            first.count + second.count,
        )

    def _leaf(self, point: Point, way: int) -> Tree:
        z, r, unscaled, grad, potential, energy = self.leapfrog(
            point.z, point.r, point.grad, self.steps[way], self.inverse, self.root
        )
        value = energy.item()
        error = value - self.start if value == value else math.inf
        new = Point(z, r, unscaled, grad)
        accept = math.exp(min(0.0, -error))
        proposal = Proposal(z, grad, potential, value)
        return Tree(new, new, proposal, unscaled, -error, False, error > self.max_energy, accept, 1)


def _uniform() -> float:
    return torch.rand(()).item()


def _logaddexp(x: float, y: float) -> float:
    low, high = (x, y) if x < y else (y, x)
    return high + math.log1p(math.exp(low - high)) if high > -math.inf else high


def _sum(first: Vectors, second: Vectors) -> Vectors:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _turns(left: Point, right: Point, momentum: Vectors) -> bool:
    """Whether going on at either end would bring the ends closer together."""
    at_left = at_right = 0.0
    for a, b, total in zip(left.unscaled, right.unscaled, momentum, strict=True):
        middle = total - 0.5 * (a + b)
        at_left += a.dot(middle).item()
        at_right += b.dot(middle).item()
    return at_left <= 0 or at_right <= 0
