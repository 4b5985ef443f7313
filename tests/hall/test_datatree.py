"""DataTree: which groups there are, what dimensions are called, what the attributes say."""

import json

import numpy as np
import pytest
import xarray as xr

from deepgen_ppl import Posterior
from deepgen_ppl.evidence import evidence
from tests.hall import posteriors

GROUPS = {
    "mcmc": ["posterior", "sample_stats"],
    "svi": ["posterior", "sample_stats"],
    "importance": ["posterior", "proposal", "sample_stats"],
    "importance per row": ["posterior", "proposal"],
}
EVALUATED = ["posterior_predictive", "log_likelihood", "log_prior"]


@pytest.mark.parametrize("name", GROUPS)
def test_the_groups_of_each_method(name):
    posterior = posteriors.ALL[name]()
    tree = posterior.to_datatree()
    assert list(tree.children) == [*GROUPS[name], *EVALUATED, "observed_data"]
    for group, node in tree.children.items():
        leading = {value.dims[:2] for value in node.data_vars.values() if "chain" in value.dims}
        assert leading <= {("chain", "draw")}
        assert (group == "observed_data") == (leading == set())
    assert list(posterior.to_datatree(groups=["log_prior"]).children) == ["posterior", "log_prior"]


def test_the_prior_comes_on_request():
    tree = posteriors.mcmc().to_datatree(groups=["prior", "prior_predictive"])
    assert tree.prior["mu"].dims == ("chain", "draw")
    assert tree.prior_predictive["y"].dims == ("chain", "draw", "data")


def test_what_a_sampler_adapted_is_a_group_of_its_own(tmp_path):
    adapted = {"step_size": np.array(0.5), "root": np.tril(np.ones((3, 3)))}
    chains = np.repeat([0, 1], 2)
    draws = {"z": np.random.default_rng(0).normal(size=(4, 50))}
    posterior = Posterior(draws, adaptation=adapted, superchains=chains)
    assert list(posterior.to_datatree().children) == ["posterior", "adaptation"]
    tree = xr.open_datatree(posterior.save(tmp_path / "adapted.nc"), engine="h5netcdf")
    np.testing.assert_array_equal(tree["adaptation"]["root"], adapted["root"])
    np.testing.assert_array_equal(tree.attrs["superchains"], chains)
    with pytest.raises(ValueError, match=r"superchains has shape \(3,\).*of the 4 chains"):
        Posterior(draws, superchains=np.arange(3))


def test_constant_data_and_further_attributes_are_kept():
    posterior = Posterior(
        {"z": np.zeros((1, 8))},
        constant_data={"x": np.ones((3, 2))},
        dims={"x": ("data",)},
        attrs={"model": "toy", "flag": True, "options": {"a": [1]}, "nothing": None},
    )
    tree = posterior.to_datatree()
    assert tree.constant_data["x"].dims == ("data", "x_dim_1")
    assert [tree.attrs[k] for k in ("model", "flag", "options", "nothing")] == [
        "toy",
        1,
        '{"a": [1]}',
        "null",
    ]


def test_the_proposal_holds_the_raw_draws_their_weights_and_the_evidence_of_rows():
    posterior = posteriors.importance_per_row()
    proposal = posterior.to_datatree()["proposal"]
    np.testing.assert_array_equal(proposal["z"], posterior.draws["z"])
    np.testing.assert_array_equal(proposal["log_weights"], posterior.log_weights)
    assert proposal["log_weights"].dims == ("chain", "draw", "data")
    for name in ("log_evidence", "log_evidence_standard_error", "pareto_k", "ess"):
        assert proposal[name].dims == ("data",)
    np.testing.assert_array_equal(proposal["log_evidence"], posterior.evidence.per_row)


def test_the_diagnosis_and_the_evidence_are_attributes():
    posterior = posteriors.importance()
    attrs = posterior.to_datatree().attrs
    assert attrs["inference_library"] == "deepgen_ppl"
    assert attrs["inference_method"] == "importance"
    assert attrs["log_evidence"] == posterior.evidence.log_evidence
    assert attrs["diagnosis_ok"] == int(posterior.diagnose().ok)
    found = {check["name"]: check for check in json.loads(attrs["diagnosis"])["checks"]}
    assert found["R-hat"]["ok"] is None and attrs["independent_draws"] == 1
    assert posteriors.mcmc().to_datatree().attrs["independent_draws"] == 0


def dims_of(draws, **options):
    tree = Posterior({k: np.zeros((1, 6, *s)) for k, s in draws.items()}, **options).to_datatree()
    return {name: value.dims[2:] for name, value in tree.posterior.data_vars.items()}


NAMED = {
    "unnamed": ({"z": (2, 3)}, {}, {"z": ("z_dim_0", "z_dim_1")}),
    "plate and event": ({"z": (2, 3)}, {"z": ("p",)}, {"z": ("p", "z_dim_1")}),
    "no plate, then a plate": ({"z": (2, 3)}, {"z": (None, "p")}, {"z": ("z_dim_0", "p")}),
    "shared plate": ({"a": (2,), "b": (2,)}, {"a": ("p",), "b": ("p",)}, {"a": "p", "b": "p"}),
    "plate called as a site": ({"p": (2,)}, {"p": ("p",)}, {"p": ("p_dim",)}),
    "plate called as another": ({"a": (2,), "b": ()}, {"a": ("b",)}, {"a": ("b_dim",), "b": ()}),
    "plate called draw": ({"a": (2,)}, {"a": ("draw",)}, {"a": ("draw_dim",)}),
    "the same plate twice": ({"a": (2, 2)}, {"a": ("p", "p")}, {"a": ("p", "a_p_1")}),
    "two sizes of a plate": (
        {"a": (4,), "b": (2,)},
        {"a": ("p",), "b": ("p",)},
        {"a": ("p",), "b": ("b_p_0",)},
    ),
    "scopes": ({"net/w": (2,)}, {"net/w": ("net/p",)}, {"net.w": ("net.p",)}),
    "too many names": ({"a": ()}, {"a": ("p",)}, {"a": ()}),
}


@pytest.mark.parametrize("name", NAMED)
def test_dimensions_bear_the_names_of_plates(name):
    shapes, dims, expected = NAMED[name]
    assert dims_of(shapes, dims=dims) == {
        k: tuple([v] if v == "p" else v) for k, v in expected.items()
    }


def test_a_name_gets_its_suffix_in_every_group():
    posterior = Posterior(
        {"y": np.zeros((1, 4))},
        dims={"obs": ("y",)},
        observed_data={"obs": np.zeros(3)},
        evaluators={"log_likelihood": lambda d: {"obs": np.zeros((4, 3))}},
    )
    tree = posterior.to_datatree(coords={"y": ["a", "b", "c"]})
    assert tree.log_likelihood["obs"].dims == ("chain", "draw", "y_dim")
    assert tree.observed_data["y_dim"].values.tolist() == ["a", "b", "c"]


def test_coords_and_dims_of_the_user_win():
    posterior = Posterior({"z": np.zeros((1, 6, 2, 3))}, dims={"z": ("p",)})
    tree = posterior.to_datatree(coords={"p": ["x", "y"], "k": [5, 6, 7]}, dims={"z": ["k"]})
    assert tree.posterior["z"].dims == ("chain", "draw", "p", "k")
    assert tree.posterior["p"].values.tolist() == ["x", "y"]
    assert tree.posterior["k"].values.tolist() == [5, 6, 7]
    both = posterior.to_datatree(dims={"z": ["a", "b"]}).posterior["z"]
    assert both.dims == ("chain", "draw", "a", "b")


BAD = {
    "group": ({"groups": ["warmup"]}, r"no groups \['warmup'\]; choose among"),
    "cannot": ({"groups": ["prior"]}, r"cannot compute \['prior'\]; it has \[\]"),
    "coords size": ({"coords": {"p": [1]}}, r"'p' 1 values, but its size is 2"),
    "coords name": ({"coords": {"q": [1]}}, r"name \['q'\], which .* variables are \['z'\]"),
    "dims size": ({"dims": {"z": ["a", "b"]}}, r"'z' 2 names.* 1 dimensions, of shape \(2,\)"),
    "dims name": ({"dims": {"w": ["a"]}}, r"name \['w'\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        Posterior({"z": np.zeros((1, 6, 2))}, dims={"z": ("p",)}).to_datatree(**options)


DTYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, bool)


def test_every_dtype_is_saved(tmp_path):
    draws = {np.dtype(d).name: np.ones((1, 4, 2), d) for d in DTYPES}
    draws |= {"empty": np.zeros((1, 4, 0)), "net/w": np.zeros((1, 4))}
    posterior = Posterior(draws, observed_data={"label": np.array(["a", "b"])})
    path = posterior.save(tmp_path / "new" / "posterior.nc")
    with xr.open_datatree(path) as back:
        xr.testing.assert_equal(back.posterior.ds.load(), posterior.to_datatree().posterior.ds)
        assert back.posterior["bool"].dtype == bool
        assert back.posterior["float16"].dtype == np.float32
        assert back.observed_data["label"].values.tolist() == ["a", "b"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = Posterior({"z": np.zeros((1, 4))}).save(tmp_path / "posterior.nc")
    before = path.read_bytes()

    def fail(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        Posterior({"z": np.ones((1, 4))}).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_two_observed_sites_share_the_evidence_of_their_rows():
    log_w = np.random.default_rng(0).normal(size=(100, 3))
    posterior = Posterior(
        {"z": np.zeros((1, 100, 3))},
        log_w[None],
        evidence=evidence(log_w, rows="data"),
        method="importance",
        row_dim="data",
        row_axis={"z": 0},
        dims={"z": ("data",)},
        observed_data={"a": np.zeros(3), "b": np.zeros(3)},
        evaluators={"log_likelihood": None},  # never asked: the evidence is known already
    )
    found = posterior.to_datatree().log_likelihood
    assert {name: value.dims[2:] for name, value in found.data_vars.items()} == {
        "data": ("data_dim",)
    }
