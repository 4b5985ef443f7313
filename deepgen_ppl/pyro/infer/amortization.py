"""How much of an inference gap is the encoder's, and how much the family's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from deepgen_ppl import refinement
from deepgen_ppl.amortization import AmortizationGap, gap_report, given_evidence, weighed
from deepgen_ppl.pyro.infer.refine import CHUNK, Options, Refiner
from deepgen_ppl.pyro.infer.train import mix


def amortization_gap(
    model: Callable,
    guide: Callable,
    fit: Any,
    *data: Any,
    evidence: Any = None,
    num_particles: int = 1000,
    max_steps: int = 5000,
    learning_rate: float = 0.05,
    tolerance: float = 0.005,
    batch_size: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> AmortizationGap:
    r"""Split the gap between log evidence and bound into the encoder's part and the family's.

    $$\log p(x) - \mathcal L[q] = \bigl(\log p(x) - \mathcal L[q^*]\bigr)
      + \bigl(\mathcal L[q^*] - \mathcal L[q]\bigr)$$

    where \(q^*\), the best member of the guide's family for each datum, is found by `refine`, and
    the log evidence by importance sampling from it. Evidence and both bounds are taken at the same
    fresh random numbers, whose noise their differences hardly have.

    Args:
        model: a Pyro model whose latents stand in the data plate.
        guide: its guide, of any family.
        fit: a `Fit`, or its `params`.
        *data: the data, those of training or held out.
        evidence: log p(x) of each row where something better is known than importance sampling:
            an array, or the result of `ais` and its like.
        num_particles: draws of each row behind its bounds and its evidence.
        max_steps: steps after which rows that have not settled stay as they are.
        learning_rate: step size at first, see `refine`.
        tolerance: nats that 50 steps must gain a row, see `refine`.
        batch_size: rows that step together.
        model_kwargs: constants passed by name to model and guide.
        seed: seed of the draws.

    Returns:
        The gaps with their standard errors; printing it shows the table, and `diagnosis` tells
        whose fault it is and what to do.

    Raises:
        ValueError: one draw of one row, evidence of another shape, or what `refine` refuses.
        TypeError: a distribution that cannot be made anew from parameters of each datum.

    Cost:
        That of `refine` to the end, some hundred steps of 8 draws a row, and `num_particles` passes
        through the model under both guides.

    References:
        Cremer, Li, Duvenaud: Inference suboptimality in variational autoencoders. ICML 2018.
        https://arxiv.org/abs/1801.03558

    Example:
        >>> import numpy as np, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0, 1))
        ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 0.2**0.5))
        >>> found = amortization_gap(model, guide, {}, np.array([1.0, -2.0, 0.5]))
        >>> bool(abs(found.amortization - 0.09 * 5.25 / 3 / 0.4) < 0.1)  # 0.3 x off, variance 0.2
        True
    """
    refinement.check_options(None, max_steps, num_particles, learning_rate, tolerance, batch_size)
    refiner = Refiner("amortization_gap", model, guide, fit, data, model_kwargs, seed)
    size = refiner.num_rows
    refinement.check_draws(size, num_particles)
    known = None if evidence is None else given_evidence(evidence, size)
    steps = Options(None, max_steps, Options().num_particles, learning_rate, tolerance, batch_size)
    own = refiner.fit(data, steps)
    length = min(batch_size or CHUNK, size)
    parts = []
    for start in range(0, size, length):
        rows = torch.arange(start, min(start + length, size))
        tables = refiner.rows_of(own.params, rows)
        found = refiner.bounds(tables, rows, mix(seed, 5, start), num_particles)
        parts.append(weighed(*found, known is not None))
    told = own.history["settled"], len(own.losses), *refiner.sizes
    return gap_report(parts, known, *told, num_particles)
