"""Variational autoencoders by independent axes: a native program and its amortized guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from deepgen_ppl import discrete_axes, flow_checks, latent_axes, likelihoods, vae_checks
from deepgen_ppl.pyro.nets import MLP, check_registered
from deepgen_ppl.pyro.programs.vae import likelihood as likelihood_
from deepgen_ppl.pyro.programs.vae import posterior as posterior_
from deepgen_ppl.pyro.programs.vae import prior as prior_
from deepgen_ppl.pyro.programs.vae.ladder import BottomUp
from deepgen_ppl.pyro.programs.vae.modules import (
    applied,
    is_distribution,
    joined,
    reference,
    registered,
    values,
)
from deepgen_ppl.pyro.programs.vae.verbs import Verbs


class VAE(Verbs):
    r"""A variational autoencoder: a pair of native programs of `(x, y=None, mask=None)`.

    $$z_n \sim p(z), \quad x_n \mid z_n \sim p(x; f(z_n)), \qquad q(z_n \mid x_n) = q(z; g(x_n))$$

    Prior, likelihood and posterior are chosen one by one. Sites are "z" and "x" in the plate
    "data"; the modules are registered as "encoder", "decoder" and, where they learn anything,
    "prior", "likelihood" and "posterior". It unpacks: `dg.svi(*vae, x)`. Cells that `mask` leaves
    out are missing: the encoder sees zeros there, and they are left out of the density.

    Args:
        encoder: a module or function of the data that gives the numbers of the posterior; or the
            units of the hidden layers of a perceptron to make; or None for a table with the
            posterior of each datum, without an encoder. Several arrays in a tuple are put side by
            side. One that returns a distribution of the language brings its own posterior.
        decoder: the same from latents to the numbers of the likelihood, those of one feature on
            the last axis, or to a distribution of the language.
        features: number of features, or shape of one datum.
        latents: number of latents; of categorical ones variables times states.
        prior: "normal", "mixture", "vamp", "flow", "binary", "categorical", one of `dg.vae` such as
            `dg.vae.MixturePrior(20)`, in layers `dg.vae.HierarchicalPrior((8, 4))`, a distribution,
            or any module that gives one, such as those of `dg.flows`.
        likelihood: "bernoulli", "continuous_bernoulli", "gaussian", "student_t",
            "discretized_logistic", "categorical", "poisson", "negative_binomial", the last two
            also with `"zero_inflated_"` before them; or one of `dg.vae` with options.
        posterior: "diagonal", "full", "flow", "mixture", "binary", "categorical", for priors in
            layers "ladder", or one of `dg.vae` with options. Discrete codes take
            `loss=dg.RelaxedELBO()` and the like.
        context: number of features of conditions `y`, which encoder and decoder then take as a
            second argument, and a prior that has a context too.
        activation: of the perceptrons that are made here.
        seed: seed of the initial weights of what is made here.

    Raises:
        ValueError: sizes that are none, unknown names; at a call, data that do not fit.
        TypeError: options that are of no such kind, or a function around a module, whose
            parameters would not be learned.

    Cost:
        One pass of encoder and decoder over the rows a run.

    References:
        Kingma, Welling: Auto-encoding variational Bayes. ICLR 2014.
        https://arxiv.org/abs/1312.6114

        Rezende, Mohamed, Wierstra: Stochastic backpropagation and approximate inference in deep
        generative models. ICML 2014. https://arxiv.org/abs/1401.4082

        Mattei, Frellsen: MIWAE, deep generative modelling and imputation of incomplete data sets.
        ICML 2019. https://arxiv.org/abs/1812.02633

    Example:
        >>> import deepgen_ppl.pyro as dg
        >>> x = np.random.default_rng(0).integers(0, 2, (50, 6)).astype("float32")
        >>> vae = dg.VAE((16,), (16,), features=6, latents=2)
        >>> fit = dg.svi(*vae, x, num_steps=50, progress=False)
        >>> vae.encode(fit, x).shape, vae.reconstruct(fit, x).shape
        ((50, 2), (50, 6))
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        *,
        features: int | Sequence[int],
        latents: int,
        prior: Any = "normal",
        likelihood: Any = "bernoulli",
        posterior: Any = "diagonal",
        context: int = 0,
        activation: str = "relu",
        seed: int = 0,
    ) -> None:
        self.features = vae_checks.shape("features", features)
        self.latents = flow_checks.whole("latents", latents)
        self.context = flow_checks.whole("context", context, 0)
        self.likelihood = None if likelihood is None else likelihoods.likelihood(likelihood)
        self.posterior = latent_axes.posterior(posterior)
        self.prior = prior_.prior(prior, self.latents, seed + 2)
        vae_checks.check_axes(self.prior, encoder, self.context)
        latent_axes.check_layers(self.prior, self.posterior, self.latents)
        discrete_axes.check_match(self.posterior, self.prior, self.latents)
        size = int(np.prod(self.features))
        made: dict[str, Any] = {"activation": activation, "context": self.context}
        if vae_checks.is_hidden(encoder):
            encoder = self._made_encoder(encoder, seed, made)
        if vae_checks.is_hidden(decoder):
            count = size * vae_checks.known(self.likelihood).outputs
            decoder = MLP(self.bottom, count, decoder, seed=seed + 1, **made)
        vae_checks.check_networks(encoder, decoder)
        own = {} if self.likelihood is None else self.likelihood.own(self.features)
        found = {
            "encoder": encoder,
            "decoder": decoder,
            "prior": prior_.module_of(self.prior, self.latents, self.inputs),
            "posterior": posterior_.flow_of(self.posterior, self.latents),
            "likelihood": values(own),
        }
        self.modules = {name: module for name, module in found.items() if module is not None}
        for name, module in self.modules.items():
            check_registered(name, module)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """Unpack to model and guide."""
        return iter((self.model, self.guide))

    def __repr__(self) -> str:
        name = "its own" if self.likelihood is None else repr(self.likelihood.name)
        prior = getattr(self.prior, "name", type(self.prior).__name__)
        return (
            f"VAE({self.latents} latents of {self.features} features, prior {prior!r}, likelihood "
            f"{name}, posterior {self.posterior.name!r})"
        )

    @property
    def bottom(self) -> int:
        """Number of latents that the decoder sees: all, or the lowest layer of them."""
        return getattr(self.prior, "bottom", self.latents)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one datum as the encoder sees it."""
        states = 0 if self.likelihood is None else self.likelihood.states
        return (*self.features, states) if states else self.features

    def check_data(
        self, x: np.ndarray, y: np.ndarray | None = None, mask: np.ndarray | None = None
    ) -> None:
        """Refuse data that do not fit, before anything is compiled.

        Args:
            x: the rows.
            y: their conditions.
            mask: which cells are observed.

        Raises:
            ValueError: naming shapes, or rows and values.
        """
        vae_checks.check_data(x, mask, self.features, self.likelihood)
        vae_checks.check_context(y, len(x), self.context)

    def model(
        self,
        x: Float[Tensor, "N ..."],
        y: Float[Tensor, " N C"] | None = None,
        mask: Float[Tensor, "N ..."] | None = None,
    ) -> None:
        """Run the generative program.

        Args:
            x: the rows.
            y: their conditions, None without context.
            mask: which cells are observed, all when None.
        """
        with pyro.plate("data", len(x)):
            z: Any = pyro.sample("z", self.prior_at(y))
            fn = self.likelihood_at(z, y)
            rows = likelihood_.as_observed(self.likelihood, x)
            pyro.sample("x", self.observed(fn, mask), obs=rows)

    def guide(
        self,
        x: Float[Tensor, "N ..."],
        y: Float[Tensor, " N C"] | None = None,
        mask: Float[Tensor, "N ..."] | None = None,
    ) -> None:
        """Run the amortized guide.

        Args:
            x: the rows.
            y: their conditions, None without context.
            mask: which cells are observed, all when None.
        """
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.proposal(x, y, mask))

    def proposal(self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """Return the posterior of each datum, its modules registered; for programs of your own."""
        if "encoder" in self.modules:
            inputs = likelihood_.encoded(self.likelihood, x, mask)
            return self._encoded(self._register("encoder", *self._beside), inputs, y)
        parts, count = self._register(*self._beside), self.posterior.outputs(self.latents)
        start = torch.tensor(vae_checks.table(len(x), count), dtype=torch.get_default_dtype())
        raw: Any = pyro.param("table", start.to(x.device))
        vae_checks.check_table(len(raw), len(x))
        return self._native(raw, parts)

    def prior_at(self, y: Tensor | None = None) -> Any:
        """Return the prior, its modules registered; for programs of your own."""
        parts = self._register("prior")
        if isinstance(self.prior, latent_axes.VampPrior):
            parts |= self._register("encoder", "posterior")

        def encode(inputs: Tensor) -> Any:
            return self._encoded(parts, inputs, None)

        like = reference(self.modules)
        return prior_.native(self.prior, parts.get("prior"), self.latents, y, encode, like)

    def likelihood_at(self, z: Float[Tensor, "*batch L"], y: Tensor | None = None) -> Any:
        """Return the distribution of each feature at latents; for programs of your own."""
        parts = self._register("decoder", "likelihood")
        found = applied(parts["decoder"], z[..., : self.bottom], 1, y)
        if is_distribution(found):
            return found
        kind = vae_checks.known(self.likelihood)
        raw, batch = joined(found, new_axis=True), z.shape[:-1]
        shape = vae_checks.check_decoded(raw.shape, batch, self.features, kind.outputs, kind.name)
        return likelihood_.native(kind, raw.reshape(shape), parts.get("likelihood"))

    def _register(self, *names: str) -> dict[str, Any]:
        return {
            name: registered(name, self.modules[name]) for name in names if name in self.modules
        }

    def _encoded(self, parts: dict[str, Any], inputs: Tensor, y: Tensor | None = None) -> Any:
        """Return the posterior at data as the encoder sees them."""
        rank = len(self.inputs)
        found = applied(parts["encoder"], inputs, rank, y)
        if is_distribution(found):
            return found
        raw, count = joined(found, new_axis=False), self.posterior.outputs(self.latents)
        batch, words = inputs.shape[: inputs.dim() - rank], self.posterior.parts(self.latents)
        vae_checks.check_encoded(raw.shape, batch, count, words)
        return self._native(raw, parts)

    def _native(self, raw: Tensor, parts: dict[str, Any]) -> Any:
        """Return the posterior of the encoder's numbers."""
        own = parts.get("posterior"), self.latents, parts.get("prior")
        return posterior_.native(self.posterior, raw, *own)

    @property
    def _beside(self) -> tuple[str, ...]:
        """What a posterior is made of beside the encoder."""
        return ("prior",) if self.posterior.name == "ladder" else ("posterior",)

    def _made_encoder(self, hidden: Any, seed: int, made: dict[str, Any]) -> Any:
        inputs = int(np.prod(self.inputs))
        if self.posterior.name == "ladder" and len(hidden):
            return BottomUp(inputs, self.prior.sizes, hidden, seed=seed, **made)
        return MLP(inputs, self.posterior.outputs(self.latents), hidden, seed=seed, **made)

    def observed(self, fn: Any, mask: Tensor | None) -> Any:
        """Return the distribution of a datum, of its observed cells where some are missing."""
        inner = len(fn.event_shape)
        vae_checks.check_own(tuple(fn.batch_shape), tuple(fn.event_shape), self.features)
        if mask is None:
            return fn.to_event(len(self.features) - inner)
        if inner:
            if not isinstance(fn, dist.Independent) or fn.base_dist.event_shape:
                raise ValueError(vae_checks.joint())
            fn = fn.base_dist
        return fn.mask(mask.bool()).to_event(len(self.features))
