"""The posterior: named draws with their weights and statistics, turned into one DataTree for ArviZ."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgen_ppl import archive, labels
from deepgen_ppl.diagnostics import Diagnosis, diagnose_posterior
from deepgen_ppl.evidence import Evidence, resample

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Draws = dict[str, np.ndarray]
Evaluator = Callable[[Draws], Mapping[str, np.ndarray]]

_EVALUATED = ("posterior_predictive", "log_likelihood", "log_prior")
_ON_REQUEST = ("prior", "prior_predictive")
_DATA = ("observed_data", "constant_data")
_GROUPS = ("proposal", "sample_stats", *_EVALUATED, *_ON_REQUEST, *_DATA)


@dataclass
class Posterior:
    """Draws of the latent sites of a program given data, and everything that is known about them.

    Attributes:
        draws: Site names to raw draws, shape (chain, draw, *batch, *event).
        log_weights: Log importance weights, shape (chain, draw), or (chain, draw, N) where every
            row of the data plate has its own; None when the draws are equally weighted.
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
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.draws = {name: labels.host(value) for name, value in self.draws.items()}
        self.stats = {name: labels.host(value) for name, value in self.stats.items()}
        self.observed_data = {k: labels.host(v) for k, v in self.observed_data.items()}
        self.constant_data = {k: labels.host(v) for k, v in self.constant_data.items()}
        if self.log_weights is not None:
            self.log_weights = np.asarray(self.log_weights)
        if self.independent is None:
            self.independent = self.method != "mcmc"
        self._check()

    @property
    def num_chains(self) -> int:
        """Number of chains of the raw draws."""
        return self._sample_shape[0]

    @property
    def num_draws(self) -> int:
        """Number of raw draws of each chain."""
        return self._sample_shape[1]

    def flat(self) -> Draws:
        """The raw draws with chains joined: site names to (S, *batch, *event).

        Example:
            >>> Posterior({"z": np.zeros((2, 3, 5))}).flat()["z"].shape
            (6, 5)
        """
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in self.draws.items()}

    def resample(self, num_draws: int | None = None, seed: int = 0) -> Posterior:
        """Make the draws equally weighted.

        Weighted draws are resampled in proportion to their Pareto-smoothed weights, into one chain;
        where weights are per row, each row of the local sites independently of the others. Draws
        that are equally weighted already are thinned evenly, or returned as they are.

        Args:
            num_draws: Number of draws in all; by default as many as there are.
            seed: Seed of the resampling.

        Returns:
            A posterior without weights.

        Raises:
            ValueError: All weights (of a row) are zero, or there are fewer draws than asked for.

        Cost:
            One Pareto fit per column of weights (about 0.5 ms each); cached.

        References:
            Vehtari et al.: Pareto smoothed importance sampling. JMLR 25(72), 2024.
            https://arxiv.org/abs/1507.02646

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
            thinned = self._thin if self.log_weights is None else self._draw_again
            made = thinned(num_draws or self.num_chains * self.num_draws, seed)
            made._cache["diagnosis"] = self.diagnose()
            self._cache[key] = made
        return self._cache[key]

    def evaluate(self, group: str) -> Draws:
        """Run the evaluator of a group on these draws, once.

        Args:
            group: One of ``posterior_predictive``, ``log_likelihood``, ``log_prior``, ``prior``,
                ``prior_predictive``.

        Returns:
            Names to arrays of shape (chain, draw, ...).

        Raises:
            ValueError: The result has no evaluator of that name.

        Example:
            >>> square = {"log_prior": lambda draws: {"z": -draws["z"] ** 2 / 2}}
            >>> Posterior({"z": np.ones((1, 4))}, evaluators=square).evaluate("log_prior")["z"]
            array([[-0.5, -0.5, -0.5, -0.5]])
        """
        if group not in self._available():
            raise ValueError(
                f"This result cannot compute '{group}'; it has {sorted(self._available())}."
            )
        if ("group", group) not in self._cache:
            shape = (self.num_chains, self.num_draws)
            if group in self.evaluators:
                found = self.evaluators[group](self.flat())
            else:
                found = self._row_log_evidence()
            self._cache["group", group] = {
                name: labels.host(value).reshape(*shape, *np.shape(value)[1:])
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
        weighted result beside their weights. Every draw has the dimensions ``chain`` and ``draw``;
        plates give the others their names (with ``_dim`` behind a name that is a variable's too).
        Where weights are per row, ``log_likelihood`` is the integrated log evidence of each row,
        spread over the draws as its standard error tells, so that LOO returns it unchanged. The
        diagnosis and the evidence are attributes of the root.

        Args:
            groups: Groups to have beside ``posterior``; by default all but ``prior`` and
                ``prior_predictive``.
            coords: Dimension names to coordinate values.
            dims: Variable names to names of their dimensions: all of them, or those of the event.
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
        import xarray as xr

        wanted = self._wanted(groups)
        even = self.resample(num_draws)
        arrays: dict[str, tuple[Draws, int]] = {"posterior": (even.draws, 2)}
        for group in wanted:
            if group == "proposal" and self.log_weights is not None:
                arrays[group] = (self._proposal(), 2)
            elif group == "sample_stats" and even.stats:
                arrays[group] = (even.stats, 2)
            elif group in even._available():
                arrays[group] = (even.evaluate(group), 2)
            elif group in _DATA and getattr(self, group):
                arrays[group] = (getattr(self, group), 0)
        namer = labels.Namer(
            {name for values, _ in arrays.values() for name in values},
            self._batch_dims(),
            coords or {},
            dims or {},
        )
        sets = {group: namer.dataset(values, lead) for group, (values, lead) in arrays.items()}
        if "proposal" in sets and self.evidence is not None and self.evidence.per_row is not None:
            sets["proposal"].update(namer.dataset(self._row_table(), 0))
        for values in sets.values():
            values.attrs.update(labels.library_attrs())
        tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=self._root_attrs()), **sets})
        namer.check_all_used()
        return tree

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
        return arviz_stats.summary(self.to_datatree(groups=()), **{**kind, **options})

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
        tree.close()
        return Path(path)

    @property
    def _sample_shape(self) -> tuple[int, int]:
        for values in (self.draws, self.stats):
            for value in values.values():
                return value.shape[0], value.shape[1]
        return (0, 0) if self.log_weights is None else self.log_weights.shape[:2]

    def _check(self) -> None:
        arrays = {**{f"Site '{k}'": v for k, v in self.draws.items()}}
        arrays |= {f"Statistic '{k}'": v for k, v in self.stats.items()}
        if self.log_weights is not None:
            arrays["log_weights"] = self.log_weights
        shapes = {name: value.shape for name, value in arrays.items()}
        for name, shape in shapes.items():
            first = next(iter(shapes))
            if len(shape) < 2 or shape[:2] != shapes[first][:2]:
                raise ValueError(
                    f"{name} has shape {shape}; it must start with (chain, draw) as {first}, of "
                    f"shape {shapes[first]}, does."
                )
        for site, axis in self.row_axis.items():
            if site not in self.draws or axis >= self.draws[site].ndim - 2:
                raise ValueError(
                    f"row_axis names axis {axis} of site '{site}', which is not there."
                )
        if self.log_weights is not None and self.log_weights.ndim == 3:
            num_rows = self.log_weights.shape[2]
            for site, axis in self.row_axis.items():
                if self.draws[site].shape[2 + axis] != num_rows:
                    raise ValueError(
                        f"Site '{site}' has {self.draws[site].shape[2 + axis]} rows on axis {axis}, "
                        f"log_weights have {num_rows}."
                    )

    def _thin(self, num_draws: int, seed: int) -> Posterior:
        each = num_draws // self.num_chains
        if not 1 <= each <= self.num_draws:
            raise ValueError(
                f"num_draws={num_draws} cannot be thinned out of {self.num_chains} chains x "
                f"{self.num_draws} draws; ask for {self.num_chains} to "
                f"{self.num_chains * self.num_draws}."
            )
        keep = np.linspace(0, self.num_draws - 1, each).round().astype(int)
        return replace(
            self,
            draws={name: value[:, keep] for name, value in self.draws.items()},
            stats={name: value[:, keep] for name, value in self.stats.items()},
            _cache={},
        )

    def _draw_again(self, num_draws: int, seed: int) -> Posterior:
        log_w = np.asarray(self.log_weights)
        chosen = resample(log_w.reshape(-1, *log_w.shape[2:]), num_draws, seed)
        flat, draws, stats = self.flat(), {}, {}
        if chosen.ndim == 1:
            draws = {name: value[chosen][None] for name, value in flat.items()}
            stats = {
                name: value.reshape(-1, *value.shape[2:])[chosen][None]
                for name, value in self.stats.items()
                if name != "log_q"  # the density of the raw draws; it stands in `proposal`
            }
        else:
            rows = np.arange(chosen.shape[1])
            for name, value in flat.items():
                if name in self.row_axis:
                    axis = 1 + self.row_axis[name]
                    again = np.moveaxis(value, axis, 1)[chosen, rows]
                    draws[name] = np.moveaxis(again, 1, axis)[None]
                elif (value == value[:1]).all():
                    draws[name] = np.repeat(value[:1], num_draws, axis=0)[None]
        return replace(
            self, draws=draws, stats=stats, log_weights=None, independent=True, _cache={}
        )

    def _row_log_evidence(self) -> Draws:
        """The integrated log evidence of each row, (S, N), so that LOO returns it unchanged.

        Draw s holds log Z + se^2 / 2 + se u_s with normal quantiles u_s in an order of each row's
        own: the harmonic mean over the draws is Z, the spread is what the estimate's error is.
        """
        from scipy.special import ndtri

        assert_evidence = self.evidence
        if assert_evidence is None or assert_evidence.per_row is None:
            return {}
        log_z, error = assert_evidence.per_row, assert_evidence.per_row_standard_error
        num = self.num_chains * self.num_draws
        quantiles = ndtri((np.arange(num) + 0.5) / num)
        order = np.random.default_rng(0).permuted(np.tile(quantiles, (len(log_z), 1)), axis=1)
        spread = np.where(np.isfinite(error), np.maximum(error, 1e-6), 0.0)
        shift = np.log(np.mean(np.exp(-spread * quantiles[:, None]), axis=0))
        names = list(self.observed_data)
        name = names[0] if len(names) == 1 else assert_evidence.rows or "rows"
        return {name: log_z + shift + spread * order.T}

    def _available(self) -> set[str]:
        available = set(self.evaluators)
        if self.evidence is not None and self.evidence.per_row is not None:
            available.add("log_likelihood")
        return available

    def _wanted(self, groups: Iterable[str] | None) -> tuple[str, ...]:
        if groups is None:
            return tuple(group for group in _GROUPS if group not in _ON_REQUEST)
        chosen = tuple(groups)
        unknown = [group for group in chosen if group not in (*_GROUPS, "posterior")]
        if unknown:
            raise ValueError(f"Unknown groups {unknown}; choose among {list(_GROUPS)}.")
        missing = [
            g for g in (*_EVALUATED, *_ON_REQUEST) if g in chosen and g not in self._available()
        ]
        if missing:
            raise ValueError(
                f"This result cannot compute {missing}; it has {sorted(self._available())}."
            )
        return tuple(group for group in _GROUPS if group in chosen)

    def _proposal(self) -> Draws:
        log_w = np.asarray(self.log_weights)
        return {**self.draws, **self.stats, "log_weights": log_w}

    def _row_table(self) -> Draws:
        found = self.evidence
        if found is None or found.per_row is None:
            return {}
        return {
            "log_evidence": found.per_row,
            "log_evidence_standard_error": np.asarray(found.per_row_standard_error),
            "pareto_k": np.asarray(found.pareto_k),
            "ess": np.asarray(found.ess),
        }

    def _batch_dims(self) -> dict[str, tuple[str | None, ...]]:
        rows = self.row_dim or (self.evidence.rows if self.evidence is not None else None)
        per_row = {name: (rows,) for name in ("log_weights", *self._row_table(), rows) if name}
        return {**per_row, **self.dims} if rows else dict(self.dims)

    def _root_attrs(self) -> dict[str, Any]:
        attrs = {**labels.library_attrs(), "inference_method": self.method}
        attrs["independent_draws"] = int(bool(self.independent))
        if self.evidence is not None:
            attrs |= self.evidence.attrs()
        return attrs | self.diagnose().attrs() | self.attrs
