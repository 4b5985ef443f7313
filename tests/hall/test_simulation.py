"""Simulated data put back into data arguments, and inferences run on them."""

from functools import partial

import numpy as np
import pytest

from deepgen_ppl import Posterior
from deepgen_ppl.simulation import check_amortised, check_arrived, check_read, put_back, routes
from deepgen_ppl.trials import Inference, compare, independent_draws

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 3)).astype("float32"), RNG.poisson(3.0, 6)
XY = RNG.normal(size=(6, 2))

UNDERSTOOD = {
    "whole": ([Y], lambda d: {"y": d[0]}),
    "beside a covariate": ([X, Y], lambda d: {"y": d[1]}),
    "column": ([XY], lambda d: {"y": d[0][:, 1]}),
    "transposed": ([XY], lambda d: {"y": d[0].T}),
    "another dtype": ([Y], lambda d: {"y": d[0].astype("float32")}),
    "binary": ([RNG.integers(0, 2, (5, 7)).astype(bool)], lambda d: {"y": d[0]}),
    "as zeros": ([np.zeros(9, "float32")], lambda d: {"y": d[0]}),
    "as ones": ([np.ones(62, "float32"), np.ones(62)], lambda d: {"y": d[1]}),
    "small integers": ([np.arange(200).astype("uint8") % 7], lambda d: {"y": d[0]}),
    "scalar": ([np.asarray(2.0)], lambda d: {"y": d[0]}),
    "two sites": ([X, XY], lambda d: {"x": d[0], "y": d[1][:, 0], "z": d[1][:, 1]}),
    "none beside": ([None, Y, "name"], lambda d: {"y": d[1]}),
    "an index beside": ([np.arange(6) // 2, Y], lambda d: {"y": d[1] + 0 * XY[:3, 0][d[0]]}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_draws_are_put_back_where_they_are_observed(name):
    data, observe = UNDERSTOOD[name]
    found = routes(observe, data, [f"data[{i}]" for i in range(len(data))])
    seen = {site: np.asarray(value) for site, value in observe(data).items()}
    draws = {site: RNG.integers(0, 2, (4, *value.shape)) for site, value in seen.items()}
    back = put_back(data, found, draws)
    for s in range(4):
        one = [back[i][s] if i in back else value for i, value in enumerate(data)]
        check_arrived(observe, one, {site: value[s] for site, value in draws.items()})
    observed = {entry for route in found.values() for entry in [route.argument]}
    assert set(back) == observed


def test_entries_that_no_site_observes_stay():
    found = routes(lambda d: {"y": d[0][:, 1]}, [XY], ["xy"])
    back = put_back([XY], found, {"y": np.zeros((2, 6))})
    np.testing.assert_array_equal(back[0][:, :, 0], np.repeat(XY[None, :, 0], 2, axis=0))


LOST = {
    "scaled": lambda d: {"y": 2.0 * d[0]},
    "logarithm": lambda d: {"y": np.log(np.abs(d[0]))},
    "negated": lambda d: {"y": 1 - d[0]},
    "from elsewhere": lambda d: {"y": np.arange(6.0)},
    "summed": lambda d: {"y": d[0].sum()},
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("data", [XY[:, 0], np.zeros(6), np.ones(6)], ids=["numbers", "0", "1"])
def test_transformed_data_ask_for_simulate(name, data):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=r"'y' .* pass simulate="):
        routes(LOST[name], [data], ["y"])


def test_two_sites_that_observe_the_same_entries_are_refused():
    draws = {"a": np.zeros(6), "b": np.ones(6)}
    with pytest.raises(ValueError, match="several sites observe the same entries"):
        check_arrived(lambda d: {"a": d[0], "b": d[0]}, [np.ones(6)], draws)


def test_draws_that_follow_the_data_are_refused():
    before = {"z": RNG.normal(size=(8, 3)), "x": RNG.normal(size=(8, 5))}
    check_read(before, before)
    with pytest.raises(ValueError, match="the draws of site 'x' depend on the data"):
        check_read(before, {**before, "x": before["x"] + 0.1})


def test_a_guide_that_reads_nothing_is_refused():
    with pytest.raises(ValueError, match="without reading the data"):
        check_amortised({"z": np.ones(3)}, {"z": np.ones(3)})


def verb(model, guide, *data, num_steps=10, progress=True, seed=0):
    """A verb between whose model and data a guide stands."""
    return model, guide, data, num_steps, progress, seed


class Guide:
    """A class of guides."""

    def __init__(self, model):
        self.model = model


def test_a_guide_stands_between_model_and_data():
    run = Inference(partial(verb, guide="g", num_steps=3), {}, {"progress": False, "params": 1})
    assert run(print, (1, 2), seed=5) == (print, "g", (1, 2), 3, False, 5)
    made = Inference(partial(verb, guide=Guide, progress=True, seed=9), {}, {"progress": False})
    model, guide, _, _, progress, seed = made(print, (), seed=5)
    assert isinstance(guide, Guide)
    assert (guide.model, model, progress, seed) == (print, print, True, 9)


@pytest.mark.parametrize(
    ("infer", "error", "words"),
    [("nuts", ValueError, "none of 'mcmc'"), (3, TypeError, "must be a Fit or a function")],
)
def test_what_cannot_be_calibrated(infer, error, words):
    with pytest.raises(error, match=words):
        Inference(infer, {"mcmc": verb}, {})


def test_svi_without_a_guide_is_refused():
    def svi(model, guide, *data):
        return None

    with pytest.raises(ValueError, match=r"partial\(dg.svi, guide="):
        Inference(svi, {}, {})


def test_chains_are_thinned_to_their_effective_size():
    noise = RNG.normal(size=(2, 500))
    slow = np.empty_like(noise)
    slow[:, 0] = noise[:, 0]
    for t in range(1, 500):
        slow[:, t] = 0.95 * slow[:, t - 1] + np.sqrt(1 - 0.95**2) * noise[:, t]
    drawn = independent_draws(Posterior({"z": slow, "other": noise}), ["z"], 99, seed=0)
    assert list(drawn) == ["z"]
    assert 5 < len(drawn["z"]) < 70  # 1000 (1 - 0.95) / (1 + 0.95) = 26
    assert len(independent_draws(Posterior({"z": noise}), ["z"], 99, seed=0)["z"]) == 99


def test_weighted_draws_are_resampled():
    log_weights = np.where(np.arange(1000) < 500, 0.0, -np.inf)[None]
    weighted = Posterior({"z": np.arange(1000.0)[None]}, log_weights, method="importance")
    drawn = independent_draws(weighted, ["z"], 99, seed=0)["z"]
    assert drawn.shape == (99,)
    assert drawn.max() < 500


def test_draws_are_compared_with_what_stands_first():
    less, equal = compare(np.array([[1, 2], [0, 2], [1, 3]]))
    assert less.tolist() == [1, 0]
    assert equal.tolist() == [1, 1]
