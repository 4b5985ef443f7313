"""Simulated data: how draws of observed sites get back into the data arguments of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from deepgen_ppl import checks

Sites = Mapping[str, np.ndarray]
Observe = Callable[[Sequence[Any]], Sites]

_SMALL = {1: 100, 2: 1_000}
"""Numbers that an entry of a dtype of so many bytes can tell apart; others tell 2^20."""
_PARTLY = 0.01
_LOOKED_AT = 3


class Simulator(Protocol):
    """A model that can be run forwards: what a wing gives this room."""

    @property
    def data(self) -> Sequence[Any]:
        """Its data arguments: NumPy arrays, and anything else."""
        ...

    @property
    def arguments(self) -> Sequence[str]:
        """Their names."""
        ...

    def observe(self, data: Sequence[Any]) -> Sites:
        """Return the values of the observed sites at some data."""
        ...

    def simulate(
        self, num: int, seed: int, back: Mapping[int, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return draws (num, ...) of all sites, at data arguments of each simulation if given."""
        ...


class Route(NamedTuple):
    """Where the data of an observed site come from.

    Attributes:
        argument: number of the data argument.
        entries: number of the argument's entry (flattened) behind each entry of the site.
    """

    argument: int
    entries: Int[np.ndarray, " *shape"]


def simulated(
    source: Simulator,
    num_simulations: int,
    simulate: Callable[..., Any] | None,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
    """Draw parameters and data, and put the data back into the data arguments.

    Args:
        source: The model.
        num_simulations: Number S of simulations.
        simulate: The user's function from drawn sites and a random generator to data arguments;
            None finds them.
        seed: Seed of the draws.

    Returns:
        Sites to their true values (S, ...), and numbers of data arguments to simulated ones.

    Raises:
        ValueError: What `routes`, `check_arrived`, `check_read` and the model's priors refuse.
    """
    if simulate is not None:
        truth = source.simulate(num_simulations, seed)
        return truth, _by_hand(source, truth, simulate, seed)
    found = routes(source.observe, source.data, source.arguments)
    moved = {route.argument for route in found.values()}
    given = {i: np.repeat(source.data[i][None], num_simulations, axis=0) for i in moved}
    truth = source.simulate(num_simulations, seed, given)
    back = put_back(source.data, found, truth)
    for s in range(min(num_simulations, _LOOKED_AT)):
        drawn = {site: truth[site][s] for site in found}
        check_arrived(source.observe, with_data(source.data, back, s), drawn)
    check_read(truth, source.simulate(num_simulations, seed, back))
    return truth, back


def with_data(data: Sequence[Any], back: Mapping[int, np.ndarray], s: int) -> tuple[Any, ...]:
    """Return the data arguments of one simulation.

    Example:
        >>> with_data([1, None], {0: np.array([5, 6])}, 1)
        (np.int64(6), None)
    """
    return tuple(back[i][s] if i in back else value for i, value in enumerate(data))


def routes(observe: Observe, data: Sequence[Any], names: Sequence[str]) -> dict[str, Route]:
    """Find, for each observed site, which entries of which data argument it observes.

    The entries of one argument after the other are replaced by their own numbers (digit by digit
    where the dtype is small) and looked for in what the sites observe. Slices, columns, transposes
    and changes of dtype are understood; where entries are transformed on their way there is no
    route.

    Args:
        observe: Values of the observed sites at some data.
        data: The data arguments: NumPy arrays, and anything else, which is left alone.
        names: Names of the data arguments, for the error.

    Returns:
        Observed sites to their routes.

    Raises:
        ValueError: No argument's entries stand in a site as they are; the message names it.

    Cost:
        One run of the model an argument, up to 20 where arguments are binary.

    Example:
        >>> xy = np.arange(8.0).reshape(4, 2)
        >>> found = routes(lambda data: {"y": data[0][:, 1]}, [xy], ["xy"])
        >>> found["y"].entries
        array([1, 3, 5, 7])
    """
    seen = {site: np.asarray(value) for site, value in observe(data).items()}
    found: dict[str, Route] = {}
    for i, array in enumerate(data):
        if not isinstance(array, np.ndarray) or not array.size or array.dtype.kind not in "biuf":
            continue
        for site, entries in _decoded(observe, data, i).items():
            same = entries.shape == seen[site].shape and np.array_equal(
                array.ravel()[entries].astype(seen[site].dtype), seen[site]
            )
            if same and site not in found:
                found[site] = Route(i, entries)
    lost = [site for site in seen if site not in found]
    if lost:
        raise ValueError(
            f"{checks.quote(lost)} observes no entries of the data arguments "
            f"({checks.quote(names) or 'none'}) as they are, so simulated data cannot be put back "
            "into them. Transform the data before they are passed, or pass simulate=, a function "
            "of the drawn sites and a random generator that returns the data arguments."
        )
    return found


def put_back(
    data: Sequence[Any], found: Mapping[str, Route], sites: Sites
) -> dict[int, np.ndarray]:
    """Return the data arguments of many simulations, those that observed sites come from.

    Args:
        data: The data arguments.
        found: The routes.
        sites: Observed sites to draws (S, ...).

    Returns:
        Number of an argument to arrays (S, ...) in which the observed entries are replaced.

    Example:
        >>> back = put_back([np.zeros(2)], {"y": Route(0, np.array([1]))}, {"y": np.ones((3, 1))})
        >>> back[0].tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    made: dict[int, np.ndarray] = {}
    for site, route in found.items():
        array, drawn = data[route.argument], np.asarray(sites[site])
        if route.argument not in made:
            made[route.argument] = np.repeat(array.reshape(1, -1), len(drawn), axis=0)
        values = np.broadcast_to(drawn, (len(drawn), *route.entries.shape))
        made[route.argument][:, route.entries.ravel()] = values.reshape(len(drawn), -1)
    return {i: flat.reshape(len(flat), *data[i].shape) for i, flat in made.items()}


def check_counts(**counts: object) -> None:
    """Refuse numbers of simulations or draws that are no positive whole numbers.

    Raises:
        ValueError: naming what was given.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")


def check_arrived(observe: Observe, data: Sequence[Any], sites: Sites) -> None:
    """Refuse simulated data that the observed sites do not observe when they are passed.

    Args:
        observe: Values of the observed sites at some data.
        data: Simulated data arguments.
        sites: The draws of the observed sites that they were made of.

    Raises:
        ValueError: A site observes something else; the message names it.
    """
    for site, value in observe(data).items():
        drawn, value = np.asarray(sites[site]), np.asarray(value)
        if drawn.shape != value.shape or not np.allclose(drawn, value, rtol=1e-5, atol=1e-6):
            raise ValueError(
                f"site '{site}' does not observe the data that were simulated for it: several "
                "sites observe the same entries, or the data's dtype cannot hold its draws. Pass "
                "floats, or simulate=, a function of the drawn sites and a random generator that "
                "returns the data arguments."
            )


def check_read(before: Sites, after: Sites) -> None:
    """Refuse models whose draws depend on the data that are to be simulated.

    Args:
        before: Draws (M, ...) of all sites at the given data.
        after: Draws from the same seeds at simulated data.

    Raises:
        ValueError: A site's draws differ; the message names the first one.
    """
    for site, one in before.items():
        one, other = np.asarray(one, float), np.asarray(after[site], float)
        if one.shape != other.shape:
            differs = 1.0
        else:
            differs = 1.0 - np.isclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True).mean()
        if differs > _PARTLY:
            raise ValueError(
                f"the draws of site '{site}' depend on the data that are to be simulated (an "
                "autoregression on observed values, or a prior set by the data), so that running "
                "the model forwards does not draw from its joint density. Pass simulate=, a "
                "function of the drawn sites and a random generator that returns the data "
                "arguments; a prior must not depend on them."
            )


def check_proper(
    factors: Collection[str],
    observed: Collection[str],
    latents: Collection[str],
    subsampled: Collection[str],
) -> None:
    """Refuse models from whose joint density nothing can be drawn by running them forwards.

    Args:
        factors: names of factor statements.
        observed: names of the observed sites.
        latents: names of the latent sites.
        subsampled: names of plates that subsample by themselves.

    Raises:
        ValueError: there is a factor or a subsample, or nothing is observed or latent.
    """
    if factors:
        raise ValueError(
            f"The model has factor statements ({checks.quote(factors)}), which drawing from it "
            "would leave out of account. Calibration needs a model that is sampled by running it."
        )
    if subsampled:
        raise ValueError(
            f"Plate {checks.quote(subsampled)} subsamples; calibration needs all of its elements. "
            "Drop subsample_size."
        )
    if not observed:
        raise ValueError(
            "The model observes nothing at these data, so there is nothing to simulate. Pass "
            "arrays of the shapes that are to be simulated, zeros for example."
        )
    if not latents:
        raise ValueError("The model has no latent sites, so there is nothing to calibrate.")


def check_amortised(one: Sites, other: Sites) -> None:
    """Refuse a guide whose draws are the same whatever the data.

    Args:
        one: Its draws at one data set.
        other: Its draws from the same seed at another one.

    Raises:
        ValueError: All are equal.
    """
    if all(np.array_equal(one[site], other[site]) for site in one):
        raise ValueError(
            f"The guide draws {checks.quote(one)} without reading the data: what it learned holds "
            "for the data it was trained on. Let it be trained on each simulation: "
            "infer=partial(dg.svi, guide=...)."
        )


def _by_hand(
    source: Simulator, truth: Sites, simulate: Callable[..., Any], seed: int
) -> dict[int, np.ndarray]:
    rng, made = np.random.default_rng(seed), []
    for s in range(len(next(iter(truth.values())))):
        found = simulate({site: value[s] for site, value in truth.items()}, rng)
        found = tuple(found) if isinstance(found, tuple | list) else (found,)
        if len(found) != len(source.data):
            raise ValueError(
                f"simulate returned {len(found)} data arguments; the model takes "
                f"{len(source.data)} ({checks.quote(source.arguments)})."
            )
        made.append(found)
    back: dict[int, np.ndarray] = {}
    for i, array in enumerate(source.data):
        if not isinstance(array, np.ndarray):
            continue
        back[i] = np.stack([np.asarray(found[i]) for found in made]).astype(array.dtype)
        if back[i].shape[1:] != array.shape:
            raise ValueError(
                f"simulate returned '{source.arguments[i]}' of shape {back[i].shape[1:]}; the data "
                f"have shape {array.shape}."
            )
    return back


def _decoded(observe: Observe, data: Sequence[Any], i: int) -> dict[str, np.ndarray]:
    """Return, by site, the number of an argument's entry that each of its entries shows."""
    array, size = data[i], data[i].size
    base = _SMALL.get(array.dtype.itemsize, 1 << 20)
    if array.dtype.kind == "b" or np.isin(array, (0, 1)).all():
        base = 2  # as the program expects them
    codes, found = np.arange(1, size + 1), {}

    def shown(digits: np.ndarray) -> dict[str, np.ndarray]:
        other = digits.reshape(array.shape).astype(array.dtype)
        seen = observe([*data[:i], other, *data[i + 1 :]])
        return {site: np.asarray(value, float) for site, value in seen.items()}

    try:
        for place in range(int(np.ceil(np.log(size + 1) / np.log(base)))):
            for site, value in shown(codes // base**place % base).items():
                found[site] = found.get(site, 0.0) + value * float(base) ** place
        other = shown((codes + 1) % base)  # the last digits, changed: what stands still is no route
    except Exception:  # the program computes with this argument: it is a covariate
        return {}
    numbers = {
        site: np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0) for site, value in found.items()
    }
    entries = {s: n.astype(int) - 1 for s, n in numbers.items() if (n == np.floor(n)).all()}
    entries = {s: e for s, e in entries.items() if e.size and e.min() >= 0 and e.max() < size}
    return {s: e for s, e in entries.items() if np.array_equal(other[s], (codes[e] + 1) % base)}
