"""Pyro's own ELBO objects as objectives, with minibatches scaled."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from jaxtyping import Float, Int
from pyro.infer import ELBO as PyroELBO
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor

from deepgen_ppl.pyro.compilation import without_host_values
from deepgen_ppl.pyro.objectives.elbo import ELBO, Params
from deepgen_ppl.pyro.objectives.enumerated import EnumeratedELBO
from deepgen_ppl.pyro.objectives.exact_marginal import ExactMarginal
from deepgen_ppl.pyro.objectives.relaxed import RelaxedELBO
from deepgen_ppl.pyro.objectives.renyi import Renyi
from deepgen_ppl.pyro.program import Pair, scaled_call

_ADDITIVE = (Trace_ELBO, TraceMeanField_ELBO, TraceEnum_ELBO, TraceGraph_ELBO)


@dataclass(frozen=True)
class Native:
    """An ELBO object of Pyro; each site of a minibatch is scaled by N / B.

    Args:
        elbo: the object, for example `pyro.infer.TraceMeanField_ELBO()`.
    """

    elbo: PyroELBO
    own: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Pyro keeps the plate depth it guessed in the object: the user's stays as it was.
        object.__setattr__(self, "own", copy.copy(self.elbo))

    @property
    def enumerated(self) -> bool:
        """Whether it sums out discrete latents that the guide lacks."""
        return isinstance(self.elbo, TraceEnum_ELBO)

    @property
    def traceable(self) -> bool:
        """Whether it can run as one traced graph: it gives a loss that can be differentiated."""
        return isinstance(self.elbo, Trace_ELBO | TraceEnum_ELBO)

    def check(self, pair: Pair, batch_size: int | None) -> None:
        """Refuse minibatches where the bound is no sum over rows.

        Raises:
            ValueError: as said.
        """
        if batch_size is not None and not isinstance(self.elbo, _ADDITIVE):
            raise ValueError(
                f"batch_size={batch_size}: {type(self.elbo).__name__} takes the logarithm of a "
                "mean "
                "over whole batches, which is no sum over rows. Use dg.IWAE() or dg.Renyi(), which "
                "are row by row, or drop batch_size."
            )

    def __call__(
        self, pair: Pair, params: Params, data: Sequence[Any], rows: Int[Tensor, " B"] | None
    ) -> Float[Tensor, ""]:
        """Return the loss; its gradient is the bound's."""
        with scaled_call(pair, params, data, rows) as (model, guide, batch):
            if self.traceable:
                with without_host_values():
                    return torch.as_tensor(self.own.differentiable_loss(model, guide, *batch))
        # These objects call backward themselves: let them, on leaves of their own.
        leaves = {name: _leaf(value) for name, value in params.items()}
        with torch.enable_grad(), scaled_call(pair, leaves, data, rows) as (model, guide, batch):
            loss = torch.as_tensor(self.own.loss_and_grads(_announced(model), guide, *batch))
        for name, leaf in leaves.items():
            if leaf.grad is not None and params[name].requires_grad:
                term = torch.sum(params[name] * leaf.grad)
                loss = loss + term - term.detach()
        return loss


def _leaf(value: Tensor) -> Tensor:
    leaf = value.detach()
    leaf = leaf.requires_grad_() if leaf.is_floating_point() and value.requires_grad else leaf
    leaf.unconstrained = lambda: leaf  # type: ignore[attr-defined]
    return leaf


def _announced(model: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model have a parameter statement: without one Pyro takes nothing to be trained."""

    def run(*args: Any) -> Any:
        pyro.param("_trained", torch.zeros(()))
        return model(*args)

    return run


def as_objective(loss: Any) -> Any:
    """Return an objective from None (the ELBO), one of ours, or an ELBO object of Pyro.

    Raises:
        TypeError: `loss` is none of these.
    """
    if loss is None:
        return ELBO()
    if isinstance(loss, ELBO | EnumeratedELBO | ExactMarginal | RelaxedELBO | Renyi | Native):
        return loss
    if isinstance(loss, PyroELBO):
        name = type(loss).__name__
        if name.startswith("Jit"):
            raise TypeError(f"{name} compiles by itself. Use {name.removeprefix('Jit')}().")
        return Native(loss)
    hint = f"{loss.__name__}()" if isinstance(loss, type) else "dg.ELBO()"
    raise TypeError(
        "loss must be dg.ELBO, dg.IWAE, dg.Renyi, dg.ExactMarginal or an ELBO object of Pyro, got "
        f"{loss!r}. Pass an object, for example {hint}."
    )
