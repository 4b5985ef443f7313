"""The evaluators of a posterior: predictive draws, log likelihood and log prior of its draws."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl.pyro import data as data_
from deepgen_ppl.pyro import graphs, handlers
from deepgen_ppl.pyro import program as program_
from deepgen_ppl.pyro.parameters import forked_rng, preserved, private_store

Draws = Mapping[str, Any]

_CHUNK_NUMBERS = 2**22
_CHUNK_DRAWS = 512
_SMALL = 2**20


def over_draws(
    fn: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    draws: Draws,
    seed: int | None = None,
    copies: int = 1,
    pure: bool = False,
    chunk: int = _CHUNK_DRAWS,
) -> dict[str, np.ndarray]:
    """Map a function of one draw over all draws, vectorised where the program allows it, in chunks.

    Args:
        fn: One draw of each site to named tensors.
        draws: Arrays of shape `(S, ...)`.
        seed: Seed of what `fn` draws itself.
        copies: How many arrays of the size of its result it holds at a time.
        pure: Whether `fn` draws nothing, so that its flat graph may stand in for it.
        chunk: Most draws that are mapped together.

    Returns:
        Arrays of shape `(S, ...)` on the host.
    """
    tensors = {name: torch.as_tensor(value) for name, value in draws.items()}
    size = len(next(iter(tensors.values())))
    mapped = torch.func.vmap(fn, randomness="different")
    parts: list[dict[str, Tensor]] = []
    first = {name: value[0] for name, value in tensors.items()}
    with ExitStack() as stack:
        for context in (forked_rng(seed), torch.no_grad(), handlers.validation(False)):
            stack.enter_context(context)
        stack.enter_context(private_store())
        numbers = copies * sum(value.numel() for value in fn(first).values())
        chunk = max(1, min(size, chunk, _CHUNK_NUMBERS // max(numbers, 1)))
        stack.enter_context(few_threads(chunk * numbers))
        for start in range(0, size, chunk):
            part = {name: value[start : start + chunk] for name, value in tensors.items()}
            if mapped is not None:
                try:
                    parts.append({name: value.cpu() for name, value in mapped(part).items()})
                    continue
                except Exception:  # control flow, `.item()`, some samplers: one by one
                    mapped = _traced(fn, first, part) if pure else None
                    if mapped is not None:
                        parts.append({n: value.cpu() for n, value in mapped(part).items()})
                        continue
            parts.append(_one_by_one(fn, part))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _traced(
    fn: Callable[..., Mapping[str, Tensor]], first: dict[str, Tensor], part: dict[str, Tensor]
) -> Callable[..., Any] | None:
    """Return a function's flat graph under vmap, where it can be traced and agrees with it."""
    other = {name: value[-1] for name, value in part.items()}
    try:
        graph = graphs.traced(fn, {name: value.clone() for name, value in first.items()})
        wanted, mapped = fn(other), torch.func.vmap(graph)
        found = mapped({name: value.unsqueeze(0) for name, value in other.items()})
        agree = all(torch.allclose(found[n][0], wanted[n], rtol=1e-3, atol=1e-3) for n in wanted)
    except Exception:  # what cannot be traced either runs one by one
        return None
    return mapped if agree else None


@contextmanager
def few_threads(numbers: int) -> Iterator[None]:
    """Keep torch to one thread inside where arrays are small: waking others costs more there."""
    threads = torch.get_num_threads()
    try:
        if numbers < _SMALL:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def _one_by_one(
    fn: Callable[..., Mapping[str, Tensor]], draws: dict[str, Tensor]
) -> dict[str, Tensor]:
    size = len(next(iter(draws.values())))
    found = [fn({name: value[i] for name, value in draws.items()}) for i in range(size)]
    return {name: torch.stack([f[name] for f in found]).cpu() for name in found[0]}


def fields(
    program: program_.Program, params: Mapping[str, Tensor], data: Sequence[Any], *, seed: int = 0
) -> dict[str, Any]:
    """Return what a `Posterior` says beside its draws: dims, data, parameters and evaluators.

    Args:
        program: The model, read at the data.
        params: Constrained values of its parameters.
        data: The data, tensors.
        seed: Seed of the predictive draws.

    Returns:
        Keyword arguments of `Posterior`.
    """
    with forked_rng(seed), private_store(), torch.no_grad(), handlers.validation(False):
        seen = program_.simulate(program, params, data, redraw=(), stand_in=True)
    observed = {name: seen[name] for name in program.observed}
    names = data_.argument_names(program.fn, len(program.args), len(data))
    named = zip(names, data, strict=True)
    constant = {
        name: value
        for name, value in named
        if isinstance(value, Tensor) and not any(_same(value, other) for other in observed.values())
    }
    constant = {name: value for name, value in constant.items() if name not in program.sites}
    dims = {name: site.plates for name, site in program.sites.items()}
    if program.data_plates:
        rows = program.num_rows
        long = [n for n, v in constant.items() if data_.has_rows(v) and len(v) == rows]
        dims |= dict.fromkeys(long, program.data_plates[:1])
    return {
        "dims": dims,
        "observed_data": _host(observed),
        "constant_data": _host(constant),
        "params": _host(params),
        "evaluators": evaluators(program, params, data, seed=seed),
    }


def evaluators(
    program: program_.Program, params: Mapping[str, Tensor], data: Sequence[Any], *, seed: int = 0
) -> dict[str, Callable[[Draws], dict[str, np.ndarray]]]:
    r"""Return the functions from flat draws to the groups of a DataTree.

    `log_likelihood` is the log density of each datum given the draw's shared sites,

    \[ \log p(x_i \mid \theta) = \log \int p(x_i, z_i \mid \theta)\, dz_i, \]

    with latents local to a datum integrated out (discrete ones summed, continuous ones by
    importance sampling from a Student-t fitted to that datum's draws), so that leaving a datum out
    means what it says. Without local latents it is the log density of each observed site. Discrete
    latents that rows share leave the group out.

    Args:
        program: The model, read at the data.
        params: Constrained values of its parameters.
        data: The data, tensors.
        seed: Seed of random draws.

    Cost:
        One run of the model for each draw, vectorised; 128 for each draw with continuous local
        latents.

    References:
        Vehtari, Mononen, Tolvanen, Sivula, Winther: Bayesian leave-one-out cross-validation
        approximations for Gaussian latent variable models. JMLR 17, 2016.
        https://arxiv.org/abs/1412.7461
    """
    latents = program.latents
    discrete = [site for site in latents.values() if site.is_discrete]

    def kept(draws: Draws) -> dict[str, Any]:
        return {name: value for name, value in draws.items() if name in latents}

    def posterior_predictive(draws: Draws) -> dict[str, np.ndarray]:
        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            found = program_.simulate(program, params, data, values)
            return {name: found[name] for name in program.observed}

        return _preserving(program, one, kept(draws), seed)

    def log_prior(draws: Draws) -> dict[str, np.ndarray]:
        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            found = program_.log_probs(program, params, values, data)
            return {name: found[name] for name in latents if name in values}

        return _preserving(program, one, kept(draws), seed)

    def log_likelihood(draws: Draws) -> dict[str, np.ndarray]:
        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            found = program_.log_probs(program, params, values, data)
            return {name: found[name] for name in program.observed}

        return _preserving(program, one, kept(draws), seed)

    def integrated(draws: Draws) -> dict[str, np.ndarray]:
        given = kept(draws)
        if not given:  # all is summed out, and the draws only tell how many answers are wanted
            given = {"draw number": np.arange(len(next(iter(draws.values()))))}
        from deepgen_ppl.pyro.infer import local

        return local.log_evidence(program, params, data, given, seed)

    def prior_of(names: Sequence[str]) -> Callable[[Draws], dict[str, np.ndarray]]:
        def prior(draws: Draws) -> dict[str, np.ndarray]:
            counter = torch.arange(len(next(iter(draws.values()))))

            def one(_: dict[str, Tensor]) -> dict[str, Tensor]:
                found = program_.simulate(program, params, data)
                return {name: found[name] for name in names}

            return _preserving(program, one, {"_": counter}, seed)

        return prior

    made: dict[str, Callable[[Draws], dict[str, np.ndarray]]] = {"log_prior": log_prior}
    if program.observed:
        made["posterior_predictive"] = posterior_predictive
        rows_own = any(latents[name].row_plate is not None for name in latents)
        given_in_draws = not discrete
        if rows_own and all(s.row_plate is not None and s.enumerable for s in discrete):
            made["log_likelihood"] = integrated
        elif given_in_draws:
            made["log_likelihood"] = log_likelihood
    if not program.factors:
        deterministic = [n for n, s in program.sites.items() if s.role == "deterministic"]
        made["prior"] = prior_of([*latents, *deterministic])
        if program.observed:
            made["prior_predictive"] = prior_of(list(program.observed))
    return made


def _preserving(
    program: program_.Program, fn: Callable[..., Any], draws: Draws, seed: int
) -> dict[str, np.ndarray]:
    with preserved(program.modules):
        return over_draws(fn, draws, seed)


def _same(first: Any, second: Any) -> bool:
    return first is second or (
        isinstance(second, Tensor)
        and first.shape == second.shape
        and bool(torch.equal(first, second.to(first)))
    )


def _host(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: torch.as_tensor(value).detach().cpu().numpy() for name, value in values.items()}


def restoring(restore: Callable[..., Any], evaluators: Mapping[str, Any]) -> dict[str, Any]:
    """Let evaluators see draws in the types that the program has them in."""

    def restoring(evaluator: Callable[..., Any]) -> Callable[..., Any]:
        return lambda draws: evaluator(restore(draws))

    return {group: restoring(evaluator) for group, evaluator in evaluators.items()}
