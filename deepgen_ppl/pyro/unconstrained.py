"""The unconstrained view of a program that MCMC walks on: energy, values, starting points."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from torch import Tensor
from torch.distributions import biject_to, constraints

from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.compilation import without_host_values
from deepgen_ppl.pyro.parameters import forked_rng, installed, private_store
from deepgen_ppl.pyro.structure import Program


class Potential:
    r"""Potential energy of a program's unconstrained continuous latents, and the maps around it.

    \[ U(z) = -\log p(x, T(z)) - \log |\det J_T(z)|, \]

    with discrete latents summed out.

    Args:
        program: The model.
        params: Constrained values by name.
        data: The full data.

    Raises:
        ValueError: A discrete latent cannot be enumerated.
    """

    def __init__(self, program: Program, params: Mapping[str, Tensor], data: Sequence[Any]) -> None:
        from deepgen_ppl.pyro import marginal

        self.program, self.params, self.data = program, params, tuple(data)
        self.continuous = {n: s for n, s in program.latents.items() if not s.is_discrete}
        self.discrete = {n: s for n, s in program.latents.items() if s.is_discrete}
        self.transforms = self._transforms()
        self.moving = self._moving()
        self.summed_out = marginal.prepared(program, program.num_rows)
        by_language = self.discrete and self.summed_out is None
        self.evaluator = self._evaluator() if by_language else None

    def energy(self, z: dict[str, Tensor]) -> Tensor:
        """Return the potential energy of one unconstrained point, a scalar."""
        values, log_dets = self.values(z)
        with private_store(), handlers.validation(False):
            if self.summed_out is not None:
                from deepgen_ppl.pyro import marginal

                rows, shared = marginal.summed_out(self.summed_out, self.params, self.data, values)
                log_joint = rows.sum() + shared
            elif self.evaluator is None:
                run = self.run(values)
                log_joint = _log_joint(run)
            else:
                with without_host_values():
                    log_joint = self.evaluator.log_prob(self.enumerated(values))
        return -(log_joint + sum(log_det.sum() for log_det in log_dets.values()))

    def rows(self, z: dict[str, Tensor]) -> Tensor:
        r"""Return the log density of each row of the data plates at an unconstrained point.

        \[ \log p(x_i, T(z_i) \mid T(z)) + \log |\det J_i| \]

        Discrete sites, which must be the rows' own, are summed out.
        """
        from deepgen_ppl.pyro.program import log_density

        values, _ = self.values(z)
        with private_store(), handlers.validation(False):
            total, _ = log_density(self.program, self.params, values, self.data, self.discrete)
        return total + self.local_jacobian(z)

    def local_jacobian(self, z: dict[str, Tensor]) -> Tensor:
        """Return log |det J| of each row's own sites."""
        _, log_dets = self.values(z)
        total = torch.zeros(self.program.num_rows or 0)
        for name, site in self.continuous.items():
            if site.row_plate is not None:
                axis = site.plates.index(site.row_plate)
                log_det = log_dets[name]
                total = total + log_det.movedim(axis, 0).reshape(len(total), -1).sum(1)
        return total

    def constrain(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sites' values at an unconstrained point, deterministic ones included."""
        values, _ = self.values(z)
        names = [n for n, s in self.program.sites.items() if s.role == "deterministic"]
        if names and not self.discrete:
            with private_store(), handlers.validation(False):
                run = self.run(values)
            values |= {name: run.sites[name]["value"] for name in names}
        return values

    def init(self, seed: int = 0, strategy: Callable[..., Any] | None = None) -> dict[str, Tensor]:
        """Return one unconstrained starting point."""
        with forked_rng(seed), private_store(), torch.no_grad(), handlers.validation(False):
            run = self.run({}, InitMessenger(_continuous_only(strategy or init_to_uniform)))
        found = {name: run.sites[name] for name in self.continuous}
        return {
            name: biject_to(msg["fn"].support).inv(msg["value"]).detach().clone()
            for name, msg in found.items()
        }

    def _transforms(self) -> dict[str, Any]:
        """Return the bijection of each continuous site."""
        return {name: biject_to(site.support) for name, site in self.continuous.items()}

    def _moving(self) -> tuple[str, ...]:
        """Return the sites whose bounds depend on other sites, so that each point has its own."""
        bounded = [n for n, site in self.continuous.items() if _bounds(site.support)]
        if not bounded:
            return ()
        seen = []
        for seed in (0, 1):
            with forked_rng(seed), private_store(), torch.no_grad(), handlers.validation(False):
                run = self.run({}, handlers.feasible())
            seen.append({n: _bounds(run.sites[n]["fn"].support) for n in bounded})
        one, other = seen
        return tuple(n for n in bounded if not all(map(torch.equal, one[n], other[n])))

    def values(self, z: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the sites' values at an unconstrained point, and log |det J| of each."""
        if self.moving:
            reached = handlers.constrain(z)
            with private_store(), handlers.validation(False):
                self.run({}, reached)
            return reached.values, reached.log_dets
        values = {name: transform(z[name]) for name, transform in self.transforms.items()}
        log_dets = {
            name: transform.log_abs_det_jacobian(z[name], values[name])
            for name, transform in self.transforms.items()
        }
        return values, log_dets

    def run(self, values: Mapping[str, Tensor], *more: Any) -> handlers.record:
        """Run the program at values of its continuous sites."""
        from deepgen_ppl.pyro.program import call

        with installed(self.program.params.values(), self.params) as answers:
            return call(self.program, self.data, answers, *more, handlers.replay(values))

    def enumerated(self, values: Mapping[str, Tensor]) -> poutine.Trace:
        """Run the program at values of its continuous sites, over all values of discrete ones."""
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
        values, _ = self.values(start)
        with private_store(), torch.no_grad(), handlers.validation(False), forked_rng(0):
            trace = self.enumerated(values)
        return TraceEinsumEvaluator(trace, True, self.program.max_plate_nesting)


def _continuous_only(strategy: Callable[..., Any]) -> Callable[..., Any]:
    """Let a starting strategy see continuous sites only; discrete ones are drawn."""

    def start(msg: Any) -> Tensor:
        fn = msg["fn"]
        if fn.support.is_discrete:
            return fn.sample()
        try:
            return strategy(msg)
        except NotImplementedError:  # strategies draw from the prior, an improper one has no draws
            transform = biject_to(fn.support)
            shape = transform.inverse_shape(fn.batch_shape + fn.event_shape)
            return transform(torch.empty(shape).uniform_(-2.0, 2.0))

    return start


def _bounds(support: Any) -> list[Tensor]:
    """Return the bounds of a support that are tensors, which another site may have made."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return [bound for bound in bounds if isinstance(bound, Tensor)]


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
