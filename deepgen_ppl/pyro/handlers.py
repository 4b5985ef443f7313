"""The few effect handlers of our own: record, answer, replay, minibatch, unobserve."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import settings
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

from deepgen_ppl import refinement
from deepgen_ppl.pyro.messages import Message, is_factor, is_improper, is_plate


class record(Messenger):
    """Keep the sample, plate and parameter messages of one run, as they stand when it ends.

    Args:
        with_params: Whether to look at parameters and their modules, as a reader does.

    Attributes:
        sites: Sample messages by site name, `factor` and `deterministic` statements included.
        plates: The index message of each plate.
        params: Parameter messages by Pyro's own name.
        leaves: The unconstrained tensor behind each parameter.
        constraints: Where each parameter's value lives.
        modules: Modules announced by `pyro.module`, by name.
    """

    def __init__(self, with_params: bool = False) -> None:
        super().__init__()
        self.with_params = with_params
        self.sites: dict[str, Message] = {}
        self.plates: dict[str, Message] = {}
        self.params: dict[str, Message] = {}
        self.leaves: dict[str, Tensor] = {}
        self.constraints: dict[str, Any] = {}
        self.modules: dict[str, nn.Module] = {}
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def restore_buffers(self) -> None:
        """Put the buffers of announced modules back as they were before the run."""
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)

    def _pyro_sample(self, msg: Message) -> None:
        if is_plate(msg):
            msg["infer"] = {**msg["infer"], "subsampled": msg["value"] is not None}

    def _pyro_post_sample(self, msg: Message) -> None:
        if is_plate(msg):
            self.plates[msg["name"]] = msg
        elif msg["infer"].get("_do_not_trace"):
            return
        elif msg["name"] in self.sites:
            raise ValueError(
                f"Two sample statements are named '{msg['name']}'; give each site a name of its "
                "own."
            )
        else:
            self.sites[msg["name"]] = msg

    def _pyro_param(self, msg: Message) -> None:
        if self.with_params and "$$$" in msg["name"]:
            self._find_module(msg["name"].split("$$$")[0])

    def _pyro_post_param(self, msg: Message) -> None:
        if not self.with_params:
            return
        name = msg["name"]
        self.params.setdefault(name, msg)
        value = msg["value"]
        # The plates inside gather batch rows after us: the whole table is seen only here.
        leaf = getattr(value, "unconstrained", None)
        self.leaves.setdefault(name, leaf() if leaf is not None else value)
        # A PyroModule tells its constraint to the store, not to the message.
        known = pyro.get_param_store()._constraints.get(name)
        constraint = msg["kwargs"].get("constraint", constraints.real)
        self.constraints.setdefault(name, constraint if known is None else known)

    def _find_module(self, name: str) -> None:
        """Find the module behind a `pyro.module` statement: the message tells only tensors."""
        if name in self.modules:
            return
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code is pyro.module.__code__:
                module = self.modules[name] = frame.f_locals["nn_module"]
                # The statement comes before the module runs: its buffers are as they were.
                self.buffers += [(b, b.detach().clone()) for b in module.buffers()]
                return
            frame = frame.f_back


class answer(Messenger):
    """Answer parameter statements with given constrained values, others with their initial one.

    Args:
        values: Constrained values by Pyro's name.
        only_bare: Answer only statements that bring no initial value.
    """

    def __init__(self, values: Mapping[str, Tensor], only_bare: bool = False) -> None:
        super().__init__()
        self.values = values
        self.only_bare = only_bare

    def _pyro_param(self, msg: Message) -> None:
        bare = len(msg["args"]) < 2 or msg["args"][1] is None
        if self.only_bare and (not bare or msg["name"] in pyro.get_param_store()):
            return
        value = self.values.get(msg["name"])
        if value is None:
            if bare:
                raise ValueError(
                    f"No learned value for the parameter '{msg['name']}'. Pass params=fit (or a "
                    "dict of values), or give pyro.param an initial value."
                )
            value = msg["args"][1]
            value = value() if callable(value) and not isinstance(value, Tensor) else value
        msg["value"] = value
        msg["done"] = True


class replay(Messenger):
    """Give latent sites given values, and plates that subsample given indices."""

    def __init__(
        self, values: Mapping[str, Tensor], indices: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.values = values
        self.indices = indices or {}

    def _pyro_sample(self, msg: Message) -> None:
        if is_plate(msg):
            if msg["value"] is None and msg["name"] in self.indices:
                size = msg["fn"].subsample_size
                if size is not None and size < msg["fn"].size:
                    msg["value"] = self.indices[msg["name"]]
        elif not msg["is_observed"] and msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class feasible(Messenger):
    """Give sites of improper prior a value where a program is only looked at.

    The value is a standard normal draw on the unconstrained space.
    """

    def _pyro_sample(self, msg: Message) -> None:
        if msg["value"] is None and is_improper(msg["fn"]):
            fn = msg["fn"]
            transform = torch.distributions.transform_to(fn.support)
            shape = transform.inverse_shape(fn.batch_shape + fn.event_shape)
            msg["value"] = transform(torch.randn(shape))
            msg["done"] = True


class proper(Messenger):
    """Refuse to draw a site of improper prior, saying so."""

    def _pyro_sample(self, msg: Message) -> None:
        if msg["value"] is None and is_improper(msg["fn"]):
            raise ValueError(
                f"site '{msg['name']}' has an improper prior, from which nothing can be drawn. "
                "Pass its values (a posterior or a guide), or give it a proper prior."
            )


class constrain(Messenger):
    """Map unconstrained values of latent sites into their supports as the program reaches them.

    Args:
        z: Unconstrained value of each site.

    Attributes:
        values: The sites' values.
        log_dets: log |det J| of each map, of the site's batch shape.
    """

    def __init__(self, z: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.z = z
        self.values: dict[str, Tensor] = {}
        self.log_dets: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Message) -> None:
        name = msg["name"]
        if msg["is_observed"] or name not in self.z:
            return
        transform = torch.distributions.biject_to(msg["fn"].support)
        value = transform(self.z[name])
        self.values[name] = msg["value"] = value
        self.log_dets[name] = transform.log_abs_det_jacobian(self.z[name], value)
        msg["done"] = True


class minibatch(Messenger):
    r"""Tell a program called with \(B\) of \(N\) rows that its data plates hold \(N\).

    A plate opened at \(B\) rows is reported with full size \(N\) and its sites are scaled by
    \(N/B\). A plate opened at \(N\) rows (an autoguide's) is given the batch rows, so that Pyro
    scales and gathers by itself. Parameters kept at \(N\) rows are gathered once.

    Args:
        rows: Row numbers of the batch, shape `(B,)`.
        num_rows: \(N\).
        plates: Names of the data plates.
        tables: Axis of the rows of each parameter kept at \(N\) rows, by Pyro's name.
        scaled: False leaves the data sites unscaled (the caller multiplies by \(N/B\)).
    """

    def __init__(
        self,
        rows: Tensor,
        num_rows: int,
        plates: Collection[str],
        tables: Mapping[str, int] | None = None,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.num_rows = num_rows
        self.size = len(rows)
        self.plates = plates
        self.tables = tables or {}
        self.scaled = scaled

    def _is_opened_at_batch(self, frame: Any) -> bool:
        return (
            frame.name in self.plates and frame.size == self.size and frame.full_size == self.size
        )

    def _pyro_sample(self, msg: Message) -> None:
        if self.size == self.num_rows:
            return
        if is_plate(msg):
            fn = msg["fn"]
            if (
                msg["name"] in self.plates
                and fn.size == self.num_rows
                and fn.subsample_size in (None, self.size)
            ):
                msg["value"] = self.rows
            return
        frames, factor = [], self.num_rows / self.size
        for frame in msg["cond_indep_stack"]:
            opened = self._is_opened_at_batch(frame)
            if opened:
                frame = frame._replace(full_size=self.num_rows)
            if frame.name in self.plates and opened == self.scaled:
                msg["scale"] = msg["scale"] * factor if opened else msg["scale"] / factor
            frames.append(frame)
        msg["cond_indep_stack"] = tuple(frames)

    def _pyro_post_param(self, msg: Message) -> None:
        value = msg["value"]
        if self.size == self.num_rows or not isinstance(value, Tensor):
            return
        axis = self.tables.get(msg["name"])
        event_dim = msg["kwargs"].get("event_dim")
        if event_dim is not None:
            for frame in msg["cond_indep_stack"]:
                if frame.name not in self.plates or frame.dim is None:
                    continue
                if not self._is_opened_at_batch(frame):
                    return  # the plate holds N rows and gathers natively
                if value.dim() >= event_dim - frame.dim:
                    axis = value.dim() + frame.dim - event_dim
        if axis is not None and value.shape[axis] == self.num_rows:
            gathered = value.index_select(axis, self.rows.to(value.device))
            gathered.unconstrained = getattr(value, "unconstrained", lambda: value)  # type: ignore[attr-defined]
            msg["value"] = gathered


class freed(Messenger):
    """Let every datum have its own parameters of what a guide draws in the data plates.

    Each distribution keeps its family, and what the guide computes is where its parameters begin:
    a table named `own_SITE_PARAMETER`, zero at first, is added to them, unconstrained.

    Args:
        data_plates: Names of the plates that follow the data.
    """

    def __init__(self, data_plates: Collection[str] = ()) -> None:
        super().__init__()
        self.data_plates = frozenset(data_plates)

    def _pyro_sample(self, msg: Message) -> None:
        from deepgen_ppl.pyro.moved import moved

        if msg["is_observed"] or is_plate(msg) or is_factor(msg):
            return
        if not {frame.name for frame in msg["cond_indep_stack"]} & self.data_plates:
            return

        def shift(part: str, start: Tensor) -> Tensor:
            name = refinement.own_name(msg["name"], part)
            return start + pyro.param(name, torch.zeros_like(start, requires_grad=False))

        msg["fn"] = moved(msg["fn"], shift, msg["name"])


class unobserve(Messenger):
    """Draw observed sites again; `factor` and `deterministic` statements stay as they are.

    Args:
        names: The sites to draw; all observed ones when None.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Message) -> None:
        if not msg["is_observed"] or is_factor(msg) or msg["infer"].get("_deterministic"):
            return
        if self.names is None or msg["name"] in self.names:
            msg["is_observed"] = False
            msg["value"] = None
            msg["done"] = False


class relax(Messenger):
    """Draw some latent sites from other distributions.

    Args:
        names: the sites.
        change: the other distribution of a site, from its own one and its name.
        strict: whether a site that `change` refuses is an error, or left as it is.
    """

    def __init__(
        self, names: Collection[str], change: Callable[[Any, str], Any], strict: bool = True
    ) -> None:
        super().__init__()
        self.names, self.change, self.strict = frozenset(names), change, strict

    def _pyro_sample(self, msg: Message) -> None:
        """Replace the distribution."""
        if msg["is_observed"] or msg["name"] not in self.names:
            return
        try:
            msg["fn"] = self.change(msg["fn"], msg["name"])
        except ValueError:
            if self.strict:
                raise


@contextmanager
def validation(enabled: bool) -> Iterator[None]:
    """Switch the argument checks of Pyro and torch on or off, and back as they were."""
    names = [name for name in settings.get() if name.startswith("validate_")]
    before = {name: settings.get(name) for name in names}
    try:
        settings.set(**dict.fromkeys(names, enabled))
        yield
    finally:
        settings.set(**before)


def run(fn: Callable[..., Any], args: tuple, kwargs: dict, *handlers: Messenger) -> Any:
    """Call a program under handlers, the first one outermost."""
    if not handlers:
        return fn(*args, **kwargs)
    with handlers[0]:
        return run(fn, args, kwargs, *handlers[1:])
