"""A module that gives the conditionals of an autoregressive distribution, at once or by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jaxtyping import Float, Int
from numpyro.contrib.module import eqx_module

from deepgen_ppl import autoregressive_checks as checks
from deepgen_ppl.numpyro.programs.autoregressive.distribution import AutoregressiveDistribution
from deepgen_ppl.numpyro.programs.autoregressive.outputs import Bernoulli, Output

Context = Float[Array, "*batch context"] | None
Inputs = Float[Array, "rows features inputs"]
Features = int | Sequence[int]


class Autoregressive(eqx.Module):
    r"""Conditionals of the features of an event, each given those before it; an abstract base.

    \[ p(x \mid c) = \prod_d p(x_d \mid x_{<d}, c) \]

    Called with a context (or without, where it has none) it gives a native distribution of the
    batch shape of the context. In a program, register its parameters as those of any equinox
    module: `eqx_module("net", net)(context)`.

    A subclass works on rows of flattened events in its order. `parallel` gives the parameters of
    all conditionals in one pass. `start` gives what is kept between steps, and `step` those of
    feature i, given the one before it, from what is kept: every array of it has the rows on its
    first axis.

    Attributes:
        output: the family of each conditional.
        about: event shape, order and context.
        weights: what is learned, by name.
    """

    output: eqx.AbstractVar[Output]
    about: eqx.AbstractVar[checks.About]
    weights: eqx.AbstractVar[dict[str, Array]]

    @abstractmethod
    def parallel(self, inputs: Inputs, context: Context) -> Float[Array, "rows features size"]:
        """Return the parameters of all conditionals at encoded values."""

    @abstractmethod
    def start(self, rows: int, context: Context) -> Any:
        """Return what is kept before the first feature."""

    @abstractmethod
    def step(self, kept: Any, i: Int[Array, ""], before: Float[Array, "rows inputs"]) -> Any:
        """Return the parameters of feature i, shape (rows, size), and what is kept then.

        Args:
            kept: what was kept.
            i: the feature.
            before: the encoded feature before it, zeros before the first one.
        """

    def __call__(self, context: Context = None) -> AutoregressiveDistribution:
        """Return the distribution at a context.

        Raises:
            ValueError: the context is missing, not asked for, or of another size.
        """
        if context is not None:
            context = jnp.asarray(context)
        checks.check_context(None if context is None else context.shape, self.about.context)
        return AutoregressiveDistribution(self, context)


def as_output(output: Output | None) -> Output:
    """Return an output, bits for None."""
    output = Bernoulli() if output is None else output
    checks.check_output(output, Output)
    return output


def arrays(weights: dict[str, np.ndarray]) -> dict[str, Array]:
    """Return weights in the default precision."""
    return {name: jnp.asarray(value, float) for name, value in weights.items()}


def program(net: Autoregressive, name: str = "net") -> Callable[..., None]:
    """Return the native program whose data are draws of a module, a row of context beside each.

    Args:
        net: the module.
        name: name of its parameters; the plate is `data` and the site `x`.

    Returns:
        A model of the data, and of the context where the module has one, for `svi` without a guide.

    Raises:
        TypeError: it is no module of `dg.autoregressive`.

    Example:
        >>> import optax
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.tile([[0, 1, 1], [1, 0, 0]], (50, 1))
        >>> net = dg.autoregressive.FVSBN(3)
        >>> model = dg.autoregressive.program(net)
        >>> fit = dg.svi(model, None, x, num_steps=300, optim=optax.adam(0.1), progress=False)
        >>> learned = dg.flows.fitted(net, fit, "net")
        >>> bool(learned().log_prob(x).mean() > -0.8)
        True
    """
    if not isinstance(net, Autoregressive):
        raise TypeError(f"program takes a module of dg.autoregressive, not {type(net).__name__}.")

    def model(x: Array, context: Context = None) -> None:
        shape = None if context is None else context.shape
        checks.check_context(shape, net.about.context)
        checks.check_rows(shape, len(x))
        density: Any = eqx_module(name, net)
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", density(context), obs=x)

    return model
