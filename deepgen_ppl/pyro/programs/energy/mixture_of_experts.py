"""The mixture of experts: normalised densities added, with weights that may follow a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepgen_ppl import experts as checks
from deepgen_ppl.pyro.programs.energy import experts as experts_
from deepgen_ppl.pyro.programs.energy.ready import Energy, replaced


class MixtureOfExperts(nn.Module):
    r"""A weighted sum of densities of the same values.

    \[ p(x \mid c) = \sum_k \pi_k(c) \, p_k(x \mid c) \]

    Its parts are normalised, so it has an honest density at once, and draws. An expert may be a
    native distribution, held as it is, a module that gives a distribution where it is called, or a
    ready energy that knows its log Z, held with it. Called with nothing, or with a context, it
    gives Pyro's own `Distribution`. Train it by `dg.svi(mixture.model, None, x)`.

    Args:
        experts: the experts, whose event shapes are equal and whose values are of one kind.
        weights: positive numbers that the learned weights begin with, even where None.
        gate: a module of a context (*batch, C) that gives logits (*batch, K), in place of weights.
        conditional: whether experts that are modules are called with the context too.

    Raises:
        TypeError: something that is no expert. ValueError: no expert, shapes or kinds that differ,
            an energy without log Z, weights that are not positive.

    Cost:
        The sum of the experts'; a draw takes one from each.

    References:
        Jacobs, Jordan, Nowlan, Hinton: Adaptive mixtures of local experts. Neural Computation 3(1),
        1991. https://doi.org/10.1162/neco.1991.3.1.79

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> narrow, wide = dist.Normal(0.0, 1.0), dist.Normal(0.0, 3.0)
        >>> mixture = MixtureOfExperts([narrow, wide], weights=[3.0, 1.0])
        >>> p = mixture().log_prob(torch.zeros(5)).exp()
        >>> round(p[0].item(), 4)
        0.3325
    """

    def __init__(
        self,
        experts: Sequence[Any],
        *,
        weights: Sequence[float] | None = None,
        gate: Callable[..., Any] | None = None,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        found = experts_.wrapped(experts, name)
        for number, expert in enumerate(found):
            if isinstance(expert, Energy):
                checks.check_component(number, type(expert).__name__, expert.log_z)
        self.experts = nn.ModuleList(
            experts_.Held(replaced(e).requires_grad_(False)) if isinstance(e, Energy) else e
            for e in found
        )
        start = checks.check_mixture_weights(weights, len(found))
        like = torch.get_default_dtype()
        self.logits = nn.Parameter(torch.as_tensor(start, dtype=like)) if gate is None else None
        self.gate, self.conditional = gate, bool(conditional)
        if not conditional:
            shown = [self._part(e, None) for e in self.experts]
            checks.check_shapes(
                [tuple(d.event_shape) for d in shown], [tuple(d.batch_shape) for d in shown], name
            )
            checks.check_kinds([bool(d.support.is_discrete) for d in shown], name)

    def forward(self, context: Float[Tensor, "*batch context"] | None = None) -> ExpertMixture:
        """Return the native distribution.

        Args:
            context: what gate and conditional experts take.

        Raises:
            ValueError: a context that is missing, or that nothing takes, or a gate whose outputs
                are not one for each expert.
        """
        checks.check_context(self.gate is not None, self.conditional, context is not None)
        parts = [self._part(e, context if self.conditional else None) for e in self.experts]
        logits: Any = self.logits
        if self.gate is not None:
            context = torch.as_tensor(context)
            logits = self.gate(context)
            checks.check_gate(tuple(logits.shape), tuple(context.shape[:-1]), len(parts))
        return ExpertMixture(logits, parts)

    def unnormalised_log_prob(self, x: Float[Tensor, "*batch *event"]) -> Float[Tensor, "*batch"]:
        """Return the log density, so that a mixture is measured as an energy is.

        Args:
            x: values.
        """
        return self().log_prob(x)

    @property
    def model(self) -> Callable[..., None]:
        """The native program of rows, and contexts where it takes them: site "x" in "data"."""

        def model(x: Tensor, context: Tensor | None = None) -> None:
            mixture: Any = pyro.module("mixture", self)
            with pyro.plate("data", len(x)):
                pyro.sample("x", mixture(context), obs=x)

        return model

    def _part(self, expert: Any, context: Tensor | None) -> Any:
        found = experts_.distribution_of(expert, context)
        return found() if isinstance(found, Energy) else found


class ExpertMixture(dist.TorchDistribution):
    """A mixture of experts as Pyro's own distribution.

    Args:
        logits: log weights but for a constant, shape (*batch, expert).
        parts: the distributions that are mixed.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, logits: Tensor, parts: Sequence[Any], validate_args: bool | None = None
    ) -> None:
        self.logits, self.parts = logits, list(parts)
        shapes = [logits.shape[:-1], *(tuple(d.batch_shape) for d in parts)]
        batch = torch.broadcast_shapes(*shapes)
        event = torch.Size(tuple(parts[0].event_shape))
        super().__init__(torch.Size(batch), event, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Support of the first expert."""
        return self.parts[0].support

    def joint(self, value: Tensor) -> Float[Tensor, "*batch expert"]:
        """Return the log density of a value and of the expert that made it.

        Args:
            value: values.
        """
        weights = self.logits.log_softmax(-1)
        found = torch.stack(torch.broadcast_tensors(*(d.log_prob(value) for d in self.parts)), -1)
        return weights + found

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of values."""
        return self.joint(value).logsumexp(-1)

    def responsibilities(self, value: Tensor) -> Float[Tensor, "*batch expert"]:
        """Return the probability that each expert made a value.

        Args:
            value: values.
        """
        return self.joint(value).softmax(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExpertMixture:
        """Return the mixture with a larger batch shape."""
        logits = self.logits.expand(*batch_shape, self.logits.shape[-1])
        return ExpertMixture(logits, self.parts)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws: an expert by its weight, then one of its own draws."""
        shape = torch.Size((*sample_shape, *self.batch_shape))
        with torch.no_grad():
            drawn = []
            for part in self.parts:
                lead = shape[: len(shape) - len(part.batch_shape)]
                drawn.append(part.sample(lead))
            logits = self.logits.expand(*shape, self.logits.shape[-1])
            chosen = dist.Categorical(logits=logits).sample()
            index = chosen.reshape(1, *shape, *(1,) * len(self.event_shape))
            stacked = torch.stack(drawn)
            return stacked.gather(0, index.expand(1, *stacked.shape[1:]))[0]
