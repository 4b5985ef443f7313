"""The tables of a network from rows: counts, Dirichlet posteriors in closed form, EM's steps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import net_rows
from deepgen_ppl.bayes_net import BayesNet

Counts = dict[str, Float[np.ndarray, "*parents states"]]


def family_counts(net: BayesNet, rows: Any, *, weights: Any = None) -> Counts:
    """How often each variable had each state with each states of its parents.

    Args:
        net: The structure; its tables do not matter.
        rows: Whole rows, `(row, variable)`, numbers of states or labels.
        weights: How much each row counts; one by default.

    Returns:
        Counts in the shape of the tables.

    Raises:
        ValueError: A missing cell, or a value outside of the states, by variable and row.

    Cost: Proportional to the cells.

    Example:
        >>> net = BayesNet.student()
        >>> family_counts(net, [[0, 1, 0, 1, 1], [0, 0, 2, 0, 0]])["SAT"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    numbers, observed = net_rows.as_rows(net.states, rows)
    if not observed.all():
        row, column = np.argwhere(~observed)[0]
        raise ValueError(
            f"'{net.variables[column]}' is missing in row {row}: counting needs whole rows. "
            "`learn_bayes_net(net, rows)` learns from the rest by EM."
        )
    if weights is not None and np.shape(weights) != (len(numbers),):
        raise ValueError(f"There are {len(numbers)} rows and weights of shape {np.shape(weights)}.")
    column = dict(zip(net.variables, numbers.T, strict=True))
    found = {}
    for variable, table in net.tables.items():
        family = tuple(column[v] for v in (*net.parents[variable], variable))
        places = np.ravel_multi_index(family, table.shape)
        counts = np.bincount(places, weights, minlength=table.size).astype(np.float64)
        found[variable] = counts.reshape(table.shape)
    return found


def normalised(
    net: BayesNet, counts: Mapping[str, np.ndarray], pseudocount: float = 0.0
) -> BayesNet:
    """The network whose tables are the shares of the counts.

    A row without any counts becomes uniform.

    Args:
        net: The structure.
        counts: In the shape of the tables.
        pseudocount: Added to every count.

    Example:
        >>> net = BayesNet({"coin": ("heads", "tails")}, tables={"coin": [0.5, 0.5]})
        >>> normalised(net, {"coin": np.array([3.0, 1.0])}).tables["coin"].tolist()
        [0.75, 0.25]
    """
    tables = {}
    for variable, found in counts.items():
        added = found + pseudocount
        total = added.sum(-1, keepdims=True)
        uniform = np.full_like(added, 1 / added.shape[-1])
        tables[variable] = np.divide(added, total, out=uniform, where=total > 0)
    return BayesNet(net.states, net.parents, tables, net.name)


class DirichletPosterior(NamedTuple):
    r"""Independent Dirichlet distributions over the rows of a network's tables.

    Attributes:
        net: The structure.
        concentrations: In the shape of the tables.
        log_evidence: $\log p(\text{rows})$ with the tables integrated out; it compares structures.
    """

    net: BayesNet
    concentrations: Counts
    log_evidence: float

    @property
    def mean(self) -> BayesNet:
        """The network of posterior mean tables, by which the next row is predicted exactly."""
        return normalised(self.net, self.concentrations)

    @property
    def standard_deviations(self) -> Counts:
        """Of every probability, in the shape of the tables."""
        found = {}
        for variable, c in self.concentrations.items():
            total = c.sum(-1, keepdims=True)
            found[variable] = np.sqrt(c / total * (1 - c / total) / (total + 1))
        return found

    @property
    def mean_log(self) -> Counts:
        """Mean of the logarithm of every probability, in the shape of the tables."""
        from scipy.special import digamma  # whose import adds a filter of warnings

        return {
            v: digamma(c) - digamma(c.sum(-1, keepdims=True))
            for v, c in self.concentrations.items()
        }


def dirichlet_posterior(
    net: BayesNet, rows: Any, *, concentration: float = 1.0, weights: Any = None
) -> DirichletPosterior:
    r"""The posterior over tables whose rows are Dirichlet a priori, in closed form.

    $$\theta_{v \mid u} \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha), \qquad
      \theta_{v \mid u} \mid \text{rows} \sim \mathrm{Dirichlet}(\alpha + n_{v \mid u})$$

    Args:
        net: The structure; its tables do not matter.
        rows: Whole rows, `(row, variable)`, numbers of states or labels.
        concentration: $\alpha$, of every cell.
        weights: How much each row counts; one by default.

    Returns:
        Concentrations and the log evidence of the structure.

    Raises:
        ValueError: A missing cell; a concentration that is not positive.

    References:
        Heckerman, Geiger, Chickering: Learning Bayesian networks: the combination of knowledge and
        statistical data. Machine Learning 20, 1995. https://doi.org/10.1007/BF00994016

    Example:
        >>> net = BayesNet({"coin": ("heads", "tails")}, tables={"coin": [0.5, 0.5]})
        >>> posterior = dirichlet_posterior(net, [["heads"], ["heads"], ["tails"]])
        >>> posterior.mean.tables["coin"].tolist(), round(posterior.log_evidence, 4)
        ([0.6, 0.4], -2.4849)
    """
    from scipy.special import gammaln

    if not concentration > 0:
        raise ValueError(f"concentration is {concentration}; a Dirichlet's is positive.")
    counts = family_counts(net, rows, weights=weights)
    log_evidence = 0.0
    for n in counts.values():
        total, prior = n.sum(-1), concentration * n.shape[-1]
        log_evidence += float(np.sum(gammaln(prior) - gammaln(prior + total)))
        log_evidence += float(np.sum(gammaln(concentration + n) - gammaln(concentration)))
    return DirichletPosterior(net, {v: concentration + n for v, n in counts.items()}, log_evidence)


@dataclass(frozen=True)
class NetFit:
    """A network learned by expectation maximisation.

    Attributes:
        net: The network.
        log_likelihoods: Log probability of all observed cells before each step, in nats, with the
            logarithm of the prior's density where there are pseudocounts: what EM never lowers.
        converged: Whether a step gained no more than the tolerance before the steps were used up;
            gains below rounding, in single precision some 1e-7 of the value, count as none.
        seconds: Time it took.
    """

    net: BayesNet
    log_likelihoods: Float[np.ndarray, "num_steps"]
    converged: bool
    seconds: float = field(compare=False, default=0.0)


Expect = Callable[[BayesNet], tuple[Counts, float]]
"""A network to expected counts of its families and the log probability of the observed cells."""


def maximise(
    start: BayesNet, expect: Expect, *, num_steps: int, tolerance: float, pseudocount: float,
    num_rows: int,
) -> tuple[BayesNet, list[float], bool]:  # fmt: skip
    r"""Expectation maximisation: expected counts, then their shares, until nothing is gained.

    Args:
        start: The first network.
        expect: Expected counts under a network.
        num_steps: At most so many steps.
        tolerance: A gain per row, in nats, at or below which it stops; one lost in rounding too.
        pseudocount: Added to every expected count: the mode under $\mathrm{Dirichlet}(1 + a)$.
        num_rows: Number of rows.

    Returns:
        The network, the objective before each step, whether it converged.

    References:
        Dempster, Laird, Rubin: Maximum likelihood from incomplete data via the EM algorithm.
        Journal of the Royal Statistical Society B 39(1), 1977.
        Lauritzen: The EM algorithm for graphical association models with missing data.
        Computational Statistics and Data Analysis 19(2), 1995.
    """
    net, objective = start, []
    for _ in range(num_steps):
        counts, log_likelihood = expect(net)
        objective.append(log_likelihood + _log_prior(net, pseudocount))
        if not np.isfinite(objective[-1]):
            raise ValueError(
                "Some row is impossible under the network that EM starts from: a cell has "
                "probability zero. Start from positive tables, as those of "
                "`BayesNet.from_structure(states, parents)`."
            )
        net = normalised(net, counts, pseudocount)
        if len(objective) > 1 and objective[-1] - objective[-2] <= tolerance * num_rows:
            return net, objective, True
    return net, objective, False


def em(
    net: BayesNet, rows: Any, mask: Any, exact: Callable[..., Any], *, pseudocount: float,
    jitter: float, num_steps: int, tolerance: float, seed: int,
) -> NetFit:  # fmt: skip
    """Expectation maximisation with a wing's `exact`; see its `learn_bayes_net`.

    Whole rows are counted once; of the others each different one is summed out once a step, with
    its number as weight.
    """
    if not pseudocount >= 0 or not 0 <= jitter <= 1 or num_steps < 1:
        raise ValueError(
            f"pseudocount is {pseudocount}, jitter {jitter}, num_steps {num_steps}; the first is 0 "
            "or more, the second between 0 and 1, the third at least 1."
        )
    began = time.perf_counter()
    numbers, observed = net.as_rows(rows, mask)
    whole = observed.all(axis=1)
    certain = family_counts(net, numbers[whole])
    partial, seen, times = distinct_rows(numbers[~whole], observed[~whole])
    given = {v: np.ma.MaskedArray(partial[:, i], ~seen[:, i]) for i, v in enumerate(net.variables)}

    def expect(current: BayesNet) -> tuple[Counts, float]:
        total = float(current.log_prob(numbers[whole]).sum())
        if not len(times):
            return certain, total
        answer = exact(current, given=given, query=())
        if np.isneginf(answer.log_evidence).any() or total == -np.inf:
            return certain, -np.inf
        expected = answer.expected_counts(weights=times)
        total += float(times @ answer.log_evidence)
        return {v: certain[v] + n for v, n in zip(net.variables, expected, strict=True)}, total

    start = jittered(net, seed, jitter) if jitter else net
    learned, objective, converged = maximise(
        start, expect, num_steps=num_steps, tolerance=tolerance, pseudocount=pseudocount,
        num_rows=len(numbers),
    )  # fmt: skip
    return NetFit(learned, np.array(objective), converged, time.perf_counter() - began)


def jittered(net: BayesNet, seed: int, strength: float) -> BayesNet:
    """The network with its tables moved at random, so that hidden states differ from each other.

    Args:
        net: The network.
        seed: Seed of NumPy's generator.
        strength: Share of a row that is drawn uniformly from the simplex; 0 keeps the tables.
    """
    rng = np.random.default_rng(seed)
    tables = {}
    for variable, table in net.tables.items():
        noise = rng.dirichlet(np.ones(table.shape[-1]), size=table.shape[:-1])
        tables[variable] = (1 - strength) * table + strength * noise
    return BayesNet(net.states, net.parents, tables, net.name)


def distinct_rows(
    numbers: Int[np.ndarray, "N V"], observed: np.ndarray
) -> tuple[Int[np.ndarray, "U V"], np.ndarray, Int[np.ndarray, "U"]]:
    """Each different row once, with its mask and how often it stands; a missing cell is 0.

    Example:
        >>> numbers = np.array([[0, 1], [1, 1], [0, 1]])
        >>> distinct_rows(numbers, np.ones_like(numbers, bool))[2].tolist()
        [2, 1]
    """
    coded = np.where(observed, numbers, -1)
    unique, counts = np.unique(coded, axis=0, return_counts=True)
    return np.maximum(unique, 0), unique >= 0, counts


def _log_prior(net: BayesNet, pseudocount: float) -> float:
    if pseudocount == 0.0:
        return 0.0
    return float(sum(pseudocount * t.sum() for t in net.log_tables.values()))
