"""What is asked of a fitted autoencoder: codes, reconstructions, draws, missing cells, evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float

from deepgen_ppl import checks, codes, flow_checks, imputation, vae_checks
from deepgen_ppl.evidence import Evidence, joined
from deepgen_ppl.imputation import Imputation
from deepgen_ppl.likelihoods import Likelihood
from deepgen_ppl.numpyro.infer.importance import importance
from deepgen_ppl.numpyro.infer.refine import refine as refined
from deepgen_ppl.numpyro.infer.smc import smc
from deepgen_ppl.numpyro.layered import LayeredNormal
from deepgen_ppl.numpyro.programs.vae import likelihood as likelihood_
from deepgen_ppl.numpyro.programs.vae.evaluate import array, drawn, evaluated

_CHUNK = 1 << 22
"""Numbers of an output that one chunk may hold."""

_DRAWS = 100
"""Draws by which a mean without closed form is taken."""


class Verbs(ABC):
    """The verbs of a variational autoencoder; each takes the fit."""

    latents: int
    features: tuple[int, ...]
    likelihood: Likelihood | None
    modules: dict[str, Any]

    @abstractmethod
    def model(self, x: Any, y: Any = None, mask: Any = None) -> None:
        """Run the generative program."""

    @abstractmethod
    def guide(self, x: Any, y: Any = None, mask: Any = None) -> None:
        """Run the amortized guide."""

    @abstractmethod
    def check_data(self, x: Any, y: Any = None, mask: Any = None) -> None:
        """Refuse data that do not fit."""

    @abstractmethod
    def proposal(self, x: Any, y: Any, mask: Any) -> dist.Distribution:
        """Return the posterior of each datum, its modules registered."""

    @abstractmethod
    def prior_at(self, y: Any) -> dist.Distribution:
        """Return the prior, its modules registered."""

    @abstractmethod
    def likelihood_at(self, z: Any, y: Any) -> dist.Distribution:
        """Return the distribution of features at latents, its modules registered."""

    def encode(
        self,
        fit: Any,
        x: Any,
        y: Any = None,
        mask: Any = None,
        *,
        num_samples: int | None = None,
        seed: int = 0,
    ) -> Float[np.ndarray, "*draws N latents"]:
        """Return the codes of data: the mean of the posterior, or draws from it.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
            y: their conditions.
            mask: which cells are observed.
            num_samples: number of draws; None for the mean, which is that of 100 draws where the
                posterior is a flow or a ladder.
            seed: seed of the draws.

        Returns:
            Shape (N, latents), or (num_samples, N, latents).
        """
        self._check(x, y, mask)

        def rows(x: Any, y: Any, mask: Any) -> Any:
            fn = self.proposal(x, y, mask)
            if num_samples is not None:
                return drawn(fn, num_samples)
            if isinstance(fn, dist.TransformedDistribution | LayeredNormal):
                return drawn(fn, _DRAWS).mean(0)
            return fn.mean

        size = self._size(self.latents * (num_samples or _DRAWS), x)
        options: dict[str, Any] = {"axis": 0 if num_samples is None else 1, "static": num_samples}
        return evaluated(self, fit, "encode", rows, x, y, mask, size=size, seed=seed, **options)

    def decode(self, fit: Any, z: Any, y: Any = None) -> Float[np.ndarray, "*draws N ..."]:
        """Return the mean of the data at latents.

        Args:
            fit: a `Fit`, or its `params`.
            z: latents, shape (*draws, N, latents).
            y: the conditions of each row.

        Returns:
            Shape (*draws, N, *features); of categorical features the probabilities of the states,
            on a further axis.
        """

        def means(fn: dist.Distribution) -> Any:
            return likelihood_.mean(self.likelihood, fn)

        return self._features(fit, "decode", means, z, y, 0)

    def reconstruct(
        self, fit: Any, x: Any, y: Any = None, mask: Any = None, *, seed: int = 0
    ) -> Float[np.ndarray, "N ..."]:
        """Return the mean of the data at their own codes.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
            y: their conditions.
            mask: which cells are observed.
            seed: seed of the codes, where their mean has no closed form.
        """
        return self.decode(fit, self.encode(fit, x, y, mask, seed=seed), y)

    def generate(
        self, fit: Any, num_samples: int, y: Any = None, *, mean: bool = False, seed: int = 0
    ) -> Float[np.ndarray, "S ..."]:
        """Draw new data.

        Args:
            fit: a `Fit`, or its `params`.
            num_samples: number of draws.
            y: the conditions of each, shape (num_samples, context).
            mean: whether the mean of the data at each draw of the latents is returned.
            seed: seed of the draws.
        """
        flow_checks.whole("num_samples", num_samples)
        if y is not None and len(y) != num_samples:
            raise ValueError(f"num_samples={num_samples}, but y has {len(y)} rows.")

        def latents(index: Any, y: Any) -> Any:
            fn = self.prior_at(y)
            return drawn(fn, *(() if fn.batch_shape else (len(index),)))

        index = np.zeros(num_samples, "float32")
        size, options = self._size(self.latents, index), {"seed": seed}
        z = evaluated(self, fit, "generate", latents, index, y, size=size, **options)
        return self.decode(fit, z, y) if mean else self._draws(fit, z, y, seed)

    def impute(
        self,
        fit: Any,
        x: Any,
        mask: Any,
        y: Any = None,
        *,
        num_samples: int = 100,
        num_particles: int = 1000,
        method: str = "importance",
        refine: int = 0,
        seed: int = 0,
    ) -> Imputation:
        r"""Draw missing cells given the observed ones.

        $$x_{\text{mis}} \sim p(x_{\text{mis}} \mid z), \qquad z \sim p(z \mid x_{\text{obs}})$$

        Latents come from their posterior by one of two methods:

        - "importance": draws of the guide, resampled by their weights; right where the guide
          covers the posterior, which Pareto k of each row tells;
        - "smc": the same draws climb from guide to posterior by `dg.smc`, moved by Hamiltonian
          trajectories on the way; for encoders that have not seen such cells missing.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows; what stands in missing cells does not count.
            mask: which cells are observed.
            y: their conditions.
            num_samples: number of draws of each row.
            num_particles: draws of each row's latents that they are taken from.
            method: one of these.
            refine: steps by which each row's own posterior is refined first, see `dg.refine`.
            seed: seed of the draws.

        Returns:
            The draws, with their means and intervals, a diagnosis, and what tells whether they are
            calibrated.

        Raises:
            ValueError: an unknown method, numbers of draws that do not fit, bad data.

        Cost:
            `num_particles` passes over the rows; by "smc" some hundred times as many.

        References:
            Mattei, Frellsen: MIWAE. ICML 2019. https://arxiv.org/abs/1812.02633
        """
        imputation.check(method, num_samples, num_particles)
        self._check(x, y, mask)
        cells = np.asarray(mask, bool)
        guide, learned = self._refined(fit, (x, y, cells), refine, seed)
        shared: dict[str, Any] = {"num_particles": num_particles, "params": learned, "seed": seed}
        if method == "importance":
            found = importance(self.model, guide, x, y, cells, num_draws=num_samples, **shared)
            z, told = found.draws["z"][0], found.evidence
            k = None if told is None else np.atleast_1d(told.pareto_k)
        else:
            found = smc(self.model, x, y, cells, guide=guide, progress=False, **shared)
            z, k = found.draws["z"][0][imputation.spread_over(num_particles, num_samples)], None
        draws = np.where(cells, np.asarray(x), self._draws(fit, z, y, seed))
        return Imputation(draws, cells, found.diagnose(), k, num_particles, method)

    def interpolate(
        self,
        fit: Any,
        first: Any,
        second: Any,
        *,
        num_steps: int = 8,
        spherical: bool = True,
        y: Any = None,
    ) -> Float[np.ndarray, "T N ..."]:
        """Return the mean of the data on the way between the codes of some rows and of others.

        Args:
            fit: a `Fit`, or its `params`.
            first: rows that the ways begin at.
            second: rows that they end at.
            num_steps: number of points, both ends included.
            spherical: along great circles, or straight.
            y: their conditions.

        References:
            White: Sampling generative networks. 2016. https://arxiv.org/abs/1609.04468
        """
        begin, end = (self.encode(fit, rows, y) for rows in (first, second))
        return self.decode(fit, codes.path(begin, end, num_steps, spherical), y)

    def traverse(
        self,
        fit: Any,
        x: Any,
        dims: Sequence[int] | None = None,
        *,
        span: tuple[float, float] = (-3.0, 3.0),
        num_steps: int = 7,
        y: Any = None,
    ) -> Float[np.ndarray, "dims T N ..."]:
        """Return the mean of the data as one latent after the other moves, the others held.

        Args:
            fit: a `Fit`, or its `params`.
            x: rows whose codes are moved.
            dims: the latents to move, all when None.
            span: first and last value of a latent.
            num_steps: number of values.
            y: their conditions.
        """
        z = self.encode(fit, x, y)
        chosen = range(self.latents) if dims is None else dims
        moved = np.broadcast_to(z, (len(chosen), num_steps, *z.shape)).copy()
        for row, dim in enumerate(chosen):
            moved[row, :, :, dim] = np.linspace(*span, num_steps)[:, None]
        return self.decode(fit, moved, y)

    def log_evidence(
        self,
        fit: Any,
        x: Any,
        y: Any = None,
        mask: Any = None,
        *,
        num_particles: int = 1000,
        refine: int = 0,
        seed: int = 0,
    ) -> Evidence:
        r"""Estimate the log evidence of each row by importance sampling, in bounded memory.

        $$\log \hat p(x_n) = \log \frac1K \sum_k p(x_n, z_k) / q(z_k \mid x_n)$$

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
            y: their conditions.
            mask: which cells are observed.
            num_particles: number K of draws for each row.
            refine: steps by which each row's own posterior is refined first, see `dg.refine`.
            seed: seed of the draws.

        Returns:
            The evidence, with `per_row`, standard errors and Pareto k of each row.

        Cost:
            K passes over the rows. At most 2^23 weights are held at a time.

        References:
            Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. ICLR 2016.
            https://arxiv.org/abs/1509.00519
        """
        checks.check_particles(num_particles)
        self._check(x, y, mask)
        size = min(max((1 << 23) // num_particles, 1), len(x))
        parts = []
        for start, new in codes.blocks(len(x), size):
            rows = slice(start, start + size)
            data = tuple(None if value is None else value[rows] for value in (x, y, mask))
            guide, learned = self._refined(fit, data, refine, seed + start)
            options = {"num_particles": num_particles, "keep_draws": False, "params": learned}
            found = importance(self.model, guide, *data, seed=seed + start, **options).evidence
            parts.append((found, slice(new, None)))  # of the weights nothing is kept
        return joined(parts)

    def anomaly_score(
        self,
        fit: Any,
        x: Any,
        y: Any = None,
        mask: Any = None,
        *,
        method: str = "complexity",
        num_particles: int = 100,
        seed: int = 0,
    ) -> Float[np.ndarray, " N"]:
        r"""Return how unlike the training data each row is; larger is stranger.

        Simple data have high densities whatever the model was trained on, so that the evidence
        alone can rank strange but simple data as the most familiar ones. Methods:

        - "evidence": \(-\log p(x)\), with that failure;
        - "complexity": \(-\log p(x) - L(x)\), L the nats of a general compressor (Serrà et al.);
        - "reconstruction": the squared distance from the reconstruction, summed over features.

        Args:
            fit: a `Fit`, or its `params`.
            x: the rows.
            y: their conditions.
            mask: which cells are observed.
            method: one of these.
            num_particles: draws of the evidence.
            seed: seed of the draws.

        References:
            Nalisnick, Matsukawa, Teh, Gorur, Lakshminarayanan: Do deep generative models know what
            they don't know? ICLR 2019. https://arxiv.org/abs/1810.09136

            Serrà et al.: Input complexity and out-of-distribution detection with likelihood-based
            generative models. ICLR 2020. https://arxiv.org/abs/1909.11480
        """
        flow_checks.choice("method", method, ("evidence", "complexity", "reconstruction"))
        if method == "reconstruction":
            found = self.reconstruct(fit, x, y, mask, seed=seed)
            apart = (found - np.asarray(x)) ** 2 * (1 if mask is None else np.asarray(mask))
            return apart.reshape(len(apart), -1).sum(1)
        evidence = self.log_evidence(fit, x, y, mask, num_particles=num_particles, seed=seed)
        scores = -np.asarray(evidence.per_row)
        return scores - codes.code_lengths(np.asarray(x)) if method == "complexity" else scores

    def _check(self, x: Any, y: Any, mask: Any) -> None:
        self.check_data(*(None if v is None else array(v) for v in (x, y, mask)))

    def _refined(self, fit: Any, data: tuple, num_steps: int, seed: int) -> tuple[Any, Any]:
        """Return the guide and what it has learned, refined where that is asked for."""
        flow_checks.whole("refine", num_steps, 0)
        if not num_steps:
            return self.guide, fit
        found = refined(self.model, self.guide, fit, *data, num_steps=num_steps, seed=seed)
        return found.guide, found

    def _size(self, numbers: int, x: Any) -> int:
        rows = len(x) if "encoder" not in self.modules else max(_CHUNK // max(numbers, 1), 1)
        return min(rows, len(x))

    def _draws(self, fit: Any, z: Any, y: Any, seed: int) -> np.ndarray:
        return self._features(fit, "draw", drawn, z, y, seed)

    def _features(
        self, fit: Any, name: str, of: Callable[..., Any], z: Any, y: Any, seed: int
    ) -> np.ndarray:
        """Return something of the distribution of features at latents (*draws, N, latents)."""
        z = array(z)
        vae_checks.check_latents(z.shape, self.latents)
        rows_first, rank = np.moveaxis(z, -2, 0), z.ndim - 2

        def rows(z: Any, y: Any) -> Any:
            found = of(self.likelihood_at(jnp.moveaxis(z, 0, -2), y))
            return jnp.moveaxis(found, rank, 0)

        numbers = int(np.prod(z.shape[:-2])) * int(np.prod(self.features))
        size = min(max(_CHUNK // numbers, 1), len(rows_first))
        found = evaluated(self, fit, name, rows, rows_first, y, size=size, seed=seed, static=rank)
        return np.moveaxis(found, 0, rank)
