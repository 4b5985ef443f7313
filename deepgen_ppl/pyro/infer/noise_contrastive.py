"""The verb `noise_contrastive`: unnormalised densities told apart from noise, log Z along."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from deepgen_ppl import energy_checks
from deepgen_ppl.evidence import evidence
from deepgen_ppl.loop import Progress
from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import handlers
from deepgen_ppl.pyro.infer.fit import Fit
from deepgen_ppl.pyro.infer.learn import Asked, learn, program_of, start_values, values_of
from deepgen_ppl.pyro.infer.phases import check_data, positive_loss, read_phases
from deepgen_ppl.pyro.parameters import forked_rng, private_store
from deepgen_ppl.pyro.program import log_weights

_LOG_Z, _NOISE = "log_z", "noise"
_WEIGHED = 4000


def noise_contrastive(
    model: Any,
    noise: Any,
    *data: Any,
    noise_ratio: int = 1,
    train_noise: bool = False,
    num_steps: int = 2000,
    batch_size: int | None = None,
    optim: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    progress: bool = True,
    clip_norm: float | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Any = None,
    seed: int = 0,
) -> Fit:
    r"""Fit an unnormalised density, and its log Z, by telling the data apart from noise.

    \[ \max_{\theta, \log Z} \; \mathbb E_{x} \log \sigma(G(x) - \log \nu)
       + \nu \, \mathbb E_{y \sim q} \log \sigma(\log \nu - G(y)), \qquad
       G(x) = \log p^*_\theta(x) - \log Z - \log q(x) \]

    Data may be discrete; hidden sites of the program are summed out. With a flow trained along,
    which takes the other side of the game, it is flow contrastive estimation.

    Args:
        model: a program with factors, whose first data argument is its visible site, or a ready
            energy.
        noise: q, a distribution over one row, or a module that gives one, such as a fitted flow.
        *data: arrays whose leading axis is the data axis, scalars or None.
        noise_ratio: draws nu of the noise for each datum.
        train_noise: whether the parameters of the noise, a module, are learned against the model,
            in place.
        num_steps: number of gradient steps.
        batch_size: rows B of a minibatch, None for all rows at every step.
        optim: a torch optimizer class, a function of the parameters that makes one, or an optimizer
            of Pyro; None is Adam, 1e-3.
        checkpoint: file that keeps the run; a run that finds it resumes exactly.
        callbacks: functions of a `Progress`, called a hundred times a run; a truthy answer stops.
        progress: whether to show a bar.
        clip_norm: largest Euclidean norm of the gradient.
        model_kwargs: constants passed by name.
        params: values to start from, by name, or a `Fit`.
        seed: seeds initial values, batches and noise.

    Returns:
        The fit. `params["log_z"]` is log Z as it was learned; `evidence` estimates it anew by
        importance sampling from the noise, with a standard error, for `with_log_z`.

    Raises:
        TypeError: the noise cannot be drawn and scored. ValueError: it has another shape than a
            row of the data; what `contrastive` refuses.
        NonFiniteError: the loss turned non-finite.

    Cost:
        1 + nu densities of model and noise for each datum and step.

    References:
        Gutmann and Hyvarinen: Noise-contrastive estimation of unnormalized statistical models.
        JMLR 13, 2012.

        Gao, Nijkamp, Kingma, Xu, Dai, Wu: Flow contrastive estimation of energy-based models. CVPR
        2020. https://arxiv.org/abs/1912.00589

    Example:
        >>> import functools, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     rate = pyro.param("rate", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         x = pyro.sample("x", dist.Normal(0.0, 2.0), obs=x)
        ...         pyro.factor("energy", -0.5 * rate * x**2)
        >>> x = np.random.default_rng(0).normal(size=1000)
        >>> fit = noise_contrastive(
        ...     model, dist.Normal(0.0, 1.5), x, num_steps=400, progress=False,
        ...     optim=functools.partial(torch.optim.Adam, lr=0.02),
        ... )
        >>> bool(abs(fit.params["log_z"] - fit.evidence.log_evidence) < 0.1)
        True
    """
    energy_checks.check_count("noise_ratio", noise_ratio)
    asked = Asked(num_steps, batch_size, optim, clip_norm, checkpoint, callbacks, progress,
                  model_kwargs, params, seed)  # fmt: skip
    with private_store(), forked_rng(seed):
        return _fit(model, noise, data, asked, noise_ratio, train_noise)


def _fit(
    model: Any, noise: Any, data: Sequence[Any], asked: Asked, noise_ratio: int, train_noise: bool
) -> Fit:
    program, _ = program_of(model)
    phases = read_phases(
        program, None, data, negative=None, positive="exact", params=asked.start,
        model_kwargs=asked.model_kwargs, batch_size=asked.batch_size, seed=asked.seed,
    )  # fmt: skip
    pair = phases.pair
    size = None if asked.batch_size == pair.num_rows else asked.batch_size
    asked = asked._replace(batch_size=size)
    leaves = start_values(pair, asked)
    tensors = data_.to_tensors(data, next(iter(leaves.values())).device)
    check_data(phases, tensors, values_of(pair, leaves))
    positive_loss(phases, values_of(pair, leaves), tensors, size)  # how hidden sites are summed
    own = dict(noise.named_parameters()) if train_noise and isinstance(noise, nn.Module) else {}

    def density(flipped: Mapping[str, Tensor] | None) -> Any:
        if not flipped:
            return energy_checks.noise_distribution(noise)
        return torch.func.functional_call(noise, dict(flipped), ())

    about = density(None)
    shape = (*about.batch_shape, *about.event_shape)
    energy_checks.check_noise_shape(shape, tensors[0].shape[1:])
    log_ratio = float(np.log(noise_ratio))

    def score(params: Mapping[str, Tensor], batch: Sequence[Any], x: Tensor) -> Tensor:
        return log_weights(pair, params, (x, *batch[1:])).rows

    def total(q: Any, x: Tensor) -> Tensor:
        return q.log_prob(x).reshape(len(x), -1).sum(-1)

    def loss(leaves: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        params, log_z = values_of(pair, leaves), leaves[_LOG_Z]
        batch = data_.take(tensors, rows)
        # The noise plays against the model: the same loss, its gradient turned round.
        flipped = {n: 2.0 * leaves[f"{_NOISE}.{n}"].detach() - leaves[f"{_NOISE}.{n}"] for n in own}
        x, q = batch[0], density(flipped)
        told = score(params, batch, x) - log_z - total(q, x) - log_ratio
        value = -logsigmoid(told).mean()
        for _ in range(noise_ratio):
            y = _drawn(q, len(x), bool(own)).to(x.dtype)
            told = score(params, batch, y) - log_z - total(q, y) - log_ratio
            value = value - logsigmoid(-told).mean()
        return max(pair.num_rows or 1, 1) * value

    extra = {_LOG_Z: torch.zeros((), requires_grad=True)}
    extra |= {f"{_NOISE}.{name}": leaf for name, leaf in own.items()}
    settings = {"noise_ratio": noise_ratio, "train_noise": train_noise}
    fit, result = learn(
        "noise_contrastive", pair, (program, None), data, loss, leaves, {}, asked,
        settings=settings, extra=extra,
    )  # fmt: skip
    if result.failed is not None:
        raise energy_checks.non_finite_energy(result.failed, None, result.rows, fit)
    found, q, count = [], density(None), len(tensors[0])
    trained = values_of(pair, leaves)
    with torch.no_grad(), handlers.validation(False):
        for _ in range(-(-_WEIGHED // count)):
            y = q.sample((count,)).to(tensors[0].dtype)
            found.append(score(trained, tensors, y) - total(q, y))
    log_w = torch.cat(found).double().cpu().numpy()
    fit.evidence = evidence(log_w, method="importance sampling from the noise")
    return fit


def _drawn(q: Any, count: int, learned: bool) -> Tensor:
    """Return draws, with gradients where the noise is learned."""
    return q.rsample((count,)) if learned and q.has_rsample else q.sample((count,)).detach()
