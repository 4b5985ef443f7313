"""Markov chains and hidden Markov models as native programs."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jaxtyping import Float, Int
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import Distribution

from deepgen_ppl.markov_chain import MarkovChain
from deepgen_ppl.numpyro.programs.tables import categorical, log_table
from deepgen_ppl.program_checks import (
    Learnable,
    check_data,
    check_learnable,
    check_length,
    hidden_chain,
)

Emission = Callable[[Array], Distribution]
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
    Without data one sequence of the given length is drawn, by `scan` over sites "x".

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
        >>> import deepgen_ppl.numpyro as dg
        >>> chain = dg.MarkovChain([[0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]])
        >>> tree = dg.predict(dg.markov_chain(chain, length=7), num_samples=100)
        >>> tree["prior"]["x"].shape
        (1, 100, 7)
    """
    check_learnable(learnable, concentration)
    order, num_states = chain.order, chain.num_states

    def model(
        data: Int[Array, "N T"] | None = None, lengths: Int[Array, "N"] | None = None
    ) -> None:
        logs = [
            log_table(name, table, learnable, concentration) for name, table in chain.tables.items()
        ]
        padded = _padded(logs, num_states)
        if data is None:
            start = (jnp.array(num_states),) * order
            scan(_symbol(padded), start, None, check_length(length), history=max(order, 1))
            return
        check_data(data, None, None, whole=True)
        data = jnp.asarray(data)
        before = jnp.pad(data, ((0, 0), (order, 0)), constant_values=num_states)
        history = tuple(before[:, k : k + data.shape[1]] for k in range(order))
        symbols = categorical(jnp.broadcast_to(padded[history], (*data.shape, num_states)))
        if lengths is not None:
            symbols = symbols.mask(jnp.arange(data.shape[1]) < jnp.asarray(lengths)[:, None])
        with numpyro.plate("data", len(data)):
            numpyro.sample("x", symbols.to_event(1), obs=data)

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
    where an emission is observed, `(row, time)`. States "state" and emissions "x" are sites of a
    `scan`, in the plate "data"; without data one sequence of the given length is drawn.

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

    Cost: One step is compiled, whatever the length.

    References:
        Rabiner: A tutorial on hidden Markov models and selected applications in speech recognition.
        Proceedings of the IEEE 77(2), 1989. https://doi.org/10.1109/5.18626

    Example:
        >>> import numpyro.distributions as dist
        >>> import deepgen_ppl.numpyro as dg
        >>> model = dg.hmm(2, lambda: lambda state: dist.Normal(4.0 * state, 1.0), length=5)
        >>> dg.predict(model, num_samples=100)["prior"]["x"].shape
        (1, 100, 5)
    """
    check_learnable(learnable, concentration)
    tables = hidden_chain(num_states, initial, transition, emission)

    def model(data: Float[Array, "N T *event"] | None = None, mask: Any = None) -> None:
        logs = {n: log_table(n, t, learnable, concentration) for n, t in tables.items()}
        moves = jnp.concatenate([logs["transition"], logs["initial"][None]])
        emit: Emission = emission() if callable(emission) else _symbols(logs["emission"])
        if data is None:
            step = _hidden(moves, emit, None)
            scan(step, jnp.array(num_states), None, check_length(length))
            return
        check_data(data, mask, None, whole=not callable(emission))
        data = jnp.asarray(data)
        seen = None if mask is None else jnp.asarray(mask).T
        step = _hidden(moves, emit, len(data))
        scan(step, jnp.full(len(data), num_states), (jnp.swapaxes(data, 0, 1), seen))

    return model


def _padded(logs: list[Array], num_states: int) -> Array:
    """All tables in one, the symbol `num_states` standing for "before the beginning"."""
    order = len(logs) - 1
    table = jnp.zeros((num_states + 1,) * order + (num_states,), logs[0].dtype)
    for place, log in enumerate(logs):
        table = table.at[(num_states,) * (order - place) + (slice(num_states),) * place].set(log)
    return table


def _symbol(padded: Array) -> Callable[..., Any]:
    def step(history: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        symbols = categorical(padded[history])
        x = jnp.asarray(numpyro.sample("x", symbols, infer={"enumerate": "parallel"}))
        return (*history, x)[1:], None

    return step


def _symbols(log: Array) -> Emission:
    return lambda state: categorical(log[state])


def _hidden(moves: Array, emit: Emission, num_rows: int | None) -> Callable:
    def emitted(state: Array, cells: Any) -> Array:
        new = numpyro.sample("state", categorical(moves[state]), infer={"enumerate": "parallel"})
        state = jnp.asarray(new)
        if cells is None:
            numpyro.sample("x", emit(state))
        else:
            x, seen = cells
            with handlers.mask(mask=True if seen is None else seen):
                numpyro.sample("x", emit(state), obs=x)
        return state

    def step(state: Array, cells: Any) -> tuple[Array, None]:
        if num_rows is None:
            return emitted(state, cells), None
        with numpyro.plate("data", num_rows):
            return emitted(state, cells), None

    return step
