"""Archive: exact round trips, whole files or clear errors, data only."""

import json
import zipfile

import numpy as np
import pytest

from deepgen_ppl import archive

ARRAYS = {
    "float32": np.linspace(0, 1, 7, dtype=np.float32),
    "float64 nan": np.array([np.nan, np.inf, -0.0]),
    "float16": np.ones(3, np.float16),
    "bool": np.array([[True], [False]]),
    "scalar": np.array(3, np.int32),
    "python float": 2.5,
    "empty": np.zeros((0, 4), np.float32),
    "uint8": np.arange(256, dtype=np.uint8),
    "int64": np.array([2**62, -1]),
    "complex": np.array([1 + 2j], np.complex64),
    "text": np.array(["α", "longer"]),
    "big endian": np.arange(3, dtype=">f8"),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed view": np.arange(6.0).reshape(2, 3).T[::-1],
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
}


@pytest.fixture
def whole(tmp_path):
    return archive.save(tmp_path / "fit.dgp", {"a/b": np.arange(1000.0), "c": np.ones(3)}, {"n": 1})


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_exactly(tmp_path, name):
    path = archive.save(tmp_path / "x", {f"params/{name}": ARRAYS[name]})
    arrays, manifest = archive.load(path)
    (back,) = arrays.values()
    expected = np.asarray(ARRAYS[name])
    assert list(arrays) == [f"params/{name}"]
    assert back.dtype.str == expected.dtype.str
    assert back.shape == expected.shape
    np.testing.assert_array_equal(back, expected)
    assert manifest == {}


def test_odd_names_and_the_manifest_come_back(tmp_path):
    arrays = {name: np.zeros(1) for name in ("", "../x", "a b", "ß/é", "manifest.json", "A", "a")}
    manifest = {"step": 3, "names": ["a", None], "lr": 1e-3, "nested": {"x": True}}
    back, found = archive.load(archive.save(tmp_path / "x", arrays, manifest))
    assert list(back) == list(arrays)
    assert found == manifest


def test_numpy_reads_it_too(whole):
    with np.load(whole, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["a/b"], np.arange(1000.0))


def test_the_same_content_is_the_same_bytes(tmp_path):
    paths = [archive.save(tmp_path / name, {"a": np.ones(3)}, {"n": 1}) for name in "xy"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file_is_told(whole, keep):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"fit.dgp is (truncated|not a deepgen_ppl file)"):
        archive.load(whole)


def test_every_damaged_byte_of_the_data_is_told(whole):
    content = bytearray(whole.read_bytes())
    start = bytes(content).index(np.arange(1000.0).tobytes())
    content[start + 5000] ^= 1
    whole.write_bytes(content)
    with pytest.raises(ValueError, match=r"fit.dgp is truncated or damaged .*CRC"):
        archive.load(whole)


def test_a_foreign_file_is_told(tmp_path):
    path = tmp_path / "x"
    path.write_text("hello world")
    with pytest.raises(ValueError, match=r"x is not a deepgen_ppl file .it starts with b'hell'"):
        archive.load(path)
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"zip file but not a deepgen_ppl file \(no manifest.json"):
        archive.load(tmp_path / "x.npz")
    for text, message in (("{", "is not JSON"), ("[]", "does not say so"), ("{}", "say so")):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("manifest.json", text)
        with pytest.raises(ValueError, match=message):
            archive.load(path)
    with pytest.raises(FileNotFoundError):
        archive.load(tmp_path / "none")


def _rewrite(path, change):
    """Write the archive again with its members changed."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    header = json.loads(members["manifest.json"])
    change(members, header)
    members["manifest.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def test_a_missing_array_is_told(whole):
    _rewrite(whole, lambda members, header: members.pop("a/b.npy"))
    with pytest.raises(ValueError, match=r"its manifest lists array 'a/b', which is missing"):
        archive.load(whole)


def test_an_exchanged_array_is_told(whole):
    def exchange(members, header):
        members["a/b.npy"] = members["c.npy"]

    _rewrite(whole, exchange)
    with pytest.raises(ValueError, match=r"array 'a/b' is <f8\[3\], its manifest says <f8\[1000\]"):
        archive.load(whole)


def test_a_later_version_is_told(whole):
    _rewrite(whole, lambda members, header: header.update(version=99))
    with pytest.raises(ValueError, match=r"written in version 99 .* Upgrade"):
        archive.load(whole)


def test_pickles_are_never_read(tmp_path, whole):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    evil = (tmp_path / "evil.npy").read_bytes()
    _rewrite(whole, lambda members, header: members.update({"a/b.npy": evil}))
    with pytest.raises(ValueError, match=r"array 'a/b' cannot be read .*allow_pickle"):
        archive.load(whole)


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
    ],
    ids=["object", "structured"],
)
def test_arrays_that_are_no_plain_data_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"Array 'w' has dtype .* Convert it first"):
        archive.save(tmp_path / "x", {"w": value})
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_refused_with_its_cure(tmp_path):
    value = np.ones(3, pytest.importorskip("ml_dtypes").bfloat16)
    with pytest.raises(ValueError, match=r"dtype bfloat16.*bfloat16 fits exactly into float32"):
        archive.save(tmp_path / "x", {"w": value})


def test_a_manifest_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"The manifest of x is not JSON"):
        archive.save(tmp_path / "x", {}, {"f": test_numpy_reads_it_too})


def test_a_failed_write_leaves_the_old_file(whole):
    before = whole.read_bytes()
    with pytest.raises(RuntimeError), archive.atomic(whole) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert whole.read_bytes() == before
    assert list(whole.parent.iterdir()) == [whole]


def test_folders_are_made_and_the_file_is_readable_by_others(tmp_path):
    path = archive.save(tmp_path / "new" / "folder" / "x", {"a": np.ones(1)})
    reference = tmp_path / "reference"
    reference.touch()
    assert path.stat().st_mode == reference.stat().st_mode
