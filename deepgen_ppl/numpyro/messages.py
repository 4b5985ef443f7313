"""What a message of a run is: a factor, a point, a flat density."""

from typing import Any

import numpyro.distributions as dist

Message = dict[str, Any]


def base(fn: dist.Distribution) -> dist.Distribution:
    """Return a distribution below masks, expansions and independent dims."""
    while isinstance(fn, dist.ExpandedDistribution | dist.MaskedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def is_factor(fn: dist.Distribution) -> bool:
    """Tell whether a site's distribution is that of `numpyro.factor`."""
    return isinstance(base(fn), dist.Unit)


def is_delta(fn: dist.Distribution) -> bool:
    """Tell whether a distribution is a point, which other sites may have determined."""
    return isinstance(base(fn), dist.Delta)


def is_improper(fn: dist.Distribution) -> bool:
    """Tell whether a site's distribution is flat and cannot be sampled, masked or expanded too."""
    return isinstance(base(fn), dist.ImproperUniform)
