"""Datasets: ready arrays, exact readers, and errors that say where a file is published."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from deepgen_ppl import datasets

SHARED = Path(__file__).parents[3] / "shared" / "data"

READY = {
    "digits": (datasets.digits, (1797, 64), 10),
    "iris": (datasets.iris, (150, 4), 3),
    "wine": (datasets.wine, (178, 13), 3),
    "breast_cancer": (datasets.breast_cancer, (569, 30), 2),
}


@pytest.mark.parametrize("name", READY)
def test_ready_arrays(name):
    load, shape, classes = READY[name]
    data = load()
    assert data.x.shape == shape and data.x.dtype == np.float32
    assert data.y.shape == shape[:1] and data.y.dtype == np.int64
    assert len(data.feature_names) == shape[1] and len(data.class_names) == classes
    assert set(data.y) == set(range(classes))
    assert np.isfinite(data.x).all() and name in data.source


def test_digits_are_ink_between_zero_and_one():
    x = datasets.digits().x
    assert x.min() == 0.0 and x.max() == 1.0
    np.testing.assert_array_equal(x * 16, np.round(x * 16))


def idx_bytes(array, code):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    "code, dtype", [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx(tmp_path, code, dtype, pack):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / "x-idx3"
    path.write_bytes(pack(idx_bytes(array, code)))
    back = datasets.read_idx(path)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == np.dtype(dtype).newbyteorder("=") and back.flags.writeable


def test_idx_that_is_damaged(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = idx_bytes(np.zeros((2, 3), np.uint8), 8)
    for content, message in (
        (whole[:-1], "17 bytes where its header promises 18"),
        (whole[:6], "6 bytes"),
        (b"\0\0\7\1", "is no idx file"),
        (b"", "is no idx file"),
        (gzip.compress(whole)[:-5], "truncated or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{message}.*published at https://ossci-datasets"):
            datasets.read_idx(path)


@pytest.mark.parametrize("num_columns", [16, 13, 1])
def test_npz_with_packed_bits(tmp_path, num_columns):
    bits = np.random.default_rng(0).integers(0, 2, (5, num_columns), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train=np.packbits(bits, axis=1), n=np.int64(3), s=np.array(["a"]))
    found = datasets.read_npz(tmp_path / "x.npz", packed=["train"], num_columns=num_columns)
    np.testing.assert_array_equal(found["train"], bits)
    assert int(found["n"]) == 3 and found["s"][0] == "a"


def test_npz_that_does_not_fit(tmp_path):
    path = tmp_path / "binarized_mnist.npz"
    np.savez(path, train=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"no arrays \['valid'\]; it has \['train'\]"):
        datasets.read_npz(path, packed=["valid"])
    with pytest.raises(ValueError, match=r"'train' of .* has dtype float64; bits are uint8"):
        datasets.read_npz(path, packed=["train"])
    content = path.read_bytes()
    np.savez(path, train=np.array([{}], object))
    pickled = path.read_bytes()
    for wrong in (content[:50], b"hello", b"", pickled):
        path.write_bytes(wrong)
        with pytest.raises(
            ValueError, match=r"no npz file, or damaged.*published at http://www.cs"
        ):
            datasets.read_npz(path)


AMAT = {
    "bits": ("0 1 1\n1 0 0\n", [[0, 1, 1], [1, 0, 0]], np.uint8),
    "trailing blanks": ("0 1 \r\n1 0 \r\n\n", [[0, 1], [1, 0]], np.uint8),
    "numbers": ("0.5 1e-3\n-2 7\n", [[0.5, 1e-3], [-2, 7]], np.float32),
    "ones and tens": ("10 0\n11 1\n", [[10, 0], [11, 1]], np.float32),
    "one row": ("1.5 2\n", [[1.5, 2]], np.float32),
}


@pytest.mark.parametrize("name", AMAT)
def test_amat(tmp_path, name):
    text, expected, dtype = AMAT[name]
    path = tmp_path / "x.amat"
    for content in (text.encode(), gzip.compress(text.encode())):
        path.write_bytes(content)
        found = datasets.read_amat(path)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == dtype


@pytest.mark.parametrize("text", ["1 2\n3\n", "0 1\n0\n", "a b\n", ""])
def test_amat_that_is_none(tmp_path, text):
    (tmp_path / "x.amat").write_text(text)
    with pytest.raises(ValueError, match=r"x.amat is no amat file"):
        datasets.read_amat(tmp_path / "x.amat")


def test_csv(tmp_path):
    path = tmp_path / "x.csv"
    text = '\ufeffn, length,kind,big\n1,2.5,"a, b",1e400\n-2,NA,é,3\n'
    for content in (text.encode(), gzip.compress(text.encode())):
        path.write_bytes(content)
        found = datasets.read_csv(path)
        assert list(found) == ["n", "length", "kind", "big"]
        assert found["n"].dtype == np.int64 and found["n"].tolist() == [1, -2]
        np.testing.assert_array_equal(found["length"], [2.5, np.nan])
        assert found["kind"].tolist() == ["a, b", "é"]
        np.testing.assert_array_equal(found["big"], [np.inf, 3.0])
    path.write_text('ham\tsay "hi\nspam\tbye\n')
    found = datasets.read_csv(path, delimiter="\t", header=False)
    assert {k: v.tolist() for k, v in found.items()} == {
        "0": ["ham", "spam"],
        "1": ['say "hi', "bye"],
    }
    path.write_text("a,b\n")
    assert {k: len(v) for k, v in datasets.read_csv(path).items()} == {"a": 0, "b": 0}


def test_csv_that_does_not_fit(tmp_path):
    path = tmp_path / "x.csv"
    for content, message in (
        (b"a,b\n1,2\n3\n", "Row 3 of x.csv has 1 cells, but there are 2 columns"),
        (b"1,1\n2,2\n", "two columns of one name.*header=False"),
        (b"", "x.csv is empty"),
        (b"\xff\xfe", "x.csv is no UTF-8 text"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            datasets.read_csv(path)


MISSING = {
    "train-images-idx3-ubyte.gz": (datasets.read_idx, "ossci-datasets"),
    "binarized_mnist_train.amat": (datasets.read_amat, "larocheh"),
    "binarized_mnist.npz": (datasets.read_npz, "larocheh"),
    "omniglot28.npz": (datasets.read_npz, "brendenlake"),
    "faithful.csv": (datasets.read_csv, "Rdatasets"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_file_is_told_where_to_get(tmp_path, name):
    read, place = MISSING[name]
    with pytest.raises(FileNotFoundError, match=f"no file .*{name}. It is published at .*{place}"):
        read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no file .*unknown\.$"):
        read(tmp_path / "unknown")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
class TestSharedFiles:
    """The published files themselves."""

    def test_mnist(self):
        x = datasets.read_idx(SHARED / "mnist" / "t10k-images-idx3-ubyte.gz")
        y = datasets.read_idx(SHARED / "mnist" / "t10k-labels-idx1-ubyte.gz")
        assert x.shape == (10000, 28, 28) and x.dtype == np.uint8 and x.max() == 255
        assert y[:5].tolist() == [7, 2, 1, 0, 4]

    def test_packed_bits(self):
        path = SHARED / "binarized_mnist" / "binarized_mnist.npz"
        found = datasets.read_npz(path, packed=("train", "valid", "test"))
        assert found["train"].shape == (50000, 784) and found["test"].shape == (10000, 784)
        assert 0.12 < found["valid"].mean() < 0.14

    def test_tables(self):
        faithful = datasets.read_csv(SHARED / "old_faithful" / "faithful.csv")
        assert faithful["eruptions"].shape == (272,) and faithful["waiting"].dtype == np.int64
        path = SHARED / "sms_spam" / "SMSSpamCollection.tsv.gz"
        spam = datasets.read_csv(path, delimiter="\t", header=False)
        assert (spam["0"] == "spam").sum() == 747 and len(spam["1"]) == 5574
