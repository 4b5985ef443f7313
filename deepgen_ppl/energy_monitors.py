"""What is watched while an energy is trained: chains that do not mix, run away, or lag behind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from deepgen_ppl.diagnosis import Check, Diagnosis
from deepgen_ppl.diagnostics import NESTED, loss_check
from deepgen_ppl.energies import LEAST_SWAPS, seldom_swaps

TIELEMAN = "Tieleman 2008, ICML"
NIJKAMP = "Nijkamp et al. 2020, AAAI"
SYED = "Syed et al. 2022, JRSS B 84"
HYVARINEN = "Hyvarinen 2005, JMLR 6"

COPIES = 4
"""Chains that set out from one datum: nested R-hat tells whether they have forgotten it."""

RATE = 0.02
"""Weight of the newest value in the running means of a chain."""

_WATCHED = 64
_MOST_RHAT = 1.1
_MOST_SPREAD = 30.0
_MOST_GAP = 3.0
_MOST_DISCREPANCY = 1e-3


def some(num_chains: int) -> slice:
    """Return which chains tell how log Z drifts: evenly chosen ones, at most 64 to 127 of them.

    Args:
        num_chains: number of chains that are kept.

    Example:
        >>> len(range(500)[some(500)]), len(range(100)[some(100)])
        (72, 100)
    """
    return slice(None, None, max(num_chains // _WATCHED, 1))


def nested_rhat(
    means: Float[np.ndarray, " chain"],
    variances: Float[np.ndarray, " chain"],
    copies: int = COPIES,
) -> float:
    r"""Return nested R-hat of chains of which only the running means and variances are kept.

    \[ \hat R^2 = 1 + \frac{\operatorname{var}_k \bar\theta_k}
       {\operatorname{mean}_k (\tilde B_k + \tilde W_k)}, \]

    with the means of groups of `copies` chains that set out from one point, the variance of means
    within a group and the mean variance within a chain.

    Args:
        means: running mean of each chain, of groups one after the other.
        variances: running variance of each chain.
        copies: chains of a group.

    References:
        Margossian et al.: Nested R-hat, assessing the convergence of Markov chain Monte Carlo when
        running many short chains. Bayesian Analysis, 2024. https://arxiv.org/abs/2110.13017

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(64, 50))
        >>> round(nested_rhat(draws.mean(1), draws.var(1)), 2)
        1.0
        >>> stuck = draws + np.repeat(np.arange(16), 4)[:, None]
        >>> nested_rhat(stuck.mean(1), stuck.var(1)) > 2
        True
    """
    means, variances = np.asarray(means, float), np.asarray(variances, float)
    copies = copies if len(means) % copies == 0 and len(means) >= 2 * copies else 1
    grouped = means.reshape(-1, copies)
    within = variances.reshape(-1, copies).mean()
    if copies > 1:
        within = within + grouped.var(axis=1, ddof=1).mean()
    if len(grouped) < 2 or not within > 0:
        return float("nan")
    return float(np.sqrt(1.0 + grouped.mean(1).var(ddof=1) / within))


def diagnose_energy(
    losses: Float[np.ndarray, " steps"], history: Mapping[str, np.ndarray], verb: str
) -> Diagnosis:
    """Check a fit of an energy by what was watched while it was trained.

    Args:
        losses: loss of every step.
        history: the monitors, as a fit's `history` keeps them.
        verb: "contrastive", "score_matching" or "noise_contrastive".

    Returns:
        One row per check.

    Example:
        >>> still = {"chain_rhat": np.full(10, 1.6), "chain_age": np.full(10, 500.0)}
        >>> found = diagnose_energy(np.zeros(1000), still, "contrastive")
        >>> found.failed[0].advice[:29]
        'negative chains do not mix: n'
    """
    title = f"{verb}, {len(losses)} steps"
    if verb != "contrastive":
        return Diagnosis(title, (loss_check(np.asarray(losses, float)),))
    checks = [_gap(history), _mixing(history), _spread(history), _acceptance(history)]
    checks += [_swaps(history), _short_run(history), _blocks(history)]
    return Diagnosis(title, tuple(check for check in checks if check is not None))


def _late(history: Mapping[str, np.ndarray], name: str, share: float = 0.2) -> np.ndarray:
    values = np.asarray(history.get(name, ()), float)
    values = values[-max(1, int(share * len(values))) :] if len(values) else values
    return values[np.isfinite(values)]


def _gap(history: Mapping[str, np.ndarray]) -> Check | None:
    """Energies of data and chains agree where the chains are draws of the trained model."""
    data, chains = _late(history, "energy_data"), _late(history, "energy_chains")
    width = _late(history, "energy_width")
    if not (len(data) and len(chains) and len(width)):
        return None
    gap = float(np.mean(chains) - np.mean(data)) / max(float(np.mean(width)), 1e-12)
    ok = abs(gap) < 1.0
    advice = "The energies of the data and of the chains agree."
    if not ok:
        side = "above" if gap > 0 else "below"
        advice = (
            f"The chains' energy stands {side} that of the data by {abs(gap):.2g} of its standard "
            "deviations among chains: they lag behind, or the steps are too large. Lower the "
            "learning rate, or raise chain_steps."
        )
    return Check("energy of chains less data", gap, "within 1 deviation", ok, advice, TIELEMAN)


def _mixing(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "chain_rhat")
    name, threshold = "nested R-hat of chains", f"< {_MOST_RHAT}"
    if not len(late):
        if "chain_age" not in history:
            return None
        advice = "It applies to persistent chains of some age."
        return Check(name, None, threshold, None, advice, NESTED)
    value = float(np.median(late))
    ok = value < _MOST_RHAT
    ages = _late(history, "chain_age")
    age = f" at a mean age of {ages[-1]:.0f} updates" if len(ages) else ""
    advice = f"The chains have forgotten where they set out{age}."
    if not ok:
        advice = (
            f"negative chains do not mix: nested R-hat of their energies is {value:.2f}{age}, so "
            "they stand for parts of the model only and its gradient is biased. Take more steps "
            "between updates, a sampler that moves farther, or a lower learning rate."
        )
    return Check(name, value, threshold, ok, advice, NESTED)


def _spread(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "chain_spread", 0.05)
    if not len(late):
        return None
    value = float(late[-1])
    ok = value < _MOST_SPREAD
    advice = "The chains stay as near to the base as the data do."
    if not ok:
        advice = run_away(value)
    return Check("spread of chains", value, f"< {_MOST_SPREAD:g} x data", ok, advice, NIJKAMP)


def run_away(value: float) -> str:
    """Return what is said of chains that leave the region of the data.

    Args:
        value: their root mean square over that of the data.

    Example:
        >>> run_away(1e4)[:27]
        'the negative chains diverge'
    """
    return (
        f"the negative chains diverge: they stand {value:.3g} times as far out as the data. The "
        "energy may not be integrable: no normaliser exists then. Give the model a base whose "
        "tails fall off faster than the factor grows, bound the energy, or lower the learning rate."
    )


def diverges(value: float) -> bool:
    """Tell whether chains this far out, against the data, have run away.

    Example:
        >>> diverges(2.0), diverges(1e5)
        (False, True)
    """
    return not value < _MOST_SPREAD


def _acceptance(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "acceptance")
    if not len(late):
        return None
    value = float(np.mean(late))
    ok = value > 0.1
    advice = "The chains move."
    if not ok:
        advice = (
            "The chains hardly move: their steps are rejected. Take a smaller first step size, or "
            "a smoother energy."
        )
    return Check("acceptance of chains", value, "> 0.1", ok, advice, NIJKAMP)


def _swaps(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "swap_acceptance")
    if not len(late):
        return None
    rate = float(late.mean())
    told = seldom_swaps(rate)
    advice = told or "Neighbouring temperatures swap: what is drawn at the base reaches the model."
    return Check("swaps between temperatures", rate, f">= {LEAST_SWAPS}", not told, advice, SYED)


def _short_run(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "short_run_gap", 1.0)
    if not len(late):
        return None
    value = float(late[-1])
    ok = abs(value) < _MOST_GAP
    advice = "Chains that set out from the base come to the energies of the trained ones."
    if not ok:
        advice = (
            f"Chains that set out from the base stay {abs(value):.2g} deviations away from the "
            "energies of the chains of training: a short run from the base is no draw of the "
            "model. Draw by long runs, by tempering, or go on from the chains of the fit."
        )
    return Check("short runs from the base", value, f"within {_MOST_GAP:g}", ok, advice, NIJKAMP)


def _blocks(history: Mapping[str, np.ndarray]) -> Check | None:
    late = _late(history, "discrepancy", 1.0)
    if not len(late):
        return None
    value = float(np.max(late))
    ok = value < _MOST_DISCREPANCY
    advice = "What moved at once was independent given the rest."
    if not ok:
        advice = (
            "Coordinates that were moved at once depend on each other, so the chains are wrong. "
            "Take sampler='gibbs_with_gradients', or report the model."
        )
    return Check("blocks of the chains", value, f"< {_MOST_DISCREPANCY:g}", ok, advice, TIELEMAN)
