"""Options of the chains that contrastive training keeps."""

from __future__ import annotations

from typing import NamedTuple

from deepgen_ppl.energy_checks import check_choice, check_count

STARTS = ("data", "base")


def check_buffer(buffer_size: object, num_chains: int, restart: float, persistent: bool) -> None:
    """Refuse a buffer that is smaller than what moves, and options that need persistent chains.

    Raises:
        ValueError: naming what was given.
    """
    if not 0.0 <= restart <= 1.0:
        raise ValueError(f"restart must be a probability, got {restart!r}.")
    if buffer_size is None:
        return
    check_count("buffer_size", buffer_size)
    if not persistent:
        raise ValueError("buffer_size keeps persistent chains: pass persistent=True with it.")
    if isinstance(buffer_size, int) and buffer_size < num_chains:
        raise ValueError(
            f"buffer_size={buffer_size} is less than the num_chains={num_chains} that move at each "
            "step."
        )


class ChainOptions(NamedTuple):
    """How the chains of a contrastive run are kept.

    Attributes:
        persistent: whether they go on from step to step.
        num_chains: chains that move at each step.
        chain_steps: moves of each.
        start: where they set out.
        buffer_size: chains that are kept.
        restart: probability that a chain sets out anew.
    """

    persistent: bool
    num_chains: int
    chain_steps: int
    start: str
    buffer_size: int
    restart: float


def chain_options(
    persistent: bool,
    num_chains: int,
    chain_steps: int,
    start: str,
    buffer_size: int | None,
    restart: float,
) -> ChainOptions:
    """Return options of chains, checked.

    Args:
        persistent: whether chains go on from step to step.
        num_chains: chains that move at each step.
        chain_steps: moves of each.
        start: where they set out.
        buffer_size: chains that are kept, as many as move when None.
        restart: probability that a chain sets out anew.

    Raises:
        ValueError: naming the option that does not fit.

    Example:
        >>> chain_options(True, 10, 1, "data", None, 0.0).buffer_size
        10
    """
    check_count("num_chains", num_chains)
    check_count("chain_steps", chain_steps)
    check_choice("start", start, STARTS)
    check_buffer(buffer_size, num_chains, restart, persistent)
    size = buffer_size or num_chains
    return ChainOptions(persistent, num_chains, chain_steps, start, size, float(restart))
