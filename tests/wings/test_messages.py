"""What a user is told who calls a verb with something that is not meant."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

Y = np.random.default_rng(0).normal(size=20).astype("float32")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1.0, 2.0], "data argument 'y' is a list of numbers"),
        (np.array([1, None]), "dtype object"),
    ],
)
def test_data_that_are_no_arrays(dg: ModuleType, zoo: ModuleType, data: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        dg.svi(zoo.normal_mean, zoo.normal_mean_guide, data, num_steps=5, progress=False)


def test_data_in_the_place_of_the_guide(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(TypeError, match="guide must be a program or None, not ndarray"):
        dg.svi(zoo.normal_mean, Y, num_steps=5, progress=False)
    with pytest.raises(TypeError, match="guide must be a program or None, not ndarray"):
        dg.importance(zoo.normal_mean, Y)


def test_a_program_that_stops_says_where(dg: ModuleType, zoo: ModuleType) -> None:
    x = np.zeros((19, 2), "float32")
    for verb in (dg.mcmc, dg.predict):
        with pytest.raises(ValueError, match=r"model stops after its site '\w+' \(data y: \(20,\)"):
            verb(zoo.eight_schools, Y, x[:, 0])
        with pytest.raises(TypeError, match="model stops before its first site"):
            verb(zoo.normal_mean)


def test_options_out_of_range(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"num_steps must be a whole number, got 10\.5"):
        dg.svi(zoo.normal_mean, zoo.normal_mean_guide, Y, num_steps=10.5, progress=False)
    with pytest.raises(ValueError, match=r"must lie between 0 and 1, got 1\.5"):
        dg.mcmc(zoo.normal_mean, Y, target_accept_prob=1.5)


def test_own_subsampling_of_the_batch_size(dg: ModuleType, zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match="subsamples by itself"):
        dg.svi(zoo.subsampling, zoo.normal_mean_guide, Y, batch_size=5, progress=False)
