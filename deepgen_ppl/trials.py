"""The trials: an inference run on each simulated data set, and true values compared with draws."""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from deepgen_ppl import checks
from deepgen_ppl.calibration import Calibration, rank
from deepgen_ppl.chains import worst_statistics
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.simulation import with_data

LOG_LIKELIHOOD = "log likelihood"
"""The test quantity that is always ranked: log p(y | theta)."""

Counts = dict[str, tuple[np.ndarray, np.ndarray]]
Quantity = Callable[..., Any]


class Trials:
    """Counts of draws below and at the true values, simulation by simulation.

    Args:
        truth: Sites to their true values (S, ...).
        latents: Sites that are ranked, where draws have them.
        num_draws: Number of draws that are wanted.
        quantities: The user's test quantities.
        log_likelihood: Function of draws (K, ...) of all latents and the data arguments to (K,) or
            (K, rows).

    Attributes:
        counts: Names to how many draws are below, and how many equal, one pair a simulation.
        num_draws: Number of draws of each simulation.
        trained: Whether draws came from guides that were trained on the simulations.
    """

    def __init__(
        self,
        truth: Mapping[str, np.ndarray],
        latents: Collection[str],
        num_draws: int,
        quantities: Mapping[str, Quantity],
        log_likelihood: Callable[[dict[str, np.ndarray], Sequence[Any]], np.ndarray],
    ) -> None:
        self.truth, self.latents, self.wanted = truth, latents, num_draws
        self.quantities, self.log_likelihood = quantities, log_likelihood
        self.counts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.num_draws: list[int] = []
        self.trained = False

    def run(
        self,
        infer: Callable[[Sequence[Any], int], Any],
        data: Sequence[Any],
        back: Mapping[int, np.ndarray],
        seed: int,
        progress: bool,
        as_given: Callable[[int, np.ndarray], Any],
    ) -> None:
        """Run an inference on every simulated data set.

        Args:
            infer: Function of data arguments and a seed to a `Posterior`.
            data: The data arguments.
            back: Simulated data arguments (S, ...) by number.
            seed: Seed of the inferences.
            progress: Whether to show a progress bar.
            as_given: Function of an argument's number and value to what the user passes there.
        """
        size = len(next(iter(self.truth.values())))
        seeds, complaints = np.random.SeedSequence(seed).generate_state(size), []
        for s in tqdm(range(size), desc="sbc", disable=not progress):
            one = with_data(data, back, s)
            given = tuple(as_given(i, x) if i in back else x for i, x in enumerate(one))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", UserWarning)
                found = infer(given, int(seeds[s] >> 1))
            complaints += [str(each.message) for each in said[:1]]
            if not isinstance(found, Posterior):
                raise TypeError(
                    f"infer returned {type(found).__name__}; it must return a Posterior or a Fit."
                )
            self.trained = self.trained or found.method == "svi"
            self._compare(s, found, given, int(seeds[s]))
        if complaints:
            warnings.warn(
                f"{len(complaints)} of {size} inferences warned, the first of them: "
                f"{complaints[0]}",
                UserWarning,
                stacklevel=3,
            )

    def _compare(self, s: int, found: Posterior, given: Sequence[Any], seed: int) -> None:
        draws = independent_draws(found, self.latents, self.wanted, seed)
        if not draws:
            raise ValueError(
                f"The posterior of infer has draws of {sorted(found.draws)}, none of them of the "
                f"model's latent sites {list(self.latents)}."
            )
        point = {name: self.truth[name][s] for name in draws}
        for name, value in draws.items():
            if value.shape[1:] != point[name].shape:
                raise ValueError(
                    f"The posterior's '{name}' has shape {value.shape[1:]}; in the model it is "
                    f"{point[name].shape}."
                )
        both = {
            name: np.concatenate([point[name][None], value.astype(point[name].dtype)])
            for name, value in draws.items()
        }
        values: dict[str, np.ndarray] = dict(both)
        if set(self.latents) <= set(both):
            values[LOG_LIKELIHOOD] = self.log_likelihood(both, given)
        for name, quantity in self.quantities.items():
            values[name] = np.asarray(quantity(both, *given))
            if values[name].shape[:1] != (len(next(iter(both.values()))),):
                raise ValueError(
                    f"test quantity '{name}' has shape {values[name].shape}; it must begin with "
                    f"the {len(next(iter(both.values())))} draws."
                )
        for name, value in values.items():
            self.counts.setdefault(name, []).append(compare(value))
        self.num_draws.append(len(next(iter(draws.values()))))

    def stacked(self) -> Counts:
        """Return the counts with simulations on the leading axis."""
        pairs = {name: tuple(zip(*each, strict=True)) for name, each in self.counts.items()}
        return {name: (np.stack(less), np.stack(equal)) for name, (less, equal) in pairs.items()}


def calibration(
    counts: Counts,
    num_draws: Sequence[int],
    *,
    wanted: int,
    latents: Collection[str],
    plates: Mapping[str, Sequence[str | None]],
    rows: str | None,
    infer: str,
    seed: int,
) -> Calibration:
    """Make ranks of counts; where rows are simulations of their own their ranks are pooled.

    Args:
        counts: Names to how many draws are below the true values and how many equal them (S, ...).
        num_draws: Number of draws of each simulation.
        wanted: Number of draws that was asked for.
        latents: Those of the names that are sites.
        plates: Names to the plates of their leading dimensions.
        rows: Name of the plate whose rows are pooled; None for none.
        infer: What was calibrated.
        seed: Seed that breaks ties.
    """
    rng = np.random.default_rng(seed)
    ranks, dims = {}, {}
    for name, (less, equal) in counts.items():
        found, own = rank(less, equal, rng), list(plates.get(name, ()))
        if rows is not None and rows in own:
            axis = own.index(rows)
            own.pop(axis)
            found = np.moveaxis(found, 1 + axis, 1)
            found = found.reshape(-1, *found.shape[2:])
        ranks[name], dims[name] = found, tuple(own)
    quantities = tuple(name for name in ranks if name not in latents)
    return Calibration(ranks, np.asarray(num_draws), wanted, quantities, rows, dims, infer)


class Inference:
    """Whatever is calibrated, as a function of simulated data.

    Args:
        infer: A callable, `functools.partial` of one, or the name of a verb.
        verbs: The verbs by name.
        options: Options of the verbs that `infer` is given where it takes them and does not bind
            them.
        anew: Whether a class of guides is made an object for each simulation, where training
            changes the object, or once.

    Attributes:
        name: What it is called.
        fn: The function below `functools.partial`.
        args: Positional arguments bound to it, before the model.
        guide: The guide bound to it, where a guide stands between its model and data.
        bound: Options bound to it, and those it is given.
        own: Names of the options that the user bound.

    Raises:
        TypeError: `infer` is none of these.
        ValueError: It is a name of no verb, or of one that needs a guide.
    """

    def __init__(
        self,
        infer: Any,
        verbs: Mapping[str, Callable[..., Any]],
        options: Mapping[str, Any],
        anew: bool = True,
    ) -> None:
        if isinstance(infer, str):
            if infer not in verbs:
                raise ValueError(
                    f"infer={infer!r} is none of {', '.join(map(repr, verbs))}. Pass a function of "
                    "model and data, such as partial(dg.svi, guide=...), or a Fit."
                )
            infer = verbs[infer]
        if not callable(infer):
            raise TypeError(
                "infer must be a Fit or a function of model and data that returns a Posterior or a "
                f"Fit, such as partial(dg.mcmc, num_samples=500), not {type(infer).__name__}."
            )
        bound: dict[str, Any] = {}
        args: tuple[Any, ...] = ()
        fn = infer
        while isinstance(fn, partial):
            args, bound, fn = (*fn.args, *args), {**fn.keywords, **bound}, fn.func
        parameters = inspect.signature(fn).parameters
        before = list(parameters)[:2]  # a guide stands between model and data: svi, importance
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.has_guide = before[1:] == ["guide"]
        self.fn, self.args, self.anew = fn, args, anew
        self.guide = bound.pop("guide", None) if self.has_guide else None
        if self.has_guide and self.guide is None and self.name == "svi":
            raise ValueError("svi needs a guide: pass infer=partial(dg.svi, guide=...).")
        known = {name: value for name, value in options.items() if name in parameters}
        self.own = frozenset(bound)
        self.bound, self.seeded = {**known, **bound}, "seed" in parameters and "seed" not in bound

    def __call__(self, model: Callable[..., Any], data: Sequence[Any], seed: int) -> Any:
        """Return what `infer` finds, a guide's class made an object of the model first."""
        first = (model, self.guide_of(model)) if self.has_guide else (model,)
        bound = {**self.bound, "seed": seed} if self.seeded else self.bound
        return self.fn(*self.args, *first, *data, **bound)

    def check_fixed(self, names: Sequence[str]) -> None:
        """Refuse training on simulations where the model has parameters: it would move them too.

        Args:
            names: The model's parameters.

        Raises:
            ValueError: There are some, and the inference is svi.
        """
        if self.name == "svi" and names:
            raise ValueError(
                f"The model has parameters ({checks.quote(names)}), which svi would train on every "
                "simulation. Calibrate the Fit of model and guide instead: infer=fit."
            )

    def guide_of(self, model: Callable[..., Any]) -> Any:
        """Return the guide; a class of guides is made an object."""
        guide = self.guide(model) if isinstance(self.guide, type) else self.guide
        if not self.anew:
            self.guide = guide
        return guide


def independent_draws(
    posterior: Posterior, names: Collection[str], num_draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Return roughly independent, equally weighted draws of a posterior's sites.

    Weighted draws are resampled, independent ones thinned; chains are thinned to their smallest
    bulk effective sample size where that is less than the number asked for.

    Args:
        posterior: The result.
        names: The sites; those that the posterior lacks are left out.
        num_draws: How many draws are wanted.
        seed: Seed of resampling.

    Returns:
        Sites to draws (L, ...), L at most `num_draws`.

    Example:
        >>> posterior = Posterior({"z": np.random.default_rng(0).normal(size=(4, 250))})
        >>> len(independent_draws(posterior, ["z"], 99, seed=0)["z"])
        99
    """
    if posterior.log_weights is not None:
        flat = posterior.resample(num_draws, seed).flat()
        return {name: flat[name] for name in names if name in flat}
    draws = {name: posterior.draws[name] for name in names if name in posterior.draws}
    total = posterior.num_chains * posterior.num_draws
    size = min(num_draws, total)
    if not posterior.independent:
        size = max(1, min(size, int(_effective(draws, total))))
    keep = np.linspace(0, total - 1, size).round().astype(int)
    return {name: value.reshape(-1, *value.shape[2:])[keep] for name, value in draws.items()}


def compare(
    values: Float[np.ndarray, "draws *shape"],
) -> tuple[Int[np.ndarray, " *shape"], Int[np.ndarray, " *shape"]]:
    """Return how many draws are below the true value, which stands first, and how many equal it.

    Example:
        >>> [int(count) for count in compare(np.array([1.0, 0.0, 1.0, 2.0]))]
        [1, 1]
    """
    return (values[1:] < values[:1]).sum(axis=0), (values[1:] == values[:1]).sum(axis=0)


def _effective(draws: Mapping[str, np.ndarray], total: int) -> float:
    """The smallest bulk effective sample size; all draws where nothing varies."""
    if min((value.shape[1] for value in draws.values()), default=0) < 4:
        return total
    return worst_statistics(draws).get("bulk ESS", (float(total), ""))[0]
