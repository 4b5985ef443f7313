"""The tables of a Bayesian network from rows with missing cells, by expectation maximisation."""

from typing import Any

from deepgen_ppl import net_learning
from deepgen_ppl.bayes_net import BayesNet
from deepgen_ppl.net_learning import NetFit
from deepgen_ppl.numpyro.infer.exact import exact


def learn_bayes_net(
    net: BayesNet,
    rows: Any,
    mask: Any = None,
    *,
    pseudocount: float = 0.0,
    jitter: float = 0.0,
    num_steps: int = 200,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> NetFit:
    r"""Learn the tables of a network from rows with missing cells, by expectation maximisation.

    $$\theta_{v \mid u} \propto a + \sum_n p(x_v, x_u \mid \text{observed cells of row } n)$$

    Expected counts are exact. Every step raises the log probability of the observed cells, and what
    is found is right where cells are missing at random: whether a cell is missing may depend on
    what is observed in its row, and on nothing else. Without missing cells this is counting.

    Args:
        net: The structure, and the tables that it starts from.
        rows: `(row, variable)`, numbers of states or labels; masked cells, None and "" are missing.
        mask: True where a cell is observed, `(row, variable)`, beside what rows say themselves.
        pseudocount: $a$, added to every expected count: the mode under $\mathrm{Dirichlet}(1 + a)$
            rows.
        jitter: Share of the first tables that is random. A variable that is never observed needs
            some: else its states stay alike.
        num_steps: At most so many steps.
        tolerance: A gain per row, in nats, at or below which it stops. In single precision gains
            are lost in rounding at some 1e-7 of the log likelihood, and it stops there.
        seed: Seed of the jitter.

    Returns:
        The network and its log likelihoods, step by step.

    Raises:
        ValueError: A value outside of the states, by variable and row; rows that are impossible
            under the first tables; a graph that is too wide to be summed out.

    Cost: A pass of `exact` over the different rows with missing cells in each step.

    References:
        Lauritzen: The EM algorithm for graphical association models with missing data.
        Computational Statistics and Data Analysis 19(2), 1995.
        Rubin: Inference and missing data. Biometrika 63(3), 1976.

    Example:
        >>> net = BayesNet.student()
        >>> rows = net.decode(net.sample(500, seed=0))
        >>> rows[::2, 2] = None  # every other grade is lost
        >>> fit = learn_bayes_net(net, rows, num_steps=5)
        >>> fit.net.tables["grade"].shape, bool(fit.log_likelihoods[-1] > fit.log_likelihoods[0])
        ((2, 2, 3), True)
    """
    return net_learning.em(
        net, rows, mask, exact, pseudocount=pseudocount, jitter=jitter, num_steps=num_steps,
        tolerance=tolerance, seed=seed,
    )  # fmt: skip
