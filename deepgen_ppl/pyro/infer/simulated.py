"""A model run forwards over many simulations at once, and the likelihood of what it simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.infer import evaluate
from deepgen_ppl.pyro.parameters import forked_rng, preserved, private_store
from deepgen_ppl.pyro.probes import check_rows_independent
from deepgen_ppl.pyro.structure import Pair, Program
from deepgen_ppl.trials import LOG_LIKELIHOOD


class Simulated:
    """The model, run forwards over many simulations at once.

    Args:
        program: The model.
        values: Its parameters.
        data: Data of the shapes that are simulated.
    """

    def __init__(self, program: Program, values: dict[str, Tensor], data: Sequence[Any]) -> None:
        self.program, self.values = program, values
        self.given, self.device = data, data_.device_of(program.modules)
        self.tensors = data_.to_tensors(data, self.device)
        kinds = Tensor | np.ndarray | np.generic
        self.data = [on_host(x) if isinstance(x, kinds) else x for x in data]
        self.arguments = data_.argument_names(program.fn, len(program.args), len(data))

    def as_given(self, i: int, value: np.ndarray) -> Any:
        """Return a data argument as the user passed it, an array of NumPy or a tensor."""
        was = self.given[i]
        return torch.as_tensor(value).to(was) if isinstance(was, Tensor) else value

    def has_own_rows(self) -> bool:
        """Tell whether rows are simulations of their own."""
        program = self.program
        pair = Pair(program, None, program.params, program.local)
        with handlers.validation(False):
            return program.local and check_rows_independent(pair, self.values, self.tensors)

    def plates(self, by_row: bool) -> dict[str, tuple[str | None, ...]]:
        """Return the plates of each site's leading dimensions, and those of the log likelihood."""
        found = {name: site.plates for name, site in self.program.sites.items()}
        return found | {LOG_LIKELIHOOD: self.program.data_plates[:1] if by_row else ()}

    def observe(self, data: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return the values of the observed sites at some data."""
        program, tensors = self.program, data_.to_tensors(data, self.device)
        with looking(program.modules):
            options: dict[str, Any] = {"redraw": (), "stand_in": True}
            found = program_.simulate(program, self.values, tensors, **options)
        return {name: on_host(found[name]) for name in program.observed}

    def simulate(
        self, num: int, seed: int, back: Mapping[int, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return draws (num, ...) of all sites, at data arguments of each simulation if given."""
        program = self.program

        def one(draw: dict[str, Tensor]) -> dict[str, Tensor]:
            return program_.simulate(program, self.values, replaced(self.tensors, draw))

        draws = {"draw number": torch.arange(num), **self.named(back or {})}
        with preserved(program.modules):
            return evaluate.over_draws(one, draws, seed)

    def log_likelihood(
        self, by_row: bool
    ) -> Callable[[dict[str, np.ndarray], Sequence[Any]], np.ndarray]:
        """Return the function from draws and data to the log likelihood, of each row if asked."""
        program = self.program

        def of_draws(draws: dict[str, np.ndarray], data: Sequence[Any]) -> np.ndarray:
            tensors = data_.to_tensors(data, self.device)

            def one(draw: dict[str, Tensor]) -> dict[str, Tensor]:
                return {"value": data_log_likelihood(program, self.values, draw, tensors, by_row)}

            with preserved(program.modules):
                return evaluate.over_draws(one, draws)["value"]

        return of_draws

    def named(self, back: Mapping[int, np.ndarray]) -> dict[str, Tensor]:
        """Return simulated data arguments by name, as tensors like those that were given."""
        return {
            f"data {i}": torch.as_tensor(value).to(self.tensors[i]) for i, value in back.items()
        }


@contextmanager
def looking(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Run programs inside, and leave no trace of it."""
    with (
        torch.no_grad(), forked_rng(0), private_store(), preserved(modules),
        handlers.validation(False),
    ):  # fmt: skip
        yield


def on_host(value: Any) -> np.ndarray:
    """Return a value as an array of NumPy."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def replaced(data: Sequence[Any], draw: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return the data arguments of one simulation."""
    return tuple(draw.get(f"data {i}", value) for i, value in enumerate(data))


def data_log_likelihood(
    program: Program, params: Mapping[str, Tensor], latents: Mapping[str, Tensor],
    data: Sequence[Any], by_row: bool,
) -> Tensor:  # fmt: skip
    """Return log p(y | latents), of each row if asked."""
    known = {name: latents[name] for name in program.latents}
    found = program_.log_probs(program, params, known, data)
    parts = []
    for name, site in program.observed.items():
        plate = site.row_plate if by_row else None
        each = found[name] if plate is None else found[name].movedim(site.plates.index(plate), 0)
        parts.append(each.sum() if plate is None else each.reshape(len(each), -1).sum(1))
    return torch.stack(parts).sum(0)
