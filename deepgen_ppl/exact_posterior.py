"""The exact posterior of discrete latents: evidence, marginals, best states, draws, information."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl import exact_checks
from deepgen_ppl.conditioning import Conditioned, condition, stacks_of
from deepgen_ppl.contraction import Group, Plan
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.factor_graph import Numbered
from deepgen_ppl.findings import Findings

Values = dict[str, np.ndarray]

_PLANS: OrderedDict[tuple, Plan] = OrderedDict()
_MOST_PLANS = 128
_LOG = logging.getLogger("deepgen_ppl")


class Engine(Protocol):
    """Sums over factor graphs, as a wing carries them out; see its `engine.py`."""

    def log_sums(self, plan: Plan, tables: Sequence[np.ndarray]) -> np.ndarray:
        """Return log sums of all parts."""
        ...

    def marginals(
        self,
        plan: Plan,
        tables: Sequence[np.ndarray],
        wanted: Sequence[int],
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return log sums, and marginals over the variables of some stacks."""
        ...

    def best(self, plan: Plan, tables: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return best states and their values."""
        ...

    def draws(
        self, plan: Plan, tables: Sequence[np.ndarray], num_samples: int, seed: int
    ) -> np.ndarray:
        """Return exact draws."""
        ...

    def slopes(
        self, plan: Plan, tables: Sequence[np.ndarray], directions: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the derivative of log sums along a direction."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """What exact inference works on: a factor graph, and how its variables are called.

    Attributes:
        coordinates: The discrete sites.
        graph: The factor graph over their coordinates.
        constants: Log density that depends on none of them: of each row, or one number.
        rows: Row of the data plate of each coordinate, None where rows are not apart.
        names: Names that users know sites by, where these differ.
        labels: Names of the states of sites that have some.
        row_dim: Name of the data plate where rows are apart.
        about: Makes further fields of a `Posterior` of its draws.
        has_data: Whether it has data of its own beside the evidence.
    """

    coordinates: Coordinates
    graph: Numbered
    constants: Float[np.ndarray, "*N"]
    rows: Int[np.ndarray, " D"] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    row_dim: str | None = None
    about: Callable[[], Mapping[str, Any]] = dict
    has_data: bool = False

    def public(self, site: str) -> str:
        """Return the name that users know a site by."""
        return self.names.get(site, site)


class Assignment(NamedTuple):
    """States of all discrete sites together.

    Attributes:
        values: Value of each site.
        log_prob: Joint log density of the values and of all that is observed.
    """

    values: Values
    log_prob: Float[np.ndarray, "*rows"]


class ExactPosterior:
    r"""The exact distribution of the discrete sites of a program, given its data and evidence.

    \[ p(z \mid x) = \frac{p(x, z)}{p(x)}, \qquad p(x) = \sum_z p(x, z) \]

    Arrays have a leading axis B where evidence was given in rows.

    Attributes:
        log_evidence: log p(x): one number; one for each row of evidence, of the data plate where
            every latent and every term is a row's own, or of both.
        cost: What it took.
    """

    def __init__(
        self,
        subject: Subject,
        findings: Findings,
        engine: Engine,
        *,
        max_bytes: int,
        query: Sequence[str] | None = None,
        conditioned: bool = True,
    ) -> None:
        self._subject, self._findings, self._engine = subject, findings, engine
        self._max_bytes = max_bytes
        self.query = None if query is None else tuple(query)
        fixed = self._fixed = findings.fixed if conditioned else np.zeros(0, int)
        self._left: Conditioned = condition(subject.graph, fixed, findings.states[:, fixed])
        self._groups = _planned(self._left.graph)
        self.cost = exact_checks.cost_of(self._groups, findings.num_rows)
        _LOG.info("exact: %s", self.cost)
        exact_checks.check_cost(self.cost, max_bytes)
        self._tables = [
            stacks_of(group, self._left.graph, findings, self._left.kept) for group in self._groups
        ]
        self.log_evidence: Float[np.ndarray, "*rows"] = self._evaluate(self.query != ())

    def __repr__(self) -> str:
        total = float(self.log_evidence.sum())
        rows = f" over {self.log_evidence.size} rows" if self.log_evidence.ndim else ""
        places = self._subject.coordinates.places
        names = ", ".join(self._subject.public(site) for site in list(places)[:8])
        more = ", ..." if len(places) > 8 else ""
        return f"ExactPosterior(log evidence {total:.4f}{rows}; {names}{more}; {self.cost})"

    @property
    def impossible(self) -> Bool[np.ndarray, "*rows"]:
        """Whether the evidence cannot happen: log evidence minus infinity."""
        return np.isneginf(self.log_evidence)

    @property
    def marginals(self) -> Values:
        """Posterior probability of each value of each site, `(*B, *site, K)`.

        Raises:
            ValueError: The evidence is impossible, naming the sites that conflict.
        """
        self._check_possible()
        if self._marginals is None:
            self._evaluate(True)
        found = self._marginals or {}
        return {name: found[name] for name in self.query} if self.query else found

    def joint(self, *names: str) -> Float[np.ndarray, "*rows"]:
        """Return the joint distribution of several sites, an axis of values for each at the end.

        Args:
            *names: Sites of one shape, whose elements are taken pairwise; sites without a shape, or
                single elements as `"z[3]"`, go with all.

        Raises:
            ValueError: Unknown sites, shapes that do not agree, impossible evidence, or a table
                that is too large.
        """
        self._check_possible()
        coordinates, shape = exact_checks.elements(self._subject, names)
        cards = tuple(self._subject.coordinates.cardinality[coordinates].max(0).tolist())
        graph, findings = self._subject.graph, self._findings
        whole = condition(graph, np.zeros(0, int), findings.states[:, :0]).graph
        zero = np.zeros((*cards, len(coordinates), 1))
        number = np.arange(len(coordinates)) + sum(len(n) for n in graph.numbers)
        whole = exact_checks.with_block(whole, coordinates, zero, number)
        found = np.zeros((*cards, len(coordinates), findings.num_rows))
        groups = _planned(whole)
        cost = exact_checks.cost_of(groups, findings.num_rows)
        exact_checks.check_cost(cost, self._max_bytes)
        first = sum(len(scopes) for scopes in whole.scopes) - len(coordinates)
        kept = np.arange(len(whole.cards))
        for group in groups:
            own = np.unique(np.nonzero(group.factors >= first)[1])
            if not len(own):
                continue
            tables = stacks_of(group, whole, findings, kept)
            for factor in own:
                stack, place = group.plan.table(int(factor))
                parts = len(group.variables) * findings.num_rows
                tables[stack] = np.broadcast_to(tables[stack], (*tables[stack].shape[:-1], parts))
                _, (slope,) = self._engine.marginals(group.plan, tables, [stack])
                at = group.factors[:, factor] - first
                table = slope[..., place, :].reshape(*cards, len(at), findings.num_rows)
                mine = at >= 0
                found[..., at[mine], :] = table[..., mine, :]
        found = np.moveaxis(found, -1, 0)  # rows, cards, elements
        found = np.moveaxis(found, -1, 1).reshape(findings.num_rows, *shape, *cards)
        found = found / found.sum(axis=tuple(range(-len(cards), 0)), keepdims=True)
        return found if findings.batched else found[0]

    def map(self) -> Assignment:
        """Return the most probable values of all sites together (MAP, MPE).

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        states = self._filled(())
        values = [np.zeros((len(g.variables), self._findings.num_rows)) for g in self._groups]
        for i, (group, tables) in enumerate(zip(self._groups, self._tables, strict=True)):
            found, value = self._engine.best(group.plan, tables)
            self._put(states, group, found)
            values[i] = value.reshape(len(group.variables), -1) + np.zeros_like(values[i])
        return Assignment(self._values(states), self._collected(values))

    def sample(self, num_samples: int = 1000, seed: int = 0) -> Values:
        """Return exact posterior draws, `(S, *B, *site)`.

        Args:
            num_samples: Number S of draws.
            seed: Seeds them.

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        states = self._filled((num_samples,))
        for i, (group, tables) in enumerate(zip(self._groups, self._tables, strict=True)):
            found = self._engine.draws(group.plan, tables, num_samples, seed + 7919 * i)
            self._put(states, group, found)
        return self._values(states)

    def posterior(self, num_samples: int = 1000, seed: int = 0) -> Any:
        """Return exact draws as a `Posterior`, which has a DataTree and a diagnosis.

        Args:
            num_samples: Number of draws.
            seed: Seeds them.

        Raises:
            ValueError: Evidence was given in rows: draws of one row are a posterior.
        """
        from deepgen_ppl.posterior import Posterior

        exact_checks.check_single(self._findings.batched, "posterior")
        draws = {name: value[None] for name, value in self.sample(num_samples, seed).items()}
        draws |= {site: draws[name] for site, name in self._subject.names.items()}
        return Posterior(draws, method="exact", independent=True, **self._subject.about())

    def factor_marginals(self) -> list[np.ndarray]:
        """Return the distribution over the variables of each factor, `(*B, *cards)`, in order.

        Raises:
            ValueError: The evidence is impossible.
        """
        return self._factors(None)

    def expected_counts(self, weights: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the expected number of rows in each state of each factor, `cards`, in order.

        Args:
            weights: Weight of each row of evidence, ones by default.

        Raises:
            ValueError: The evidence is impossible.
        """
        rows = self._findings.num_rows
        return self._factors(np.ones(rows) if weights is None else np.asarray(weights, float))

    def entropy(self) -> Float[np.ndarray, "*rows"]:
        r"""Return the entropy \(H[p(z \mid x)]\) in nats.

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        values = []
        for group, tables, value in zip(self._groups, self._tables, self._sums, strict=True):
            finite = [np.where(np.isfinite(table), table, 0.0) for table in tables]
            slope = self._engine.slopes(group.plan, tables, finite)
            values.append(value - slope.reshape(len(value), -1))
        return self._collected(values, constants=False)

    def kl(self, other: ExactPosterior) -> Float[np.ndarray, "*rows"]:
        r"""Return \(\mathrm{KL}(p \,\|\, q)\) to another answer on the same sites, in nats.

        Args:
            other: The answer q, of a graph of the same structure, with evidence on the same sites.

        Raises:
            ValueError: The structures differ, or evidence is impossible.
        """
        self._check_possible()
        other._check_possible()
        exact_checks.check_alike(self._groups, other._groups, self._findings, other._findings)
        values = []
        for i, (group, p, q) in enumerate(
            zip(self._groups, self._tables, other._tables, strict=True)
        ):
            p, q = zip(*(np.broadcast_arrays(a, b) for a, b in zip(p, q, strict=True)), strict=True)
            with np.errstate(invalid="ignore"):
                gap = [np.where(np.isneginf(a), 0.0, a - b) for a, b in zip(p, q, strict=True)]
            wall = [np.isposinf(part) for part in gap]
            slope = self._engine.slopes(
                group.plan, p, [np.where(w, 0.0, g) for g, w in zip(gap, wall, strict=True)]
            )
            if any(part.any() for part in wall):
                mass = self._engine.slopes(group.plan, p, [part.astype(float) for part in wall])
                slope = np.where(mass > 0, np.inf, slope)
            shape = self._sums[i].shape
            values.append(slope.reshape(shape[0], -1) - self._sums[i] + other._sums[i])
        return self._collected(values, constants=False)

    def mutual_information(self, first: str, second: str) -> Float[np.ndarray, "*rows"]:
        """Return the posterior mutual information of two sites, element by element, in nats.

        Args:
            first: A site, or an element of one.
            second: Another.
        """
        p = self.joint(first, second)
        apart = p.sum(-1, keepdims=True) * p.sum(-2, keepdims=True)
        ratio = np.where(p > 0, p, 1.0) / np.where(p > 0, apart, 1.0)
        return (p * np.log(ratio)).sum((-2, -1))

    def separated(self, first: str, second: str, given: Sequence[str] = ()) -> bool:
        """Tell whether the factor graph says two sites independent, given others and the evidence.

        Args:
            first: A site.
            second: Another.
            given: Sites that are known beside those of the evidence.
        """
        return exact_checks.separated(self._subject, self._findings, first, second, given)

    # --------------------------------------------------------------------------------- helpers

    _marginals: Values | None = None

    def _evaluate(self, wanted: bool) -> np.ndarray:
        """Sum everything out; with the marginals where they are wanted."""
        rows = self._findings.num_rows
        self._sums: list[np.ndarray] = []
        full = self._filled_marginals() if wanted else None
        for group, tables in zip(self._groups, self._tables, strict=True):
            plan, parts = group.plan, len(group.variables)
            if full is None:
                value = self._engine.log_sums(plan, tables)
            else:
                stacks = [i for i, stack in enumerate(plan.stacks) if stack.unary]
                value, slopes = self._engine.marginals(plan, tables, stacks)
                for i, slope in zip(stacks, slopes, strict=True):
                    chosen = self._left.kept[group.variables[:, plan.stacks[i].members].T]
                    slope = slope.reshape(*slope.shape[:-1], parts, rows)
                    full[chosen, :, : len(slope)] = np.moveaxis(slope, (0, -1), (-1, -2))
            self._sums.append(value.reshape(parts, -1) + np.zeros((parts, rows)))
        if full is not None:
            self._marginals = self._by_site(full)
        return self._collected(self._sums)

    def _filled_marginals(self) -> Float[np.ndarray, "D B K"]:
        """Return the marginals of coordinates that are conditioned on, zeros for the others."""
        coordinates, states = self._subject.coordinates, self._findings.states
        full = np.zeros((coordinates.size, len(states), coordinates.num_values))
        full[self._fixed[:, None], np.arange(len(states)), states[:, self._fixed].T] = 1.0
        return full

    def _by_site(self, full: Float[np.ndarray, "D B K"]) -> Values:
        total = full.sum(-1, keepdims=True)
        full = np.divide(full, total, out=full, where=total > 0)
        found = {}
        for site, place in self._subject.coordinates.places.items():
            name = self._subject.public(site)
            part = full[place.start : place.start + place.size, :, : place.support.shape[1]]
            part = np.moveaxis(part, 0, 1)
            part = part.reshape(len(part), *place.shape, part.shape[-1])
            found[name] = part if self._findings.batched else part[0]
        return found

    def _collected(
        self, values: Sequence[np.ndarray], constants: bool = True
    ) -> Float[np.ndarray, "*rows"]:
        """Add up the values of all parts, row by row where rows are apart."""
        subject, rows = self._subject, self._findings.num_rows
        base = np.asarray(subject.constants, float)
        if subject.rows is None:
            total = np.zeros(rows)
            for value in values:
                total = total + value.sum(0)
            if constants:
                total = total + self._left.constants.sum(0) + base.sum()
            return total if self._findings.batched else total[0]
        total = np.zeros((rows, len(base)))
        for group, value in zip(self._groups, values, strict=True):
            where = subject.rows[self._left.kept[group.variables[:, 0]]]
            np.add.at(total, (slice(None), where), value.T)
        if constants:
            np.add.at(total, (slice(None), subject.rows[self._left.owners]), self._left.constants.T)
            total = total + base
        return total if self._findings.batched else total[0]

    def _filled(self, lead: tuple[int, ...]) -> Int[np.ndarray, "*S B D"]:
        states = np.maximum(self._findings.states, 0)
        return np.broadcast_to(states, (*lead, *states.shape)).copy()

    def _put(self, states: np.ndarray, group: Group, found: np.ndarray) -> None:
        """Put the states of a group, `(*S, d, M)`, among those of all coordinates."""
        found = found.reshape(*found.shape[:-1], len(group.variables), states.shape[-2])
        chosen = self._left.kept[group.variables].T  # d, parts
        states[..., chosen] = np.moveaxis(found, -1, -3)

    def _values(self, states: Int[np.ndarray, "*S B D"]) -> Values:
        """Return states as values of sites, observed elements among them."""
        coordinates, lead = self._subject.coordinates, states.shape[:-1]
        flat = states.reshape(-1, coordinates.size)
        found = {}
        for site, value in coordinates.integers(coordinates.values(flat)).items():
            value = value.reshape(*lead, *value.shape[1:])
            if not self._findings.batched:
                value = value[(slice(None),) * (len(lead) - 1) + (0,)]
            found[self._subject.public(site)] = value
        return found

    def _factors(self, weights: np.ndarray | None) -> list[np.ndarray]:
        """Return marginals over the variables of factors, by row or summed with weights."""
        self._check_possible()
        whole = self if not len(self._fixed) else self._again(self._findings, conditioned=False)
        graph, rows = whole._left.graph, self._findings.num_rows
        number = np.concatenate(graph.numbers) if graph.numbers else np.zeros(0, int)
        found: list[np.ndarray] = [np.zeros(0)] * len(number)
        for group, given in zip(whole._groups, whole._tables, strict=True):
            stacks = [i for i, stack in enumerate(group.plan.stacks) if not stack.unary]
            parts, tables = len(group.variables), list(given)
            if weights is None or parts > 1:
                for i in stacks:
                    full = (*tables[i].shape[:-1], parts * rows)
                    tables[i] = np.broadcast_to(tables[i], full)
            scale = None if weights is None else np.tile(weights, parts)
            _, slopes = self._engine.marginals(group.plan, tables, stacks, scale)
            for i, slope in zip(stacks, slopes, strict=True):
                shape = (*slope.shape[:-1], parts if slope.shape[-1] > 1 else 1, -1)
                slope = slope.reshape(shape)
                slope = slope if weights is None else slope.sum(-1)
                for g, factor in enumerate(group.plan.stacks[i].members):
                    for part in range(parts):
                        own = number[group.factors[part, factor]]
                        found[own] = self._factor(slope, g, part, weights is None)
        return found

    def _factor(self, slope: np.ndarray, g: int, part: int, by_row: bool) -> np.ndarray:
        if not by_row:
            return slope[..., g, part]
        rows = np.moveaxis(slope[..., g, part, :], -1, 0)
        return rows if self._findings.batched else rows[0]

    def _check_possible(self) -> None:
        if self.impossible.any():
            possible = lambda some: not self._again(some, False).impossible.any()  # noqa: E731
            exact_checks.refuse_impossible(self._subject, self._findings, self.impossible, possible)

    def _again(self, findings: Findings, conditioned: bool = True) -> ExactPosterior:
        options: dict[str, Any] = {"max_bytes": self._max_bytes, "query": ()}
        return ExactPosterior(
            self._subject, findings, self._engine, conditioned=conditioned, **options
        )

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of the discrete sites."""
        return tuple(map(self._subject.public, self._subject.coordinates.places))


def _planned(graph: Numbered) -> list[Group]:
    """Return the parts of a graph with their plans, which are kept."""
    groups = graph.groups(plans=_PLANS)
    while len(_PLANS) > _MOST_PLANS:
        _PLANS.popitem(last=False)
    return groups
