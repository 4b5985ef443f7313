"""The native distribution of an autoregressive module at a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl.evidence_checks import check_counts
from deepgen_ppl.pyro.data import to_tensor
from deepgen_ppl.pyro.flows.layer import is_concrete
from deepgen_ppl.pyro.programs.autoregressive.completion import Completion, particles

if TYPE_CHECKING:
    from deepgen_ppl.pyro.programs.autoregressive.module import Autoregressive, Context


class AutoregressiveDistribution(TorchDistribution):
    r"""A distribution given by its conditionals, \(p(x \mid c) = \prod_d p(x_d \mid x_{<d}, c)\).

    The density takes one pass of the network. A draw takes D steps, of which each computes what the
    new feature changes only.

    Args:
        net: the module that gives the conditionals.
        context: its context, shape (*batch, context), or None.

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> density = dg.autoregressive.NADE(5, context=2)(torch.zeros(3, 2))
        >>> x = density.sample((4,))
        >>> x.shape, density.log_prob(x).shape
        (torch.Size([4, 3, 5]), torch.Size([4, 3]))
    """

    arg_constraints: Any = {}  # noqa: RUF012

    def __init__(
        self,
        net: Autoregressive,
        context: Context = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.net, self.context = net, context
        batch = torch.Size() if context is None else context.shape[:-1]
        event = torch.Size(net.about.event_shape)
        super().__init__(batch, event, validate_args=validate_args)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """Events of values that the output allows."""
        return constraints.independent(self.net.output.support, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients: those of real numbers do."""
        return self.net.output.values.kind == "real"

    def expand(self, batch_shape: Any, _instance: Any = None) -> AutoregressiveDistribution:
        """Return the distribution of a wider batch shape.

        Args:
            batch_shape: the new batch shape.
            _instance: not used.
        """
        batch_shape, context = torch.Size(batch_shape), self.context
        if context is not None:
            context = context.expand(*batch_shape, context.shape[-1])
        found = AutoregressiveDistribution(self.net, context, validate_args=False)
        found._batch_shape, found._validate_args = batch_shape, self._validate_args
        return found

    def conditionals(self, value: Tensor) -> Any:
        """Return the native distribution of each feature given those before it.

        Args:
            value: values, shape (..., *event).

        Returns:
            A distribution of the batch shape (..., *event).
        """
        _, params, batch = self._parameters(value)
        back = self.net.about.back
        params = params if back is None else params[:, back]
        params = params.reshape(*batch, *self.event_shape, params.shape[-1])
        return self.net.output.distribution(params)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, from one pass.

        Args:
            value: values, shape (..., *event).

        Raises:
            ValueError: values of another shape, or, outside of traced code, values that the output
                does not allow, by row; traced code gives them minus infinity.
        """
        x, params, batch = self._parameters(value)
        return self.net.output.log_prob(params, x).sum(-1).reshape(batch)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws without gradients, step by step.

        Args:
            sample_shape: shape of independent draws.
        """
        with torch.no_grad():
            return self._draw(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Return draws that carry gradients, step by step.

        Args:
            sample_shape: shape of independent draws.

        Raises:
            NotImplementedError: the features are no real numbers.
        """
        if not self.has_rsample:
            raise NotImplementedError(checks.NO_RSAMPLE)
        return self._draw(sample_shape)

    def from_uniforms(self, u: Float[Tensor, "*batch uniforms"]) -> Tensor:
        """Return the draws that independent uniform numbers stand for.

        Args:
            u: shape (..., *event, n), n of them for each feature.

        Raises:
            ValueError: a wrong shape.
        """
        u, output = to_tensor(u), self.net.output
        checks.check_uniforms(u.shape, self.event_shape, output.uniforms)
        batch = torch.broadcast_shapes(u.shape[: -len(self.event_shape) - 1], self.batch_shape)
        u = u.expand(*batch, *self.event_shape, output.uniforms)
        u = self._ordered(u.reshape(-1, self.net.about.features, output.uniforms))
        kept = self.net.start(len(u), self._rows(batch))
        before, found = u.new_zeros(len(u), output.inputs), []
        for i in range(self.net.about.features):
            params, kept = self.net.step(kept, i, before)
            found.append(output.draw(params, u[:, i]))
            before = output.encode(found[-1], u.dtype)
        return self._events(torch.stack(found, 1), batch)

    def complete(
        self,
        value: Tensor,
        observed: Bool[Tensor, "*#batch"],
        *,
        num_particles: int = 64,
        seed: int = 0,
    ) -> Completion:
        r"""Fill in what is missing of values, given what is observed.

        Where all that is observed comes before all that is missing, in the order of the module,
        one run of the conditionals draws from the posterior exactly. Elsewhere it is a particle
        filter: each particle draws what is missing given what is before it, is weighted by the
        density of what is observed, particles are resampled where their effective number falls
        below half, and one of them is drawn at the end. That is exact as their number grows; the
        mean of \(\hat p(x_{\text{observed}})\) is exact at any.

        Args:
            value: values, shape (..., *event); entries that are missing may hold anything.
            observed: which entries are observed, True or False, broadcast against the values.
            num_particles: particles of each event, where they are needed.
            seed: an int.

        Returns:
            The completed values, the log evidence of what is observed, the effective number of
            particles at the end.

        Raises:
            ValueError: values of another shape, observed entries that the output does not allow,
                or a number of particles that is none.

        Cost:
            D steps of the network on `num_particles` times the rows.

        References:
            Gordon, Salmond, Smith: Novel approach to nonlinear/non-Gaussian Bayesian state
            estimation. IEE Proceedings F 140, 1993.

        Example:
            >>> import deepgen_ppl.pyro as dg
            >>> density, x = dg.autoregressive.MADE(4)(), torch.tensor([1.0, 0.0, 1.0, 1.0])
            >>> found = density.complete(x, torch.tensor([True, True, False, True]))
            >>> found.value.shape, int(found.value[3])
            (torch.Size([4]), 1)
        """
        check_counts(num_particles=num_particles)
        value, about = to_tensor(value), self.net.about
        checks.check_event(value.shape, self.event_shape)
        mask = to_tensor(observed).to(torch.bool)
        checks.check_observed(mask.shape, value.shape, self.event_shape)
        mask = mask.expand(value.shape)
        here = value.detach().cpu().numpy(), self.net.output.values, about.features
        checks.check_values(*here, mask.cpu().numpy())
        exact = checks.is_prefix(mask.cpu().numpy(), about.features, about.order)
        batch = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)],
                                       self.batch_shape)  # fmt: skip
        x, mask = self._flat(value.where(mask, 0), batch), self._flat(mask, batch)
        count = 1 if exact else num_particles
        generator = torch.Generator(x.device).manual_seed(seed)
        with torch.no_grad():
            rows = self._rows(batch)
            found = particles(self.net, rows, x, mask, generator, count, self._like.dtype)
        filled, *rest = found
        return Completion(self._events(filled, batch), *(r.reshape(batch) for r in rest))

    @property
    def _like(self) -> Tensor:
        return next(self.net.parameters())

    def _draw(self, sample_shape: Any) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, *self.event_shape, self.net.output.uniforms)
        like = self._like
        return self.from_uniforms(torch.rand(shape, dtype=like.dtype, device=like.device))

    def _parameters(self, value: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Return rows of values in order, the parameters of their conditionals, the batch shape."""
        value = to_tensor(value)
        value = value.to(self._like.dtype) if value.dtype == torch.bool else value
        checks.check_event(value.shape, self.event_shape)
        if self._validate_args and is_concrete(value):
            found = value.detach().cpu().numpy()
            checks.check_values(found, self.net.output.values, self.net.about.features)
        shape = value.shape[: value.dim() - len(self.event_shape)]
        batch = torch.broadcast_shapes(shape, self.batch_shape)
        x = self._flat(value, batch)
        inputs = self.net.output.encode(x, self._like.dtype)
        return x, self.net.parallel(inputs, self._rows(batch)), batch

    def _rows(self, batch: Any) -> Tensor | None:
        if self.context is None:
            return None
        size = self.context.shape[-1]
        return self.context.expand(*batch, size).reshape(-1, size)

    def _flat(self, value: Tensor, batch: Any) -> Tensor:
        wide = value.expand(*batch, *self.event_shape)
        return self._ordered(wide.reshape(-1, self.net.about.features))

    def _ordered(self, rows: Tensor) -> Tensor:
        order = self.net.about.order
        return rows if order is None else rows[:, np.asarray(order)]

    def _events(self, rows: Tensor, batch: Any) -> Tensor:
        back = self.net.about.back
        rows = rows if back is None else rows[:, back]
        return rows.reshape(*batch, *self.event_shape)
