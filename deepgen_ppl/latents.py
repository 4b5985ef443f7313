"""What latents carry: rate and distortion, active units, information, and collapse with advice."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.loop import Progress

ACTIVE = "Burda et al. 2016, arXiv:1509.00519"
COLLAPSE = "Lucas et al. 2019, arXiv:1911.02469"
SURGERY = "Hoffman and Johnson 2016, NIPS workshop on approximate inference"

_ACTIVE_VARIANCE = 0.01
_COLLAPSED_KL, _COLLAPSED_SHARE = 0.01, 0.99
_LEAST_INFORMATION = 0.1  # nats
_FEWEST_ACTIVE = 0.1
_CURE = (
    "Let the KL weight rise (dg.ELBO(beta=dg.KLAnnealing(steps))), give units free bits "
    "(dg.ELBO(free_bits=0.1)), or weaken the decoder."
)


@dataclass(frozen=True, repr=False)
class LatentReport:
    r"""What the latents of a model carry under a guide, in nats per datum.

    $$\underbrace{\mathbb E_q[-\log p(x \mid z)]}_{\text{distortion}} +
    \underbrace{\mathrm{KL}(q(z \mid x) \,\|\, p(z))}_{\text{rate}} = -\text{bound},
    \qquad \text{rate} = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z))$$

    Rate and distortion are the two parts of a message: the code z, and x given the code.

    Attributes:
        distortion: mean of -log p(x | z); factors count with it.
        distortion_error: its standard error over the rows.
        rate: mean KL divergence of a row's latents, and its share of those that rows share.
        rate_error: its standard error over the rows.
        kl: mean divergence of each unit, by site; a unit is an element of a latent where elements
            are independent under guide and prior, else a site as a whole.
        collapsed: units whose divergence is below 0.01 nats at 99% of the rows, by site.
        activity: variance over the rows of the posterior mean of each element, by site, less
            what the means of few draws add.
        activity_error: standard error of that of an element that does not vary.
        information: mutual information of the rows and their latents; it cannot pass the logarithm
            of the number of rows, and is a lower bound near it.
        information_error: its standard error over the rows.
        num_rows: rows that were looked at.
        num_particles: draws of each row.
        dimensions: observed numbers of a datum.
        is_discrete: whether all that is observed is discrete, so that bits are a code's length.

    References:
        Alemi et al.: Fixing a broken ELBO. ICML 2018. https://arxiv.org/abs/1711.00464
        Hoffman, Johnson: ELBO surgery. NIPS workshop 2016.
    """

    distortion: float
    distortion_error: float
    rate: float
    rate_error: float
    kl: Mapping[str, Float[np.ndarray, " units"]]
    collapsed: Mapping[str, np.ndarray]
    activity: Mapping[str, Float[np.ndarray, " elements"]]
    activity_error: Mapping[str, Float[np.ndarray, " elements"]]
    information: float
    information_error: float
    num_rows: int
    num_particles: int
    dimensions: int
    is_discrete: bool

    @property
    def bound(self) -> float:
        """The evidence lower bound per datum."""
        return -self.distortion - self.rate

    @property
    def aggregate_kl(self) -> float:
        """Divergence of the aggregate posterior from the prior: rate less information."""
        return self.rate - self.information

    @property
    def bits(self) -> float:
        """Length of the two-part message in bits; of continuous data up to their resolution."""
        return -self.bound / float(np.log(2))

    @property
    def bits_per_dimension(self) -> float:
        """The same for each observed number."""
        return self.bits / self.dimensions

    @property
    def active(self) -> dict[str, np.ndarray]:
        """Elements whose posterior mean varies by more than 0.01 and three errors, by site."""
        return {
            name: value > _ACTIVE_VARIANCE + 3 * self.activity_error[name]
            for name, value in self.activity.items()
        }

    @property
    def num_active(self) -> int:
        """Number of active elements."""
        return int(sum(value.sum() for value in self.active.values()))

    @property
    def num_elements(self) -> int:
        """Number of elements of a row's latents."""
        return int(sum(value.size for value in self.activity.values()))

    @property
    def layered(self) -> list[str]:
        """Sites whose latents lie in layers: several units, but fewer than there are elements."""
        return [
            name
            for name, nats in self.kl.items()
            if name in self.activity and 1 < len(nats) < self.activity[name].size
        ]

    @property
    def diagnosis(self) -> Diagnosis:
        """Whether the posterior has collapsed onto the prior, and what to do."""
        title = f"latents, {self.num_rows} rows x {self.num_particles} draws"
        return Diagnosis(title, (self._active(), self._collapsed(), self._information()))

    def __repr__(self) -> str:
        unit = "bits" if self.is_discrete else "bits (of the density)"
        rows = [
            ("distortion", f"{self.distortion:.3f} +- {self.distortion_error:.3f} nats"),
            ("rate", f"{self.rate:.3f} +- {self.rate_error:.3f} nats"),
            ("  information", f"{self.information:.3f} +- {self.information_error:.3f} nats"),
            ("  aggregate KL", f"{self.aggregate_kl:.3f} nats"),
            ("bound", f"{self.bound:.3f} nats"),
            ("message", f"{self.bits:.2f} {unit}, {self.bits_per_dimension:.4f} per dimension"),
            ("active units", f"{self.num_active} of {self.num_elements}"),
        ]
        rows[2:2] = [
            (f"  layers of {name}", ", ".join(f"{nats:.3f}" for nats in self.kl[name]) + " nats")
            for name in self.layered
        ]
        lines = [f"{name:<15}{value}" for name, value in rows]
        return "\n".join([*lines, repr(self.diagnosis)])

    def _active(self) -> Check:
        share = self.num_active / max(self.num_elements, 1)
        ok = share >= _FEWEST_ACTIVE and self.num_active > 0
        idle = self.num_elements - self.num_active
        advice = f"{self.num_active} of {self.num_elements} elements vary with the datum."
        if not ok:
            advice = f"{idle} of {self.num_elements} elements do not vary with the datum. {_CURE}"
        elif idle:
            advice += " The others cost nothing; give them free bits if you need them."
        return Check("active units", share, f">= {_FEWEST_ACTIVE}", ok, advice, ACTIVE)

    def _collapsed(self) -> Check:
        units = np.concatenate([np.ravel(value) for value in self.collapsed.values()])
        share = float(np.mean(units))
        ok = share <= 1 - _FEWEST_ACTIVE
        advice = f"{int(units.sum())} of {units.size} units are the prior at nearly every datum."
        return Check(
            "collapsed units",
            share,
            f"<= {1 - _FEWEST_ACTIVE}",
            ok,
            advice if ok else f"{advice} {_CURE}",
            COLLAPSE,
        )

    def _information(self) -> Check:
        most = float(np.log(self.num_rows))
        ok = self.information + 2 * self.information_error > _LEAST_INFORMATION
        advice = "The latents tell data apart."
        if not ok:
            advice = f"The latents tell next to nothing of the datum. {_CURE}"
        elif self.information > most - 0.5:
            advice += (
                f" It is a lower bound: {self.num_rows} rows cannot show more than {most:.1f} nats."
            )
        name = "information"
        return Check(name, self.information, f"> {_LEAST_INFORMATION}", ok, advice, SURGERY)


def latent_report(
    log_likelihood: Float[np.ndarray, "draws rows"],
    costs: Mapping[str, Float[np.ndarray, "draws rows units"]],
    values: Mapping[str, Float[np.ndarray, "draws rows elements"]],
    log_q: Float[np.ndarray, "rows rows"],
    *,
    shared: float = 0.0,
    dimensions: int = 1,
    is_discrete: bool = False,
) -> LatentReport:
    r"""Report what latents carry, from draws of a guide.

    Args:
        log_likelihood: log p(x_i | z) of each draw.
        costs: log q - log p of each draw and unit, by site, or its mean over q.
        values: the draws by site, elements side by side.
        log_q: log q(z_i | x_j) of the first draw of row i under the guide at row j.
        shared: divergence of latents that rows share, for each row of the data, added to the rate.
        dimensions: observed numbers of a datum.
        is_discrete: whether all that is observed is discrete.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z, x = rng.normal(size=(8, 100, 1)), np.linspace(-2, 2, 100)
        >>> log_q = -0.5 * (z[0] - 0 * x) ** 2
        >>> found = latent_report(np.zeros((8, 100)), {"z": 0 * z}, {"z": z}, log_q)
        >>> found.num_active, found.diagnosis.ok
        (0, False)
    """
    by_row = {name: value.mean(0) for name, value in costs.items()}
    rate = sum(value.sum(-1) for value in by_row.values()) + shared
    distortion = -log_likelihood.mean(0)
    size = len(distortion)
    own = np.diagonal(log_q)
    told = own - (np.logaddexp.reduce(log_q, axis=1) - np.log(size))
    collapsed = {
        name: np.mean(value < _COLLAPSED_KL, axis=0) >= _COLLAPSED_SHARE
        for name, value in by_row.items()
    }
    spread = {name: _variance_of_means(value) for name, value in values.items()}
    return LatentReport(
        distortion=float(distortion.mean()),
        distortion_error=_error(distortion),
        rate=float(np.mean(rate)),
        rate_error=_error(rate),
        kl={name: value.mean(0) for name, value in by_row.items()},
        collapsed=collapsed,
        activity={name: found for name, (found, _) in spread.items()},
        activity_error={name: error for name, (_, error) in spread.items()},
        information=float(told.mean()),
        information_error=_error(told),
        num_rows=size,
        num_particles=len(log_likelihood),
        dimensions=dimensions,
        is_discrete=is_discrete,
    )


class Monitor(ABC):
    """A callback that reports what latents carry while a model is trained; an abstract base.

    Args:
        model: the model that is trained.
        guide: its guide.
        *data: data to look at.
        every: reports of the run from one look to the next.
        patience: looks in a row at a collapsed posterior after which to stop the run, or None.
        num_rows: rows to look at.
        num_particles: draws of each row.
        model_kwargs: constants passed by name to model and guide.

    Attributes:
        steps: steps at which it looked.
        reports: what it saw.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        *data: Any,
        every: int = 10,
        patience: int | None = None,
        num_rows: int = 200,
        num_particles: int = 8,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if every < 1 or (patience is not None and patience < 1):
            raise ValueError(f"every={every} and patience={patience} must be positive.")
        self.model, self.guide, self.data = model, guide, data
        self.every, self.patience = every, patience
        self.options = {"num_rows": num_rows, "num_particles": num_particles}
        self.model_kwargs = model_kwargs
        self.steps: list[int] = []
        self.reports: list[LatentReport] = []
        self._heard = 0

    def __call__(self, progress: Progress) -> bool:
        """Look, where it is time to; tell whether to stop."""
        self._heard += 1
        last = progress.step >= progress.num_steps
        if self._heard % self.every and not last:
            return False
        found = self.report(progress.params())
        self.steps.append(progress.step)
        self.reports.append(found)
        recent = self.reports[-self.patience :] if self.patience else []
        stop = len(recent) == self.patience and not any(r.diagnosis.ok for r in recent)
        failed = [check.advice for check in found.diagnosis.failed]
        if failed and (last or stop):
            warnings.warn(f"the posterior has collapsed: {failed[0]}", UserWarning, stacklevel=2)
        return stop

    @abstractmethod
    def report(self, params: Any) -> LatentReport:
        """Return the report at the present parameters."""


def check_latents(names: list[str], num_rows: int, num_particles: int) -> None:
    """Refuse a report where there is nothing to report of, or too little to do it.

    Args:
        names: latents of the guide in the data plate.
        num_rows: rows to look at.
        num_particles: draws of each.
    """
    if not names:
        raise ValueError(
            "there are no latents of the guide in the data plate, one for each datum, of which "
            "this could tell. Put them into `with plate('data', len(x))`."
        )
    if num_rows < 2 or num_particles < 2:
        raise ValueError(
            "two rows and two draws of each are the least, got "
            f"num_rows={num_rows}, num_particles={num_particles}."
        )


def chosen_rows(size: int, num_rows: int) -> np.ndarray:
    """Return rows to look at, evenly over the data.

    Example:
        >>> chosen_rows(10, 3).tolist()
        [0, 4, 9]
    """
    return np.linspace(0, size - 1, min(num_rows, size)).astype(int)


def _error(values: Any) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def _variance_of_means(
    values: Float[np.ndarray, "draws rows elements"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the means, less what few draws add, and the error of that."""
    count, size = values.shape[:2]
    within = values.var(0, ddof=1).mean(0) / count
    found = np.maximum(values.mean(0).var(0, ddof=1) - within, 0.0)
    return found, within * (2 / (size - 1)) ** 0.5
