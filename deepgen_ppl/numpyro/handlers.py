"""The effect handlers of our own: minibatches, split seeds, redrawing observed sites."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Int
from numpyro.primitives import Messenger

from deepgen_ppl import refinement, vae_checks
from deepgen_ppl.numpyro.messages import Message, is_factor, is_improper


class minibatch(Messenger):
    r"""Let data plates report $(N, B)$ and scale each of their sites by $N / B$.

    A model called with the batch rows opens its data plates at $B$: they report $(N, B)$ and keep
    the index `arange(B)`, since the data they index are gathered. A plate opened at $N$ (an
    autoguide's) gets the batch rows as its index and gathers its parameters natively. A table of
    parameters whose shape follows the rows is gathered here, once.

    Args:
        fn: the program, called with the rows of the batch.
        rows: batch rows, shape (B,).
        num_rows: number of rows N.
        data_plates: names of the plates that follow the data.
        tables: axis of the rows in each parameter whose shape follows them.
        scaled: False leaves the data sites unscaled (the caller multiplies by N / B).
    """

    def __init__(
        self,
        fn: Callable | None = None,
        *,
        rows: Int[Array, " B"],
        num_rows: int,
        data_plates: Collection[str],
        tables: Mapping[str, int] | None = None,
        scaled: bool = True,
    ) -> None:
        self.rows, self.num_rows = rows, num_rows
        self.data_plates, self.tables = frozenset(data_plates), dict(tables or {})
        self.scaled = scaled
        self.native: set[str] = set()
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Set the plates' index and the sites' scale."""
        if msg["type"] == "plate" and msg["name"] in self.data_plates:
            batch_size = self.rows.shape[0]
            if msg["args"][0] == self.num_rows != batch_size:
                self.native.add(msg["name"])
                msg["value"] = self.rows
            msg["args"] = (self.num_rows, batch_size)
        elif msg["type"] == "sample":
            frames = {frame.name for frame in msg["cond_indep_stack"]} & self.data_plates
            if frames and bool(frames & self.native) != self.scaled:
                factor = self.num_rows / self.rows.shape[0]
                scale = 1.0 if msg["scale"] is None else msg["scale"]
                msg["scale"] = scale * factor if self.scaled else scale / factor

    def postprocess_message(self, msg: Message) -> None:
        """Undo a replayed index of a plate opened at B rows; gather the tables."""
        if msg["type"] == "plate" and msg["name"] in self.data_plates - self.native:
            msg["value"] = jnp.arange(self.rows.shape[0])
        elif msg["type"] == "param" and msg["name"] in self.tables and msg["value"] is not None:
            frames = {frame.name for frame in msg["cond_indep_stack"]}
            if frames & self.native and msg["kwargs"].get("event_dim") is not None:
                return  # the plate itself gathers
            axis = self.tables[msg["name"]]
            msg["value"] = jnp.take(msg["value"], self.rows, axis=axis, mode="clip")


class split_seed(Messenger):
    """Seed sites inside the data plates from one key and all others from another.

    Holding the shared key while drawing several local ones gives several draws per row for the same
    global latents, which is what row-wise multi-sample bounds need.

    Args:
        fn: the program.
        shared: key of the sites outside the data plates.
        local: key of the sites inside.
        data_plates: names of the plates that follow the data.
        stand_in: where a program is only looked at, give latent sites of improper prior a standard
            normal value on their unconstrained space; otherwise drawing one is an error.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        *,
        shared: Array,
        local: Array,
        data_plates: Collection[str] = (),
        stand_in: bool = False,
    ) -> None:
        self.keys = {False: shared, True: local}
        self.data_plates = frozenset(data_plates)
        self.stand_in = stand_in
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Give a key to a site that needs one."""
        if msg["type"] not in ("sample", "prng_key", "plate", "control_flow"):
            return
        if msg["kwargs"]["rng_key"] is not None or msg["value"] is not None:
            return
        frames = {frame.name for frame in msg.get("cond_indep_stack", ())}
        local = bool(frames & self.data_plates)
        self.keys[local], msg["kwargs"]["rng_key"] = random.split(self.keys[local])
        if msg["type"] == "sample" and is_improper(msg["fn"]):
            msg["value"] = self._improper(msg)

    def _improper(self, msg: Message) -> Array:
        if not self.stand_in:
            raise ValueError(
                f"site '{msg['name']}' has an improper prior, from which nothing can be drawn. "
                "Pass its values (a posterior or a guide), or give it a proper prior."
            )
        transform = dist.biject_to(msg["fn"].support)
        shape = (*msg["kwargs"]["sample_shape"], *msg["fn"].shape())
        noise = random.normal(msg["kwargs"]["rng_key"], transform.inverse_shape(shape))
        return transform(noise)


class stop_scores(Messenger):
    """Block gradients through draws of sites without a reparametrised sampler.

    Args:
        given: names of sites whose values are the caller's: no draws, they keep their gradients.
    """

    def __init__(self, given: Collection[str] = ()) -> None:
        self.given = given
        super().__init__()

    def postprocess_message(self, msg: Message) -> None:
        """Stop the gradient of the value and drop its cached intermediates."""
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] in self.given:
            return
        if not msg["fn"].has_rsample:
            msg["value"] = lax.stop_gradient(msg["value"])
            msg["intermediates"] = None


class unobserve(Messenger):
    """Draw observed sample sites again; factors stay as they are.

    Args:
        fn: the program.
        names: sites to draw again, None for all observed ones.
    """

    def __init__(self, fn: Callable | None = None, names: Collection[str] | None = None) -> None:
        self.names = None if names is None else frozenset(names)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Forget the observed value."""
        if msg["type"] != "sample" or not msg["is_observed"] or is_factor(msg["fn"]):
            return
        if self.names is None or msg["name"] in self.names:
            msg["is_observed"], msg["value"] = False, None


class reader(Messenger):
    """Note the latent sites and parameters whose value a handler inside the program has fixed."""

    def __init__(self, fn: Callable | None = None) -> None:
        self.fixed: set[str] = set()
        self.mutable: dict[str, Any] = {}
        self.done: list[str] = []
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Record fixed names."""
        if msg["type"] == "control_flow":  # a scan is told what handlers inside the program fix
            for _, values in msg["kwargs"].get("substitute_stack", ()):
                self.fixed.update(values if isinstance(values, Mapping) else ())
        given = msg["value"] is not None and not msg.get("is_observed", False)
        given = given and not msg.get("_control_flow_done", False)  # drawn by a scan
        if given and msg["type"] in ("sample", "param"):
            self.fixed.add(msg["name"])

    def postprocess_message(self, msg: Message) -> None:
        """Keep the first value of mutable state, before the program changes it in place."""
        if msg["type"] == "sample":
            self.done.append(msg["name"])
        if msg["type"] == "mutable" and msg["name"] not in self.mutable:
            value = msg["value"]
            if value is not None:
                self.mutable[msg["name"]] = jax.tree.map(lambda leaf: leaf, value)


class learned_only(Messenger):
    """Refuse parameters without a learned value; it stands around the handler that gives them."""

    def process_message(self, msg: Message) -> None:
        """Refuse to begin anew."""
        if msg["type"] == "param" and msg["value"] is None:
            vae_checks.refuse_unlearned(msg["name"])


class observe_draws(Messenger):
    """Let observed sites observe a draw of their own: to set a program up without its data."""

    def process_message(self, msg: Message) -> None:
        """Replace the observed value."""
        if msg["type"] == "sample" and msg["is_observed"] and not is_factor(msg["fn"]):
            key = random.key(zlib.crc32(msg["name"].encode()))  # the same in every run
            msg["value"] = msg["fn"].sample(key)


class on_support(Messenger):
    """Give enumerated sites the values of their support: the language counts them from zero.

    Args:
        fn: the enumerated program.
        names: the sites.
    """

    def __init__(self, fn: Callable | None = None, names: Collection[str] = ()) -> None:
        self.names = frozenset(names)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Replace the numbers of the values by the values; refuse where a scan took the numbers."""
        if msg["type"] == "sample" and msg["name"] in self.names and msg.get("done"):
            if msg.get("_control_flow_done"):  # the scan has used the numbers already
                lowest = getattr(msg["fn"].support, "lower_bound", 0)
                if not isinstance(lowest, int) or lowest != 0:
                    raise ValueError(
                        f"the discrete latent '{msg['name']}' of a scan does not count from zero, "
                        "as NumPyro's scan does when it sums out. Sample it from a Categorical, "
                        "and add its first value."
                    )
                return
            support = msg["fn"].enumerate_support(expand=False)
            event_shape = support.shape[jnp.ndim(support) - msg["fn"].event_dim :]
            msg["value"] = support.reshape(-1, *event_shape)[msg["value"]]


class refuse_scans(Messenger):
    """Refuse the scans of a program whose discrete sites `TraceEnum_ELBO` sums out."""

    def process_message(self, msg: Message) -> None:
        """Refuse a scan.

        Raises:
            ValueError: as said.
        """
        if msg["type"] == "control_flow":
            raise ValueError(
                "TraceEnum_ELBO does not sum over the chain of numpyro's scan, so its bound is "
                "wrong there. Use mcmc or importance, which do."
            )


class rows_alone(Messenger):
    """Leave the terms of each row apart: no product over data plates, and no shared terms.

    Args:
        fn: the enumerated program.
        data_plates: names of the plates that follow the data.
    """

    def __init__(self, fn: Callable | None = None, data_plates: Collection[str] = ()) -> None:
        self.data_plates = frozenset(data_plates)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Take data plates for plain axes; mask all outside of them."""
        if msg["type"] != "sample":
            return
        frames = msg["cond_indep_stack"]
        msg["cond_indep_stack"] = [f for f in frames if f.name not in self.data_plates]
        if len(msg["cond_indep_stack"]) == len(frames):
            msg["fn"] = msg["fn"].mask(False)


class freed(Messenger):
    """Let every datum have its own parameters of what a guide draws in the data plates.

    Each distribution keeps its family, and what the guide computes is where its parameters begin:
    a table named `own_SITE_PARAMETER`, zero at first, is added to them, unconstrained.

    Args:
        fn: the guide.
        data_plates: names of the plates that follow the data.
    """

    def __init__(self, fn: Callable | None = None, *, data_plates: Collection[str] = ()) -> None:
        self.data_plates = frozenset(data_plates)
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Move the parameters of a latent site's distribution."""
        from deepgen_ppl.numpyro.moved import moved

        if msg["type"] != "sample" or msg["is_observed"] or is_factor(msg["fn"]):
            return
        if not {frame.name for frame in msg["cond_indep_stack"]} & self.data_plates:
            return

        def shift(part: str, start: Array) -> Array:
            name = refinement.own_name(msg["name"], part)
            return start + jnp.asarray(numpyro.param(name, jnp.zeros_like(start)))

        msg["fn"] = moved(msg["fn"], shift, msg["name"])


class relax(Messenger):
    """Draw some latent sites from other distributions.

    Args:
        fn: the program.
        names: the sites.
        change: the other distribution of a site, from its own one and its name.
        strict: whether a site that `change` refuses is an error, or left as it is.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        names: Collection[str] = (),
        change: Callable[[Any, str], Any] = lambda fn, name: fn,
        strict: bool = True,
    ) -> None:
        self.names, self.change, self.strict = frozenset(names), change, strict
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        """Replace the distribution."""
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] not in self.names:
            return
        try:
            msg["fn"] = self.change(msg["fn"], msg["name"])
        except ValueError:
            if self.strict:
                raise
