"""Bayesian networks as plain data: variables, states, parents and probability tables."""

import gzip
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import bif, directed, net_rows
from deepgen_ppl.archive import atomic
from deepgen_ppl.datasets import read_bytes
from deepgen_ppl.factor_graph import Factor, FactorGraph
from deepgen_ppl.net_catalogue import STUDENT
from deepgen_ppl.net_checks import check_names, checked_table
from deepgen_ppl.net_graph import ParameterCounts, Structure


@dataclass(frozen=True, eq=False)
class BayesNet(Structure):
    r"""A Bayesian network over discrete variables.

    $$p(x_1, \dots, x_V) = \prod_v p(x_v \mid x_{\mathrm{pa}(v)})$$

    Rows of a table sum to one within 1e-6, the precision of published files, and are normalised.

    Attributes:
        states: Each variable's states; the order is that of columns of data.
        parents: Each variable's parents; one that is left out has none.
        tables: Each variable's probabilities, float64, axes (parents in order, own states).
        name: A name for the whole.

    Raises:
        ValueError: A cycle, named by its path; rows that do not sum to one, a negative or NaN
            entry, named by variable and states of the parents; a table of another shape; unknown
            parents.

    References:
        Pearl: Probabilistic Reasoning in Intelligent Systems, 1988.
        Koller, Friedman: Probabilistic Graphical Models, 2009.

    Example:
        >>> net = BayesNet(
        ...     states={"rain": ("no", "yes"), "wet": ("no", "yes")},
        ...     parents={"wet": ("rain",)},
        ...     tables={"rain": [0.8, 0.2], "wet": [[0.9, 0.1], [0.1, 0.9]]},
        ... )
        >>> net.num_parameters, net.sample(3, seed=0).tolist()
        (3, [[0, 0], [0, 0], [0, 1]])
    """

    states: Mapping[str, tuple[str, ...]]
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, Float[np.ndarray, "*parents states"]] = field(default_factory=dict)
    name: str = "unknown"

    def __post_init__(self) -> None:
        parents = {v: self.parents.get(v, ()) for v in self.states}
        check_names(self.states, parents, self.parents, self.tables)
        states = {v: tuple(labels) for v, labels in self.states.items()}
        parents = {v: tuple(above) for v, above in parents.items()}
        directed.topological_order(parents)
        tables = {v: checked_table(v, states, parents[v], self.tables[v]) for v in states}
        for attribute, value in (("states", states), ("parents", parents), ("tables", tables)):
            object.__setattr__(self, attribute, value)

    @classmethod
    def from_bif(cls, path: str | os.PathLike[str]) -> Self:
        """Read a BIF file, such as those of the bnlearn repository, compressed (``.gz``) or not.

        Args:
            path: The file.

        Returns:
            The network; one that calls itself "unknown" has the name of its file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The text is malformed, with the line, or is no network.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "student.bif.gz"
            >>> _ = BayesNet.student().to_bif(path)
            >>> BayesNet.from_bif(path).variables
            ('difficulty', 'intelligence', 'grade', 'SAT', 'letter')
        """
        try:
            content = bif.parse(read_bytes(path).decode("utf-8"))
            name = Path(path).name.split(".")[0] if content.name == "unknown" else content.name
            return cls(content.states, content.parents, content.tables, name)
        except ValueError as error:
            raise ValueError(f"{Path(path).name}: {error}") from error

    def to_bif(self, path: str | os.PathLike[str] | None = None) -> str:
        """The network as BIF text, which is read back to the same numbers.

        Args:
            path: A file to write it to, compressed when its name ends in ``.gz``.

        Returns:
            The text.

        Example:
            >>> BayesNet.student().to_bif().splitlines()[0]
            'network student {'
        """
        text = bif.write(self.states, self.parents, self.tables, name=self.name)
        if path is not None:
            content = text.encode()
            with atomic(path) as temporary:
                zipped = Path(path).suffix == ".gz"
                temporary.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
        return text

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """A network from what `to_dict` gives, such as the content of a JSON file.

        Raises:
            ValueError: A key that is not known, or no network.

        Example:
            >>> BayesNet.from_dict(BayesNet.student().to_dict()).num_parameters
            15
        """
        known = ("states", "parents", "tables", "name")
        unknown = [key for key in content if key not in known]
        if unknown or "states" not in content or "tables" not in content:
            raise ValueError(
                f"A network has the keys 'states', 'tables', and if wished 'parents' and 'name'; "
                f"this has {list(content)}."
            )
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """States, parents, tables and name as lists and strings, ready for JSON."""
        return {
            "states": {v: list(labels) for v, labels in self.states.items()},
            "parents": {v: list(above) for v, above in self.parents.items()},
            "tables": {v: table.tolist() for v, table in self.tables.items()},
            "name": self.name,
        }

    @classmethod
    def from_structure(
        cls, states: Mapping[str, Sequence[str]], parents: Mapping[str, Sequence[str]]
    ) -> Self:
        """A network of known structure whose tables are uniform, to be learned.

        Example:
            >>> net = BayesNet.from_structure({"a": ("0", "1"), "b": ("0", "1")}, {"b": ["a"]})
            >>> net.tables["b"].tolist()
            [[0.5, 0.5], [0.5, 0.5]]
        """
        check_names(states, {v: parents.get(v, ()) for v in states}, parents, states)
        sizes = {v: len(labels) for v, labels in states.items()}
        tables = {
            v: np.full([*(sizes[p] for p in parents.get(v, ())), k], 1 / k)
            for v, k in sizes.items()
        }
        return cls(
            {v: tuple(labels) for v, labels in states.items()},
            {v: tuple(above) for v, above in parents.items()},
            tables,
        )

    @classmethod
    def independent(cls, states: Mapping[str, Sequence[str]]) -> Self:
        """Variables without arcs, their tables uniform.

        Example:
            >>> BayesNet.independent(BayesNet.student().states).num_parameters
            6
        """
        return cls.from_structure(states, {})

    @classmethod
    def chain(cls, states: Mapping[str, Sequence[str]], *, order: int = 1) -> Self:
        """A Markov chain along the variables: each depends on the `order` before it.

        Example:
            >>> BayesNet.chain(BayesNet.student().states).num_parameters
            12
        """
        if order < 0:
            raise ValueError(f"order is {order}; a chain depends on 0, 1, ... variables before.")
        names = list(states)
        parents = {v: tuple(names[max(0, i - order) : i]) for i, v in enumerate(names)}
        return cls.from_structure(states, parents)

    @classmethod
    def full_joint(cls, states: Mapping[str, Sequence[str]]) -> Self:
        """Every distribution over the variables: each depends on all before it.

        Cost: A table of all states together.

        Example:
            >>> BayesNet.full_joint(BayesNet.student().states).num_parameters
            47
        """
        return cls.chain(states, order=len(states))

    @classmethod
    def student(cls) -> Self:
        """The student network: difficulty and intelligence, grade, SAT, letter of recommendation.

        References:
            Koller, Friedman: Probabilistic Graphical Models, 2009, figure 3.4.

        Example:
            >>> print(*BayesNet.student().independencies(), sep="; ")
            difficulty ⊥ intelligence, SAT; intelligence ⊥ difficulty; grade ⊥ SAT | difficulty, ...
        """
        return cls(**STUDENT)

    @property
    def num_parameters(self) -> int:
        """Free parameters: a row of K probabilities has K - 1."""
        return sum(t.size // t.shape[-1] * (t.shape[-1] - 1) for t in self.tables.values())

    def parameter_counts(self) -> ParameterCounts:
        """How many parameters the structure saves.

        Example:
            >>> BayesNet.student().parameter_counts()
            ParameterCounts(net=15, full_joint=47, chain=12, independent=6)
        """
        sizes = [len(labels) for labels in self.states.values()]
        steps = sum(before * (k - 1) for before, k in pairwise(sizes))
        independent = sum(k - 1 for k in sizes)
        return ParameterCounts(
            self.num_parameters, math.prod(sizes) - 1, sizes[0] - 1 + steps, independent
        )

    def factor_graph(self) -> FactorGraph:
        """One factor for each variable and its parents, the log of its table.

        Example:
            >>> BayesNet.student().factor_graph().cost().width
            2
        """
        return self._factor_graph

    @cached_property
    def _factor_graph(self) -> FactorGraph:
        cards = {v: len(labels) for v, labels in self.states.items()}
        factors = [Factor((*self.parents[v], v), t) for v, t in self.log_tables.items()]
        return FactorGraph(cards, factors, self.states)

    def encode(self, rows: Any) -> np.ma.MaskedArray:
        """Labels to numbers of states, a missing cell (None, NaN or "") masked.

        Args:
            rows: Rows of labels in the order of `variables`, or a mapping of variables to columns;
                a variable without a column is missing in every row.

        Returns:
            The numbers, `(row, variable)`.

        Raises:
            ValueError: An unknown label, with variable and row; an unknown variable; a shape.

        Example:
            >>> BayesNet.student().encode({"grade": ["A", "C"], "SAT": ["high", None]}).tolist()
            [[None, None, 0, 1, None], [None, None, 2, None, None]]
        """
        return net_rows.encode(self.states, rows)

    def decode(self, rows: Any) -> np.ndarray:
        """Numbers of states, `(row, variable)`, to labels, None where a cell is masked.

        Example:
            >>> BayesNet.student().decode([[0, 1, 0, 1, 1]]).tolist()
            [['easy', 'high', 'A', 'high', 'strong']]
        """
        return net_rows.decode(self.states, rows)

    def as_rows(self, rows: Any, mask: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows as the programs take them: numbers of states, beside the mask of observed cells.

        Args:
            rows: Numbers of states, masked where missing, or labels, as `encode` takes them.
            mask: Observed cells, `(row, variable)`; all that are not masked by default.

        Returns:
            Numbers, 0 where missing, and the mask, True where observed.

        Raises:
            ValueError: A value outside of the states, with variable and row; NaN; a wrong shape.

        Example:
            >>> rows, mask = BayesNet.student().as_rows([["hard", "low", "C", None, "weak"]])
            >>> rows.tolist(), mask.tolist()
            ([[1, 0, 2, 0, 0]], [[True, True, True, False, True]])
        """
        return net_rows.as_rows(self.states, rows, mask)

    def state_numbers(self, variable: str, values: Any) -> Any:
        """Values of one variable, labels or numbers, as numbers of states; masked where missing.

        Example:
            >>> BayesNet.student().state_numbers("grade", ["A", "C"])
            array([0, 2])
        """
        self._known([variable])
        return net_rows.state_numbers(variable, self.states[variable], values)

    def fit(self, rows: Any, *, pseudocount: float = 0.0, weights: Any = None) -> "BayesNet":
        r"""The network of this structure with maximum-likelihood tables: shares of counts.

        $$\hat p(x_v \mid x_{\mathrm{pa}(v)}) = (n_{x_v, x_{\mathrm{pa}(v)}} + a) \Big/
          \sum_{x_v'} (n_{x_v', x_{\mathrm{pa}(v)}} + a)$$

        Args:
            rows: Whole rows, `(row, variable)`, numbers of states or labels.
            pseudocount: $a$; with 1 the tables are posterior means under uniform priors.
            weights: How much each row counts; one by default.

        Returns:
            The network; where states of the parents never occurred, a uniform row.

        Raises:
            ValueError: A missing cell, or a value outside of the states, by variable and row.

        Example:
            >>> net = BayesNet.student()
            >>> learned = net.fit(net.sample(20_000, seed=0))
            >>> bool(abs(learned.tables["letter"] - net.tables["letter"]).max() < 0.02)
            True
        """
        from deepgen_ppl.net_learning import family_counts, normalised

        if not pseudocount >= 0:
            raise ValueError(f"pseudocount is {pseudocount}; it is added to counts: 0 or more.")
        return normalised(self, family_counts(self, rows, weights=weights), pseudocount)

    def sample(
        self, num_samples: int, seed: int = 0, given: Mapping[str, Any] | None = None
    ) -> Int[np.ndarray, "num_samples V"]:
        """Draw rows, parents before children (ancestral sampling).

        Args:
            num_samples: Number of rows.
            seed: Seed of NumPy's generator.
            given: Fixed values, labels or numbers, one or a value for each row. Drawing forwards is
                conditioning only where everything above a fixed variable is fixed too.

        Returns:
            Numbers of states.

        Raises:
            ValueError: A fixed variable has a parent that is not fixed.

        Cost: Proportional to rows times states.

        Example:
            >>> net = BayesNet.student()
            >>> rows = net.sample(10_000, seed=0, given={"intelligence": "high"})
            >>> float(rows[:, 3].mean().round(2))  # p(SAT high | intelligence high) = 0.8
            0.8
        """
        fixed = {v: self.state_numbers(v, values) for v, values in (given or {}).items()}
        net_rows.check_fixed(self.parents, fixed)
        return net_rows.ancestral(self.order, self.parents, self.tables, num_samples, seed, fixed)

    def log_prob(self, rows: Any) -> Float[np.ndarray, "N"]:
        """Log probability of whole rows, in nats.

        Args:
            rows: `(row, variable)`, numbers of states or labels.

        Raises:
            ValueError: A value outside of the states, with variable and row; a missing cell.

        Example:
            >>> net = BayesNet.student()
            >>> float(np.exp(net.log_prob([["easy", "high", "B", "high", "weak"]])[0]).round(6))
            0.004608
        """
        numbers, observed = net_rows.as_rows(self.states, rows)
        if not observed.all():
            row, column = np.argwhere(~observed)[0]
            raise ValueError(
                f"'{self.variables[column]}' is missing in row {row}. `exact(net, given=...)` sums "
                "over missing cells; its `log_evidence` is the log probability of the rest."
            )
        return net_rows.log_prob(self.parents, self.log_tables, numbers)

    @cached_property
    def log_tables(self) -> dict[str, Float[np.ndarray, "*parents states"]]:
        """The logarithms of the tables; minus infinity where a probability is zero."""
        with np.errstate(divide="ignore"):
            return {v: np.log(table) for v, table in self.tables.items()}
