"""Mixtures: a native program with an explicit assignment, for every verb and for EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from jaxtyping import Bool, Float
from torch import Tensor

from deepgen_ppl.mixtures import Layout, Part, layout
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.pyro.programs import assignments
from deepgen_ppl.pyro.programs import components as components_


def mixture(
    components: Any,
    num_components: int | None = None,
    *,
    weights: Any = None,
    priors: Any = None,
    concentration: float = 1.0,
    covariance: str | None = None,
    df: float | None = None,
    num_states: int | None = None,
    floor: float | None = None,
) -> Mixture:
    r"""Make a mixture, a native program `model(x, mask=None)` of rows of one family.

    $$z_n \sim \mathrm{Categorical}(w), \qquad x_n \mid z_n = k \sim p(x \mid \theta_k)$$

    The assignments are the discrete site "assignment" in the plate "data", which every verb sums
    out. Without `priors` the parameters are points that `em`, or `svi(model, model.guide, ...,
    loss=TraceEnum_ELBO())`, learns; with them they are latent sites, for `svi`, `mcmc`,
    `importance` and, at their highest point, `em`. Sites are named "x", "weights" and, by family,

    - "gaussian", "student_t": `loc`, `scale` and, for correlated columns, `correlation_tril`, whose
      product with the scale is the Cholesky factor of the covariance; `df`;
    - "bernoulli", "categorical": `probs`; "poisson": `rate`;
      "negative_binomial": `mean`, `concentration`;
    - any class of distributions of single numbers: its own arguments.

    Args:
        components: the family's name, a class of the language's distributions such as
            `dist.Gamma`, or a list of such distributions, which stay as they are.
        num_components: number K of components.
        weights: "point" (learned, the default), "dirichlet" (the default with priors),
            "stick_breaking" (a Dirichlet process truncated at K), or K fixed weights.
        priors: None for points; True for weak priors, made for columns of spread near one; a dict
            of distributions of the language by parameter, weak ones for the others.
        concentration: of the Dirichlet(c, ..., c) of the weights, or of the sticks' Beta(1, c).
        covariance: of Gaussian and Student-t components: "full", "tied", "diagonal", "spherical".
        df: degrees of freedom of Student-t components; learned when None.
        num_states: number of states of categorical columns.
        floor: added to variances, least probability or rate; 1e-6 when None.

    Returns:
        The program, with `guide`, `responsibilities`, `assign` and `relabel`.

    Raises:
        TypeError: components that are none.
        ValueError: options that do not suit them.

    Cost:
        None until it runs: K log densities of each row.

    References:
        McLachlan, Peel: Finite mixture models. 2000.

        Ishwaran, James: Gibbs sampling methods for stick-breaking priors. JASA 96, 2001.

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> rng = np.random.default_rng(0)
        >>> x = np.concatenate([rng.normal(-3, 1, (100, 2)), rng.normal(3, 1, (100, 2))])
        >>> model = mixture("gaussian", 2, covariance="diagonal")
        >>> fit = dg.em(model, x.astype("float32"), progress=False)
        >>> sorted(fit.params["loc"][:, 0].round().tolist())
        [-3.0, 3.0]
    """
    options = {"covariance": covariance, "df": df, "num_states": num_states, "floor": floor}
    made, fixed = components_.families(components, **options)
    count = fixed if num_components is None else num_components
    if fixed is not None and count != fixed:
        raise ValueError(f"{fixed} components are given, and num_components={count}.")
    priors_ = dict(priors) if isinstance(priors, Mapping) else {} if priors else None
    has_priors = priors_ is not None
    parts = [Part("x", made)]
    closed = components_.conjugates(parts, priors_)
    found = layout(parts, count, weights, concentration, has_priors, closed)
    return Mixture(found, priors_)


class Mixture:
    """A mixture, as `mixture` makes it: a native program, and what is asked of mixtures."""

    assignment = "assignment"

    def __init__(self, layout: Layout, priors: Mapping[str, Any] | None) -> None:
        self.layout, self.priors = layout, priors
        self.num_values = layout.num_components

    def __repr__(self) -> str:
        family = self.layout.parts[0].family.name
        return f"Mixture({self.layout.num_components} {family} components, {self.layout.weights})"

    def __call__(self, x: Float[Tensor, "N ..."], mask: Bool[Tensor, "N ..."] | None = None):
        """Run the program.

        Args:
            x: the rows.
            mask: which cells are observed, all when None.
        """
        values = components_.declare(self.layout, self.priors, x)
        weights = components_.weights(self.layout)
        with pyro.plate("data", len(x)):
            fn: Any = dist.Categorical(probs=weights)
            z: Any = pyro.sample(self.assignment, fn, infer={"enumerate": "parallel"})
            components_.observe(self.layout, values, z, x, mask)

    def named(self, data: Sequence[Any]) -> tuple[Any, Any]:
        """Return x and mask among the data.

        Raises:
            TypeError: there are none, or too many.
        """
        if not 1 <= len(data) <= 2:
            raise TypeError(f"a mixture takes x and, where cells are missing, a mask: {len(data)}.")
        return data[0], data[1] if len(data) > 1 else None

    @property
    def guide(self) -> Callable[..., Any]:
        """A guide without the assignments, which are summed out: empty, or normal with priors."""
        return assignments.guide(self)

    def responsibilities(self, result: Any, *data: Any) -> Float[np.ndarray, "*draws N K"]:
        r"""Return \(p(z_n = k \mid x_n, \theta)\) of every row.

        Args:
            result: a `Fit` of points or a dict of parameters; or a `Posterior`, of whose draws each
                has its own.
            *data: the program's data.

        Returns:
            Shape (N, K), or (chain, draw, N, K) of a posterior.
        """
        return assignments.responsibilities(self, result, data)

    def assign(self, posterior: Posterior, *data: Any, seed: int = 0) -> Posterior:
        """Return a posterior with draws of the assignments and their probabilities.

        Args:
            posterior: draws of the parameters.
            *data: the data that they are of.
            seed: seed of the assignments.

        Returns:
            The same draws, with sites "assignment" (N,) and "responsibilities" (N, K).
        """
        return assignments.assign(self, posterior, data, seed)

    def relabel(self, posterior: Posterior, *data: Any, method: str = "stephens") -> Posterior:
        r"""Give the components of every draw the same names, so that summaries mean something.

        The likelihood does not change when components trade places, so that chains visit up to K!
        copies of one mode. Draws are permuted to agree about which rows each component holds.

        Args:
            posterior: draws of the parameters.
            *data: the data that they are of.
            method: "stephens", or "ecr", which is faster.

        Returns:
            The posterior, permuted; the density of each draw is what it was.

        Raises:
            ValueError: the components differ in their prior or are fixed.

        Cost:
            The responsibilities of all draws are held: chains x draws x N x K numbers.

        References:
            Stephens: Dealing with label switching in mixture models. JRSS B 62, 2000.
        """
        return assignments.relabel(self, posterior, data, method)

    def bridge(self, posterior: Posterior, *data: Any, seed: int = 0) -> Posterior:
        r"""Estimate the log evidence from draws of the posterior, all namings counted.

        Draws are relabelled, so that a normal can be bridged to them; the K! copies of that mode
        that other names give add $\log K!$. Where components overlap so much that no naming is
        clear, compare with `smc`.

        Args:
            posterior: draws of the parameters.
            *data: the data that they are of.
            seed: seed of the proposal.

        Returns:
            The relabelled posterior with its evidence.

        Raises:
            ValueError: the components differ in their prior, as in stick-breaking.

        References:
            Frühwirth-Schnatter: Estimating marginal likelihoods for mixture and Markov switching
            models using bridge sampling techniques. Econometrics Journal 7, 2004.
        """
        return assignments.all_namings(self, posterior, data, seed)
