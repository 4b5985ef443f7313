"""Markov chains and hidden Markov models as native programs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from jaxtyping import Float, Int
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.runtime import InferDict
from torch import Tensor
from torch.nn.functional import pad

from deepgen_ppl.markov_chain import MarkovChain
from deepgen_ppl.program_checks import (
    Learnable,
    check_data,
    check_learnable,
    check_length,
    hidden_chain,
)
from deepgen_ppl.pyro.programs.tables import categorical, log_table

Emission = Callable[[Tensor], TorchDistribution]
"""A state, or an array of them, to the distribution of what is seen."""


def markov_chain(
    chain: MarkovChain,
    *,
    length: int | None = None,
    learnable: Learnable = False,
    concentration: float = 1.0,
) -> Callable[..., None]:
    r"""The program of a Markov chain over symbols, of any order.

    The program is `model(data=None, lengths=None)`: `data` are symbols, `(row, time)`, a site "x"
    in the plate "data" whose event is the sequence; `lengths` says how much of each row counts.
    Without data one sequence of the given length is drawn, by `markov` over sites "x_0", "x_1", ...

    Args:
        chain: The tables; `MarkovChain.uniform(num_states, order=k)` where they are to be learned.
        length: Number of symbols that are drawn where there are no data.
        learnable: False: the tables are constants. "point": they are parameters "initial",
            "initial_1", ..., "transition". "dirichlet": their rows are latent, Dirichlet a priori.
        concentration: Of each cell of a table under "dirichlet".

    Returns:
        The program.

    Raises:
        ValueError: A value of `learnable`; no data and no length; data of another shape.

    Cost: A gather for all symbols at once where there are data.

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> chain = dg.MarkovChain([[0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]])
        >>> tree = dg.predict(dg.markov_chain(chain, length=7), num_samples=100)
        >>> tree["prior"]["x_6"].shape
        (1, 100)
    """
    check_learnable(learnable, concentration)
    order, num_states = chain.order, chain.num_states

    def model(
        data: Int[Tensor, "N T"] | None = None, lengths: Int[Tensor, "N"] | None = None
    ) -> None:
        logs = [
            log_table(name, table, learnable, concentration) for name, table in chain.tables.items()
        ]
        padded = _padded(logs, num_states)
        if data is None:
            history = (torch.tensor(num_states),) * order
            for t in pyro.markov(range(check_length(length)), history=max(order, 1)):
                infer = InferDict(enumerate="parallel")
                x = pyro.sample(f"x_{t}", categorical(padded[history]), infer=infer)
                history = (*history, x)[1:]
            return
        check_data(data, None, None, whole=True)
        data = torch.as_tensor(data).long()
        # out of range: the site itself names the row, and not an index here
        before = pad(data.clamp(0, num_states - 1), (order, 0), value=num_states)
        history = tuple(before[:, k : k + data.shape[1]] for k in range(order))
        symbols = categorical(padded[history].expand(*data.shape, num_states))
        if lengths is not None:
            symbols = symbols.mask(torch.arange(data.shape[1]) < torch.as_tensor(lengths)[:, None])
        with pyro.plate("data", len(data)):
            pyro.sample("x", symbols.to_event(1), obs=data)

    return model


def hmm(
    num_states: int,
    emission: Callable[[], Emission] | int | Float[np.ndarray, "K M"],
    *,
    initial: Any = None,
    transition: Any = None,
    length: int | None = None,
    learnable: Learnable = False,
    concentration: float = 1.0,
) -> Callable[..., None]:
    r"""The program of a hidden Markov model with any emissions.

    $$s_1 \sim \pi, \qquad s_t \mid s_{t-1} \sim A_{s_{t-1}},
      \qquad x_t \mid s_t \sim p(x \mid s_t)$$

    The program is `model(data=None, mask=None)`: `data` are `(row, time, ...)`, `mask` is True
    where an emission is observed, `(row, time)`. States "state_0", "state_1", ... and emissions
    "x_0", ... are sites of a `markov`, in the plate "data"; without data one sequence of the "
    "given length is
    drawn.

    Args:
        num_states: Number of hidden states.
        emission: A function without arguments that makes what the states share, sites and
            parameters among it, and returns the function from a state to its distribution; or a
            table `(state, symbol)`; or a number of symbols, for a uniform table to be learned.
        initial: Probabilities $\pi$ of the first state, uniform by default.
        transition: Probabilities $A$, `(from, to)`, uniform by default.
        length: Number of steps that are drawn where there are no data.
        learnable: False: the tables are constants. "point": they are parameters "initial",
            "transition", "emission". "dirichlet": their rows are latent, Dirichlet a priori.
        concentration: Of each cell of a table under "dirichlet".

    Returns:
        The program.

    Raises:
        ValueError: A table of another shape or whose rows are no probabilities; no data and no
            length; data or mask of another shape.

    Cost: Two sites a step, run by Python.

    References:
        Rabiner: A tutorial on hidden Markov models and selected applications in speech recognition.
        Proceedings of the IEEE 77(2), 1989. https://doi.org/10.1109/5.18626

    Example:
        >>> import pyro.distributions as dist
        >>> import deepgen_ppl.pyro as dg
        >>> model = dg.hmm(2, lambda: lambda state: dist.Normal(4.0 * state, 1.0), length=5)
        >>> dg.predict(model, num_samples=100)["prior"]["x_4"].shape
        (1, 100)
    """
    check_learnable(learnable, concentration)
    tables = hidden_chain(num_states, initial, transition, emission)

    def model(data: Float[Tensor, "N T *event"] | None = None, mask: Any = None) -> None:
        logs = {n: log_table(n, t, learnable, concentration) for n, t in tables.items()}
        moves = torch.cat([logs["transition"], logs["initial"][None]])
        emit: Emission = emission() if callable(emission) else _symbols(logs["emission"])
        if data is None:
            state = torch.tensor(num_states)
            for t in pyro.markov(range(check_length(length))):
                state = _hidden(moves, emit, state, t)
            return
        check_data(data, mask, None, whole=not callable(emission))
        data = torch.as_tensor(data)
        seen = None if mask is None else torch.as_tensor(mask)
        rows, state = pyro.plate("data", len(data)), torch.full((len(data),), num_states)
        for t in pyro.markov(range(data.shape[1])):
            with rows:
                cells = (data[:, t], True if seen is None else seen[:, t])
                state = _hidden(moves, emit, state, t, cells)

    return model


def _padded(logs: list[Tensor], num_states: int) -> Tensor:
    """All tables in one, the symbol `num_states` standing for "before the beginning"."""
    order = len(logs) - 1
    table = logs[0].new_zeros((num_states + 1,) * order + (num_states,))
    for place, log in enumerate(logs):
        table[(num_states,) * (order - place) + (slice(num_states),) * place] = log
    return table


def _symbols(log: Tensor) -> Emission:
    return lambda state: categorical(log[state])


def _hidden(
    moves: Tensor,
    emit: Emission,
    state: Tensor,
    t: int,
    cells: Any = None,
) -> Tensor:
    infer = InferDict(enumerate="parallel")
    state = pyro.sample(f"state_{t}", categorical(moves[state]), infer=infer)
    if cells is None:
        pyro.sample(f"x_{t}", emit(state))
    else:
        x, seen = cells
        with poutine.mask(mask=seen):
            pyro.sample(f"x_{t}", emit(state), obs=x)
    return state
