"""Trees of greatest likelihood over discrete variables, and mixtures of them by EM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.special import logsumexp, softmax

from deepgen_ppl import net_rows
from deepgen_ppl.bayes_net import BayesNet

Table = Float[np.ndarray, "S S"]


def chow_liu(
    rows: Any,
    states: Mapping[str, Sequence[str]] | None = None,
    *,
    pseudocount: float = 0.0,
    weights: Any = None,
) -> BayesNet:
    r"""The tree-shaped network that makes the rows most probable.

    It is the spanning tree of greatest total mutual information between its neighbours,

    $$I_{uv} = \sum_{x_u, x_v} \hat p(x_u, x_v) \log
      \frac{\hat p(x_u, x_v)}{\hat p(x_u)\, \hat p(x_v)},$$

    with the shares of counts as its tables; the first variable is the root.

    Args:
        rows: Whole rows, `(row, variable)`, numbers of states or labels.
        states: Each variable's states; by default x0, x1, ... with as many states as occur, at
            least two.
        pseudocount: Weight of a uniform distribution, in rows: every pair of states of two
            variables gets its share of it before anything is counted.
        weights: How much each row counts; one by default.

    Returns:
        The network.

    Raises:
        ValueError: A missing cell, or a value outside of the states, by variable and row.

    Cost: A product of the indicators of all states with themselves, `rows x states x states`.

    References:
        Chow, Liu: Approximating discrete probability distributions with dependence trees. IEEE
        Transactions on Information Theory 14(3), 1968.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.integers(0, 2, size=(500, 3))
        >>> x[:, 2] = np.where(rng.random(500) < 0.9, x[:, 0], x[:, 2])
        >>> chow_liu(x).parents["x2"]
        ('x0',)
    """
    data = _Indicators.of(rows, states)
    (tree,) = data.trees(np.ones((len(data.numbers), 1)) if weights is None
                         else np.asarray(weights, np.float64)[:, None], pseudocount)  # fmt: skip
    return tree


@dataclass(frozen=True, eq=False)
class TreeMixture:
    r"""A mixture of tree-shaped networks, $p(x) = \sum_m w_m\, p_m(x)$.

    Attributes:
        weights: Shares of the components.
        trees: Their networks, over the same variables.
        objective: What EM raises, after each step: the mean log probability of a row, in nats, with
            the logarithm of the prior's density where there is a pseudocount.

    References:
        Meila, Jordan: Learning with mixtures of trees. Journal of Machine Learning Research 1,
        2000.
    """

    weights: Float[np.ndarray, "M"]
    trees: tuple[BayesNet, ...]
    objective: Float[np.ndarray, "num_steps"]

    def log_prob(self, rows: Any) -> Float[np.ndarray, "N"]:
        """Log probability of whole rows, in nats."""
        return np.asarray(logsumexp(self.log_joint(rows), axis=1))

    def responsibilities(self, rows: Any) -> Float[np.ndarray, "N M"]:
        """Probability of each component given each row."""
        return softmax(self.log_joint(rows), axis=1)

    def log_joint(self, rows: Any) -> Float[np.ndarray, "N M"]:
        """Log probability of each row together with each component, in nats."""
        with np.errstate(divide="ignore"):
            return np.stack([tree.log_prob(rows) for tree in self.trees], 1) + np.log(self.weights)

    def sample(self, num_samples: int, seed: int = 0) -> Int[np.ndarray, "num_samples V"]:
        """Draw rows."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.trees), size=num_samples, p=self.weights)
        drawn = [tree.sample(num_samples, seed=seed + 1 + m) for m, tree in enumerate(self.trees)]
        return np.stack(drawn)[chosen, np.arange(num_samples)]


def tree_mixture(
    rows: Any,
    num_components: int,
    states: Mapping[str, Sequence[str]] | None = None,
    *,
    pseudocount: float = 0.0,
    num_steps: int = 100,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> TreeMixture:
    """A mixture of Chow-Liu trees by expectation maximisation.

    Every step fits a tree to the rows weighted by each component's responsibilities: the structures
    are learned with the tables.

    Args:
        rows: Whole rows, `(row, variable)`, numbers of states or labels.
        num_components: Number of trees.
        states: Each variable's states, as for `chow_liu`.
        pseudocount: Weight of a uniform distribution in each component, in rows.
        num_steps: At most so many steps.
        tolerance: A gain per row, in nats, below which it stops.
        seed: Seed of the first responsibilities.

    Returns:
        The mixture, with what each step gained.

    Raises:
        ValueError: A missing cell; less than one component.

    Cost: In each step `components x rows x states x states`, as matrix products.

    References:
        Meila, Jordan: Learning with mixtures of trees. Journal of Machine Learning Research 1,
        2000.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.integers(0, 2, size=(400, 4)) * rng.integers(0, 2, size=(400, 1))
        >>> mixture = tree_mixture(x, 2, pseudocount=1.0)
        >>> bool(mixture.log_prob(x).mean() > chow_liu(x).log_prob(x).mean())
        True
    """
    if num_components < 1 or num_steps < 1:
        raise ValueError(
            f"num_components is {num_components} and num_steps {num_steps}; there is one or more."
        )
    data = _Indicators.of(rows, states)
    numbers, times = np.unique(data.numbers, axis=0, return_counts=True)  # equal rows once
    data, num_rows = _Indicators.of(numbers, data.states), len(data.numbers)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(num_components), size=len(numbers))
    objective: list[float] = []
    for _ in range(num_steps):
        trees = data.trees(shares * times[:, None], pseudocount)
        weights = (times @ shares + pseudocount) / (num_rows + num_components * pseudocount)
        mixture = TreeMixture(weights, tuple(trees), np.array(objective))
        joint = mixture.log_joint(numbers)
        shares = softmax(joint, axis=1)
        prior = pseudocount * _log_prior(mixture) / num_rows if pseudocount else 0.0
        objective.append(float(times @ np.asarray(logsumexp(joint, axis=1))) / num_rows + prior)
        if len(objective) > 1 and objective[-1] - objective[-2] < tolerance:
            break
    return TreeMixture(mixture.weights, mixture.trees, np.array(objective))


def _log_prior(mixture: TreeMixture) -> float:
    """What one uniform row for each component adds to the log likelihood, on average."""
    of_trees = sum(float(table.mean()) for tree in mixture.trees
                   for table in tree.log_tables.values())  # fmt: skip
    return of_trees + float(np.log(mixture.weights).sum())


@dataclass(frozen=True, eq=False)
class _Indicators:
    """Rows as indicators of states, all variables side by side."""

    states: dict[str, tuple[str, ...]]
    numbers: Int[np.ndarray, "N V"]
    indicators: Float[np.ndarray, "N S"]
    starts: Int[np.ndarray, "V"]

    @classmethod
    def of(cls, rows: Any, states: Mapping[str, Sequence[str]] | None) -> "_Indicators":
        if states is None:
            largest = np.maximum(np.max(np.asarray(rows), axis=0, initial=1), 1)
            labels = {f"x{v}": tuple(map(str, range(int(k) + 1))) for v, k in enumerate(largest)}
        else:
            labels = {v: tuple(names) for v, names in states.items()}
        numbers, observed = net_rows.as_rows(labels, rows)
        if not observed.all():
            row, column = np.argwhere(~observed)[0]
            raise ValueError(
                f"'{list(labels)[column]}' is missing in row {row}: trees are learned from whole "
                f"rows."
            )
        sizes = [len(names) for names in labels.values()]
        starts = np.cumsum([0, *sizes[:-1]])
        indicators = np.zeros((len(numbers), sum(sizes)))
        np.put_along_axis(indicators, numbers + starts, 1.0, axis=1)
        return cls(labels, numbers, indicators, starts)

    def trees(self, shares: Float[np.ndarray, "N M"], pseudocount: float) -> list[BayesNet]:
        """The tree of greatest likelihood for each column of weights."""
        return [self._tree(self._pairs(weights, pseudocount)) for weights in shares.T]

    def _pairs(self, weights: Float[np.ndarray, "N"], pseudocount: float) -> Table:
        """Joint probabilities of every two states, the uniform distribution mixed in."""
        sizes = np.repeat([len(s) for s in self.states.values()],
                          [len(s) for s in self.states.values()])  # fmt: skip
        pairs = (self.indicators * weights[:, None]).T @ self.indicators
        uniform = pseudocount / np.outer(sizes, sizes)
        for start, names in zip(self.starts, self.states.values(), strict=True):
            own = slice(start, start + len(names))
            uniform[own, own] = np.eye(len(names)) * pseudocount / len(names)
        total = weights.sum() + pseudocount
        return (pairs + uniform) / total

    def _tree(self, pairs: Table) -> BayesNet:
        names, sizes = list(self.states), [len(s) for s in self.states.values()]
        information = self._information(pairs)
        # a spanning tree needs every edge above zero, and takes the smallest: turn the order round
        cost = information.max(initial=0.0) + 1.0 - information
        np.fill_diagonal(cost, 0.0)
        spanning = minimum_spanning_tree(cost)
        order, before = breadth_first_order(spanning, 0, directed=False)
        parents = {names[v]: (names[before[v]],) for v in order[1:]}
        tables = {}
        for v, name in enumerate(names):
            own = slice(self.starts[v], self.starts[v] + sizes[v])
            if name in parents:
                above = slice(self.starts[before[v]], self.starts[before[v]] + sizes[before[v]])
                joint = pairs[above, own]
            else:
                joint = np.diag(pairs)[own]
            total = joint.sum(-1, keepdims=True)
            uniform = np.full_like(joint, 1 / sizes[v])
            tables[name] = np.divide(joint, total, out=uniform, where=total > 0)
        return BayesNet(self.states, parents, tables, "tree")

    def _information(self, pairs: Table) -> Float[np.ndarray, "V V"]:
        """Mutual information of every two variables, in nats."""
        single = np.diag(pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = pairs * (np.log(pairs) - np.log(np.outer(single, single)))
        terms = np.where(pairs > 0, terms, 0.0)
        by_row = np.add.reduceat(terms, self.starts, axis=0)
        return np.add.reduceat(by_row, self.starts, axis=1)
