"""Bridge sampling: draws of a posterior and of a proposal in, log evidence with its error out."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepgen_ppl.evidence import Evidence

_FEWEST = 8  # draws, of which half fit the proposal and half are bridged to it
_TOLERANCE, _MOST_STEPS = 1e-10, 1000
_WIDEST_GAP = 3.0  # nats between the log ratios of both sides, where they should overlap


class Normal(NamedTuple):
    """A normal law on the unconstrained space, of each row where there are rows.

    Attributes:
        loc: Its mean.
        root: Lower triangular root of its covariance.
    """

    loc: Float[np.ndarray, "... D"]
    root: Float[np.ndarray, "... D D"]

    @classmethod
    def fit(cls, z: Float[np.ndarray, "S ... D"]) -> "Normal":
        """Fit to draws; the covariance is shrunk to its diagonal where there are few of them.

        Args:
            z: S draws.

        Example:
            >>> z = np.random.default_rng(0).normal(size=(4000, 2))
            >>> bool(np.abs(Normal.fit(z).root - np.eye(2)).max() < 0.1)
            True
        """
        z = np.asarray(z, np.float64)
        num, size = len(z), z.shape[-1]
        loc = z.mean(axis=0)
        covariance = np.einsum("s...d,s...e->...de", z - loc, z - loc) / max(num - 1, 1)
        diagonal = np.einsum("...dd->...d", covariance)
        keep = num / (num + 2.0 * size)
        shrunk = (1.0 - keep + 1e-6) * diagonal + 1e-12
        covariance = keep * covariance + shrunk[..., None] * np.eye(size)
        return cls(loc, np.linalg.cholesky(covariance))

    def sample(self, rng: np.random.Generator, num: int) -> Float[np.ndarray, "S ... D"]:
        """Draw from it.

        Args:
            rng: Source of the draws.
            num: Number S of draws.
        """
        noise = rng.normal(size=(num, *self.loc.shape))
        return self.loc + np.einsum("...de,s...e->s...d", self.root, noise)

    def log_prob(self, z: Float[np.ndarray, "S ... D"]) -> Float[np.ndarray, "S ..."]:
        """Return its log density.

        Args:
            z: Points.
        """
        inverse = np.linalg.inv(self.root)
        away = np.einsum("...de,s...e->s...d", inverse, np.asarray(z, np.float64) - self.loc)
        log_det = np.log(np.einsum("...dd->...d", self.root)).sum(axis=-1)
        return -0.5 * (away**2).sum(axis=-1) - log_det - 0.5 * z.shape[-1] * np.log(2.0 * np.pi)


class Bridge(NamedTuple):
    """An estimate by bridge sampling, of each row where there are rows.

    Attributes:
        log_evidence: Estimate of the log normalising constant.
        relative_error: Its relative mean squared error, square root; the standard error of the log.
        ess: Effective sample size of the posterior draws.
    """

    log_evidence: np.ndarray
    relative_error: np.ndarray
    ess: np.ndarray


def bridge(
    log_ratios: Float[np.ndarray, "chain draw ..."], log_ratios_proposed: Float[np.ndarray, "M ..."]
) -> Bridge:
    r"""Estimate a normalising constant from draws of both sides of a bridge.

    With \(l = \log p(x, z) - \log q(z)\), the optimal bridge of Meng and Wong solves

    \[ Z = \frac{\frac1M \sum_m \frac{e^{l'_m}}{s_1 e^{l'_m} + s_2 Z}}
                {\frac1S \sum_s \frac{1}{s_1 e^{l_s} + s_2 Z}}, \qquad
       s_1 = \frac{S_\text{eff}}{S_\text{eff} + M}, \quad s_2 = 1 - s_1 \]

    by iteration. The relative error is Frühwirth-Schnatter's, which counts the autocorrelation of
    the posterior draws.

    Args:
        log_ratios: l at draws of the posterior, chain by chain.
        log_ratios_proposed: l at draws of the proposal.

    Raises:
        ValueError: A log ratio is NaN or +inf, or zero density at a draw of the posterior.

    Cost:
        Some tens of passes over the log ratios.

    References:
        Meng and Wong: Simulating ratios of normalizing constants via a simple identity. Statistica
        Sinica 6, 1996.

        Frühwirth-Schnatter: Estimating marginal likelihoods for mixture and Markov switching models
        using bridge sampling techniques. Econometrics Journal 7(1), 2004.

        Gronau et al.: A tutorial on bridge sampling. 2017. https://arxiv.org/abs/1703.05984

    Example:
        >>> rng = np.random.default_rng(0)  # p = 5 N(0, 1), q = N(0, 2)
        >>> ratio = lambda z: np.log(5.0) + np.log(2.0) - 0.375 * z**2
        >>> found = bridge(ratio(rng.normal(size=(4, 500))), ratio(2.0 * rng.normal(size=2000)))
        >>> bool(abs(found.log_evidence - np.log(5.0)) < 4 * found.relative_error)
        True
    """
    own, proposed = np.asarray(log_ratios, np.float64), np.asarray(log_ratios_proposed, np.float64)
    if not np.isfinite(own).all() or np.isnan(proposed).any() or (proposed == np.inf).any():
        raise ValueError(
            "A log ratio of joint density and proposal is not finite. The draws do not belong to "
            "this model and these data, or the learned parameters differ."
        )
    chains, num = own.shape[:2]
    shape = own.shape[2:]
    own, proposed = own.reshape(chains, num, -1), proposed.reshape(len(proposed), -1)
    ess = np.array([_ess(own[..., row]) for row in range(own.shape[2])])
    share = ess / (ess + len(proposed))
    shift = np.median(own, axis=(0, 1))
    flat, other = own.reshape(chains * num, -1) - shift, proposed - shift
    _check_overlap(flat, other)
    log_z = _iterate(flat, other, share)
    error = _relative_error(own - shift, other, share, log_z)
    parts = (log_z + shift, error, ess)
    return Bridge(*(part.reshape(shape) for part in parts))


def bridge_evidence(
    halves: tuple[Bridge, Bridge], *, num_draws: int, rows: str | None = None
) -> Evidence:
    r"""Return the evidence that bridges from both halves of the draws agree on.

    Each half of the draws is bridged to the proposal that the other half fitted; the log estimates
    are averaged. Limits are \(\log \hat Z \mp t\,\mathrm{se}\).

    Args:
        halves: The estimates.
        num_draws: Number of draws of the posterior.
        rows: Name of the data plate where they are by row.

    Example:
        >>> one = Bridge(np.array(1.0), np.array(0.3), np.array(50.0))
        >>> round(bridge_evidence((one, one), num_draws=100).standard_error, 4)
        0.2598
    """
    from scipy.special import stdtrit

    log_z = np.mean([half.log_evidence for half in halves], axis=0)
    first, second = (half.relative_error for half in halves)
    # The halves share their draws: their estimates correlate by 0.4 to 0.5 (normals of 1 to 50
    # dimensions), taken as a half.
    variance = (first**2 + second**2 + first * second) / 4.0
    ess = np.sum([half.ess for half in halves], axis=0)
    total, error = float(log_z.sum()), float(np.sqrt(variance.sum()))
    wide = float(stdtrit(max(float(np.min(ess)) - 1.0, 1.0), 0.95)) * error
    return Evidence(
        log_evidence=total,
        standard_error=error,
        lower_limit=total - wide,
        upper_limit=total + wide,
        ess=ess if rows else float(ess),
        pareto_k=np.full(log_z.shape, np.nan) if rows else float("nan"),
        num_particles=num_draws,
        method="bridge sampling",
        rows=rows,
        per_row=log_z if rows else None,
        per_row_standard_error=np.sqrt(variance) if rows else None,
    )


def check_draws(num_chains: int, num_draws: int) -> None:
    """Refuse draws that are too few to be bridged.

    Args:
        num_chains: Number of chains.
        num_draws: Number of draws of each.

    Raises:
        ValueError: There are fewer than eight of them in a chain.

    Example:
        >>> check_draws(4, 1000)
    """
    if num_draws < _FEWEST:
        raise ValueError(
            f"bridge needs at least {_FEWEST} draws of each chain and has {num_draws} of "
            f"{num_chains}: half of them fit the proposal, half are bridged to it. Draw more."
        )


def check_has(posterior_sites: object, sites: list[str]) -> None:
    """Refuse a posterior that lacks latent sites of the model.

    Args:
        posterior_sites: The sites it has draws of.
        sites: The model's continuous latents.

    Raises:
        ValueError: Naming those it lacks.

    Example:
        >>> check_has({"mu": 0}, ["mu"])
    """
    has = list(posterior_sites)  # type: ignore[call-overload]
    missing = [name for name in sites if name not in has]
    if missing:
        raise ValueError(
            f"the posterior has no draws of {', '.join(map(repr, missing))}, which the model "
            f"samples (it has {', '.join(map(repr, has)) or 'none'}). Pass the posterior of this "
            "model."
        )


def _check_overlap(own: np.ndarray, proposed: np.ndarray) -> None:
    gap = own.min(axis=0) - proposed.max(axis=0)
    if (gap > _WIDEST_GAP).any():
        raise ValueError(
            "The proposal and the posterior do not overlap: every draw of the posterior is "
            f"{float(gap.max()):.0f} nats or more from the proposal's nearest one. Train the guide "
            "further, or leave guide=None to fit a normal to the draws."
        )


def _iterate(own: np.ndarray, proposed: np.ndarray, share: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    log_own, log_other = np.log(share), np.log1p(-share)
    log_z = np.zeros(own.shape[1])
    for _ in range(_MOST_STEPS):
        above = proposed - np.logaddexp(log_own + proposed, log_other + log_z)
        below = -np.logaddexp(log_own + own, log_other + log_z)
        found = logsumexp(above, axis=0) - np.log(len(above))
        found = found - logsumexp(below, axis=0) + np.log(len(below))
        if not np.isfinite(found).all():
            raise ValueError(
                "The proposal never meets the posterior: all its draws have density zero under the "
                "model. Pass a fitted guide as guide=, or draw more."
            )
        done = np.abs(found - log_z).max() < _TOLERANCE * (1.0 + np.abs(found).max())
        log_z = found
        if done:
            break
    return log_z


def _relative_error(
    own: np.ndarray, proposed: np.ndarray, share: np.ndarray, log_z: np.ndarray
) -> np.ndarray:
    log_own, log_other = np.log(share), np.log1p(-share)
    first = np.exp(proposed - np.logaddexp(log_own + proposed, log_other + log_z))
    second = np.exp(-np.logaddexp(log_own + own, log_other + log_z) + log_z)
    ess = np.array([_ess(second[..., row]) for row in range(own.shape[2])])
    flat = second.reshape(-1, own.shape[2])
    squares = first.var(axis=0) / first.mean(axis=0) ** 2 / len(first)
    return np.sqrt(squares + flat.var(axis=0) / flat.mean(axis=0) ** 2 / ess)


def _ess(series: Float[np.ndarray, "chain draw"]) -> float:
    """Return the effective sample size of a mean, at most the number of draws."""
    from arviz_stats.base import array_stats

    if np.ptp(series) == 0.0 or series.shape[1] < 4:
        return float(series.size)
    with np.errstate(all="ignore"):
        found = float(array_stats.ess(series, method="mean"))  # type: ignore[attr-defined]
    return float(np.clip(found, 1.0, series.size)) if np.isfinite(found) else float(series.size)
