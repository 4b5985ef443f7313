"""What a message of a run is: a factor, a point, a flat density; and its log density."""

from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

Message = dict[str, Any]


def is_plate(msg: Message) -> bool:
    """Whether a message asks for the indices of a plate."""
    return isinstance(msg["fn"], _Subsample)


def base_name(fn: Any) -> str:
    """Return the class name of a distribution below masks, expansions and independent dims."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def is_factor(msg: Message) -> bool:
    """Whether a sample message is a `pyro.factor` statement."""
    return base_name(msg["fn"]) == "Unit"


def is_delta(fn: Any) -> bool:
    """Whether a distribution is a point, which other sites may have determined."""
    return base_name(fn) == "Delta"


def is_determined(msg: Message) -> bool:
    """Whether a site is a function of others: a statement of its own, or a reparametrised site.

    Pyro's reparametrisations leave the site behind as a point observed at that very point; its
    density, if it carries one, still counts.
    """
    if msg["infer"].get("_deterministic"):
        return True
    if not msg["is_observed"] or not is_delta(msg["fn"]):
        return False
    fn = msg["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return msg["value"] is fn.v


def is_improper(fn: Any) -> bool:
    """Whether a distribution is flat and cannot be sampled, masked or expanded too."""
    return base_name(fn) == "ImproperUniform"


def log_prob(msg: Message) -> Tensor:
    """Return a sample message's log density, of its batch shape, masked and scaled."""
    value = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
    if msg["mask"] is False:
        return torch.zeros_like(value)
    if isinstance(msg["mask"], Tensor):
        value = torch.where(msg["mask"], value, value.new_zeros(()))
    return msg["scale"] * value
