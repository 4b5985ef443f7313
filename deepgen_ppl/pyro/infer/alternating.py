"""The discrete kernels of `mcmc`: moves of the discrete sites, in turn with continuous ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from deepgen_ppl import blocks as blocks_
from deepgen_ppl import checks, mixing
from deepgen_ppl import discrete as discrete_
from deepgen_ppl.loop import noticed
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.discrete import Discrete, read_coordinates
from deepgen_ppl.pyro.infer import batched, ensemble, evaluate
from deepgen_ppl.pyro.infer.gradient import Layout
from deepgen_ppl.pyro.infer.sweeps import Sweeps
from deepgen_ppl.pyro.infer.vectorized import Sampled
from deepgen_ppl.pyro.kernels import hmc
from deepgen_ppl.pyro.kernels.adaptation import Adaptation
from deepgen_ppl.pyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.pyro.kernels.gibbs import Gibbs
from deepgen_ppl.pyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.pyro.parameters import forked_rng
from deepgen_ppl.pyro.structure import Program

Options = Gibbs | GibbsWithGradients | DiscreteLangevin

_TRIES = 100
_DENSE = 256
_GRADIENTS = 4.0  # expected of a trajectory
_CHUNK = 64  # kept steps that wait on the device
_SHOWN = 0.2  # seconds between two looks at a run


def sample(
    kernel: Options,
    program: Program,
    params: Mapping[str, Tensor],
    data: Sequence[Any],
    lengths: tuple[int, int, int],
    num_chains: int,
    *,
    strategy: Any,
    adaptation: Mapping[str, Any] | None = None,
    init: Any = None,
    level: str = "auto",
    progress: bool = True,
    seed: int = 0,
) -> Sampled:
    """Run the chains of a discrete kernel, alternated with a continuous one on mixed programs.

    Args:
        kernel: The discrete kernel's options.
        program: The model.
        params: Its parameters.
        data: Its data, tensors.
        lengths: Steps of warm-up, steps after it, and the thinning of these.
        num_chains: Number of chains.
        strategy: A starting strategy of the continuous sites.
        adaptation: What an earlier run learnt of them.
        init: A posterior whose draws the chains start from.
        level: How the continuous gradient runs, as of `batched`.
        progress: Whether to show a progress bar.
        seed: Seed of chains and starting points.
    """
    num_warmup, num_samples, _ = lengths
    groups = None if init is not None else mixing.superchains(num_chains)
    coordinates = read_coordinates(program, params, data, _name(kernel))
    chains = Chains(Discrete(program, coordinates, params, data), kernel, num_chains)
    own = np.arange(num_chains) if groups is None else groups
    with (
        tqdm(total=num_warmup + num_samples, disable=not progress, mininterval=_SHOWN) as bar,
        chains.view.quiet(),
    ):
        bar.set_description("tracing")
        x, z = chains.starts(strategy, own, seed) if init is None else chains.given(init, seed)
        chains.prepare(x, z, sum(lengths[:2]), level)
        found = chains.run((x, z), lengths, adaptation, bar, seed)
        if found["discrepancy"].max() > discrete_.MOST_DISCREPANCY:
            chains.sweeps.blocks = blocks_.singly(coordinates.size)
            bar.reset()
            found = chains.run((x, z), lengths, adaptation, bar, seed)
        x, z = found.pop("x"), found.pop("z")
        draws = chains.constrain(x, z)
    attrs = chains.attrs | {"tuning_steps": num_warmup}
    positions, sites = coordinates.looked_at(x, z, chains.shapes)
    resting = not chains.size
    attrs |= mixing.gate(type(kernel).__name__, positions, groups, sites, resting=resting)
    found.pop("discrepancy")
    made = Sampled(coordinates.integers(draws), found, attrs, chains.learnt, groups)
    return made._replace(restore=coordinates.restored)


def _name(kernel: Options) -> str:
    if isinstance(kernel, DiscreteLangevin):
        return "discrete_langevin"
    return "gibbs" if isinstance(kernel, Gibbs) else "gibbs_with_gradients"


class Chains:
    """All chains of one call of a discrete kernel.

    Args:
        view: The discrete view of the model.
        kernel: The discrete kernel's options.
        num_chains: Number of chains.
    """

    def __init__(self, view: Discrete, kernel: Options, num_chains: int) -> None:
        self.view, self.kernel, self.num_chains = view, kernel, num_chains
        self.coordinates = view.coordinates
        point = view.potential.init(0) if view.potential.continuous else {}
        self.shapes = {name: tuple(value.shape) for name, value in sorted(point.items())}
        self.layout = Layout.of(point) if point else None
        known = [v for v in (*view.data, *view.params.values()) if isinstance(v, Tensor)]
        (like,) = self.layout.join(point).values() if self.layout else (torch.zeros(0),)
        self.like = like if self.layout or not known else like.to(known[0].device)
        self.size = len(like)
        self.sweeps = Sweeps(view, kernel, self.split)
        self.learnt: dict[str, np.ndarray] | None = None
        self.attrs: dict[str, Any] = {"kernel": type(kernel).__name__}
        if self.size:
            self.attrs["continuous_kernel"] = type(kernel.continuous).__name__

    def split(self, position: Tensor) -> dict[str, Tensor]:
        """Return the sites of a continuous position."""
        return self.layout.split((position,)) if self.layout else {}

    def starts(self, strategy: Any, groups: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Return coordinates and positions of finite density, the same for the chains of a group.

        Raises:
            ValueError: There is none in 100 tries.
        """
        view, num = self.view, int(groups.max()) + 1

        def draw(number: int) -> tuple[Tensor, Tensor]:
            with forked_rng(number), torch.no_grad():
                seen = program_.simulate(
                    view.program, view.params, view.data, redraw=(), stand_in=True
                )
            values = {n: seen[n].cpu().numpy()[None] for n in self.coordinates.places}
            x = torch.as_tensor(self.coordinates.numbers(values)[0], device=self.like.device)
            if self.layout is None:
                return x, self.like
            (z,) = self.layout.join(view.potential.init(number, strategy)).values()
            return x, z

        found: list[tuple[Tensor, Tensor]] = []
        for group in range(num):
            for attempt in range(_TRIES):
                x, z = draw(seed + 104729 * group + 7919 * attempt)
                with torch.no_grad():
                    terms = view.terms(x, view.hold(self.split(z)))
                if bool(terms.sum().isfinite()):
                    break
            else:
                raise ValueError(
                    f"No starting point of finite density in {_TRIES} tries: "
                    f"{self._first_bad(x, z)}. Check the data against the supports, or pass an "
                    "init_strategy."
                )
            found.append((x, z))
        index = torch.as_tensor(groups)
        return torch.stack([x for x, _ in found])[index], torch.stack([z for _, z in found])[index]

    def given(self, init: Any, seed: int) -> tuple[Tensor, Tensor]:
        """Return coordinates and positions of draws of a posterior.

        Raises:
            TypeError: It is no posterior.
            ValueError: It is one of another model.
        """
        shapes = {name: site.shape for name, site in self.view.program.latents.items()}
        found = discrete_.starting_draws(init, shapes, self.num_chains, seed)
        x = torch.as_tensor(self.coordinates.numbers(found), device=self.like.device)
        if self.layout is None:
            return x, self.like.expand(len(x), 0)
        rows = []
        for i in range(len(x)):
            point = {
                name: transform.inv(torch.as_tensor(found[name][i]))
                for name, transform in self.view.potential.transforms.items()
            }
            rows += self.layout.join(point).values()
        return x, torch.stack(rows).to(self.like)

    def prepare(self, x: Tensor, z: Tensor, num_steps: int, level: str) -> None:
        """Trace what the steps need: the moves of blocks, and the gradient of the energy."""
        began = time.perf_counter()
        self.attrs |= self.sweeps.prepare(x, z)
        if self.layout is not None:
            energy, layout, calls = self.view.energy, self.layout, num_steps * _GRADIENTS
            self.energy = batched.batched(energy, layout, z, x, level=level, calls=calls)
        self.attrs["compile_seconds"] = time.perf_counter() - began

    def run(
        self,
        start: tuple[Tensor, Tensor],
        lengths: tuple[int, int, int],
        known: Mapping[str, Any] | None,
        bar: tqdm,
        seed: int,
    ) -> dict[str, np.ndarray]:
        """Adapt the continuous kernel, then sample; return statistics and positions by chain."""
        began = time.perf_counter()
        num_warmup, num_samples, thinning = lengths
        generator = torch.Generator(device=self.like.device).manual_seed(seed)
        learning = self._adaptation(num_warmup, known) if self.size else None
        move = self.kernel.continuous.bind() if self.size else None
        x, z = start
        keeper, state, worst = _Keeper(self.sweeps.small), None, x.new_zeros(self.num_chains)
        with torch.no_grad(), noticed() as check:
            for index in range(num_warmup + num_samples):
                check()
                if state is None or self.size:
                    state = self.sweeps.begin(x, z)
                state, seen = self.sweeps.moved(generator, state, z, index)
                x, worst = state.position, torch.maximum(worst, seen["discrepancy"])
                kept = index - num_warmup + 1
                if learning is not None and move is not None:
                    given = self._given(x)
                    here = hmc.init(z, given)
                    if index == 0:
                        learning.begin(here)
                    steer = learning.controls(index)
                    here, info = move(generator, here, given, steer)
                    if kept <= 0:
                        here = learning.learn(index, here, info, generator)
                    z = here.position
                    seen |= _statistics(here, info, steer.step_size)
                if kept > 0 and kept % thinning == 0:
                    keeper.add({**seen, "x": x, "z": z})
                bar.update()
        kept_all = keeper.all()
        kept_all["discrepancy"][0] = np.maximum(kept_all["discrepancy"][0], worst.cpu().numpy())
        self.learnt = ensemble.learnt(learning) if learning else None
        self.attrs |= {
            "num_blocks": self.sweeps.blocks.num_moves,
            "restarted_chains": learning.restarted if learning else 0,
            "sampling_time": time.perf_counter() - began,
        }
        return {name: np.swapaxes(value, 0, 1) for name, value in kept_all.items()}

    def constrain(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of all sites at kept points, (chain, draw, ...)."""
        size, lead = x.shape[0] * x.shape[1], x.shape[:2]
        flat = {"x": x.reshape(size, -1).astype(np.int64), "z": z.reshape(size, self.size)}
        roles = {site.role for site in self.view.program.sites.values()}
        if not self.size and "deterministic" not in roles:
            values = self.coordinates.values(flat["x"])
            return {name: value.reshape(*lead, *value.shape[1:]) for name, value in values.items()}

        def one(draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return self.view.constrain(draw["x"], self.split(draw["z"]))

        found = evaluate.over_draws(one, flat)
        return {name: value.reshape(*lead, *value.shape[1:]) for name, value in found.items()}

    def _given(self, x: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return lambda z: self.energy(z, x)

    def _adaptation(self, num_warmup: int, known: Mapping[str, Any] | None) -> Adaptation:
        kernel = self.kernel.continuous
        if known is not None:
            found = checks.check_adaptation(known, self.size)
            known = {name: torch.as_tensor(value).to(self.like) for name, value in found.items()}
        return Adaptation(
            num_warmup,
            target=kernel.target_accept_prob,
            lengths=getattr(kernel, "trajectory_lengths", (1.0,)),
            step_size=kernel.step_size,
            dense=self.size <= _DENSE if kernel.dense is None else kernel.dense,
            known=None if known is None else dict(known),
        )

    def _first_bad(self, x: Tensor, z: Tensor) -> str:
        """Say which site's log density is not finite."""
        view = self.view
        latents = view.constrain(x, self.split(z))
        for name, log_prob in program_.log_probs(
            view.program, view.params, latents, view.data
        ).items():
            if not bool(log_prob.isfinite().all()):
                bad = log_prob[~log_prob.isfinite()].flatten()[0].item()
                return f"the log density of site '{name}' is {bad}"
        return "the log density is not finite"


def _statistics(here: Any, info: Any, step_size: Any) -> dict[str, Tensor]:
    """Return a continuous step's statistics under ArviZ's names."""
    like = here.potential
    size = torch.as_tensor(step_size, dtype=like.dtype).mean()
    steps = torch.full(like.shape, int(info.num_steps))
    return {
        "lp": -like,
        "energy": info.energy,
        "acceptance_rate": info.acceptance,
        "diverging": info.diverging,
        "n_steps": steps,
        "step_size": size.expand(like.shape),
    }


class _Keeper:
    """The kept steps: a few wait on the device, the others stand on the host."""

    def __init__(self, small: Any) -> None:
        self._small = small
        self._waiting: list[dict[str, Tensor]] = []
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, step: dict[str, Tensor]) -> None:
        """Keep a step."""
        self._waiting.append(step)
        if len(self._waiting) == _CHUNK:
            self._flush()

    def all(self) -> dict[str, np.ndarray]:
        """Return the kept steps, (draw, chain, ...)."""
        if self._waiting:
            self._flush()
        return {n: np.concatenate([part[n] for part in self._parts]) for n in self._parts[0]}

    def _flush(self) -> None:
        found = {n: torch.stack([step[n] for step in self._waiting]) for n in self._waiting[0]}
        part = {name: value.cpu().numpy() for name, value in found.items()}
        part["x"] = part["x"].astype(self._small)
        self._parts.append(part)
        self._waiting = []
