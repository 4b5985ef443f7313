"""The exact posterior of discrete latents: evidence, marginals, best states, draws, information."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl import exact_checks
from deepgen_ppl.conditioning import condition, stacks_of
from deepgen_ppl.exact_sums import Engine, Subject, Sums, planned
from deepgen_ppl.findings import Findings

Values = dict[str, np.ndarray]


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
            every latent and every term is a row's own, or of both. Minus infinity where the
            evidence cannot happen.
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
    ) -> None:
        self._subject, self._findings, self._engine = subject, findings, engine
        self.query = None if query is None else tuple(query)
        self._sums = Sums(subject, findings, engine, max_bytes)
        self.cost = self._sums.cost
        self._marginals: Values | None = None
        if self.query == ():
            self._values = self._sums.log_sums()
        else:
            self._values, full = self._sums.marginals()
            self._marginals = self._by_site(full)
        self.log_evidence: Float[np.ndarray, "*rows"] = self._collected(self._values)

    def __repr__(self) -> str:
        total = float(self.log_evidence.sum())
        rows = f" over {self.log_evidence.size} rows" if self.log_evidence.ndim else ""
        names = ", ".join(self.variables[:8]) + (", ..." if len(self.variables) > 8 else "")
        return f"ExactPosterior(log evidence {total:.4f}{rows}; {names}; {self.cost})"

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of the discrete sites."""
        return tuple(map(self._subject.public, self._subject.coordinates.places))

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
            self._marginals = self._by_site(self._sums.marginals()[1])
        found = self._marginals
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
        findings, rows = self._findings, self._findings.num_rows
        coordinates, shape = exact_checks.elements(self._subject, names)
        places = [self._subject.coordinates.cardinality[column].max() for column in coordinates.T]
        cards = tuple(map(int, places))
        whole = condition(self._subject.graph, np.zeros(0, int), findings.states[:, :0]).graph
        first = sum(len(scopes) for scopes in whole.scopes)
        blank = np.zeros((*cards, len(coordinates), 1))  # the gradient in it is the distribution
        whole = exact_checks.with_block(whole, coordinates, blank)
        groups = planned(whole)
        cost = exact_checks.cost_of(groups, rows)
        exact_checks.check_cost(cost, self._sums.max_bytes)
        found = np.zeros((rows, len(coordinates), *cards))
        for group in groups:
            number = np.concatenate(whole.numbers)[group.factors]
            tables = stacks_of(group, whole, findings, np.arange(len(whole.cards)))
            for factor in np.flatnonzero((number >= first).any(0)):
                stack, place = group.plan.table(int(factor))
                full = (*tables[stack].shape[:-1], len(group.variables) * rows)
                tables[stack] = np.broadcast_to(tables[stack], full)
                _, (slope,) = self._engine.marginals(group.plan, tables, [stack])
                table = slope[..., place, :].reshape(*cards, len(number), rows)
                mine = number[:, factor] >= first
                table = np.moveaxis(table[..., mine, :], (-1, -2), (0, 1))
                found[:, number[mine, factor] - first] = table
        found = found / found.sum(axis=tuple(range(-len(cards), 0)), keepdims=True)
        found = found.reshape(rows, *shape, *cards)
        return found if findings.batched else found[0]

    def map(self) -> Assignment:
        """Return the most probable values of all sites together (MAP, MPE).

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        values, states = self._sums.best()
        return Assignment(self._named(states), self._collected(values))

    def sample(self, num_samples: int = 1000, seed: int = 0) -> Values:
        """Return exact posterior draws, `(S, *B, *site)`.

        Args:
            num_samples: Number S of draws.
            seed: Seeds them.

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        return self._named(self._sums.draws(num_samples, seed))

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
        found = self._whole().factors()
        return found if self._findings.batched else [table[0] for table in found]

    def expected_counts(self, weights: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the expected number of rows in each state of each factor, `cards`, in order.

        Args:
            weights: Weight of each row of evidence, ones by default.

        Raises:
            ValueError: The evidence is impossible.
        """
        rows = self._findings.num_rows
        return self._whole().factors(np.ones(rows) if weights is None else np.asarray(weights))

    def entropy(self) -> Float[np.ndarray, "*rows"]:
        r"""Return the entropy \(H[p(z \mid x)]\) in nats.

        Raises:
            ValueError: The evidence is impossible.
        """
        self._check_possible()
        finite = [[np.where(np.isfinite(t), t, 0.0) for t in ts] for ts in self._sums.tables]
        slopes = self._sums.slopes(finite)
        pairs = zip(self._values, slopes, strict=True)
        return self._collected([value - slope for value, slope in pairs], constants=False)

    def kl(self, other: ExactPosterior) -> Float[np.ndarray, "*rows"]:
        r"""Return \(\mathrm{KL}(p \,\|\, q)\) to another answer on the same sites, in nats.

        Args:
            other: The answer q, of a graph of the same structure, with evidence on the same sites.

        Raises:
            ValueError: The structures differ, or evidence is impossible.
        """
        self._check_possible()
        other._check_possible()
        exact_checks.check_alike(self._sums, other._sums)
        gaps, walls, wide = [], [], []
        for own, others in zip(self._sums.tables, other._sums.tables, strict=True):
            pairs = [np.broadcast_arrays(p, q) for p, q in zip(own, others, strict=True)]
            with np.errstate(invalid="ignore"):
                gap = [np.where(np.isneginf(p), 0.0, p - q) for p, q in pairs]
            walls.append([np.isposinf(part).astype(float) for part in gap])
            gaps.append([np.where(np.isposinf(part), 0.0, part) for part in gap])
            wide.append([p for p, _ in pairs])
        sums = self._sums.with_tables(wide)
        slopes = sums.slopes(gaps)
        if any(part.any() for wall in walls for part in wall):
            pairs = zip(slopes, sums.slopes(walls), strict=True)
            slopes = [np.where(mass > 0, np.inf, slope) for slope, mass in pairs]
        triples = zip(slopes, self._values, other._values, strict=True)
        return self._collected([s - p + q for s, p, q in triples], constants=False)

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

    def _collected(
        self, values: Sequence[np.ndarray], constants: bool = True
    ) -> Float[np.ndarray, "*rows"]:
        total = self._sums.collected(values, constants)
        return total if self._findings.batched else total[0]

    def _by_site(self, full: Float[np.ndarray, "D B K"]) -> Values:
        found = {}
        for site, place in self._subject.coordinates.places.items():
            part = full[place.start : place.start + place.size, :, : place.support.shape[1]]
            part = np.moveaxis(part, 0, 1)
            part = part.reshape(len(part), *place.shape, part.shape[-1])
            found[self._subject.public(site)] = part if self._findings.batched else part[0]
        return found

    def _named(self, states: Int[np.ndarray, "*S B D"]) -> Values:
        """Return states as values of sites."""
        coordinates, lead = self._subject.coordinates, states.shape[:-1]
        flat = states.reshape(-1, coordinates.size)
        found = {}
        for site, value in coordinates.integers(coordinates.values(flat)).items():
            value = value.reshape(*lead, *value.shape[1:])
            single = (*(slice(None),) * (len(lead) - 1), 0)
            found[self._subject.public(site)] = value if self._findings.batched else value[single]
        return found

    def _whole(self) -> Sums:
        """Return the sums with no variable taken out, so that every factor is whole."""
        self._check_possible()
        options = (self._subject, self._findings, self._engine, self._sums.max_bytes)
        return Sums(*options, conditioned=False) if len(self._sums.fixed) else self._sums

    def _check_possible(self) -> None:
        if self.impossible.any():

            def possible(findings: Findings) -> bool:
                options = (self._engine, self._sums.max_bytes, False)
                sums = Sums(self._subject, findings, *options)
                return bool(np.isfinite(sums.collected(sums.log_sums())).all())

            exact_checks.refuse_impossible(self._subject, self._findings, self.impossible, possible)
