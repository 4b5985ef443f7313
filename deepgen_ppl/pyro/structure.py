"""What a native program is made of: its sites, plates and parameters, as one run shows them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from deepgen_ppl.pyro import messages
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch shape and event shape together."""
        return self.batch_shape + self.event_shape


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
        notes: What was found out by running it, such as that it cannot be vectorised.
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
    notes: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

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

    @property
    def touches_shared(self) -> bool:
        """Whether a term outside the data plates may depend on draws inside: it comes after one."""
        local = False
        for site in self.sites.values():
            if local and site.row_plate is None and site.role != "deterministic":
                return True
            local = local or (site.role == "latent" and site.row_plate is not None)
        return False

    @property
    def local(self) -> bool:
        """Whether every site with a density stands in a data plate."""
        sites = [site for site in self.sites.values() if site.role != "deterministic"]
        return bool(self.data_plates) and all(site.row_plate is not None for site in sites)


class Pair(NamedTuple):
    """A model and its guide, read together.

    Attributes:
        model: The model.
        guide: The guide; None when the model is its own proposal (or has no latents).
        params: Parameters of both, by name.
        local: Whether every term of both stands in a data plate, so that rows do not share latents.
        enumerated: Discrete latents that the guide lacks and that are summed out.
    """

    model: Program
    guide: Program | None
    params: Mapping[str, Param]
    local: bool
    enumerated: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int | None:
        """Rows of the full data."""
        return self.model.num_rows

    @property
    def programs(self) -> tuple[Program, ...]:
        """Model and guide, without a missing guide."""
        return (self.model,) if self.guide is None else (self.model, self.guide)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Modules of both."""
        return tuple(module for program in self.programs for module in program.modules)

    @property
    def data_plates(self) -> tuple[str, ...]:
        """Names of the plates that follow the data, of both."""
        return tuple(dict.fromkeys(p for program in self.programs for p in program.data_plates))

    @property
    def scored(self) -> bool:
        """Whether the guide has draws without gradients, which need the score function."""
        sites = () if self.guide is None else self.guide.sites.values()
        return any(site.role == "latent" and not site.reparametrised for site in sites)

    @property
    def per_datum(self) -> int:
        """Number by which losses are divided: the rows where a data plate exists, else 1."""
        rows = self.model.num_rows or 1
        own = any(p.subsampled and p.size == rows for p in self.model.plates.values())
        return rows if self.data_plates or own else 1


class Weights(NamedTuple):
    r"""Log weights of one draw: \(\log p(x, z) - \log q(z)\), by rows of the data plate.

    Attributes:
        rows: Terms of each row, unscaled, shape `(rows,)`; empty without a data plate.
        shared: All other terms, a scalar.
        scale: \(N/B\).
        score_rows: Log density of the guide's sites that are not reparametrised, by row.
        score_shared: The same outside the data plate.
        latents: Values of the model's latent sites.
        deterministic: Values of its deterministic sites; none where sites are summed out.
        log_q: Log density of the guide, estimated for the full data; None without one.
    """

    rows: Tensor
    shared: Tensor
    scale: float
    score_rows: Tensor | None
    score_shared: Tensor | None
    latents: dict[str, Tensor]
    deterministic: dict[str, Tensor] = {}  # noqa: RUF012
    log_q: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The log weight estimated for the full data."""
        return self.shared + self.scale * self.rows.sum(-1)


def site_of(msg: dict[str, Any], data_plates: Collection[str]) -> Site:
    """Return what a sample message tells of its site.

    Args:
        msg: The message, as it stands when the run ends.
        data_plates: Names of the plates that follow the data.
    """
    fn, infer = msg["fn"], msg["infer"]
    latent = not msg["is_observed"]
    if messages.is_determined(msg):
        role = "deterministic"
    elif messages.is_factor(msg):
        role = "factor"
    else:
        role = "latent" if latent else "observed"
    by_dim = {f.dim: f.name for f in msg["cond_indep_stack"] if f.dim is not None}
    batch = tuple(fn.batch_shape)
    try:
        support = fn.support
    except (NotImplementedError, AttributeError):
        support = None
    return Site(
        msg["name"], role, batch, tuple(fn.event_shape),
        tuple(by_dim.get(i - len(batch)) for i in range(len(batch))), support,
        bool(getattr(support, "is_discrete", False)), bool(fn.has_rsample),
        bool(infer.get("is_auxiliary")),
        next((f.name for f in msg["cond_indep_stack"] if f.name in data_plates), None),
        bool(getattr(fn, "has_enumerate_support", False)),
    )  # fmt: skip
