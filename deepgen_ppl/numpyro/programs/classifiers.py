"""Classifiers as programs: naive Bayes, and its mirrors that never model the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from deepgen_ppl.classes import check_network, grouped
from deepgen_ppl.mixtures import Layout, Part, layout
from deepgen_ppl.numpyro.programs import assignments
from deepgen_ppl.numpyro.programs import components as components_
from deepgen_ppl.posterior import Posterior


def naive_bayes(
    features: Any,
    num_classes: int = 2,
    *,
    weights: Any = None,
    priors: Any = None,
    concentration: float = 1.0,
    num_states: int | None = None,
    floor: float | None = None,
) -> NaiveBayes:
    r"""Make a naive Bayes classifier, a native program `model(x, y=None, mask=None)`.

    $$y_n \sim \mathrm{Categorical}(w), \qquad
      x_{nd} \mid y_n = k \sim p_d(x \mid \theta_{kd}) \text{ independently}$$

    The class is the discrete site "y" in the plate "data"; labels are the observed site "label",
    equal to it in rows where they are known. So rows without a label (-1, or no `y` at all) take
    part by their features, and cells that `mask` leaves out are left out of the density.

    Args:
        features: the family of all columns, "bernoulli", "categorical", "poisson",
            "negative_binomial" or "gaussian"; or one name a column; or a dict of names to columns.
            Sites and parameters of several families carry the family's name, as "gaussian_loc".
        num_classes: number of classes.
        weights: of the classes, as those of a `mixture`.
        priors: None for points; True for weak priors; or a dict of distributions by parameter.
            `{"probs": Beta(2, 2)}` with `em` is Laplace's smoothing.
        concentration: of the prior of the weights.
        num_states: number of states of categorical columns.
        floor: added to variances, least probability or rate; 1e-6 when None.

    Returns:
        The program, with `guide`, `probabilities` and `conjugate`.

    Raises:
        TypeError: features that are no families.
        ValueError: families or options that do not suit each other.

    Cost:
        None until it runs: one log density of each row and class.

    References:
        Nigam, McCallum, Thrun, Mitchell: Text classification from labeled and unlabeled documents
        using EM. Machine Learning 39, 2000.

        Ng, Jordan: On discriminative vs. generative classifiers. NIPS 2001.

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x, y = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], "float32"), np.array([1, 1, 0, 0])
        >>> model = naive_bayes("bernoulli", priors={"probs": dist.Beta(2.0, 2.0)})
        >>> fit = dg.em(model, x, y, progress=False)
        >>> model.probabilities(fit, x[:1]).round(2).tolist()
        [[0.25, 0.75]]
    """
    parts = []
    groups = grouped(features)
    for name, columns in groups.items():
        covariance = "diagonal" if name == "gaussian" else None
        states = num_states if name == "categorical" else None
        options = {"covariance": covariance, "num_states": states, "floor": floor}
        made, _ = components_.families(name, **options)
        if made.joint:
            raise ValueError(f"{name} columns are not independent within a class.")
        one = len(groups) == 1
        parts.append(Part("x" if one else name, made, columns, "" if one else f"{name}_"))
    priors_ = dict(priors) if isinstance(priors, Mapping) else {} if priors else None
    closed, has_priors = components_.conjugates(parts, priors_), priors_ is not None
    found = layout(parts, num_classes, weights, concentration, has_priors, closed)
    return NaiveBayes(found, priors_)


def logistic_regression(num_classes: int = 2, *, prior_scale: float | None = 1.0) -> Discriminative:
    r"""Make a logistic regression, a native program `model(x, y=None)` of classes given features.

    $$y_n \mid x_n \sim \mathrm{Categorical}(\mathrm{softmax}(x_n W + b))$$

    Args:
        num_classes: number of classes.
        prior_scale: of the normal priors of "weight" and "bias"; None for points.

    Returns:
        The program, with `guide` and `probabilities`.

    Raises:
        ValueError: fewer than two classes, or a scale that is none.

    Cost:
        One product of (N, D) and (D, C) a run.

    References:
        Ng, Jordan: On discriminative vs. generative classifiers. NIPS 2001.

    Example:
        >>> logistic_regression(3)
        Discriminative(3 classes, hidden (), priors of scale 1)
    """
    check_network(num_classes, (), prior_scale)
    return Discriminative(num_classes, (), prior_scale)


def neural_classifier(
    num_classes: int = 2, *, hidden: Sequence[int] = (32,), prior_scale: float | None = None
) -> Discriminative:
    r"""Make a neural classifier, a native program `model(x, y=None)` of classes given features.

    $$y_n \mid x_n \sim \mathrm{Categorical}(\mathrm{softmax}(f(x_n))), \qquad
      f \text{ a network of } \tanh \text{ layers}$$

    Args:
        num_classes: number of classes.
        hidden: sizes of the hidden layers.
        prior_scale: of the normal priors of weights and biases, divided by the root of the number
            of inputs for weights; None for points.

    Returns:
        The program, with `guide` and `probabilities`. Parameters are called "weight_0", "bias_0",
        "weight_1" and so on.

    Raises:
        ValueError: sizes or a scale that are none.

    Cost:
        A pass of the network over the rows a run.

    References:
        Neal: Bayesian learning for neural networks. 1996.

    Example:
        >>> neural_classifier(2, hidden=(8, 8))
        Discriminative(2 classes, hidden (8, 8))
    """
    check_network(num_classes, hidden, prior_scale)
    return Discriminative(num_classes, tuple(hidden), prior_scale)


class NaiveBayes:
    """A naive Bayes classifier, as `naive_bayes` makes it."""

    assignment = "y"

    def __init__(self, layout: Layout, priors: Mapping[str, Any] | None) -> None:
        self.layout, self.priors = layout, priors
        self.num_values = layout.num_components

    def __repr__(self) -> str:
        names = ", ".join(part.family.name for part in self.layout.parts)
        return f"NaiveBayes({self.num_values} classes, {names})"

    def __call__(
        self,
        x: Float[Array, "N ..."],
        y: Int[Array, " N"] | None = None,
        mask: Bool[Array, "N ..."] | None = None,
    ) -> None:
        """Run the program.

        Args:
            x: features.
            y: classes, -1 where they are unknown; None where all are.
            mask: which cells are observed, all when None.
        """
        values = components_.declare(self.layout, self.priors, x)
        weights = components_.weights(self.layout)
        with numpyro.plate("data", len(x)):
            fn: Any = dist.Categorical(probs=weights)
            z: Any = numpyro.sample(self.assignment, fn, infer={"enumerate": "parallel"})
            if y is not None:
                equal = dist.Delta(z.astype(x.dtype)).mask(y >= 0)
                numpyro.sample("label", equal, obs=y.astype(x.dtype))
            components_.observe(self.layout, values, z, x, mask)

    def unlabelled(self, x: Any, y: Any = None, mask: Any = None) -> None:
        """Run the program without its labels."""
        self(x, None, mask)

    def named(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """Return x, mask and y among the data.

        Raises:
            TypeError: there are none, or too many.
        """
        if not 1 <= len(data) <= 3:
            raise TypeError(f"naive Bayes takes x, y and a mask, and was given {len(data)} arrays.")
        x, y, mask = (*data, None, None)[:3]
        return x, mask, y

    @property
    def guide(self) -> Callable[..., Any]:
        """A guide without the classes, which are summed out: empty, or normal with priors."""
        return assignments.guide(self)

    def probabilities(
        self,
        result: Any,
        x: Any,
        mask: Any = None,
        *,
        num_samples: int = 200,
        seed: int = 0,
    ) -> Float[np.ndarray, "N C"]:
        r"""Return the probabilities of the classes of new rows.

        $$p(y \mid x) = \mathbb E_\theta\bigl[p(y \mid x, \theta)\bigr], \qquad
          p(y \mid x, \theta) \propto p(y \mid \theta)\, p(x \mid y, \theta)$$

        Args:
            result: a `Fit`, a `Posterior`, or a dict of parameters.
            x: features.
            mask: which cells are observed, all when None.
            num_samples: draws of a posterior, or of a fitted guide, to average over.
            seed: seed of a guide's draws.
        """
        return assignments.probabilities(self, result, (x, None, mask), num_samples, seed)

    def conjugate(
        self, x: Any, y: Any, mask: Any = None, *, num_samples: int = 1000, seed: int = 0
    ) -> Posterior:
        r"""Learn in closed form: draw from the posterior and give the evidence exactly.

        Args:
            x: features: binary, states or counts, under their conjugate priors.
            y: the class of every row.
            mask: which cells are observed, all when None.
            num_samples: number of independent draws.
            seed: seed of the draws.

        Returns:
            The posterior, whose `evidence` is $\log p(x, y)$.

        Raises:
            ValueError: priors that are not conjugate, or a row without a label.

        Cost:
            One pass over the data.
        """
        return assignments.conjugate(self, (x, y, mask), num_samples, seed)


class Discriminative:
    """A classifier of features that it does not model: logistic regression or a network."""

    assignment = "y"
    layout = None

    def __init__(self, num_classes: int, hidden: tuple[int, ...], scale: float | None) -> None:
        self.num_values, self.hidden, self.prior_scale = num_classes, hidden, scale
        self.priors = None if scale is None else {"scale": scale}

    def __repr__(self) -> str:
        priors = "" if self.prior_scale is None else f", priors of scale {self.prior_scale:g}"
        return f"Discriminative({self.num_values} classes, hidden {self.hidden}{priors})"

    def __call__(self, x: Float[Array, "N D"], y: Int[Array, " N"] | None = None) -> None:
        """Run the program.

        Args:
            x: features.
            y: classes; rows of an unknown one, -1, do not count. None to have them drawn.
        """
        logits = self._logits(x)
        with numpyro.plate("data", len(x)):
            fn: Any = dist.Categorical(logits=logits)
            if y is None:
                numpyro.sample("y", fn, infer={"enumerate": "parallel"})
            else:
                numpyro.sample("y", fn.mask(y >= 0), obs=jnp.maximum(y, 0))

    @property
    def guide(self) -> Callable[..., Any]:
        """A guide of weights and biases: empty where they are points, or normal."""
        return assignments.guide(self)

    def probabilities(
        self, result: Any, x: Any, *, num_samples: int = 200, seed: int = 0
    ) -> Float[np.ndarray, "N C"]:
        """Return the probabilities of the classes of new rows.

        Args:
            result: a `Fit`, a `Posterior`, or a dict of parameters.
            x: features.
            num_samples: draws of a posterior, or of a fitted guide, to average over.
            seed: seed of a guide's draws.
        """
        return assignments.probabilities(self, result, (x, None), num_samples, seed)

    def _logits(self, x: Array) -> Array:
        sizes = (x.shape[-1], *self.hidden, self.num_values)
        value: Any = jnp.asarray(x, jnp.result_type(float))
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            tag = f"_{layer}" if self.hidden else ""
            weight = self._declare("weight" + tag, (inputs, outputs), inputs)
            value = value @ weight + self._declare("bias" + tag, (outputs,), 1)
            value = jnp.tanh(value) if layer < len(self.hidden) else value
        return value

    def _declare(self, name: str, shape: tuple[int, ...], inputs: int) -> Any:
        root = inputs**0.5 if self.hidden else 1.0
        if self.prior_scale is None:
            spread = inputs**-0.5 if len(shape) > 1 else 0.0
            return numpyro.param(name, lambda key: spread * jax.random.normal(key, shape))
        prior: Any = dist.Normal(0.0, self.prior_scale / root).expand(shape)
        return numpyro.sample(name, prior.to_event(len(shape)))
