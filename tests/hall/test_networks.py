"""Orders of autoregressive layers: what each sees, and that the draw gives each another one."""

from itertools import pairwise

import numpy as np
import pytest

from deepgen_ppl import networks


@pytest.mark.parametrize("kind", ["reverse", "random"])
@pytest.mark.parametrize("features", [1, 2, 3, 7])
def test_layers_next_to_each_other_have_other_orders(kind: str, features: int) -> None:
    for seed in range(20):
        found = networks.orders(features, 5, kind, seed)
        assert len(found) == 5
        assert found[-1].tolist() == list(range(features)), "the data's own, next to the data"
        for order, after in pairwise(found):
            assert sorted(order.tolist()) == list(range(features))
            assert features == 1 or order.tolist() != after.tolist()


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("context", [0, 1])
def test_outputs_are_reached_by_exactly_the_features_before_them(inputs: int, context: int) -> None:
    """By paths through the masks, for an order of five features."""
    order = np.random.default_rng(0).permutation(5)
    masks = networks.masks(5, (16, 16), 2, context, inputs, order)
    paths = np.linalg.multi_dot(masks).reshape(5, inputs, 2, 5)
    place = np.argsort(order)
    before = place[:, None] < place[None, :]
    assert ((paths > 0) == before[:, None, None, :]).all()
