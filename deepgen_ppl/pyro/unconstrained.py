"""The unconstrained view of a program that MCMC walks on: energy, map to the sites' values,
starting points.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.ops.einsum import torch_log
from torch import Tensor
from torch.distributions import biject_to

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.parameters import forked_rng, installed, private_store
from deepgen_ppl.pyro.structure import Program


class Potential:
    """Energy of a program at an unconstrained point; see `program.potential`."""

    def __init__(self, program: Program, params: Mapping[str, Tensor], data: Sequence[Any]) -> None:
        self.program, self.params, self.data = program, params, tuple(data)
        self.continuous = {n: s for n, s in program.latents.items() if not s.is_discrete}
        self.discrete = {n: s for n, s in program.latents.items() if s.is_discrete}
        self.transforms = self._transforms()
        self.evaluator = self._evaluator() if self.discrete else None

    def energy(self, z: dict[str, Tensor]) -> Tensor:
        """Return the potential energy of one unconstrained point, a scalar."""
        values, jacobian = self._values(z)
        with private_store(), handlers.validation(False):
            if self.evaluator is None:
                run = self._run(values)
                log_joint = _log_joint(run)
            else:
                with _transformable_einsum():
                    log_joint = self.evaluator.log_prob(self._enumerated(values))
        return -(log_joint + jacobian)

    def constrain(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sites' values at an unconstrained point, deterministic ones included."""
        values, _ = self._values(z)
        names = [n for n, s in self.program.sites.items() if s.role == "deterministic"]
        if names and not self.discrete:
            with private_store(), handlers.validation(False):
                run = self._run(values)
            values |= {name: run.sites[name]["value"] for name in names}
        return values

    def init(self, seed: int = 0, strategy: Callable[..., Any] | None = None) -> dict[str, Tensor]:
        """Return one unconstrained starting point."""
        with forked_rng(seed), private_store(), torch.no_grad(), handlers.validation(False):
            run = self._run({}, InitMessenger(_continuous_only(strategy or init_to_uniform)))
        return {
            name: transform.inv(run.sites[name]["value"]).detach().clone()
            for name, transform in self.transforms.items()
        }

    def _transforms(self) -> dict[str, Any]:
        """Return the bijection of each continuous site; a support that depends on others is read
        at a draw.
        """
        return {name: biject_to(site.support) for name, site in self.continuous.items()}

    def _values(self, z: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        values: dict[str, Tensor] = {}
        jacobian: Tensor = torch.zeros(())
        for name, transform in self.transforms.items():
            values[name] = transform(z[name])
            jacobian = jacobian + transform.log_abs_det_jacobian(z[name], values[name]).sum()
        return values, jacobian

    def _run(self, values: Mapping[str, Tensor], *more: Any) -> handlers.record:
        from deepgen_ppl.pyro.program import call

        with installed(self.program.params.values(), self.params) as answers:
            return call(self.program, self.data, answers, *more, handlers.replay(values))

    def _enumerated(self, values: Mapping[str, Tensor]) -> poutine.Trace:
        program = self.program
        model = poutine.enum(
            config_enumerate(program.fn), first_available_dim=-1 - program.max_plate_nesting
        )
        with (
            installed(program.params.values(), self.params) as answers,
            answers,
            handlers.replay(values),
        ):
            return poutine.trace(model).get_trace(*program.args, *self.data, **program.kwargs)

    def _evaluator(self) -> TraceEinsumEvaluator:
        for name, site in self.discrete.items():
            if not site.enumerable:
                raise ValueError(
                    f"The discrete latent '{name}' has no finite support to sum over, so '{name}' "
                    "cannot be "
                    "marginalised for HMC. Marginalise it by hand, or use importance or svi."
                )
        start = self.init(0)
        values, _ = self._values(start)
        with private_store(), torch.no_grad(), handlers.validation(False), forked_rng(0):
            trace = self._enumerated(values)
        return TraceEinsumEvaluator(trace, True, self.program.max_plate_nesting)


class _SafeLog(torch.autograd.Function):
    """Logarithm with a finite gradient at zero, as Pyro's, that `torch.func` can transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # type: ignore[override]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grads[0] / x.clamp(min=torch.finfo(x.dtype).tiny)


@contextmanager
def _transformable_einsum() -> Iterator[None]:
    """Let Pyro's log-space einsum use a logarithm that `torch.func.vmap` and `grad` can see
    through.
    """
    before = torch_log.safe_log
    torch_log.safe_log = _SafeLog.apply
    try:
        yield
    finally:
        torch_log.safe_log = before


def _continuous_only(strategy: Callable[..., Any]) -> Callable[..., Any]:
    """Let a starting strategy see continuous sites only; discrete ones are drawn."""

    def start(msg: Any) -> Tensor:
        return msg["fn"].sample() if msg["fn"].support.is_discrete else strategy(msg)

    return start


def _log_joint(run: handlers.record) -> Tensor:
    total: Any = 0.0
    for msg in run.sites.values():
        mask = msg["mask"]
        if msg["infer"].get("_deterministic") or mask is False:
            continue
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        if isinstance(mask, Tensor):
            log_prob = torch.where(mask, log_prob, log_prob.new_zeros(()))
        total = total + (msg["scale"] * log_prob).sum()
    return total if isinstance(total, Tensor) else torch.tensor(total)
