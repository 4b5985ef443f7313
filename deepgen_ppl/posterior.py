"""The posterior: named draws with their weights and statistics, and what is known about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgen_ppl import archive, datatree
from deepgen_ppl.data_checks import check_draws
from deepgen_ppl.diagnosis import Diagnosis
from deepgen_ppl.diagnostics import diagnose_posterior
from deepgen_ppl.evidence import Evidence, resample
from deepgen_ppl.leave_one_out import pointwise_draws

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Draws = dict[str, np.ndarray]
Evaluator = Callable[[Draws], Mapping[str, np.ndarray]]


@dataclass(eq=False, repr=False)
class Posterior:
    """Draws of the latent sites of a program given data, and everything that is known about them.

    Attributes:
        draws: Site names to raw draws, shape (chain, draw, *batch, *event).
        log_weights: Log importance weights, shape (chain, draw), or (chain, draw, N) where every
            row of the data plate has its own; None where the draws are equally weighted.
        stats: Statistics of each raw draw under ArviZ's names (``lp``, ``log_q``, ``diverging``,
            ``energy``, ``tree_depth``, ``n_steps``, ``acceptance_rate``, ``step_size``), shape
            (chain, draw).
        evidence: Log evidence with its error, where the method estimates it.
        method: ``"mcmc"``, ``"importance"`` or ``"svi"``.
        dims: Site names to the names of their batch dimensions (plates), left to right; None for a
            dimension without a plate.
        row_dim: Name of the data plate where weights are per row.
        row_axis: Local sites to the axis of the data plate, counted from after (chain, draw).
        observed_data: Observed sites to their values.
        constant_data: Other arrays the program was given.
        independent: Whether draws are independent of each other, so that chain diagnostics do not
            apply; by default true for every method but ``"mcmc"``.
        params: Learned parameters the draws were made with.
        adaptation: What a sampler adapted during warm-up (``step_size``, ``root`` with L L^T the
            estimated covariance of the unconstrained space, ``trajectory_length``), by name; given
            to `mcmc(adaptation=...)` another run takes it over.
        superchains: Number of the group of each chain, shape (chain,), where groups of chains set
            out from one point: then nested R-hat tells whether they mixed.
        evaluators: Functions from flat draws (S, ...) to named arrays (S, ...), by group:
            ``posterior_predictive``, ``log_likelihood``, ``log_prior``, ``prior``,
            ``prior_predictive``. They run on the equally weighted draws, once.
        attrs: Further attributes of the DataTree.

    Raises:
        ValueError: Shapes contradict each other; the message names the site and both shapes.

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(4, 250, 3))
        >>> posterior = Posterior({"z": z}, dims={"z": ("school",)})
        >>> posterior
        Posterior(mcmc, 4 x 250 draws of z (3,))
        >>> posterior.to_datatree().posterior["z"].dims
        ('chain', 'draw', 'school')
    """

    draws: Draws
    log_weights: np.ndarray | None = None
    stats: Draws = field(default_factory=dict)
    evidence: Evidence | None = None
    method: str = "mcmc"
    dims: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    row_dim: str | None = None
    row_axis: dict[str, int] = field(default_factory=dict)
    observed_data: Draws = field(default_factory=dict)
    constant_data: Draws = field(default_factory=dict)
    independent: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)
    adaptation: dict[str, np.ndarray] | None = None
    superchains: np.ndarray | None = None
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in ("draws", "stats", "observed_data", "constant_data"):
            values = getattr(self, name)
            setattr(self, name, {key: datatree.host(value) for key, value in values.items()})
        if self.log_weights is not None:
            self.log_weights = np.asarray(self.log_weights)
        if self.adaptation is not None:
            self.adaptation = {k: datatree.host(v) for k, v in self.adaptation.items()}
        if self.superchains is not None:
            self.superchains = np.asarray(self.superchains)
        if self.independent is None:
            self.independent = self.method != "mcmc"
        check_draws(self.draws, self.stats, self.log_weights, self.superchains, self.row_axis)

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {value.shape[2:]}" for name, value in self.draws.items())
        rows = "" if self.row_dim is None else f", rows of '{self.row_dim}'"
        weighted = "" if self.log_weights is None else f", weighted{rows}"
        draws = f"{self.num_chains} x {self.num_draws} draws of {sites or 'no site'}"
        return f"Posterior({self.method}, {draws}{weighted})"

    @property
    def num_chains(self) -> int:
        """Number of chains of the raw draws."""
        return self._sample_shape[0]

    @property
    def num_draws(self) -> int:
        """Number of raw draws of each chain."""
        return self._sample_shape[1]

    @property
    def available(self) -> frozenset[str]:
        """The groups that `evaluate` can compute."""
        return frozenset(self.evaluators) | ({"log_likelihood"} if self._has_rows else set())

    def flat(self) -> Draws:
        """The raw draws with chains joined: site names to (S, *batch, *event).

        Example:
            >>> Posterior({"z": np.zeros((2, 3, 5))}).flat()["z"].shape
            (6, 5)
        """
        return {name: _join_chains(value) for name, value in self.draws.items()}

    def resample(self, num_draws: int | None = None, seed: int = 0) -> Posterior:
        """Make the draws equally weighted.

        Weighted draws are resampled in proportion to their Pareto-smoothed weights, into one chain;
        where weights are per row, each row of the local sites independently of the others. Draws
        that are equally weighted already are thinned evenly, or returned as they are.

        Args:
            num_draws: Number of draws in all; by default as many as there are.
            seed: Seed of the resampling.

        Returns:
            A posterior without weights. Sites that no row owns are left out where weights are per
            row (no weight is theirs), unless they are the same in all draws.

        Raises:
            ValueError: All weights (of a row) are zero, or there are fewer draws than asked for.

        Cost:
            One Pareto fit per column of weights (about 0.5 ms each); cached.

        References:
            Vehtari, Simpson, Gelman, Yao, Gabry: Pareto smoothed importance sampling. JMLR 25(72),
            2024. https://arxiv.org/abs/1507.02646

        Example:
            >>> weighted = Posterior(
            ...     {"z": np.arange(4.0)[None]},
            ...     log_weights=np.array([[0.0, 0.0, -np.inf, -np.inf]]),
            ...     method="importance",
            ... )
            >>> sorted(weighted.resample().draws["z"][0].tolist())
            [0.0, 0.0, 1.0, 1.0]
        """
        if self.log_weights is None and num_draws is None:
            return self
        key = ("resample", num_draws, seed)
        if key not in self._cache:
            total = self.num_chains * self.num_draws if num_draws is None else num_draws
            if self.log_weights is None:
                made = self._thin(total)
            else:
                made = self._draw_again(self.log_weights, total, seed)
            made._cache["diagnosis"] = self.diagnose()  # of the draws these were made from
            self._cache[key] = made
        return self._cache[key]

    def evaluate(self, group: str) -> Draws:
        """Run the evaluator of a group on these draws, once.

        With evidence per row, ``log_likelihood`` is that evidence: see `to_datatree`.

        Args:
            group: One of ``posterior_predictive``, ``log_likelihood``, ``log_prior``, ``prior``,
                ``prior_predictive``.

        Returns:
            Names to arrays of shape (chain, draw, ...).

        Raises:
            ValueError: The result has no evaluator of that name, or it returns another number of
                draws than it was given.

        Example:
            >>> square = {"log_prior": lambda draws: {"z": -draws["z"] ** 2 / 2}}
            >>> Posterior({"z": np.ones((1, 4))}, evaluators=square).evaluate("log_prior")["z"]
            array([[-0.5, -0.5, -0.5, -0.5]])
        """
        if group not in self.available:
            raise ValueError(
                f"This result cannot compute '{group}'; it has {sorted(self.available)}."
            )
        if ("group", group) not in self._cache:
            by_row = group == "log_likelihood" and self._has_rows
            found = self._row_log_evidence() if by_row else self.evaluators[group](self.flat())
            self._cache["group", group] = {
                name: self._split_chains(f"{group} of '{name}'", datatree.host(value))
                for name, value in found.items()
            }
        return self._cache["group", group]

    def to_datatree(
        self,
        *,
        groups: Iterable[str] | None = None,
        coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        num_draws: int | None = None,
    ) -> xr.DataTree:
        """Lay the result out as ArviZ reads it.

        Group ``posterior`` holds equally weighted draws; ``proposal`` holds the raw draws of a
        weighted result beside their weights. All have the dimensions ``chain`` and ``draw``; plates
        name the others (with ``_dim`` behind a name that is a variable's too). Where weights are
        per row, ``log_likelihood`` is the integrated log evidence of each row, spread over the
        draws as its error is, so that LOO returns it with the Pareto k of its weights. The
        diagnosis and the evidence are attributes of the root. Independent draws form one chain, so
        plots that compare chains (``plot_rank``) do not apply to them.

        Args:
            groups: Groups to have beside ``posterior``; by default all but ``prior`` and
                ``prior_predictive``.
            coords: Dimension names to coordinate values.
            dims: Variable names to names of their dimensions: all of them, or the last ones.
            num_draws: Number of equally weighted draws; by default as many as there are.

        Returns:
            A DataTree that the functions of arviz_stats and arviz_plots take as it is.

        Raises:
            ValueError: A group is unknown, or coords or dims do not fit the shapes.

        Cost:
            The evaluators' (posterior predictive, log likelihood, log prior), once per result.

        Example:
            >>> z = np.random.default_rng(0).normal(size=(4, 250))
            >>> tree = Posterior({"z": z}).to_datatree()
            >>> tree.posterior.sizes["draw"], tree.attrs["diagnosis_ok"]
            (250, 1)
        """
        return datatree.to_datatree(
            self, groups=groups, coords=coords, dims=dims, num_draws=num_draws
        )

    def summary(self, **options: Any) -> pd.DataFrame:
        """Summarise the equally weighted draws with ``arviz_stats.summary``.

        Args:
            **options: Those of ``arviz_stats.summary``. For independent draws ``kind`` is
                ``"stats"`` by default, since R-hat and ESS do not apply to them.

        Returns:
            One row per scalar quantity.

        Example:
            >>> z = np.random.default_rng(0).normal(size=(4, 250))
            >>> list(Posterior({"z": z}).summary().index)
            ['z']
        """
        import arviz_stats

        kind = {"kind": "stats"} if self.independent else {}
        with np.errstate(invalid="ignore"):  # quantities that never vary have no R-hat
            table: Any = arviz_stats.summary(self.to_datatree(groups=()), **{**kind, **options})
        return table

    def diagnose(self) -> Diagnosis:
        """Say how good the draws are: see `deepgen_ppl.diagnostics.diagnose_posterior`.

        Example:
            >>> z = np.random.default_rng(0).normal(size=(4, 250))
            >>> Posterior({"z": z}).diagnose().ok
            True
        """
        if "diagnosis" not in self._cache:
            self._cache["diagnosis"] = diagnose_posterior(self)
        return self._cache["diagnosis"]

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the DataTree to a netCDF file, whole or not at all.

        Args:
            path: The file; read it back with ``xarray.open_datatree(path)``.
            **options: Those of `to_datatree`.

        Returns:
            The path written.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "posterior.nc"
            >>> Posterior({"z": np.zeros((4, 250))}).save(path).name
            'posterior.nc'
        """
        tree = self.to_datatree(**options)
        with archive.atomic(path) as temporary:
            tree.to_netcdf(temporary, engine="h5netcdf")
        return Path(path)

    @property
    def _has_rows(self) -> bool:
        return self.evidence is not None and self.evidence.per_row is not None

    @property
    def _sample_shape(self) -> tuple[int, int]:
        values = [*self.draws.values(), *self.stats.values()]
        if self.log_weights is not None:
            values.append(self.log_weights)
        return (values[0].shape[0], values[0].shape[1]) if values else (0, 0)

    def _split_chains(self, name: str, value: np.ndarray) -> np.ndarray:
        num = self.num_chains * self.num_draws
        if value.ndim == 0 or len(value) != num:
            raise ValueError(f"The {name} has shape {value.shape}; it must begin with {num} draws.")
        return value.reshape(self.num_chains, self.num_draws, *value.shape[1:])

    def _thin(self, num_draws: int) -> Posterior:
        each = num_draws // max(self.num_chains, 1)
        if not 1 <= each <= self.num_draws:
            raise ValueError(
                f"num_draws={num_draws} cannot be thinned out of {self.num_chains} chains of "
                f"{self.num_draws} draws: ask for {self.num_chains} to "
                f"{self.num_chains * self.num_draws} draws."
            )
        keep = np.linspace(0, self.num_draws - 1, each).round().astype(int)
        return replace(
            self,
            draws={name: value[:, keep] for name, value in self.draws.items()},
            stats={name: value[:, keep] for name, value in self.stats.items()},
        )

    def _draw_again(self, log_weights: np.ndarray, num_draws: int, seed: int) -> Posterior:
        chosen = resample(_join_chains(log_weights), num_draws, seed)
        draws: Draws = {}
        stats: Draws = {}
        if chosen.ndim == 1:
            draws = {name: value[chosen][None] for name, value in self.flat().items()}
            for name, value in self.stats.items():
                if name != "log_q":  # the density of the raw draws: it stands beside them
                    stats[name] = _join_chains(value)[chosen][None]
        else:
            rows = np.arange(chosen.shape[1])
            for name, value in self.flat().items():
                if name in self.row_axis:
                    axis = 1 + self.row_axis[name]
                    again = np.moveaxis(value, axis, 1)[chosen, rows]
                    draws[name] = np.moveaxis(again, 1, axis)[None]
                elif np.array_equal(value, np.broadcast_to(value[:1], value.shape)):
                    draws[name] = np.repeat(value[:1], num_draws, axis=0)[None]
        return replace(self, draws=draws, stats=stats, log_weights=None, independent=True)

    def _row_log_evidence(self) -> Draws:
        found = self.evidence
        if found is None:
            return {}
        names = list(self.observed_data)
        name = names[0] if len(names) == 1 else found.rows or "rows"
        return {name: pointwise_draws(found, self.num_chains * self.num_draws)}


def _join_chains(value: np.ndarray) -> np.ndarray:
    return value.reshape(-1, *value.shape[2:])
