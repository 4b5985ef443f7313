"""A Bayesian network as a native program: one categorical site for each variable."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array
from jaxtyping import Bool, Int

from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.numpyro.programs.tables import categorical, log_table
from deepgen_ppl.program_checks import Learnable, check_data, check_learnable, check_sites


def bayes_net(
    net: BayesNet, *, learnable: Learnable = False, concentration: float = 1.0
) -> Callable[..., None]:
    r"""The program of a Bayesian network, its tables constants, parameters or latents.

    $$x_v \mid x_{\mathrm{pa}(v)} \sim \mathrm{Categorical}(\theta_{v \mid x_{\mathrm{pa}(v)}})$$

    The program is `model(data=None, mask=None)`: `data` are numbers of states, `(row, variable)` in
    the order of `net.variables`, `mask` is True where a cell is observed, the rest is latent (the
    language's `obs_mask`). Sites have the names of the variables and stand in the plate "data";
    without data there is one row and no plate. `net.as_rows` makes both from labels.

    Args:
        net: Structure and tables.
        learnable: False: the tables are constants. "point": they are parameters `{variable}_table`
            that start at the net's tables, a thousandth towards uniform. "dirichlet": their rows
            are latent, Dirichlet a priori, in sites of these names.
        concentration: Of each cell of a table under "dirichlet".

    Returns:
        The program.

    Raises:
        ValueError: A value of `learnable`; a variable's name that the program needs for itself;
            data or mask of another shape. TypeError: data that are no integers.

    Cost: A gather for each variable; the Dirichlet sites have as many elements as the tables.

    References:
        Koller, Friedman: Probabilistic Graphical Models, 2009.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> net = dg.BayesNet.student()
        >>> tree = dg.predict(dg.bayes_net(net), num_samples=500)
        >>> sorted(tree["prior"].data_vars)
        ['SAT', 'difficulty', 'grade', 'intelligence', 'letter']
    """
    check_learnable(learnable, concentration)
    check_sites(net.variables)

    def model(
        data: Int[Array, "N V"] | None = None, mask: Bool[Array, "N V"] | None = None
    ) -> None:
        tables = {
            v: log_table(f"{v}_table", table, learnable, concentration)
            for v, table in net.tables.items()
        }
        if data is None:
            _row(net, tables, None, None)
            return
        check_data(data, mask, net.variables, whole=True)
        with numpyro.plate("data", len(data)):
            _row(net, tables, data, mask)

    return model


def _row(net: BayesNet, tables: dict[str, Array], data: Any, mask: Any) -> None:
    """The sites of one row, or of all rows of the plate at once."""
    values: dict[str, Array] = {}
    column = {v: i for i, v in enumerate(net.variables)}
    for variable in net.order:
        index = tuple(values[p] for p in net.parents[variable])
        given: dict[str, Any] = {"infer": {"enumerate": "parallel"}}
        if data is not None:
            cells = jnp.asarray(data)[:, column[variable]]
            given["obs"] = cells
            if mask is not None:
                seen = jnp.asarray(mask)[:, column[variable]]
                given.update(obs=jnp.where(seen, cells, 0), obs_mask=seen)
        drawn = numpyro.sample(variable, categorical(tables[variable][index]), **given)
        values[variable] = jnp.asarray(drawn)
