"""Markov chains over symbols as plain data: tables, counts, log probabilities, draws."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.net_checks import checked_table


@dataclass(frozen=True, eq=False)
class MarkovChain:
    r"""A homogeneous Markov chain of order $k$ over the symbols 0, ..., K - 1.

    $$p(x_1, \dots, x_T) = \prod_{t \le k} p_t(x_t \mid x_1, \dots, x_{t-1})
      \prod_{t > k} p(x_t \mid x_{t-k}, \dots, x_{t-1})$$

    Attributes:
        starts: For each of the first $k$ places its probabilities after what stands before it, the
            first `(K,)`, the second `(K, K)`, ...
        transition: Probabilities after the last $k$ symbols, `(K, ..., K)` with $k + 1$ axes.

    Raises:
        ValueError: A table of another shape, or one whose rows are no probabilities.

    References:
        Shannon: A mathematical theory of communication. Bell System Technical Journal 27, 1948.

    Example:
        >>> chain = MarkovChain.fit([[0, 1, 1, 0, 1]], num_states=2)
        >>> chain.transition.tolist(), chain.num_parameters
        ([[0.0, 1.0], [0.5, 0.5]], 3)
    """

    starts: Sequence[Float[np.ndarray, "*before K"]]
    transition: Float[np.ndarray, "*before K"]

    def __post_init__(self) -> None:
        num_states, starts = np.shape(self.transition)[-1], list(self.starts)
        states = {"x": tuple(map(str, range(num_states)))}
        before = [f"x[t-{k}]" for k in range(len(starts), 0, -1)]
        states |= dict.fromkeys(before, states["x"])
        tables = [
            checked_table("x", states, before[len(before) - place :], table)
            for place, table in enumerate([*starts, self.transition])
        ]
        object.__setattr__(self, "starts", tuple(tables[:-1]))
        object.__setattr__(self, "transition", tables[-1])

    @property
    def order(self) -> int:
        """How many symbols back the chain looks."""
        return len(self.starts)

    @property
    def num_states(self) -> int:
        """Number of symbols."""
        return self.transition.shape[-1]

    @property
    def num_parameters(self) -> int:
        """Free parameters: a row of K probabilities has K - 1."""
        sizes = [table.size for table in self.tables.values()]
        return sum(size // self.num_states * (self.num_states - 1) for size in sizes)

    @property
    def tables(self) -> Mapping[str, Float[np.ndarray, "*before K"]]:
        """The tables by the names of their sites: "initial", "initial_1", ..., "transition"."""
        names = ["initial", *(f"initial_{place}" for place in range(1, self.order))]
        return {**dict(zip(names, self.starts, strict=False)), "transition": self.transition}

    @classmethod
    def uniform(cls, num_states: int, *, order: int = 1) -> Self:
        """A chain that knows nothing, to be learned.

        Example:
            >>> MarkovChain.uniform(4, order=2).num_parameters
            63
        """
        if num_states < 1 or order < 0:
            raise ValueError(f"A chain of {num_states} states and order {order}; at least 1 and 0.")
        shapes = [(num_states,) * (place + 1) for place in range(order + 1)]
        *starts, transition = [np.full(shape, 1 / num_states) for shape in shapes]
        return cls(tuple(starts), transition)

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Any],
        *,
        num_states: int,
        order: int = 1,
        pseudocount: float = 0.0,
    ) -> Self:
        """The chain of greatest likelihood: shares of what followed on what.

        Args:
            sequences: Rows of symbols, which may have unequal lengths.
            num_states: Number of symbols.
            order: How many symbols back the chain looks.
            pseudocount: Added to every count; with 1 tables are posterior means under uniform
                priors.

        Returns:
            The chain; after what never occurred, uniform.

        Raises:
            ValueError: A symbol outside of the range, with sequence and place.

        Cost: Proportional to symbols and to the entries of the tables.

        Example:
            >>> MarkovChain.fit([[0, 0, 1], [0, 1]], num_states=2, order=0).transition.tolist()
            [0.6, 0.4]
        """
        chain = cls.uniform(num_states, order=order)
        counts = chain.counts(sequences)
        tables = []
        for name, table in chain.tables.items():
            added = counts[name] + pseudocount
            total = added.sum(-1, keepdims=True)
            tables.append(np.divide(added, total, out=table.copy(), where=total > 0))
        return cls(tuple(tables[:-1]), tables[-1])

    def counts(self, sequences: Iterable[Any]) -> dict[str, Float[np.ndarray, "*before K"]]:
        """How often each symbol followed on what it depends on, in the shape of the tables.

        Example:
            >>> MarkovChain.uniform(2).counts([[0, 1, 1]])["transition"].tolist()
            [[0.0, 1.0], [0.0, 1.0]]
        """
        found = {name: np.zeros(table.shape) for name, table in self.tables.items()}
        for number, sequence in enumerate(sequences):
            for name, places in self._families(self._checked(sequence, number)):
                np.add.at(found[name], places, 1.0)
        return found

    def log_prob(self, sequences: Iterable[Any]) -> Float[np.ndarray, "N"]:
        """Log probability of each sequence, in nats.

        Example:
            >>> MarkovChain.uniform(4).log_prob([[0, 1, 2]]).round(4).tolist()
            [-4.1589]
        """
        with np.errstate(divide="ignore"):
            logs = {name: np.log(table) for name, table in self.tables.items()}
        return np.array([
            sum(float(logs[name][places].sum()) for name, places in
                self._families(self._checked(sequence, number)))
            for number, sequence in enumerate(sequences)
        ])  # fmt: skip

    def sample(
        self, num_samples: int, length: int, seed: int = 0
    ) -> Int[np.ndarray, "num_samples length"]:
        """Draw sequences.

        Args:
            num_samples: Number of sequences.
            length: Number of symbols of each.
            seed: Seed of NumPy's generator.

        Example:
            >>> MarkovChain([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]).sample(1, 4).tolist()
            [[0, 1, 0, 1]]
        """
        rng = np.random.default_rng(seed)
        rows = np.zeros((num_samples, length), np.int64)
        for t in range(length):
            table = self.transition if t >= self.order else self.starts[t]
            limits = table.cumsum(-1)[..., :-1]
            before = limits[tuple(rows[:, max(0, t - self.order) : t].T)]
            rows[:, t] = (rng.random((num_samples, 1)) >= before).sum(-1)
        return rows

    def _checked(self, sequence: Any, number: int) -> Int[np.ndarray, "T"]:
        symbols = np.asarray(sequence)
        wrong = (symbols < 0) | (symbols >= self.num_states) | (symbols != np.floor(symbols))
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"The symbol at place {place} of sequence {number} is {symbols[place]}; symbols "
                f"are the whole numbers 0 to {self.num_states - 1}."
            )
        return symbols.astype(np.int64)

    def _families(self, symbols: Int[np.ndarray, "T"]) -> Iterable[tuple[str, tuple]]:
        """Names of tables, and for each axis the symbols that stand there."""
        length, names = len(symbols), list(self.tables)
        for place in range(min(self.order, length)):
            yield names[place], tuple(symbols[: place + 1, None])
        if length > self.order:
            last = length - self.order
            yield "transition", tuple(symbols[k : last + k] for k in range(self.order + 1))
