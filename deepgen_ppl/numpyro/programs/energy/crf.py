"""The conditional random field: labels along a sequence given its features, all of it exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax
from jax.core import Tracer
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int
from numpyro.contrib.module import eqx_module
from numpyro.distributions import constraints

from deepgen_ppl import energies, labelling
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.numpyro.nets import MLP, check_registered, on_batch
from deepgen_ppl.numpyro.programs.energy.ready import replaced


class CRF(eqx.Module):
    r"""A linear-chain conditional random field: labels y of a sequence given its features x.

    \[ \log p(y \mid x) = a_{y_1} + \sum_t f_\theta(x)_{t, y_t} + \sum_{t > 1} A_{y_{t-1}, y_t}
       + b_{y_L} - \log Z(x) \]

    Called with features it gives NumPyro's own `Distribution` of the labels, whose normaliser,
    density, draws, marginals and most probable labels are exact. `crf.model` is the program, a
    site "y" in the plate "data", `model(features, labels=None, lengths=None)`: train it by maximum
    conditional likelihood, `dg.svi(crf.model, None, x, y)`, and take what was learned by
    `dg.flows.fitted(crf, fit, "crf")`.

    Args:
        net: f, a module or function from features to potentials (*batch, time, states), which may
            look at the whole sequence; or a number of features, for a linear map of each place's.
        states: number of states of a label.
        seed: seed of the linear map's initial weights; transitions are zero at first.

    Raises:
        ValueError: a size is no whole number.
        TypeError: a network that cannot be called, or a function around a module.

    Cost:
        The network, and states squared a place.

    References:
        Lafferty, McCallum, Pereira: Conditional random fields: probabilistic models for segmenting
        and labeling sequence data. ICML 2001.
        Sutton, McCallum: An introduction to conditional random fields. Foundations and Trends in
        Machine Learning 4(4), 2012. https://arxiv.org/abs/1011.4088

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> crf, x = dg.CRF(4, 3), jnp.ones((8, 5, 4))
        >>> y = crf(x).sample(jax.random.key(0))
        >>> y.shape, crf(x).log_prob(y).shape, crf(x).marginals.shape
        ((8, 5), (8,), (8, 5, 3))
    """

    net: Any
    transition: Array
    initial: Array
    final: Array

    def __init__(
        self, net: Callable[..., Any] | int, states: int, *, seed: int | np.random.Generator = 0
    ) -> None:
        labelling.check_sizes(net, states)
        check_registered("net", net)
        self.net = net if callable(net) else MLP(int(net), states, (), seed=seed)
        self.transition = jnp.zeros((states, states))
        self.initial, self.final = jnp.zeros(states), jnp.zeros(states)

    @property
    def states(self) -> int:
        """Number of states of a label."""
        return len(self.initial)

    def with_weights(self, transition: Any, initial: Any, final: Any) -> CRF:
        """Return a copy with other potentials between labels.

        Args:
            transition: A, of shape (before, after).
            initial: a, of the first label.
            final: b, of the last label.

        Raises:
            ValueError: an array of another shape.
        """
        given = {"transition": transition, "initial": initial, "final": final}
        own = {name: getattr(self, name).shape for name in given}
        energies.check_weights({name: np.shape(value) for name, value in given.items()}, own)
        return replaced(self, **{name: jnp.asarray(v, float) for name, v in given.items()})

    def __call__(
        self, features: Float[Array, "*batch T features"], lengths: Any = None
    ) -> LabelDistribution:
        """Return the native distribution of the labels.

        Args:
            features: features of each place, in whatever shape the network takes.
            lengths: how many places of each sequence count, all of them by default.

        Raises:
            ValueError: features, the network's output, or lengths of another shape; a length of no
                place.
        """
        features = jnp.asarray(features)
        if isinstance(self.net, MLP):
            labelling.check_features(features.shape, self.net.weights[0].shape[0])
        unary = on_batch(self.net, features)
        labelling.check_potentials(unary.shape, self.states)
        return LabelDistribution(unary, self.transition, self.initial, self.final, lengths)

    @property
    def model(self) -> Callable[..., None]:
        """The native program: labels "y" of rows of features in the plate "data"."""
        return partial(_rows, self)


def _rows(crf: Any, features: Any, labels: Any = None, lengths: Any = None) -> None:
    crf = eqx_module("crf", crf)
    found = crf(features, lengths)
    seen = None if labels is None else np.shape(labels)
    labelling.check_shapes(seen, None, found.batch_shape, found.event_shape[0])
    with numpyro.plate("data", len(features)):
        numpyro.sample("y", found, obs=labels)


class LabelDistribution(dist.Distribution):
    """Labels along a chain of potentials, as NumPyro's own distribution.

    Places beyond the length of a sequence count for nothing: draws and `mode` are 0 there,
    probabilities are 0, and `log_prob` passes over what stands there.

    Args:
        unary: potentials of each state at each place.
        transition: potentials of neighbours, (before, after).
        initial: of the first label.
        final: of the last label.
        lengths: how many places of each sequence count, all of them by default.

    Example:
        >>> table = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
        >>> labels = LabelDistribution(jnp.zeros((3, 2)), table, jnp.zeros(2), jnp.zeros(2))
        >>> labels.mode.tolist(), round(float(labels.log_z), 4)
        ([0, 0, 0], 0.6931)
    """

    arg_constraints: Any = {}  # noqa: RUF012
    pytree_data_fields: ClassVar[tuple[str, ...]] = (
        "unary", "transition", "initial", "final", "lengths",
    )  # fmt: skip

    def __init__(
        self,
        unary: Float[Array, "*batch T states"],
        transition: Float[Array, "states states"],
        initial: Float[Array, " states"],
        final: Float[Array, " states"],
        lengths: Int[Array, "*batch"] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.unary, self.transition, self.initial, self.final = unary, transition, initial, final
        batch, (time, _) = unary.shape[:-2], unary.shape[-2:]
        if lengths is not None:
            labelling.check_shapes(None, np.shape(lengths), batch, time)
            if not isinstance(lengths, Tracer):
                labelling.check_lengths(np.asarray(lengths), time)
            lengths = jnp.asarray(lengths, int)
        self.lengths = lengths
        super().__init__(batch, (time,), validate_args=validate_args)

    @property
    def states(self) -> int:
        """Number of states of a label."""
        return self.unary.shape[-1]

    @property
    def inside(self) -> Bool[Array, "*#batch T"]:
        """Which places count."""
        places = jnp.arange(self.unary.shape[-2])
        return places >= 0 if self.lengths is None else places < self.lengths[..., None]

    @property
    def support(self) -> Any:
        """Sequences of states."""
        return constraints.independent(constraints.integer_interval(0, self.states - 1), 1)

    @property
    def log_z(self) -> Float[Array, "*batch"]:
        """Log normaliser, summed over all labels."""
        return _log_z(self)

    def unnormalised_log_prob(self, value: Int[Array, "*batch T"]) -> Float[Array, "*batch"]:
        """Return the sum of the potentials of labels, the log density but for log Z.

        Args:
            value: labels.

        Raises:
            ValueError: labels of another shape, or, outside of compiled code, labels that are no
                states, by row and place; compiled code gives them minus infinity.
        """
        value = jnp.asarray(value)
        energies.check_event(value.shape, self.event_shape, "CRF")
        if not isinstance(value, Tracer) and not isinstance(self.inside, Tracer):
            labelling.check_labels(np.asarray(value), np.asarray(self.inside), self.states)
        return _potentials(self, value)

    def log_prob(self, value: Int[Array, "*batch T"], intermediates: Any = None) -> Array:
        """Return the log density.

        Args:
            value: labels.
            intermediates: not used.

        Raises:
            ValueError: labels of another shape, or, outside of compiled code, labels that are no
                states, by row and place; compiled code gives them minus infinity.
        """
        return self.unnormalised_log_prob(value) - self.log_z

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*sample T"]:
        """Return exact draws: sums backwards, labels forwards.

        Args:
            key: random key.
            sample_shape: shape of independent draws.
        """
        time = self.unary.shape[-2]
        shape = (time, *sample_shape, *self.batch_shape, self.states)
        noise = jax.random.gumbel(key, shape, self.unary.dtype)
        return _draw(self, noise)

    @property
    def mode(self) -> Int[Array, "*batch T"]:
        """The most probable labels of each sequence together."""
        return _best(self)

    @property
    def marginals(self) -> Float[Array, "*batch T states"]:
        """Probability of each state at each place."""
        return _marginals(self)[0]

    @property
    def pair_marginals(self) -> Float[Array, "*batch T-1 before after"]:
        """Probability of each pair of states at each place and the one after it."""
        return _marginals(self)[1]

    def given(self, labels: Int[Array, "*batch T"]) -> LabelDistribution:
        r"""Return the distribution of all labels where some are known.

        Its `log_z` less that of the field is the log probability of the labels that are known,
        the others summed out.

        Args:
            labels: known labels, -1 where they are not known.

        Raises:
            ValueError: labels of another shape, or that are no states, by row and place.

        Example:
            >>> import deepgen_ppl.numpyro as dg
            >>> labels = dg.CRF(4, 3)(jnp.ones((2, 5, 4)))
            >>> labels.given(jnp.array([[-1, 2, -1, 0, -1]] * 2)).mode[:, [1, 3]].tolist()
            [[2, 0], [2, 0]]
        """
        labels = jnp.asarray(labels)
        labelling.check_shapes(labels.shape, None, self.batch_shape, self.event_shape[0])
        if not isinstance(labels, Tracer) and not isinstance(self.inside, Tracer):
            inside = np.asarray(self.inside)
            labelling.check_labels(np.asarray(labels), inside, self.states, unknown=True)
        known = labels[..., None]
        free = (known < 0) | (known == jnp.arange(self.states)) | ~self.inside[..., None]
        unary = jnp.where(free, self.unary, -jnp.inf)
        arrays = (self.transition, self.initial, self.final, self.lengths)
        return LabelDistribution(unary, *arrays)

    def factor_graph(self) -> FactorGraph:
        """Return the labels y0, y1, ... of one sequence as a factor graph, for `dg.exact`.

        Raises:
            ValueError: there is a batch of sequences.
        """
        labelling.check_one(self.batch_shape)
        length = self.event_shape[0] if self.lengths is None else int(self.lengths)
        arrays = (self.unary[:length], self.transition, self.initial, self.final)
        return labelling.chain_graph(*map(np.asarray, arrays))


# what follows is compiled once for all distributions of a shape


@jax.jit
def _log_z(labels: LabelDistribution) -> Array:
    return logsumexp(labels.initial + labels.unary[..., 0, :] + _after(labels, _log_sum)[0], -1)


@jax.jit
def _potentials(labels: LabelDistribution, value: Array) -> Array:
    """Return the sum of the potentials, minus infinity of labels that are no states."""
    shape = jnp.broadcast_shapes(value.shape, (*labels.batch_shape, *labels.event_shape))
    inside, value = jnp.broadcast_to(labels.inside, shape), jnp.broadcast_to(value, shape)
    known = (value >= 0) & (value < labels.states)
    y = jnp.where(known & inside, value, 0).astype(int)
    wide = jnp.broadcast_to(labels.unary, (*y.shape, labels.states))
    own = jnp.take_along_axis(wide, y[..., None], -1)[..., 0]
    tied = labels.transition[y[..., :-1], y[..., 1:]]
    last = inside.sum(-1, keepdims=True) - 1
    ends = labels.initial[y[..., 0]] + labels.final[jnp.take_along_axis(y, last, -1)[..., 0]]
    total = jnp.where(inside, own, 0).sum(-1) + jnp.where(inside[..., 1:], tied, 0).sum(-1)
    return jnp.where((known | ~inside).all(-1), total + ends, -jnp.inf)


@jax.jit
def _draw(labels: LabelDistribution, noise: Array) -> Array:
    return _forwards(labels, _after(labels, _log_sum), noise)


@jax.jit
def _best(labels: LabelDistribution) -> Array:
    none = jnp.zeros((*labels.event_shape, *labels.batch_shape, labels.states), labels.unary.dtype)
    return _forwards(labels, _after(labels, lambda scores: scores.max(-1)), none)


@jax.jit
def _marginals(labels: LabelDistribution) -> tuple[Array, Array]:
    """Return the probabilities of states and of pairs: a chain, run forwards."""
    scores = jnp.moveaxis(labels.unary, -2, 0) + _after(labels, _log_sum)
    moves = jax.nn.softmax(labels.transition + scores[1:, ..., None, :], -1)
    inside = jnp.moveaxis(labels.inside, -1, 0)

    def step(before: Array, cells: Any) -> tuple[Array, Any]:
        move, counts = cells
        pairs = jnp.where(counts[..., None, None], before[..., None] * move, 0)
        return pairs.sum(-2), (pairs.sum(-2), pairs)

    first = jax.nn.softmax(labels.initial + scores[0], -1)
    _, (rest, pairs) = lax.scan(step, first, (moves, inside[1:]))
    found = jnp.concatenate([first[None], rest])
    return jnp.moveaxis(found, 0, -2), jnp.moveaxis(pairs, 0, -3)


def _after(
    labels: LabelDistribution, reduce: Callable[[Array], Array]
) -> Float[Array, "T *batch states"]:
    """Return what all that comes after each place adds to each of its states."""
    unary, inside = jnp.moveaxis(labels.unary, -2, 0), jnp.moveaxis(labels.inside, -1, 0)

    def step(after: Array, cells: Any) -> tuple[Array, Array]:
        own, counts = cells
        found = reduce(labels.transition + (own + after)[..., None, :])
        found = jnp.where(counts[..., None], found, labels.final)
        return found, found

    last = jnp.broadcast_to(labels.final, unary[0].shape)
    _, rest = lax.scan(step, last, (unary[1:], inside[1:]), reverse=True)
    return jnp.concatenate([rest, last[None]])


def _forwards(labels: LabelDistribution, after: Array, noise: Array) -> Int[Array, "*batch T"]:
    """Return the labels that are greatest one after the other, some noise added."""
    scores = jnp.moveaxis(labels.unary, -2, 0) + after
    scores = jnp.expand_dims(scores, tuple(range(1, 1 + noise.ndim - scores.ndim))) + noise
    inside = jnp.moveaxis(labels.inside, -1, 0)

    def step(before: Array, cells: Any) -> tuple[Array, Array]:
        own, counts = cells
        found = jnp.argmax(labels.transition[before] + own, -1)
        found = jnp.where(counts, found, 0)
        return found, found

    first = jnp.argmax(labels.initial + scores[0], -1)
    _, rest = lax.scan(step, first, (scores[1:], inside[1:]))
    return jnp.moveaxis(jnp.concatenate([first[None], rest]), 0, -1)


def _log_sum(scores: Array) -> Array:
    return logsumexp(scores, -1)
