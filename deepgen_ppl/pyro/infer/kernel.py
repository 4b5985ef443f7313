"""Pyro's own NUTS and HMC on a traced potential, saying what each draw was like."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.mcmc.hmc import HMC
from pyro.infer.mcmc.nuts import NUTS
from pyro.ops.integrator import _EXCEPTION_HANDLERS
from torch import Tensor

from deepgen_ppl.pyro.infer.gradient import Gradient, Layout, times
from deepgen_ppl.pyro.infer.trajectory import Point, Proposal, Trajectory, Transition

_NAMES = {"nuts": NUTS, "hmc": HMC}
_OURS = {
    "model",
    "potential_fn",
    "init_strategy",
    "max_plate_nesting",
    "jit_compile",
    "jit_options",
}
_OURS |= {"ignore_jit_warnings", "transforms"}


def resolve(
    kernel: Any, target_accept_prob: float | None = None
) -> tuple[type[HMC], dict[str, Any]]:
    """Return the kernel class a user means, and its options.

    Args:
        kernel: `"nuts"`, `"hmc"`, a subclass of Pyro's HMC, or `functools.partial` of one.
        target_accept_prob: Takes the place of the kernel's own option.

    Raises:
        TypeError: An instance (which is bound to a model), or no kernel of Pyro at all.
        ValueError: An unknown name, or an option the kernel lacks.

    Example:
        >>> resolve("nuts", 0.9)
        (<class 'pyro.infer.mcmc.nuts.NUTS'>, {'target_accept_prob': 0.9})
    """
    options: dict[str, Any] = {}
    while isinstance(kernel, functools.partial):
        if kernel.args:
            raise TypeError(
                "kernel=partial(...) takes options by name only; the model is the one given to "
                "mcmc."
            )
        options = {**kernel.keywords, **options}
        kernel = kernel.func
    if isinstance(kernel, str):
        if kernel not in _NAMES:
            raise ValueError(
                f"Unknown kernel '{kernel}'. Choose 'auto', 'nuts', 'hmc', 'chees', 'mala', "
                "'langevin' or 'rwm', or pass a kernel class."
            )
        kernel = _NAMES[kernel]
    if not isinstance(kernel, type):
        name = type(kernel).__name__
        raise TypeError(
            f"kernel is an instance of {name}, which is bound to a model already. Pass the class, "
            "or its options "
            f"as functools.partial({name}, ...)."
        )
    if not issubclass(kernel, HMC):
        raise TypeError(
            f"kernel must be 'nuts', 'hmc' or a subclass of pyro.infer.HMC, not {kernel.__name__}."
        )
    if "model" in options or "potential_fn" in options:
        raise TypeError(
            "kernel=partial(...) must not bind a model; the model is the one given to mcmc."
        )
    if "transforms" in options:
        raise ValueError(
            "transforms are taken from the sites' supports; change the supports in the model "
            "instead."
        )
    known = {n for base in kernel.__mro__[:-1] for n in inspect.signature(base.__init__).parameters}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{kernel.__name__} has no option {', '.join(map(repr, unknown))}.")
    if target_accept_prob is not None:
        options["target_accept_prob"] = target_accept_prob
    return kernel, options


def dense_blocks(options: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the blocks of sites a structured `full_mass` names."""
    full_mass = options.get("full_mass", False)
    return () if isinstance(full_mass, bool) else tuple(tuple(block) for block in full_mass)


def is_dense(layout: Layout, options: Mapping[str, Any]) -> dict[str, bool]:
    """Tell which blocks of a layout have a dense mass matrix."""
    return {name: name != "z" or options.get("full_mass") is True for name in layout.blocks}


def build(kernel: type[HMC], options: Mapping[str, Any], layout: Layout, gradient: Gradient) -> Any:
    """Make a kernel over the vectors of a layout that keeps the statistics of its last draw."""
    own = {name: value for name, value in options.items() if name not in _OURS}
    dense = [(name,) for name, flag in is_dense(layout, options).items() if flag]
    if "full_mass" in own and not isinstance(own["full_mass"], bool):
        own["full_mass"] = dense
    # Only Pyro's own multinomial trees are the ones of `trajectory`; other kernels run as they are.
    traced = (
        kernel is NUTS
        and gradient.leapfrog is not None
        and own.get("use_multinomial_sampling", True)
    )
    base: Any = (
        _TracedNUTS if traced else type(f"Recorded{kernel.__name__}", (_Recorder, kernel), {})
    )
    made: Any = base(potential_fn=gradient.energy, **own)
    if traced:
        made.leapfrog, made.block_names = gradient.leapfrog, tuple(layout.blocks)
    return made


class _TracedNUTS(NUTS):
    """Pyro's NUTS, its adaptation and state, with trajectories of traced leapfrog steps."""

    leapfrog: Callable[..., Any]
    block_names: tuple[str, ...]
    statistics: dict[str, float]
    # What Pyro's kernel holds once it is set up.
    _fetch_from_cache: Callable[[], tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]]
    _potential_energy_last: Tensor
    _warmup_steps: int
    _t: int

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        z, potential, grads = self._fetch_from_cache()
        names, step_size, adapter = self.block_names, self.step_size, self.mass_matrix_adapter
        groups = [(name,) for name in names]
        inverse, scale, root = (
            tuple(matrices[group] for group in groups)
            for matrices in (
                adapter._inverse_mass_matrix, adapter._mass_matrix_sqrt,
                adapter._mass_matrix_sqrt_inverse
            )
        )  # fmt: skip
        position, grad = (tuple(part[name] for name in names) for part in (z, grads))
        with torch.no_grad():
            unscaled = tuple(torch.randn_like(vector) for vector in position)
            momentum = tuple(times(m, u) for m, u in zip(scale, unscaled, strict=True))
            energy = (potential + 0.5 * sum(u.dot(u) for u in unscaled)).item()
            trajectory = Trajectory(
                self.leapfrog, step_size, inverse, root, self._max_sliced_energy
            )
            try:
                point = Point(position, momentum, unscaled, grad)
                found = trajectory.run(point, potential, energy, self._max_tree_depth)
            except RuntimeError as error:  # a singular matrix of the model ends the trajectory
                if not any(known(error) for known in _EXCEPTION_HANDLERS.values()):
                    raise
                stay = Proposal(position, grad, potential, energy)
                found = Transition(stay, False, True, 0.0, 1, 1)
        if found.accepted:
            z = dict(zip(names, found.proposal.z, strict=True))
            grads = dict(zip(names, found.proposal.grad, strict=True))
            self._cache(z, found.proposal.potential, grads)
        self._count(z, grads, found)
        self.statistics = {
            "lp": -self._potential_energy_last.item(),
            "energy": found.proposal.energy,
            "diverging": found.diverging,
            "acceptance_rate": found.accept_prob,
            "step_size": step_size,
            "n_steps": found.num_steps,
            "tree_depth": found.depth,
        }
        return z.copy()

    def _count(self, z: dict[str, Tensor], grads: dict[str, Tensor], found: Transition) -> None:
        """Advance the kernel's clock and adapt it, as Pyro's own `sample` does at its end."""
        if found.diverging and self._t >= self._warmup_steps:
            self._divergences.append(self._t - self._warmup_steps)
        self._t += 1
        count = self._t - self._warmup_steps
        if count > 0:
            self._accept_cnt += found.accepted
        else:
            count = self._t
            self._adapter.step(self._t, z, torch.tensor(found.accept_prob), grads)
        self._mean_accept_prob += (found.accept_prob - self._mean_accept_prob) / count


class _Recorder:
    """Keeps what a kernel of Pyro knows about its last draw, under ArviZ's names."""

    statistics: dict[str, float]

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        kernel: Any = self
        self._leaves: list[tuple[Any, Tensor]] = []
        self._kinetic: list[Tensor] = []
        self._depth = 0
        before, energy_before = kernel._z_last, kernel._potential_energy_last
        mean, divergences = kernel._mean_accept_prob, len(kernel._divergences)
        step_size = kernel.step_size
        num_steps = 0 if isinstance(self, NUTS) else kernel.num_steps
        z = super().sample(params)  # type: ignore[misc]
        count = kernel._t - kernel._warmup_steps if kernel._t > kernel._warmup_steps else kernel._t
        mean = 0.0 if count == 1 else mean
        self.statistics = {
            "lp": -float(kernel._potential_energy_last),
            "energy": self._energy(kernel, before, energy_before),
            "diverging": len(kernel._divergences) > divergences,
            "acceptance_rate": mean + (kernel._mean_accept_prob - mean) * count,
            "step_size": step_size,
            "n_steps": num_steps or len(self._leaves),
        }
        if isinstance(self, NUTS):
            self.statistics["tree_depth"] = self._depth
        return z

    def _energy(self, kernel: Any, before: Any, energy_before: Tensor) -> float:
        """Return potential and kinetic energy at the accepted point of the trajectory."""
        if kernel._z_last is before:
            return float(energy_before + self._kinetic[0])
        for z, energy in self._leaves:
            if z is kernel._z_last:
                return float(energy)
        return float(kernel._potential_energy_last + self._kinetic[-1])

    def _kinetic_energy(self, r_unscaled: Any) -> Tensor:
        energy = super()._kinetic_energy(r_unscaled)  # type: ignore[misc]
        if hasattr(self, "_kinetic"):
            self._kinetic.append(energy)
        return energy

    def _build_tree(
        self, z: Any, r: Any, grads: Any, log_slice: Any, way: Any, depth: int, energy: Any
    ) -> Any:
        self._depth = max(self._depth, depth + 1)
        return super()._build_tree(z, r, grads, log_slice, way, depth, energy)  # type: ignore[misc]

    def _build_basetree(self, *args: Any) -> Any:
        tree = super()._build_basetree(*args)  # type: ignore[misc]
        self._leaves.append((tree.z_proposal, tree.z_proposal_pe + self._kinetic[-1]))
        return tree
