"""Semi-amortized inference: each datum's own parameters, beginning at what the encoder gives."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import refinement
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.compilation import TracedGradient
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.importance import prepare
from deepgen_ppl.pyro.infer.train import mix
from deepgen_ppl.pyro.objectives.elbo import score
from deepgen_ppl.pyro.parameters import forked_rng, given, preserved, private_store
from deepgen_ppl.pyro.parts import guide_draws, local_latents, weigh
from deepgen_ppl.pyro.probes import check_rows_independent, points
from deepgen_ppl.pyro.program import particles, read_pair, several

Tables = dict[str, Tensor]

CHUNK = 256
"""Rows that step together."""
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8
_AT_ONCE = 50  # draws of the bounds
_UNTRACED = 50  # steps before a graph is made of them


def refine(
    model: Callable,
    guide: Callable,
    fit: Any,
    *data: Any,
    num_steps: int | None = None,
    max_steps: int = 5000,
    num_particles: int = 8,
    learning_rate: float = 0.05,
    tolerance: float = 0.005,
    batch_size: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Fit:
    r"""Refine the posterior of each datum within the guide's family, from the encoder's output.

    $$\lambda_n = g(x_n) + \delta_n, \qquad
      \delta_n = \arg\max_\delta \mathbb E_{q(z; g(x_n) + \delta)}
      \bigl[\log p(x_n, z) - \log q(z; g(x_n) + \delta)\bigr]$$

    where \(\lambda_n\) are the unconstrained parameters of the distributions that the guide draws
    from in the data plate, and everything learned is held. The steps are Adam's, for all rows of
    a chunk at once, with the path gradient of the bound where draws carry gradients. Rows that end
    up worse than they began keep the encoder's output.

    Args:
        model: a Pyro model whose latents stand in the data plate.
        guide: its guide.
        fit: a `Fit`, or its `params`.
        *data: the data, seen in training or not.
        num_steps: number of steps; None goes on until each row has settled, see `tolerance`.
        max_steps: steps after which rows that have not settled stay as they are.
        num_particles: draws of each row a step.
        learning_rate: step size at first, in units of the unconstrained parameters.
        tolerance: nats that 50 steps must gain a row; where they do not, its steps are made
            shorter, and where that no longer helps either it has settled.
        batch_size: rows that step together.
        model_kwargs: constants passed by name to model and guide.
        seed: seed of the draws.

    Returns:
        A fit whose guide adds each datum's own parameters, tables "own_SITE_PARAMETER" among its
        `params`, to the old one: for `importance`, `predict` and the like on the same data.
        `history` tells of each row whether it has "settled", its "bound" and its "encoder_bound".

    Raises:
        ValueError: latents that are shared between rows, rows that touch each other, options out
            of range, a parameter without a value.
        TypeError: a distribution that cannot be made anew from parameters of each datum.

    Cost:
        `num_particles` passes over the rows a step, vectorised where the program allows it.

    References:
        Kim, Wiseman, Miller, Sontag, Rush: Semi-amortized variational autoencoders. ICML 2018.
        https://arxiv.org/abs/1802.02550
        Roeder, Wu, Duvenaud: Sticking the landing. 2017. https://arxiv.org/abs/1703.09194

    Example:
        >>> import numpy as np, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0, 1))
        ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 1.0))
        >>> found = refine(model, guide, {}, np.array([1.0, -2.0]))
        >>> bool(abs(0.5 + found.params["own_z_loc"][0] - 0.8) < 0.01)
        True
    """
    refinement.check_options(
        num_steps, max_steps, num_particles, learning_rate, tolerance, batch_size
    )
    refiner = Refiner("refine", model, guide, fit, data, model_kwargs, seed)
    options = Options(num_steps, max_steps, num_particles, learning_rate, tolerance, batch_size)
    return refiner.fit(data, options)


class Options(NamedTuple):
    """Options of a refinement, see `refine`."""

    num_steps: int | None = None
    max_steps: int = 5000
    num_particles: int = 8
    learning_rate: float = 0.05
    tolerance: float = 0.005
    batch_size: int | None = None


class Refiner:
    """A pair whose guide has parameters of each datum, and what refines them.

    Args:
        verb: name of the verb, for errors.
        model: the model.
        guide: the guide.
        fit: a `Fit`, or its `params`.
        data: the data.
        model_kwargs: constants passed by name to both.
        seed: seed of the draws.

    Attributes:
        plain: the pair as it is.
        guide: the guide with parameters of each datum.
        shapes: shapes of these, by name.
    """

    def __init__(
        self,
        verb: str,
        model: Callable,
        guide: Callable,
        fit: Any,
        data: tuple,
        model_kwargs: Mapping[str, Any] | None,
        seed: int,
    ) -> None:
        refinement.check_fit(verb, fit)
        self.plain, self.values, self.data = prepare(
            model, guide, data, fit, model_kwargs, seed, enumerated=True
        )
        latents = local_latents(self.plain)
        refinement.check_refinable(verb, guide is not None, self.plain.local, latents)
        self.kwargs, self.seed, self.model = dict(model_kwargs or {}), seed, model
        with handlers.validation(False):
            found = points(self.plain, self.values, self.data, mix(seed, 3))
            independent = check_rows_independent(self.plain, self.values, self.data, mix(seed, 1))
        refinement.check_points(verb, found)
        refinement.check_independent(verb, independent)
        self.guide = handlers.freed(self.plain.data_plates)(guide)
        pair = read_pair(
            model, self.guide, data, model_kwargs=model_kwargs, params=given(fit), seed=seed,
            enumerated=True,
        )  # fmt: skip
        assert pair.guide is not None and self.plain.guide is not None
        known = pair.guide.params.keys() - self.plain.guide.params.keys()
        self.names = [name for name in pair.guide.params if name in known]
        refinement.check_kept(self.names)
        self.shapes = {name: pair.guide.params[name].leaf for name in self.names}
        self.axes = {name: pair.guide.tables.get(name, 0) for name in self.names}
        # Their rows come as they are, not gathered from tables of all rows.
        tables = {name: axis for name, axis in pair.guide.tables.items() if name not in known}
        self.pair = pair._replace(guide=dataclasses.replace(pair.guide, tables=tables))
        free = [site.reparametrised for site in pair.guide.latents.values()]
        self.follows = all(free) and not pair.enumerated

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.plain.num_rows or 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers that each datum has by itself, and parameters of the guide."""
        assert self.plain.guide is not None
        own = sum(leaf.numel() for leaf in self.shapes.values())
        params = self.plain.guide.params.values()
        return own // self.num_rows, sum(p.leaf.numel() for p in params if p.trainable)

    def fit(self, data: tuple, options: Options) -> Fit:
        """Refine all rows and return the fit."""
        began = time.perf_counter()
        length = min(options.batch_size or CHUNK, self.num_rows)
        self.gradient = TracedGradient(partial(self._loss, options.num_particles), _UNTRACED)
        tables, losses, told = [], [], []
        for start in range(0, self.num_rows, length):
            rows = torch.arange(start, min(start + length, self.num_rows))
            own, loss, about = self._chunk(rows, options)
            tables.append(own)
            losses.append((len(rows), loss))
            told.append(about)
        params = {
            name: torch.cat([part[name] for part in tables], self.axes[name]) for name in self.names
        }
        history = {name: np.concatenate([part[name] for part in told]) for name in told[0]}
        return Fit(
            params={**{n: v.detach().clone() for n, v in self.values.items()}, **params},
            losses=refinement.joined_losses(losses),
            history=history,
            seconds=time.perf_counter() - began,
            compile_seconds=0.0,
            model=self.model,
            guide=self.guide,
            seed=self.seed,
            data=data,
            model_kwargs=self.kwargs,
        )

    def _chunk(
        self, rows: Tensor, options: Options
    ) -> tuple[Tables, np.ndarray, dict[str, np.ndarray]]:
        """Step until the rows have settled; return tables, losses, and what is told of each row."""
        size, key = len(rows), mix(self.seed, 4, int(rows[0]))
        length = options.num_steps or refinement.WINDOW
        state = State.begin({name: self._zeros(name, size) for name in self.names})
        rule = refinement.Settling(size, options.learning_rate, options.tolerance)
        bounds = []
        with self._alone():
            while sum(map(len, bounds)) < (options.num_steps or options.max_steps):
                rates = torch.as_tensor(rule.rates, dtype=torch.get_default_dtype())
                state, mean, found = self._window(state, rows, rates, key, length)
                bounds.append(found)
                if options.num_steps is not None:
                    break
                new = torch.as_tensor(rule.heard(found))
                kept = {n: self._choose(n, new, mean[n], state.own[n]) for n in self.names}
                state = state._replace(own=kept)
                if rule.settled.all():
                    break
        own, about = self._judged(state.own, rows, mix(key, 1))
        about["settled"] = rule.settled
        return own, -np.concatenate(bounds).mean(1), about

    def _window(
        self, state: State, rows: Tensor, rates: Tensor, key: int, length: int
    ) -> tuple[State, Tables, np.ndarray]:
        """Take steps of Adam; return the mean of the parameters over them, and the bounds."""
        total = {name: torch.zeros_like(value) for name, value in state.own.items()}
        bounds = []
        for number in range(length):
            torch.manual_seed(mix(key, 0, number))
            value, grads = self.gradient(state.own, rows)
            state = self._adam(state, grads, rates)
            total = {name: value + state.own[name] for name, value in total.items()}
            bounds.append(value[1:])
        mean = {name: value / length for name, value in total.items()}
        return state, mean, torch.stack(bounds).cpu().numpy()

    def _loss(self, num_particles: int, own: Tables, rows: Tensor) -> Tensor:
        """Return the negative bound of a chunk of rows, and behind it the bound of each."""
        here = {**self.values, **own}
        if not self.follows:
            found = particles(self.pair, here, self.data, rows, num_particles)
            found = found._replace(scale=1.0)
            bound = found.rows.mean(0)
            extra = score(self.pair, found) if self.pair.scored else 0.0
            return torch.cat([(-bound.sum() - extra).reshape(1), bound.detach()])

        def draw(_: Any) -> Tensor:
            draws = guide_draws(self.pair, here, self.data, rows)
            return weigh(self.pair, here, draws, self.data, rows)[0]

        bound = several(self.pair, draw, num_particles).mean(0)
        return torch.cat([-bound.sum().reshape(1), bound.detach()])

    def _adam(self, state: State, grads: Tables, rates: Float[Tensor, " B"]) -> State:
        count = state.count + 1
        one, two = _DECAYS
        own, means, squares = {}, {}, {}
        for name, value in state.own.items():
            grad, rate = grads[name], self._raised(name, rates)
            means[name] = one * state.mean[name] + (1 - one) * grad
            squares[name] = two * state.square[name] + (1 - two) * grad * grad
            ahead = torch.sqrt(squares[name] / (1 - two**count)) + _EPSILON
            own[name] = value - rate * means[name] / (1 - one**count) / ahead
        return State(own, means, squares, count)

    def _judged(self, own: Tables, rows: Tensor, key: int) -> tuple[Tables, dict[str, np.ndarray]]:
        """Return the parameters of rows that are better for them, and the bounds of each row."""
        before, after = self.bounds(own, rows, key, refinement.PARTICLES)
        better = torch.as_tensor(after.mean(0) > before.mean(0))
        kept = {n: self._choose(n, better, own[n], torch.zeros_like(own[n])) for n in self.names}
        refined = np.maximum(before.mean(0), after.mean(0))
        return kept, {"encoder_bound": before.mean(0), "bound": refined}

    def bounds(
        self, own: Tables, rows: Tensor, key: int, num_particles: int
    ) -> tuple[Float[np.ndarray, "K B"], Float[np.ndarray, "K B"]]:
        """Return log weights under the encoder's output and refined, of the same random numbers.

        Args:
            own: parameters of each of the rows.
            rows: the rows.
            key: seed of the draws.
            num_particles: number K of draws.
        """
        found = []
        with self._alone(), torch.no_grad():
            for tables in ({n: torch.zeros_like(x) for n, x in own.items()}, own):
                torch.manual_seed(key)
                here, parts = {**self.values, **tables}, []
                for start in range(0, num_particles, _AT_ONCE):
                    count = min(_AT_ONCE, num_particles - start)
                    weights = particles(self.pair, here, self.data, rows, count)
                    parts.append(weights.rows.cpu().numpy())
                found.append(np.concatenate(parts))
        return found[0], found[1]

    def rows_of(self, params: Mapping[str, Tensor], rows: Tensor) -> Tables:
        """Return the parameters of some rows from tables of all."""
        return {n: params[n].index_select(self.axes[n], rows) for n in self.names}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Leave the user's store, random state, settings and buffers as they are."""
        with (
            private_store(),
            handlers.validation(False),
            preserved(self.pair.modules),
            forked_rng(None),
            warnings.catch_warnings(),
        ):
            # What is learned is held on purpose.
            warnings.filterwarnings("ignore", ".*was not registered in the param store")
            yield

    def _zeros(self, name: str, size: int) -> Tensor:
        shape = list(self.shapes[name].shape)
        shape[self.axes[name]] = size
        return self.shapes[name].new_zeros(shape)

    def _raised(self, name: str, rows: Tensor) -> Tensor:
        behind = self.shapes[name].dim() - 1 - self.axes[name]
        return rows.reshape(-1, *(1,) * behind)

    def _choose(self, name: str, rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return torch.where(self._raised(name, rows), one, other).detach()


class State(NamedTuple):
    """Parameters of each datum, with Adam's moments and count."""

    own: Tables
    mean: Tables
    square: Tables
    count: int

    @classmethod
    def begin(cls, own: Tables) -> State:
        """Return the state before the first step."""
        zeros = {name: torch.zeros_like(value) for name, value in own.items()}
        return cls(own, zeros, zeros, 0)
