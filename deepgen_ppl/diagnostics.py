"""The diagnosis: what was checked, the value, the threshold, the verdict, and what to do about it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from deepgen_ppl.evidence import evidence

if TYPE_CHECKING:
    from deepgen_ppl.posterior import Posterior

RHAT = "Vehtari et al. 2021, arXiv:1903.08008"
HMC = "Betancourt 2017, arXiv:1701.02434"
BFMI = "Betancourt 2016, arXiv:1604.00695"
PSIS = "Vehtari et al. 2024, arXiv:1507.02646"
KONG = "Kong 1992, TR 348, U. of Chicago"
SVI = "Dhaka et al. 2020, arXiv:2009.00666"

_MAX_ELEMENTS = 1_000  # of one site; a larger site is checked on evenly spaced elements


class Check(NamedTuple):
    """One row of a diagnosis.

    Attributes:
        name: What was checked.
        value: What was found, None where the check does not apply.
        threshold: The condition on the value, in words such as ``"< 1.01"``.
        ok: The verdict; None where the check does not apply.
        advice: One sentence: what it means and what to do, naming the worst site or rows.
        source: Where the threshold comes from.
    """

    name: str
    value: float | None
    threshold: str
    ok: bool | None
    advice: str
    source: str


class Diagnosis(NamedTuple):
    """The checks of one result; printing it shows a table.

    Attributes:
        title: What was checked.
        checks: The rows of the table.

    Example:
        >>> row = Check("R-hat", 1.002, "< 1.01", True, "The chains agree.", RHAT)
        >>> Diagnosis("mcmc, 4 chains x 1000 draws", (row,)).ok
        True
    """

    title: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.ok is not False for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.ok is False)

    def __str__(self) -> str:
        return _table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: title, verdict and one dict per check.

        Example:
            >>> Diagnosis("svi", ()).to_dict()
            {'title': 'svi', 'ok': True, 'checks': []}
        """
        return {
            "title": self.title,
            "ok": self.ok,
            "checks": [check._asdict() for check in self.checks],
        }

    def attrs(self) -> dict[str, str | int]:
        """Attributes for a DataTree: the verdict (0 or 1) and the table as JSON.

        Example:
            >>> Diagnosis("svi", ()).attrs()["diagnosis_ok"]
            1
        """
        return {"diagnosis": json.dumps(self.to_dict()), "diagnosis_ok": int(self.ok)}


def diagnose_posterior(posterior: Posterior) -> Diagnosis:
    """Check the draws of one result by the standards of the method that made them.

    MCMC: R-hat, bulk and tail ESS of the worst element of the worst site, divergences, E-BFMI. Weighted draws: Pareto
    k, ESS and effective fraction of the worst row. Independent draws: the chain diagnostics are not applicable.

    Args:
        posterior: The result.

    Returns:
        One row per check.

    Cost:
        About 2 ms per scalar quantity for chains; a site of more than 1,000 elements is checked on 1,000 of them.

    Example:
        >>> import numpy as np
        >>> from deepgen_ppl import Posterior
        >>> draws = {"z": np.random.default_rng(0).normal(size=(4, 500))}
        >>> diagnose_posterior(Posterior(draws, method="mcmc")).ok
        True
    """
    chains, draws = posterior.num_chains, posterior.num_draws
    title = f"{posterior.method}, {chains} chain{'s' * (chains != 1)} x {draws} draws"
    checks: list[Check] = []
    if posterior.log_weights is not None:
        flat = posterior.log_weights.reshape(chains * draws, *posterior.log_weights.shape[2:])
        checks += weight_checks(flat, posterior.row_dim)
    elif posterior.method != "mcmc" and {"lp", "log_q"} <= posterior.stats.keys():
        log_ratio = np.asarray(posterior.stats["lp"], float) - posterior.stats["log_q"]
        checks += weight_checks(log_ratio.reshape(chains * draws), None)
    if posterior.independent:
        checks += [
            Check(name, None, threshold, None, "Not applicable: the draws are independent.", RHAT)
            for name, threshold in (
                ("R-hat", "< 1.01"),
                ("bulk ESS", f">= {100 * chains}"),
                ("tail ESS", f">= {100 * chains}"),
            )
        ]
    else:
        checks += chain_checks(posterior.draws)
        checks += sampler_checks(posterior.stats, chains)
    return Diagnosis(title, tuple(checks))


def diagnose_fit(
    losses: Float[np.ndarray, "steps"],
    log_weights: np.ndarray | None = None,
    *,
    rows: str | None = None,
    nonfinite_steps: Sequence[int] = (),
    title: str = "svi",
) -> Diagnosis:
    """Check a fit: is the loss still falling, were steps not finite, and how good is the guide.

    Args:
        losses: Loss of every step, per datum.
        log_weights: Log weights under the fitted guide, ``(K,)`` or ``(K, N)``; None leaves the guide unchecked.
        rows: Name of the data plate that the second axis of `log_weights` runs over.
        nonfinite_steps: Steps whose loss or gradient was not finite.
        title: What was fitted.

    Returns:
        One row per check.

    Cost:
        One Pareto fit per row of `log_weights` (about 0.5 ms each).

    Example:
        >>> import numpy as np
        >>> diagnose_fit(np.exp(-np.arange(2000) / 100)).ok
        True
    """
    losses = np.asarray(losses, float)
    bad = sorted(
        set(map(int, nonfinite_steps)) | set(np.flatnonzero(~np.isfinite(losses)).tolist())
    )
    checks = [loss_check(losses[np.isfinite(losses)])]
    advice = (
        "Every loss and gradient was finite."
        if not bad
        else f"Step {_some(bad)} was not finite: lower the learning rate or clip the gradient."
    )
    checks.append(Check("non-finite steps", float(len(bad)), "= 0", not bad, advice, SVI))
    if log_weights is not None:
        checks += weight_checks(np.asarray(log_weights), rows)
    return Diagnosis(title, tuple(checks))


def loss_check(losses: Float[np.ndarray, "steps"]) -> Check:
    """Tell whether the loss still falls: the mean of its last eighth against the eighth before."""
    name = "loss still falling"
    num_steps = len(losses)
    if num_steps < 40:
        advice = f"{num_steps} steps are too few to judge the loss: raise num_steps."
        return Check(name, None, "about 0", None, advice, SVI)
    eighth = num_steps // 8
    before, after = losses[-2 * eighth : -eighth], losses[-eighth:]
    error = float(np.hypot(_batch_means_error(before), _batch_means_error(after)))
    fall = float(before.mean() - after.mean())
    scale = float(np.ptp(losses[: max(1, eighth)])) + abs(float(losses[:1].mean() - after.mean()))
    slack = max(3.0 * error, 0.005 * scale, 1e-6)
    if abs(fall) <= slack:
        advice = "The loss has levelled off."
    elif fall > 0:
        advice = (
            f"The loss fell by {fall:.2g} per datum over the last {eighth} steps: raise num_steps "
            "or the learning rate."
        )
    else:
        advice = (
            f"The loss rose by {-fall:.2g} per datum over the last {eighth} steps: lower the "
            "learning rate."
        )
    return Check(name, fall, f"within +/-{slack:.2g}", abs(fall) <= slack, advice, SVI)


def weight_checks(log_weights: np.ndarray, rows: str | None) -> list[Check]:
    """Pareto k, ESS and effective fraction of log weights, for the worst row where there are rows."""
    found = evidence(log_weights, rows=rows)
    num = found.num_particles
    per_row = found.per_row is not None
    k, ess = np.atleast_1d(found.pareto_k), np.atleast_1d(found.ess)
    limit = k_threshold(num)
    checks = []

    finite_k = np.where(np.isnan(k), -np.inf, k)
    bad = np.flatnonzero(finite_k > limit)
    bad = bad[np.argsort(-finite_k[bad], kind="stable")]
    if np.isnan(k).all():
        advice = f"{num} particles are too few to fit a tail: draw at least 25, better 1000."
        checks.append(Check("Pareto k", None, f"< {limit:.2f}", None, advice, PSIS))
    else:
        advice = "The guide covers the posterior: the weights can be trusted."
        if bad.size:
            advice = (
                f"The guide misses part of the posterior{_rows(bad, len(k), found.rows, per_row)}: "
                "train longer, use a richer guide, or sample with mcmc."
            )
        worst = float(finite_k.max())
        checks.append(Check("Pareto k", worst, f"< {limit:.2f}", not bad.size, advice, PSIS))

    needed = 100.0
    bad = np.flatnonzero(ess < needed)
    bad = bad[np.argsort(ess[bad], kind="stable")]
    advice = "Enough effective draws for means and standard deviations."
    if bad.size:
        advice = (
            f"Too few effective draws{_rows(bad, len(ess), found.rows, per_row)}: raise "
            "num_particles or improve the guide."
        )
    ok = not bad.size
    checks.append(Check("ESS", float(ess.min()), f">= {needed:.0f}", ok, advice, KONG))

    fraction = float(ess.min()) / num
    advice = "Few particles are wasted."
    if fraction < 0.01:
        bad = np.flatnonzero(ess / num < 0.01)
        advice = (
            f"Nearly all particles are wasted{_rows(bad, len(ess), found.rows, per_row)}: fit the "
            "guide before sampling from it."
        )
    checks.append(Check("effective fraction", fraction, ">= 0.01", fraction >= 0.01, advice, KONG))
    return checks


def chain_checks(draws: Mapping[str, np.ndarray]) -> list[Check]:
    """R-hat, bulk ESS and tail ESS of the worst element of the worst site."""
    chains, num = next((v.shape[:2] for v in draws.values()), (0, 0))
    limits = {"R-hat": "< 1.01", "bulk ESS": f">= {100 * chains}", "tail ESS": f">= {100 * chains}"}
    if num < 4:
        advice = f"{num} draws per chain are too few for chain diagnostics: draw at least 4."
        return [Check(name, None, limit, None, advice, RHAT) for name, limit in limits.items()]
    worst = {name: (np.nan, "") for name in limits}
    for site, values in draws.items():
        for label, series in _elements(site, np.asarray(values)):
            for name, value in _chain_statistics(series).items():
                sign = 1.0 if name == "R-hat" else -1.0
                if not worst[name][1] or sign * value > sign * worst[name][0]:
                    worst[name] = (value, label)
    checks = []
    for name, limit in limits.items():
        value, label = worst[name]
        if not label:
            advice = "Nothing to check: no site varies."
            checks.append(Check(name, None, limit, None, advice, RHAT))
            continue
        ok = value < 1.01 if name == "R-hat" else value >= 100 * chains
        checks.append(Check(name, value, limit, ok, _chain_advice(name, label, ok), RHAT))
    return checks


def sampler_checks(stats: Mapping[str, np.ndarray], chains: int) -> list[Check]:
    """Divergences and E-BFMI, where the sampler reports them."""
    checks = []
    if "diverging" in stats:
        diverging = np.asarray(stats["diverging"], bool)
        count = int(diverging.sum())
        advice = "No trajectory diverged."
        if count:
            advice = (
                f"{count} of {diverging.size} trajectories diverged (most in chain "
                f"{int(diverging.sum(axis=1).argmax())}): the draws miss a region of high "
                "curvature; reparametrise the model or raise target_accept_prob."
            )
        checks.append(Check("divergences", float(count), "= 0", count == 0, advice, HMC))
    if "energy" in stats:
        energy = np.asarray(stats["energy"], float).reshape(chains, -1)
        if energy.shape[1] < 4 or not np.all(energy.var(axis=1) > 0):
            advice = "Too few draws, or an energy that does not vary: E-BFMI cannot be told."
            checks.append(Check("E-BFMI", None, ">= 0.3", None, advice, BFMI))
        else:
            bfmi = np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1, ddof=1)
            value, chain = float(bfmi.min()), int(bfmi.argmin())
            advice = "The momentum is resampled well enough to reach the tails."
            if value < 0.3:
                advice = (
                    f"Chain {chain} explores the tails slowly: reparametrise heavy-tailed or "
                    "hierarchical sites."
                )
            checks.append(Check("E-BFMI", value, ">= 0.3", value >= 0.3, advice, BFMI))
    return checks


def k_threshold(num_draws: int) -> float:
    """The Pareto k up to which this many draws give a reliable estimate: min(1 - 1 / log10 S, 0.7)."""
    return min(1.0 - 1.0 / np.log10(max(num_draws, 2)), 0.7) if num_draws > 10 else 0.0


def _chain_statistics(series: np.ndarray) -> dict[str, float]:
    from arviz_stats.base import array_stats

    stuck = bool((np.ptp(series, axis=1) == 0).any())
    with np.errstate(all="ignore"):
        found = {
            "R-hat": float(array_stats.rhat(series)),
            "bulk ESS": float(array_stats.ess(series, method="bulk")),
            "tail ESS": float(array_stats.ess(series, method="tail", prob=(0.05, 0.95))),
        }
    if stuck and np.ptp(series) > 0:
        return {"R-hat": np.inf, "bulk ESS": float(len(series)), "tail ESS": float(len(series))}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _elements(site: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The scalar series of a site that vary, as floats, with their labels."""
    shape = values.shape[2:]
    flat = values.reshape(*values.shape[:2], -1)
    num = flat.shape[2]
    chosen = np.unique(np.linspace(0, num - 1, min(num, _MAX_ELEMENTS)).astype(int)) if num else ()
    for index in chosen:
        series = flat[:, :, index].astype(float)
        if not np.all(np.isfinite(series)) or np.ptp(series) > 0:
            where = ", ".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
            yield (f"{site}[{where}]" if where else site), series


def _chain_advice(name: str, label: str, ok: bool) -> str:
    if name == "R-hat":
        if ok:
            return f"The chains agree (worst: {label})."
        return (
            f"The chains disagree about {label}: run longer, reparametrise, or look for several "
            "modes."
        )
    if ok:
        return f"Enough effective draws (worst: {label})."
    what = "means" if name == "bulk ESS" else "tail quantiles"
    return f"Too few effective draws for {what} of {label}: raise num_samples or reparametrise."


def _batch_means_error(series: np.ndarray) -> float:
    """Standard error of the mean of an autocorrelated series, from the spread of block means."""
    num_blocks = min(10, len(series))
    blocks = np.array([block.mean() for block in np.array_split(series, num_blocks)])
    return float(blocks.std(ddof=1) / np.sqrt(num_blocks)) if num_blocks > 1 else np.inf


def _some(items: Sequence[int] | np.ndarray, limit: int = 5) -> str:
    shown = ", ".join(str(int(i)) for i in items[:limit])
    return shown if len(items) <= limit else f"{shown}, ..."


def _rows(bad: np.ndarray, total: int, rows: str | None, per_row: bool) -> str:
    if not per_row:
        return ""
    return f" for {len(bad)} of {total} rows of '{rows}' (worst: {_some(bad)})"


def _table(diagnosis: Diagnosis, width: int = 100) -> str:
    words = {True: "ok", False: "NOT OK", None: "n/a"}
    head = ("check", "value", "threshold", "verdict", "what it means")
    body = [
        (c.name, "-" if c.value is None else f"{c.value:.4g}", c.threshold, words[c.ok], c.advice)
        for c in diagnosis.checks
    ]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(4)]
    room = max(30, width - sum(widths) - 2 * len(widths))
    lines = [f"{diagnosis.title}: {'ok' if diagnosis.ok else 'NOT OK'}"]
    for row in (head, *body):
        left = "  ".join(cell.ljust(size) for cell, size in zip(row[:4], widths, strict=True))
        for number, part in enumerate(textwrap.wrap(row[4], room) or [""]):
            lines.append(f"{left if number == 0 else ' ' * len(left)}  {part}".rstrip())
        if row is head:
            lines.append("-" * min(width, sum(widths) + 8 + room))
    sources = sorted({check.source for check in diagnosis.checks})
    return "\n".join([*lines, *textwrap.wrap("sources: " + "; ".join(sources), width)])
