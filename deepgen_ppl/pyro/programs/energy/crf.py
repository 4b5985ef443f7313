"""The conditional random field: labels along a sequence given its features, all of it exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from jaxtyping import Bool, Float, Int
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from deepgen_ppl import energies, labelling
from deepgen_ppl.factor_graph import FactorGraph
from deepgen_ppl.pyro.data import to_tensor
from deepgen_ppl.pyro.flows.layer import is_concrete
from deepgen_ppl.pyro.nets import MLP, as_parameter, check_registered
from deepgen_ppl.pyro.programs.energy.ready import as_numpy, replaced


class CRF(nn.Module):
    r"""A linear-chain conditional random field: labels y of a sequence given its features x.

    \[ \log p(y \mid x) = a_{y_1} + \sum_t f_\theta(x)_{t, y_t} + \sum_{t > 1} A_{y_{t-1}, y_t}
       + b_{y_L} - \log Z(x) \]

    Called with features it gives Pyro's own `Distribution` of the labels, whose normaliser,
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
        >>> import deepgen_ppl.pyro as dg
        >>> crf, x = dg.CRF(4, 3), torch.ones(8, 5, 4)
        >>> y = crf(x).sample()
        >>> y.shape, crf(x).log_prob(y).shape, crf(x).marginals.shape
        (torch.Size([8, 5]), torch.Size([8]), torch.Size([8, 5, 3]))
    """

    def __init__(
        self, net: Callable[..., Any] | int, states: int, *, seed: int | np.random.Generator = 0
    ) -> None:
        super().__init__()
        labelling.check_sizes(net, states)
        check_registered("net", net)
        self.net = net if callable(net) else MLP(int(net), states, (), seed=seed)
        self.transition = as_parameter(np.zeros((states, states)))
        self.initial = as_parameter(np.zeros(states))
        self.final = as_parameter(np.zeros(states))

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
        own = {name: tuple(getattr(self, name).shape) for name in given}
        energies.check_weights({name: tuple(np.shape(v)) for name, v in given.items()}, own)
        return replaced(self, **{name: as_parameter(as_numpy(v)) for name, v in given.items()})

    def forward(
        self, features: Float[Tensor, "*batch T features"], lengths: Any = None
    ) -> LabelDistribution:
        """Return the native distribution of the labels.

        Args:
            features: features of each place, in whatever shape the network takes.
            lengths: how many places of each sequence count, all of them by default.

        Raises:
            ValueError: features, the network's output, or lengths of another shape; a length of no
                place.
        """
        features = to_tensor(features)
        if isinstance(self.net, MLP):
            labelling.check_features(features.shape, self.net.weights[0].shape[0])
        unary = self.net(features)
        labelling.check_potentials(unary.shape, self.states)
        return LabelDistribution(unary, self.transition, self.initial, self.final, lengths)

    @property
    def model(self) -> Callable[..., None]:
        """The native program: labels "y" of rows of features in the plate "data"."""

        def model(features: Any, labels: Any = None, lengths: Any = None) -> None:
            found = pyro.module("crf", self)(features, lengths)
            time = found.event_shape[0]
            seen = None if labels is None else np.shape(labels)
            labelling.check_shapes(seen, None, found.batch_shape, time)
            with pyro.plate("data", len(features)):
                pyro.sample("y", found, obs=labels)

        return model


class LabelDistribution(TorchDistribution):
    """Labels along a chain of potentials, as Pyro's own distribution.

    Places beyond the length of a sequence count for nothing: draws and `mode` are 0 there,
    probabilities are 0, and `log_prob` passes over what stands there.

    Args:
        unary: potentials of each state at each place.
        transition: potentials of neighbours, (before, after).
        initial: of the first label.
        final: of the last label.
        lengths: how many places of each sequence count, all of them by default.

    Example:
        >>> table = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
        >>> labels = LabelDistribution(torch.zeros(3, 2), table, torch.zeros(2), torch.zeros(2))
        >>> labels.mode.tolist(), round(float(labels.log_z), 4)
        ([0, 0, 0], 0.6931)
    """

    arg_constraints: Any = {}  # noqa: RUF012

    def __init__(
        self,
        unary: Float[Tensor, "*batch T states"],
        transition: Float[Tensor, "states states"],
        initial: Float[Tensor, " states"],
        final: Float[Tensor, " states"],
        lengths: Int[Tensor, "*batch"] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.unary, self.transition, self.initial, self.final = unary, transition, initial, final
        batch, (time, _) = unary.shape[:-2], unary.shape[-2:]
        if lengths is not None:
            labelling.check_shapes(None, np.shape(lengths), batch, time)
            lengths = torch.as_tensor(lengths, device=unary.device)
            if is_concrete(lengths):
                labelling.check_lengths(as_numpy(lengths), time)
            lengths = lengths.long()
        self.lengths = lengths
        super().__init__(batch, torch.Size((time,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LabelDistribution:
        """Return the distribution of a wider batch shape.

        Args:
            batch_shape: the new batch shape.
            _instance: not used.
        """
        unary = self.unary.expand(*batch_shape, *self.unary.shape[-2:])
        lengths = None if self.lengths is None else self.lengths.expand(*batch_shape)
        found = LabelDistribution(
            unary, self.transition, self.initial, self.final, lengths, validate_args=False
        )
        found._validate_args = self._validate_args
        return found

    @property
    def states(self) -> int:
        """Number of states of a label."""
        return self.unary.shape[-1]

    @property
    def inside(self) -> Bool[Tensor, "*#batch T"]:
        """Which places count."""
        places = torch.arange(self.unary.shape[-2], device=self.unary.device)
        return places >= 0 if self.lengths is None else places < self.lengths[..., None]

    @property
    def support(self) -> Any:  # type: ignore[override]
        """Sequences of states."""
        return constraints.independent(constraints.integer_interval(0, self.states - 1), 1)

    @property
    def log_z(self) -> Float[Tensor, "*batch"]:
        """Log normaliser, summed over all labels."""
        return _log_z(self)

    def unnormalised_log_prob(self, value: Int[Tensor, "*batch T"]) -> Float[Tensor, "*batch"]:
        """Return the sum of the potentials of labels, the log density but for log Z.

        Args:
            value: labels.

        Raises:
            ValueError: labels of another shape, or, outside of traced code, labels that are no
                states, by row and place; traced code gives them minus infinity.
        """
        value = torch.as_tensor(value, device=self.unary.device)
        energies.check_event(value.shape, self.event_shape, "CRF")
        if is_concrete(value) and is_concrete(self.inside):
            labelling.check_labels(as_numpy(value), as_numpy(self.inside), self.states)
        return _potentials(self, value)

    def log_prob(self, value: Int[Tensor, "*batch T"]) -> Tensor:
        """Return the log density.

        Args:
            value: labels.

        Raises:
            ValueError: labels of another shape, or, outside of traced code, labels that are no
                states, by row and place; traced code gives them minus infinity.
        """
        return self.unnormalised_log_prob(value) - self.log_z

    def sample(self, sample_shape: Any = torch.Size()) -> Int[Tensor, "*sample T"]:  # noqa: B008
        """Return exact draws: sums backwards, labels forwards.

        Args:
            sample_shape: shape of independent draws.
        """
        time = self.unary.shape[-2]
        shape = (time, *sample_shape, *self.batch_shape, self.states)
        with torch.no_grad():
            noise = -self.unary.new_empty(shape).exponential_().log()
            return _draw(self, noise)

    @property
    def mode(self) -> Int[Tensor, "*batch T"]:  # type: ignore[override]
        """The most probable labels of each sequence together."""
        with torch.no_grad():
            return _best(self)

    @property
    def marginals(self) -> Float[Tensor, "*batch T states"]:
        """Probability of each state at each place."""
        return _marginals(self)[0]

    @property
    def pair_marginals(self) -> Float[Tensor, "*batch T-1 before after"]:
        """Probability of each pair of states at each place and the one after it."""
        return _marginals(self)[1]

    def given(self, labels: Int[Tensor, "*batch T"]) -> LabelDistribution:
        r"""Return the distribution of all labels where some are known.

        Its `log_z` less that of the field is the log probability of the labels that are known,
        the others summed out.

        Args:
            labels: known labels, -1 where they are not known.

        Raises:
            ValueError: labels of another shape, or that are no states, by row and place.

        Example:
            >>> import deepgen_ppl.pyro as dg
            >>> labels = dg.CRF(4, 3)(torch.ones(2, 5, 4))
            >>> labels.given(torch.tensor([[-1, 2, -1, 0, -1]] * 2)).mode[:, [1, 3]].tolist()
            [[2, 0], [2, 0]]
        """
        labels = torch.as_tensor(labels, device=self.unary.device)
        labelling.check_shapes(labels.shape, None, self.batch_shape, self.event_shape[0])
        if is_concrete(labels) and is_concrete(self.inside):
            inside = as_numpy(self.inside)
            labelling.check_labels(as_numpy(labels), inside, self.states, unknown=True)
        known = labels[..., None]
        states = torch.arange(self.states, device=labels.device)
        free = (known < 0) | (known == states) | ~self.inside[..., None]
        unary = torch.where(free, self.unary, -torch.inf)
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
        return labelling.chain_graph(*map(as_numpy, arrays))


def _log_z(labels: LabelDistribution) -> Tensor:
    return _log_sum(labels.initial + labels.unary[..., 0, :] + _after(labels, _log_sum)[0])


def _potentials(labels: LabelDistribution, value: Tensor) -> Tensor:
    """Return the sum of the potentials, minus infinity of labels that are no states."""
    shape = torch.broadcast_shapes(value.shape, labels.batch_shape + labels.event_shape)
    inside, value = labels.inside.expand(shape), value.expand(shape)
    known = (value >= 0) & (value < labels.states)
    y = torch.where(known & inside, value, 0).long()
    wide = labels.unary.expand(*y.shape, labels.states)
    own = wide.gather(-1, y[..., None])[..., 0]
    tied = labels.transition[y[..., :-1], y[..., 1:]]
    last = inside.sum(-1, keepdim=True) - 1
    ends = labels.initial[y[..., 0]] + labels.final[y.gather(-1, last)[..., 0]]
    total = torch.where(inside, own, 0).sum(-1) + torch.where(inside[..., 1:], tied, 0).sum(-1)
    return torch.where((known | ~inside).all(-1), total + ends, -torch.inf)


def _draw(labels: LabelDistribution, noise: Tensor) -> Tensor:
    return _forwards(labels, _after(labels, _log_sum), noise)


def _best(labels: LabelDistribution) -> Tensor:
    none = labels.unary.new_zeros((*labels.event_shape, *labels.batch_shape, labels.states))
    return _forwards(labels, _after(labels, lambda scores: scores.amax(-1)), none)


def _marginals(labels: LabelDistribution) -> tuple[Tensor, Tensor]:
    """Return the probabilities of states and of pairs: a chain, run forwards."""
    scores = labels.unary.movedim(-2, 0) + _after(labels, _log_sum)
    moves = (labels.transition + scores[1:, ..., None, :]).softmax(-1)
    inside = labels.inside.movedim(-1, 0)
    found, pairs = [(labels.initial + scores[0]).softmax(-1)], []
    for move, counts in zip(moves, inside[1:], strict=True):
        pairs.append(torch.where(counts[..., None, None], found[-1][..., None] * move, 0))
        found.append(pairs[-1].sum(-2))
    none = moves.movedim(0, -3)  # of a single place
    return torch.stack(found, -2), torch.stack(pairs, -3) if pairs else none


def _after(
    labels: LabelDistribution, reduce: Callable[[Tensor], Tensor]
) -> Float[Tensor, "T *batch states"]:
    """Return what all that comes after each place adds to each of its states."""
    unary, inside = labels.unary.movedim(-2, 0), labels.inside.movedim(-1, 0)
    after = [labels.final.expand(unary[0].shape)]
    for own, counts in zip(unary[1:].flip(0), inside[1:].flip(0), strict=True):
        found = reduce(labels.transition + (own + after[-1])[..., None, :])
        after.append(torch.where(counts[..., None], found, labels.final))
    return torch.stack(after[::-1])


def _forwards(labels: LabelDistribution, after: Tensor, noise: Tensor) -> Int[Tensor, "*batch T"]:
    """Return the labels that are greatest one after the other, some noise added."""
    scores = labels.unary.movedim(-2, 0) + after
    extra = (1,) * (noise.dim() - scores.dim())
    scores = scores.reshape(len(scores), *extra, *scores.shape[1:]) + noise
    found = [(labels.initial + scores[0]).argmax(-1)]
    for own, counts in zip(scores[1:], labels.inside.movedim(-1, 0)[1:], strict=True):
        after_it = (labels.transition[found[-1]] + own).argmax(-1)
        found.append(torch.where(counts, after_it, 0))
    return torch.stack(found, -1)


def _log_sum(scores: Tensor) -> Tensor:
    return scores.logsumexp(-1)
