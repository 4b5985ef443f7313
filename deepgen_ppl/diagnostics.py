"""The checks: of chains, weights, guides and fits, each with its threshold and its source."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from deepgen_ppl.chains import energy_bfmi, worst_statistics
from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.evidence import Evidence, evidence, some

if TYPE_CHECKING:
    from deepgen_ppl.posterior import Posterior

RHAT = "Vehtari et al. 2021, arXiv:1903.08008"
NESTED = "Margossian et al. 2024, arXiv:2110.13017"
LANGEVIN = "Roberts and Tweedie 1996, Bernoulli 2(4)"
HMC = "Betancourt 2017, arXiv:1701.02434"
BFMI = "Betancourt 2016, arXiv:1604.00695"
PSIS = "Vehtari et al. 2024, arXiv:1507.02646"
VARIATIONAL = "Yao et al. 2018, arXiv:1802.02538"
ESS = "Kong 1992, U. Chicago TR 348"
ANNEALING = "Grosse et al. 2015, arXiv:1511.02543"
BRIDGE = "Gronau et al. 2017, arXiv:1703.05984"
LOSS = "Dhaka et al. 2020, arXiv:2009.00666"

_NEEDED_ESS = 100.0
_NEEDED_FRACTION = 0.01
_MOST_ERROR = 0.5  # nats, of the worst row
_MANY_CHAINS = 16  # from which 400 effective draws in all are enough


def diagnose_posterior(posterior: "Posterior") -> Diagnosis:
    """Check draws by the standards of the method that made them.

    MCMC: R-hat, bulk and tail ESS of the worst element of the worst site, divergences, E-BFMI;
    nested R-hat where groups of chains set out from one point, which then decides instead of R-hat;
    whether the kernel is biased.
    Weighted draws: Pareto k, ESS and effective fraction of the worst row. Evidence by annealing or
    by a bridge: its standard error, of the worst row. Draws of a guide: the
    same of the weights exp(lp - log_q), unless all latents are local to a plate of the data, whose
    rows only importance sampling tells apart. Where draws are independent the chain diagnostics are
    listed as not applicable.

    Args:
        posterior: The result.

    Returns:
        One row per check.

    Cost:
        About 3 ms per scalar quantity of a chain; of a site with more than 100 elements, the 100
        with the largest split R-hat and autocorrelation are checked.

    Example:
        >>> import numpy as np
        >>> from deepgen_ppl import Posterior
        >>> draws = {"z": np.random.default_rng(0).normal(size=(4, 500))}
        >>> diagnose_posterior(Posterior(draws, method="mcmc")).ok
        True
    """
    chains, num = posterior.num_chains, posterior.num_draws
    checks: list[Check] = []
    if posterior.evidence is not None:
        checks += _of_method(posterior.evidence)
    elif posterior.log_weights is not None:
        log_weights = posterior.log_weights.reshape(-1, *posterior.log_weights.shape[2:])
        checks += evidence_checks(evidence(log_weights, rows=posterior.row_dim))
    elif posterior.method == "svi":
        checks += _guide_checks(posterior)
    if posterior.independent:
        advice = "It does not apply to independent draws."
        for name, threshold in _chain_thresholds(chains).items():
            checks.append(Check(name, None, threshold, None, advice, RHAT))
        return Diagnosis(f"{posterior.method}, {chains * num} independent draws", tuple(checks))
    checks += chain_checks(posterior.draws, posterior.superchains)
    checks += sampler_checks(posterior.stats)
    if posterior.attrs.get("biased"):
        checks.append(_bias_check(str(posterior.attrs.get("kernel", "the kernel"))))
    plural = "s" if chains != 1 else ""
    return Diagnosis(f"{posterior.method}, {chains} chain{plural} x {num} draws", tuple(checks))


def diagnose_fit(
    losses: Float[np.ndarray, "steps"],
    log_weights: Float[np.ndarray, "K"] | Float[np.ndarray, "K N"] | None = None,
    *,
    rows: str | None = None,
    nonfinite_steps: Sequence[int] = (),
    title: str | None = None,
) -> Diagnosis:
    """Check a fit: does the loss still fall, were steps not finite, and how good is the guide.

    Args:
        losses: Loss of every step, per datum.
        log_weights: Log weights under the fitted guide, (K,) or (K, N); None where there is none.
        rows: Name of the data plate that the second axis of `log_weights` runs over.
        nonfinite_steps: Steps whose loss or gradient was not finite.
        title: What was fitted; by default ``"svi, ... steps"``.

    Returns:
        One row per check.

    Raises:
        ValueError: A log weight is NaN or +inf.

    Cost:
        One Pareto fit per row of `log_weights` (about 0.5 ms each).

    Example:
        >>> import numpy as np
        >>> diagnose_fit(np.exp(-np.arange(2000) / 100)).ok
        True
    """
    losses = np.asarray(losses, float)
    bad = np.union1d(np.asarray(nonfinite_steps, int), np.flatnonzero(~np.isfinite(losses)))
    advice = "Every loss and every gradient was finite."
    if bad.size:
        advice = (
            f"The loss or its gradient was not finite at step {some(bad)}: lower the learning rate "
            "or clip the gradient."
        )
    checks = [
        loss_check(losses[np.isfinite(losses)]),
        Check("non-finite steps", float(bad.size), "= 0", not bad.size, advice, LOSS),
    ]
    if log_weights is not None:
        checks += evidence_checks(evidence(log_weights, rows=rows), source=VARIATIONAL)
    return Diagnosis(title or f"svi, {len(losses)} steps", tuple(checks))


def loss_check(losses: Float[np.ndarray, "steps"]) -> Check:
    """Tell whether the loss still falls: its mean over the last eighth against the eighth before.

    The difference must lie within three of its standard errors (from block means), or within
    0.5% of all that the loss fell.

    Example:
        >>> loss_check(np.linspace(2.0, 1.0, 800)).ok
        False
    """
    name, num_steps = "loss still falling", len(losses)
    if num_steps < 80:
        advice = f"{num_steps} steps are too few to tell whether the loss has settled."
        return Check(name, None, "about 0", None, advice, LOSS)
    eighth = num_steps // 8
    before, after = losses[-2 * eighth : -eighth], losses[-eighth:]
    error = float(np.hypot(_error_of_mean(before), _error_of_mean(after)))
    fall = float(before.mean() - after.mean())
    start = float(np.median(losses[: max(1, num_steps // 100)]))
    slack = max(3.0 * error, 0.005 * abs(start - float(after.mean())))
    ok = abs(fall) <= slack
    over = f"by {abs(fall):.2g} per datum over the last {eighth} steps"
    if ok:
        advice = "The loss has settled."
    elif fall > 0:
        advice = f"The loss still fell {over}: raise num_steps."
    else:
        advice = f"The loss rose {over}: lower the learning rate."
    return Check(name, fall, f"within {slack:.2g}", ok, advice, LOSS)


def evidence_checks(found: Evidence, *, source: str = PSIS) -> list[Check]:
    """Pareto k, ESS and effective fraction of weights: of the worst row where there are rows.

    Example:
        >>> [check.name for check in evidence_checks(evidence(np.zeros(1000)))]
        ['Pareto k', 'ESS', 'effective fraction']
    """
    num, where = found.num_particles, found.rows
    k, ess = np.atleast_1d(found.pareto_k), np.atleast_1d(found.ess)
    limit = k_threshold(num)
    checks = []
    if np.isnan(k).any():
        advice = f"{num} particles are too few to judge their weights: use 25 at least, or 1000."
        checks.append(Check("Pareto k", None, f"< {limit:.2f}", None, advice, source))
    else:
        bad = _worst_first(k, k >= limit)
        advice = "The guide covers the posterior, so the weights can be trusted."
        if bad.size:
            advice = (
                f"The guide misses part of the posterior{_of_rows(bad, len(k), where)}: train it "
                "longer, make it richer, or use mcmc."
            )
        worst = float(k.max())
        checks.append(Check("Pareto k", worst, f"< {limit:.2f}", not bad.size, advice, source))

    bad = _worst_first(-ess, ess < _NEEDED_ESS)
    advice = "There are enough effective draws for means and standard deviations."
    if bad.size:
        advice = (
            f"There are too few effective draws{_of_rows(bad, len(ess), where)}: raise "
            "num_particles, or improve the guide."
        )
    threshold = f">= {_NEEDED_ESS:.0f}"
    checks.append(Check("ESS", float(ess.min()), threshold, not bad.size, advice, ESS))

    bad = _worst_first(-ess, ess < _NEEDED_FRACTION * num)
    advice = "Few enough particles are wasted."
    if bad.size:
        advice = (
            f"Nearly all particles are wasted{_of_rows(bad, len(ess), where)}: improve the guide "
            "rather than drawing more."
        )
    fraction, threshold = float(ess.min()) / num, f">= {_NEEDED_FRACTION}"
    checks.append(Check("effective fraction", fraction, threshold, not bad.size, advice, ESS))
    return checks


def error_check(found: Evidence, advice: str, source: str) -> Check:
    """Standard error of log evidence, of the worst row where there are rows.

    Args:
        found: The evidence.
        advice: What to do where it is too large.
        source: Where the check comes from.

    Example:
        >>> error_check(evidence(np.zeros(100)), "Take more.", ANNEALING).ok
        True
    """
    error = found.per_row_standard_error
    error = np.atleast_1d(found.standard_error if error is None else error)
    bad = _worst_first(error, ~(error < _MOST_ERROR))
    good = "The log evidence is known well enough to compare models."
    if bad.size:
        good = f"The log evidence is rough{_of_rows(bad, len(error), found.rows)}: {advice}"
    worst = float(error.max())
    return Check("standard error", worst, f"< {_MOST_ERROR}", not bad.size, good, source)


def _of_method(found: Evidence) -> list[Check]:
    """Checks of evidence by the method that made it."""
    if found.method.startswith("bridge"):
        return [error_check(found, "draw more, or bridge to a fitted guide.", BRIDGE)]
    if found.method.startswith(("annealed", "sequential")):
        advice = "raise num_temperatures, or start at a fitted guide."
        if found.method.startswith("sequential"):
            advice = "raise num_particles or fraction, or start at a fitted guide."
        return [error_check(found, advice, ANNEALING)]
    return evidence_checks(found)


def chain_checks(
    draws: Mapping[str, Float[np.ndarray, "chain draw *shape"]],
    superchains: Int[np.ndarray, " chain"] | None = None,
) -> list[Check]:
    """R-hat, bulk ESS and tail ESS of the worst element of the worst site.

    Where groups of chains set out from one point, nested R-hat decides whether they mixed: R-hat
    of many short chains is above 1.01 by chance. Elements that never vary over any draw (structural
    zeros, say) are left out; one that varies between chains but not within one has an infinite
    R-hat.

    Args:
        draws: Sites to draws.
        superchains: Number of the group of each chain.

    Example:
        >>> stuck = np.repeat([[0.0], [1.0]], 100, axis=1)
        >>> chain_checks({"z": stuck})[0].value
        inf
    """
    chains, num = next((value.shape[:2] for value in draws.values()), (0, 0))
    limits = _chain_thresholds(chains, superchains is not None)
    if draws and num < 4:
        advice = f"{num} draws a chain are too few to tell: raise num_samples."
        return [Check(name, None, limit, False, advice, RHAT) for name, limit in limits.items()]
    worst = worst_statistics(draws, superchains)
    checks = []
    for name, limit in limits.items():
        source = NESTED if name == "nested R-hat" else RHAT
        if name not in worst:
            advice = "There is nothing to check: no site varies."
            checks.append(Check(name, None, limit, None, advice, source))
            continue
        number, label = worst[name]
        ok = number < 1.01 if name.endswith("R-hat") else number >= _needed_draws(chains)
        advice = _chain_advice(name, label, ok)
        if name == "R-hat" and superchains is not None and np.isfinite(number) and not ok:
            ok, advice = None, "Chains this short differ by chance: nested R-hat decides."
        checks.append(Check(name, number, limit, ok, advice, source))
    return checks


def sampler_checks(stats: Mapping[str, np.ndarray]) -> list[Check]:
    """Divergences and E-BFMI, where the sampler reports them.

    Example:
        >>> sampler_checks({"diverging": np.zeros((4, 100), bool)})[0].ok
        True
    """
    checks = []
    if "diverging" in stats:
        checks.append(_divergence_check(np.asarray(stats["diverging"], bool)))
    if "energy" in stats:
        checks.append(_energy_check(np.asarray(stats["energy"], float)))
    return checks


def k_threshold(num_draws: int) -> float:
    """The Pareto k below which S draws give a reliable estimate: min(1 - 1 / log10 S, 0.7).

    Example:
        >>> round(k_threshold(1000), 3)
        0.667
    """
    return float(min(1.0 - 1.0 / np.log10(num_draws), 0.7)) if num_draws > 10 else 0.0


def _guide_checks(posterior: "Posterior") -> list[Check]:
    observed = {dim for site in posterior.observed_data for dim in posterior.dims.get(site, ())}
    for site in posterior.draws:
        observed &= set(posterior.dims.get(site, ()))
    rows = posterior.row_dim or next((dim for dim in observed if dim is not None), None)
    if rows is not None:
        advice = f"The latents are local to '{rows}': importance() judges the guide row by row."
        limit = f"< {k_threshold(posterior.num_chains * posterior.num_draws):.2f}"
        return [Check("Pareto k", None, limit, None, advice, VARIATIONAL)]
    if not {"lp", "log_q"} <= posterior.stats.keys():
        return []
    log_ratio = np.asarray(posterior.stats["lp"], float) - posterior.stats["log_q"]
    return evidence_checks(evidence(log_ratio.ravel()), source=VARIATIONAL)


def _divergence_check(diverging: Bool[np.ndarray, "chain draw"]) -> Check:
    count = int(diverging.sum())
    advice = "No trajectory diverged."
    if count:
        advice = (
            f"{count} of {diverging.size} trajectories diverged (most in chain "
            f"{int(diverging.sum(axis=1).argmax())}), so a region of high curvature is missed: "
            "reparametrise the model or raise target_accept_prob."
        )
    return Check("divergences", float(count), "= 0", count == 0, advice, HMC)


def _energy_check(energy: Float[np.ndarray, "chain draw"]) -> Check:
    bfmi = energy_bfmi(energy)
    if not np.isfinite(bfmi).all():
        advice = "The energies are too few, or do not vary."
        return Check("E-BFMI", None, ">= 0.3", None, advice, BFMI)
    worst, chain = float(bfmi.min()), int(bfmi.argmin())
    advice = "The chains move freely between energies, so they reach the tails."
    if worst < 0.3:
        advice = (
            f"Chain {chain} moves slowly between energies, so it hardly reaches the tails: "
            "reparametrise heavy-tailed or hierarchical sites."
        )
    return Check("E-BFMI", worst, ">= 0.3", worst >= 0.3, advice, BFMI)


def _needed_draws(chains: int) -> int:
    return 100 * chains if chains < _MANY_CHAINS else 400


def _chain_thresholds(chains: int, nested: bool = False) -> dict[str, str]:
    needed = f">= {_needed_draws(chains)}"
    rhats = ("R-hat", "nested R-hat") if nested else ("R-hat",)
    return {**dict.fromkeys(rhats, "< 1.01"), "bulk ESS": needed, "tail ESS": needed}


def _bias_check(kernel: str) -> Check:
    advice = (
        f"The steps of {kernel} are not tested against the density, so its draws have another law "
        "than the posterior: use kernel='mala' or 'chees'."
    )
    return Check("biased kernel", 1.0, "= 0", False, advice, LANGEVIN)


def _chain_advice(name: str, label: str, ok: bool) -> str:
    if name.endswith("R-hat"):
        cure = "run longer, reparametrise, or look for several modes"
        return f"The chains agree (worst: {label})." if ok else f"They disagree on {label}: {cure}."
    if ok:
        return f"There are enough effective draws (worst: {label})."
    what = "means" if name == "bulk ESS" else "tail quantiles"
    return f"Too few effective draws for {what} of {label}: raise num_samples or reparametrise."


def _error_of_mean(series: Float[np.ndarray, "steps"]) -> float:
    """Standard error of the mean of an autocorrelated series, from the means of ten blocks."""
    blocks = np.array([block.mean() for block in np.array_split(series, 10)])
    return float(blocks.std(ddof=1) / np.sqrt(10))


def _worst_first(badness: np.ndarray, bad: np.ndarray) -> np.ndarray:
    indices = np.flatnonzero(bad)
    return indices[np.argsort(-badness[indices], kind="stable")]


def _of_rows(bad: np.ndarray, total: int, rows: str | None) -> str:
    return (
        "" if rows is None else f" in {len(bad)} of {total} rows of '{rows}' (worst: {some(bad)})"
    )
