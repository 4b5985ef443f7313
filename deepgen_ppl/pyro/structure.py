"""What a program read by `program.py` is made of: its sites, plates and parameters, and the log
weights of a pair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from deepgen_ppl.pyro.parameters import Param


class Site(NamedTuple):
    """One statement of a program.

    Attributes:
        name: Its name.
        role: `"latent"`, `"observed"`, `"factor"` or `"deterministic"`.
        batch_shape: Shape of independent draws, plates included, at the rows the program was read
            with.
        event_shape: Shape of one draw.
        plates: Name of the plate of each batch dimension, left to right; None where there is no
            plate.
        support: Where its values live.
        is_discrete: Whether the support is discrete.
        reparametrised: Whether draws are differentiable in the distribution's parameters.
        auxiliary: Whether a guide marks it as no site of the model.
        row_plate: The data plate that holds it; None for a shared site.
        enumerable: Whether its support is finite and can be summed over.
    """

    name: str
    role: str
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    plates: tuple[str | None, ...]
    support: Any
    is_discrete: bool
    reparametrised: bool
    auxiliary: bool
    row_plate: str | None
    enumerable: bool = False


class Plate(NamedTuple):
    """One plate of a program.

    Attributes:
        name: Its name.
        dim: Its batch dimension, counted from the right; None for a sequential plate.
        size: How many elements it holds at the rows the program was read with.
        subsampled: Whether the program draws a subsample of it by itself.
        follows_data: Whether its size follows the data's rows.
    """

    name: str
    dim: int | None
    size: int
    subsampled: bool
    follows_data: bool


@dataclass(frozen=True)
class Program:
    """A native Pyro function read at one data shape.

    Attributes:
        fn: The function, `functools.partial` peeled off.
        args: Positional constants bound to it.
        kwargs: Keyword constants bound to it.
        sites: Its statements in order.
        plates: Its plates.
        params: Parameters and buffers, by their name in `fit.params`.
        tables: Axis of the rows, for parameters whose shape follows them.
        num_rows: Rows of the full data; None where no rows are told.
        max_plate_nesting: Number of batch dimensions plates take.
        modules: Modules it is made of.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sites: Mapping[str, Site]
    plates: Mapping[str, Plate]
    params: Mapping[str, Param]
    tables: Mapping[str, int]
    num_rows: int | None
    max_plate_nesting: int
    modules: tuple[nn.Module, ...] = field(repr=False)

    @property
    def data_plates(self) -> tuple[str, ...]:
        """Names of the plates whose size follows the data."""
        return tuple(p.name for p in self.plates.values() if p.follows_data and not p.subsampled)

    @property
    def latents(self) -> dict[str, Site]:
        """Its latent sites."""
        return {name: site for name, site in self.sites.items() if site.role == "latent"}

    @property
    def observed(self) -> dict[str, Site]:
        """Its observed sites."""
        return {name: site for name, site in self.sites.items() if site.role == "observed"}

    @property
    def factors(self) -> dict[str, Site]:
        """Its factor statements."""
        return {name: site for name, site in self.sites.items() if site.role == "factor"}


class Pair(NamedTuple):
    """A model and its guide, read together.

    Attributes:
        model: The model.
        guide: The guide; None when the model is its own proposal (or has no latents).
        params: Parameters of both, by name.
        local: Whether every term of both stands in a data plate, so that rows do not share latents.
    """

    model: Program
    guide: Program | None
    params: Mapping[str, Param]
    local: bool

    @property
    def num_rows(self) -> int | None:
        """Rows of the full data."""
        return self.model.num_rows


class Weights(NamedTuple):
    r"""Log weights of one draw: \(\log p(x, z) - \log q(z)\), by rows of the data plate.

    Attributes:
        rows: Terms of each row, unscaled, shape `(rows,)`; empty without a data plate.
        shared: All other terms, a scalar.
        scale: \(N/B\).
        score_rows: Log density of the guide's sites that are not reparametrised, by row.
        score_shared: The same outside the data plate.
        latents: Values of the model's latent sites.
    """

    rows: Tensor
    shared: Tensor
    scale: float
    score_rows: Tensor | None
    score_shared: Tensor | None
    latents: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The log weight estimated for the full data."""
        return self.shared + self.scale * self.rows.sum(-1)
