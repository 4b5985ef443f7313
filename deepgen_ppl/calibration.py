"""Calibration: where true values rank among posterior draws, and whether that is uniform."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl import datatree
from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.ecdf import Bands, bands, false_alarm, tail_level

if TYPE_CHECKING:
    import xarray as xr

BANDS = "Säilynoja et al. 2022, arXiv:2103.10522"
SBC = "Talts et al. 2018, arXiv:1804.06788"

_MOST_POINTS = 99
_FEWEST_DRAWS = 10


class _Worst(NamedTuple):
    label: str
    index: tuple[int, ...]
    p: float


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    r"""Ranks of true values among posterior draws, by site and test quantity.

    Where parameters are drawn from the prior and data from the model, the rank of a parameter among
    L independent draws of the exact posterior is uniform on 0, ..., L:

    \[ \theta \sim p(\theta), \quad y \sim p(y \mid \theta), \quad
       \theta_1, \ldots, \theta_L \sim p(\theta \mid y), \qquad r = \#\{\theta_l < \theta\}. \]

    The same holds of any test quantity of parameters and data.

    Attributes:
        ranks: Names to ranks, shape (num_simulations, *element), or
            (num_simulations * num_rows, *element) where rows are simulations of their own.
        num_draws: Draws that the true values of each simulation were ranked among,
            (num_simulations,).
        wanted_draws: Draws that were asked for; chains of fewer effective draws give fewer.
        quantities: Those of the names that are test quantities.
        rows: Name of the data plate whose rows count as simulations of their own; None where they
            do not.
        dims: Names to the names of their element's dimensions, None for one without a plate.
        infer: What was calibrated.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman: Validating Bayesian inference algorithms with
        simulation-based calibration. 2018. https://arxiv.org/abs/1804.06788

        Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari: Simulation-based
        calibration checking for Bayesian computation: the choice of test quantities shapes
        sensitivity. Bayesian Analysis, 2023. https://arxiv.org/abs/2211.02383

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ranks = {"mean": rng.integers(0, 100, 200), "narrow": rng.binomial(1, 0.5, 200) * 99}
        >>> check = Calibration(ranks, np.full(200, 99))
        >>> check
        Calibration(200 simulations, ranks among 99 draws of mean, narrow)
        >>> [row.ok for row in check.diagnose().checks]
        [True, False]
    """

    ranks: dict[str, np.ndarray]
    num_draws: np.ndarray
    wanted_draws: int | None = None
    quantities: tuple[str, ...] = ()
    rows: str | None = None
    dims: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    infer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_draws", np.asarray(self.num_draws))
        object.__setattr__(self, "ranks", {n: np.asarray(r) for n, r in self.ranks.items()})
        for name, ranks in self.ranks.items():
            if not len(ranks) or len(ranks) % self.num_simulations:
                raise ValueError(
                    f"The ranks of '{name}' have shape {ranks.shape}; they must begin with the "
                    f"{self.num_simulations} simulations, or with a whole multiple of them."
                )
            most = self._among(name).reshape(-1, *[1] * (ranks.ndim - 1))
            if ((ranks < 0) | (ranks > most)).any():
                raise ValueError(
                    f"A rank of '{name}' is outside of 0, ..., L: it is {ranks.min()} or "
                    f"{ranks.max()} among at most {int(self.num_draws.max())} draws."
                )

    def __repr__(self) -> str:
        what = f"{self.infer}, " if self.infer else ""
        low, high = int(self.num_draws.min()), int(self.num_draws.max())
        among = f"{low}" if low == high else f"{low} to {high}"
        names = [f"{n} {r.shape[1:]}" if r.ndim > 1 else n for n, r in self.ranks.items()]
        rows = "" if self.rows is None else f", each of the rows of '{self.rows}' one more"
        return (
            f"Calibration({what}{self.num_simulations} simulations{rows}, ranks among {among} "
            f"draws of {', '.join(names)})"
        )

    @property
    def num_simulations(self) -> int:
        """Number of simulated data sets."""
        return len(self.num_draws)

    def pit(self, name: str) -> Float[np.ndarray, "ranks *element"]:
        r"""The ranks as numbers in (0, 1) that are uniform where the posterior is calibrated.

        \[ u = (r + v) / (L + 1), \qquad v \sim U(0, 1) \]

        Args:
            name: A site or test quantity.

        Example:
            >>> Calibration({"z": np.array([0, 4])}, np.array([4, 4])).pit("z").round(1)
            array([0.1, 0.9])
        """
        ranks = self.ranks[name]
        most = self._among(name).reshape(-1, *[1] * (ranks.ndim - 1))
        return (ranks + np.random.default_rng(0).random(ranks.shape)) / (most + 1.0)

    def bands(self, name: str, prob: float = 0.95) -> Bands:
        """Simultaneous bands of the distribution functions of a name, as `diagnose` draws them.

        Args:
            name: A site or test quantity.
            prob: Probability that those of all elements of all names are inside, where the
                posterior is exact.

        References:
            Säilynoja, Bürkner, Vehtari 2022. https://arxiv.org/abs/2103.10522

        Example:
            >>> found = Calibration({"z": np.arange(10)}, np.full(10, 9)).bands("z")
            >>> found.points.round(1).tolist()
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
        """
        ranks = self.ranks[name]
        tests = int(np.prod(ranks.shape[1:])) * len(self.ranks)
        return bands(1.0 - (1.0 - prob) / tests, self._points(), len(ranks))

    def diagnose(self, prob: float = 0.95) -> Diagnosis:
        r"""Judge every site and test quantity by its ranks' empirical distribution function.

        A name passes where the distribution functions of all its elements stay inside their
        simultaneous bands. The verdicts hold together: with M names of which one has E elements,
        bands of that one hold each with probability \(1 - (1 - \mathrm{prob}) / (M E)\)
        (Bonferroni), so that an exact posterior fails any of the checks with probability at most
        \(1 - \mathrm{prob}\), however elements depend on each other. The value shown is the p-value
        of the worst element, times M E.

        Args:
            prob: Probability that an exact posterior passes all checks.

        Returns:
            One row per name, and one for the draws where chains gave fewer than were asked for.

        Cost:
            2 ms a name.

        References:
            Säilynoja, Bürkner, Vehtari 2022. https://arxiv.org/abs/2103.10522

        Example:
            >>> ranks = np.random.default_rng(0).integers(0, 100, (200, 5))
            >>> Calibration({"z": ranks}, np.full(200, 99)).diagnose().ok
            True
        """
        if not 0.0 < prob < 1.0:
            raise ValueError(f"prob must lie between 0 and 1, got {prob!r}.")
        checks = [self._check(name, 1.0 - prob) for name in self.ranks]
        if self.wanted_draws is not None and self.num_draws.min() < self.wanted_draws:
            checks.append(self._draws_check(self.wanted_draws))
        what = f"calibration of {self.infer}" if self.infer else "calibration"
        rows = "" if self.rows is None else f" of rows of '{self.rows}'"
        return Diagnosis(f"{what}, {self.num_simulations} simulations{rows}", tuple(checks))

    def to_datatree(self) -> "xr.DataTree":
        """Lay the ranks out as arviz_plots reads them: ``plot_ecdf_pit(tree)``.

        Group ``prior_sbc`` holds `pit`, uniform on (0, 1), of every site and test quantity, with
        dimensions ``chain`` (one) and ``draw`` (the simulations); ``ranks`` the ranks. Where rows
        are simulations of their own, what has one rank a simulation stands in the groups
        ``prior_sbc_whole`` and ``ranks_whole``.

        Example:
            >>> ranks = np.random.default_rng(0).integers(0, 10, 50)
            >>> Calibration({"z": ranks}, np.full(50, 9)).to_datatree().prior_sbc["z"].shape
            (1, 50)
        """
        most = max(len(ranks) for ranks in self.ranks.values())
        groups: dict[str, tuple[Mapping[str, np.ndarray], int]] = {}
        for behind, of_rows in (("", True), ("_whole", False)):
            names = [name for name, ranks in self.ranks.items() if (len(ranks) == most) == of_rows]
            if names:
                groups[f"prior_sbc{behind}"] = ({n: self.pit(n)[None] for n in names}, 2)
                groups[f"ranks{behind}"] = ({n: self.ranks[n][None] for n in names}, 2)
        found = self.diagnose()
        attrs = {"infer": self.infer, "num_simulations": self.num_simulations,
                 "diagnosis": repr(found), "diagnosis_ok": int(found.ok)}  # fmt: skip
        return datatree.assemble(groups, self.dims, attrs=attrs)

    def _among(self, name: str) -> Int[np.ndarray, " ranks"]:
        return np.repeat(self.num_draws, len(self.ranks[name]) // self.num_simulations)

    def _points(self) -> tuple[float, ...]:
        """Where distribution functions are looked at: between ranks, where all have as many."""
        low, high = int(self.num_draws.min()), int(self.num_draws.max())
        if low != high:
            return tuple((np.arange(1, _MOST_POINTS + 1) / (_MOST_POINTS + 1)).tolist())
        steps = np.unique(np.linspace(1, low, min(low, _MOST_POINTS)).round())
        return tuple((steps / (low + 1.0)).tolist())

    def _check(self, name: str, alarm: float) -> Check:
        worst, total = self._worst(name)
        p = min(1.0, worst.p * total * len(self.ranks))
        ok = p >= alarm
        where = "" if total == 1 else f" (worst: {worst.label})"
        if ok:
            advice = f"True values rank uniformly among the draws{where}."
        else:
            advice = f"{self._shape(name, worst.index)}{where}. Do not trust this inference."
        title = f"{name} (quantity)" if name in self.quantities else name
        return Check(title, p, f">= {alarm:.3g}", ok, advice, BANDS)

    def _worst(self, name: str) -> tuple[_Worst, int]:
        pit, points = self.pit(name), self._points()
        shape = pit.shape[1:]
        flat = np.sort(pit.reshape(len(pit), -1), axis=0)
        z = np.asarray(points)
        counts = np.stack([np.searchsorted(column, z) for column in flat.T], axis=1)
        levels = tail_level(counts, z, len(flat))
        worst = int(levels.argmin())
        index = tuple(int(i) for i in np.unravel_index(worst, shape)) if shape else ()
        label = f"{name}[{', '.join(map(str, index))}]" if shape else name
        return _Worst(label, index, false_alarm(float(levels[worst]), points, len(flat))), len(
            levels
        )

    def _shape(self, name: str, index: tuple[int, ...]) -> str:
        """Say what is wrong: where the true values lie among the draws."""
        u = self.pit(name)[(slice(None), *index)]
        shift = (u.mean() - 0.5) * np.sqrt(12 * len(u))
        spread = (np.mean((u - 0.5) ** 2) - 1 / 12) * np.sqrt(180 * len(u))
        if abs(shift) > abs(spread):
            found, meaning = ("high", "draws are too low") if shift > 0 else (
                "low", "draws are too high")  # fmt: skip
            found = f"too {found} among the draws"
        elif spread > 0:
            found, meaning = "too often at the ends of the draws", "posterior is too narrow"
        else:
            found, meaning = "too often amid the draws", "posterior is too wide"
        return f"True values rank {found}" + ("" if name in self.quantities else f": the {meaning}")

    def _draws_check(self, wanted: int) -> Check:
        fewer, least = int((self.num_draws < wanted).sum()), int(self.num_draws.min())
        ok = least >= _FEWEST_DRAWS
        advice = (
            f"{fewer} of {self.num_simulations} posteriors had fewer than {wanted} effective "
            f"draws: {'ranks are coarser there' if ok else 'raise num_samples'}."
        )
        return Check("fewest draws", float(least), f">= {_FEWEST_DRAWS}", ok, advice, SBC)


def rank(
    less: Int[np.ndarray, " *shape"], equal: Int[np.ndarray, " *shape"], rng: np.random.Generator
) -> Int[np.ndarray, " *shape"]:
    """The rank of true values, ties broken at random, so that discrete ones are uniform too.

    Args:
        less: How many draws are below the true value.
        equal: How many equal it.
        rng: Breaks the ties.

    References:
        Modrák et al. 2023, section 2. https://arxiv.org/abs/2211.02383

    Example:
        >>> rank(np.array([2]), np.array([0]), np.random.default_rng(0))
        array([2])
    """
    return np.asarray(less) + rng.integers(0, np.asarray(equal) + 1)
