"""The semi-supervised autoencoder: labels observed of some rows, summed over of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jaxtyping import Float, Int

from deepgen_ppl import flow_checks, label_checks, vae_checks
from deepgen_ppl.numpyro.nets import MLP, check_registered
from deepgen_ppl.numpyro.programs.vae import likelihood as likelihood_
from deepgen_ppl.numpyro.programs.vae.evaluate import array, evaluated
from deepgen_ppl.numpyro.programs.vae.modules import applied, registered
from deepgen_ppl.numpyro.programs.vae.vae import VAE
from deepgen_ppl.numpyro.relaxation import OneHots


class SemiSupervisedVAE:
    r"""A variational autoencoder of classes and styles: a pair of native programs of `(x, y=None)`.

    $$y_n \sim \mathrm{Cat}(1 / C), \quad z_n \sim p(z), \quad x_n \mid y_n, z_n \sim p(x; f(z_n,
    y_n)), \qquad q(y_n, z_n \mid x_n) = q(y_n \mid x_n)\, q(z_n \mid x_n, y_n)$$

    Labels are classes from 0, and -1 where they are not known: there the guide's classifier
    \(q(y \mid x)\) stands for them. Where they are known the guide is sure of them, and the model
    has a factor \(q(y_n \mid x_n)^\alpha\), by which labels teach the classifier. Without `y` no
    label is known and no factor there. Sites are "label" (one-hot), "z", "x" and "taught" in the
    plate "data". It unpacks: `dg.svi(*model, x, y, loss=dg.EnumeratedELBO())` sums over the classes
    of each row; `dg.RelaxedELBO` and the score function of `dg.ELBO` go too. Begin with
    `model.taught_guide`, in which labels alone teach the classifier, and go on from there with
    `params=`: what is not labelled teaches it Bayes' rule of the model, which has to be good first.

    Args:
        encoder: of data and label to the numbers of the posterior of z, as of `VAE`.
        decoder: of z and label to those of the likelihood, as of `VAE`.
        classifier: of the data to a logit of each class: a module or function, or the units of the
            hidden layers of a perceptron to make.
        features: number of features, or shape of one datum.
        latents: number of latents z.
        classes: number C of classes.
        alpha: weight \(\alpha\) of the classifier's term for each row that is labelled; Kingma et
            al. take a tenth of the number of rows by that of the labelled ones.
        prior: of z, as of `VAE`.
        likelihood: as of `VAE`.
        posterior: of z, as of `VAE`.
        activation: of the perceptrons that are made here.
        seed: seed of the initial weights of what is made here.

    Raises:
        ValueError: sizes that are none, unknown names; at a call, labels of no class.
        TypeError: a function around a module, whose parameters would not be learned.

    Cost:
        With `EnumeratedELBO` a pass of encoder and decoder over the rows for each class.

    References:
        Kingma, Rezende, Mohamed, Welling: Semi-supervised learning with deep generative models
        (M2). NeurIPS 2014. https://arxiv.org/abs/1406.5298

    Example:
        >>> import deepgen_ppl.numpyro as dg
        >>> x = np.random.default_rng(0).integers(0, 2, (40, 6)).astype("float32")
        >>> y = np.where(np.arange(40) < 10, x[:, 0], -1).astype(int)
        >>> model = dg.SemiSupervisedVAE((8,), (8,), (8,), features=6, latents=2, classes=2)
        >>> fit = dg.svi(*model, x, y, loss=dg.EnumeratedELBO(), num_steps=20, progress=False)
        >>> model.predict(fit, x).shape
        (40, 2)
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        classifier: Any,
        *,
        features: int | Sequence[int],
        latents: int,
        classes: int,
        alpha: float = 1.0,
        prior: Any = "normal",
        likelihood: Any = "bernoulli",
        posterior: Any = "diagonal",
        activation: str = "relu",
        seed: int = 0,
    ) -> None:
        self.classes = flow_checks.whole("classes", classes, 2)
        self.alpha, self.context = label_checks.check_alpha(alpha), 0
        self.vae = VAE(
            encoder,
            decoder,
            features=features,
            latents=latents,
            prior=prior,
            likelihood=likelihood,
            posterior=posterior,
            context=self.classes,
            activation=activation,
            seed=seed,
        )
        self.features = self.vae.features
        if vae_checks.is_hidden(classifier):
            size = int(np.prod(self.vae.inputs))
            options: dict[str, Any] = {"activation": activation, "seed": seed + 3}
            classifier = MLP(size, self.classes, classifier, **options)
        label_checks.check_classifier(classifier)
        check_registered("classifier", classifier)
        self.classifier = classifier

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """Unpack to model and guide."""
        return iter((self.model, self.guide))

    def __repr__(self) -> str:
        return f"SemiSupervisedVAE({self.classes} classes, alpha {self.alpha:g}, {self.vae!r})"

    def check_data(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Refuse data that do not fit, before anything is compiled.

        Args:
            x: the rows.
            y: their labels, -1 where they are not known.

        Raises:
            ValueError: naming shapes, or rows and values.
        """
        vae_checks.check_data(x, None, self.vae.features, self.vae.likelihood)
        label_checks.check_labels(y, len(x), self.classes)

    def model(self, x: Float[Array, "N ..."], y: Int[Array, " N"] | None = None) -> None:
        """Run the generative program.

        Args:
            x: the rows.
            y: their labels, -1 where they are not known; None where none is.
        """
        logits = None if y is None else self.logits(x)
        with numpyro.plate("data", len(x)):
            label: Any = numpyro.sample("label", OneHots(jnp.zeros((1, self.classes))))
            z: Any = numpyro.sample("z", self.vae.prior_at(label))
            fn = self.vae.observed(self.vae.likelihood_at(z, label), None)
            rows = likelihood_.as_observed(self.vae.likelihood, x)
            numpyro.sample("x", fn, obs=rows)
            if logits is not None and y is not None:
                known, hot = self._known(y)
                taught = jnp.sum(hot * jax.nn.log_softmax(logits, -1), -1)
                numpyro.factor("taught", self.alpha * known * taught)

    def guide(self, x: Float[Array, "N ..."], y: Int[Array, " N"] | None = None) -> None:
        """Run the amortized guide.

        Args:
            x: the rows.
            y: their labels, -1 where they are not known; None where none is.
        """
        self._propose(x, y, self.logits(x))

    def taught_guide(self, x: Float[Array, "N ..."], y: Int[Array, " N"] | None = None) -> None:
        """Run the guide with a classifier that learns from labels alone, as at the begin of a run.

        In the other guide rows without a label draw the classifier to Bayes' rule of the model,
        which is a poor teacher while the model is young. The values of both guides are the same.

        Args:
            x: the rows.
            y: their labels, -1 where they are not known; None where none is.
        """
        logits = self.logits(x)
        self._propose(x, y, jax.lax.stop_gradient(logits))

    def _propose(self, x: Array, y: Array | None, logits: Array) -> None:
        if y is not None:
            known, hot = self._known(y)
            logits = jnp.where(known[:, None], label_checks.CERTAIN * (hot - 1.0), logits)
        with numpyro.plate("data", len(x)):
            label: Any = numpyro.sample("label", OneHots(logits[:, None, :]))
            numpyro.sample("z", self.vae.proposal(x, label))

    def logits(self, x: Float[Array, "N ..."]) -> Float[Array, "N classes"]:
        """Return the classifier's logits, its module registered; for programs of your own."""
        net = registered("classifier", self.classifier)
        inputs = likelihood_.encoded(self.vae.likelihood, x, None)
        found = applied(net, inputs, len(self.vae.inputs), None)
        label_checks.check_logits(found.shape, len(x), self.classes)
        return found

    def predict(self, fit: Any, x: Any) -> Float[np.ndarray, "N classes"]:
        """Return the probability of each class.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
        """
        self.check_data(array(x))

        def rows(x: Any) -> Any:
            return jax.nn.softmax(self.logits(x), -1)

        return evaluated(self, fit, "predict", rows, x, size=min(len(x), 1 << 14))

    def generate(
        self, fit: Any, y: Any, *, mean: bool = False, seed: int = 0
    ) -> Float[np.ndarray, "S ..."]:
        """Draw a new datum of each label.

        Args:
            fit: a `Fit`, or its `params`.
            y: the labels.
            mean: whether the mean of the data at each draw of z is returned.
            seed: seed of the draws.
        """
        hot = self._labelled(y)
        return self.vae.generate(fit, len(hot), hot, mean=mean, seed=seed)

    def encode(self, fit: Any, x: Any, y: Any) -> Float[np.ndarray, "N latents"]:
        """Return the styles of rows of known labels: the mean of the posterior of z.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
            y: their labels.
        """
        return self.vae.encode(fit, x, self._labelled(y))

    def _labelled(self, y: Any) -> np.ndarray:
        labels = np.asarray(y)
        label_checks.check_known(labels, self.classes)
        return np.eye(self.classes, dtype="float32")[labels.astype(int)]

    def _known(self, y: Array) -> tuple[Array, Array]:
        """Return which labels are known, and all of them one-hot."""
        return y >= 0, jax.nn.one_hot(y.astype(int), self.classes)
