"""The data: scikit-learn's sets as ready arrays, and readers of the files that users have."""

import csv
import gzip
import io
import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

# where a file of such a name is published: (part of the name, place)
_PLACES = (
    ("binarized_mnist", "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"),
    ("idx", "https://ossci-datasets.s3.amazonaws.com/mnist/ (MNIST)"),
    ("omniglot", "https://github.com/brendenlake/omniglot"),
    ("chardata", "https://github.com/yburda/iwae (Omniglot, 28 x 28)"),
    ("frey", "https://cs.nyu.edu/~roweis/data.html"),
    ("faithful", "https://vincentarelbundock.github.io/Rdatasets/csv/datasets/faithful.csv"),
    (".bif", "https://www.bnlearn.com/bnrepository"),
    ("spam", "https://archive.ics.uci.edu/dataset/228/sms+spam+collection"),
)


class Dataset(NamedTuple):
    """Labelled rows, ready to be passed to a verb.

    Attributes:
        x: Features, float32, a row per datum.
        y: Class of each row, from 0.
        feature_names: Name (and unit) of each feature.
        class_names: Name of each class.
        source: Where the data come from.
    """

    x: Float[np.ndarray, "N D"]
    y: Int[np.ndarray, "N"]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str


def digits() -> Dataset:
    """1,797 images of handwritten digits, 8 x 8 pixels, ink between 0 and 1.

    Returns:
        Rows of 64 pixels and the digit each shows.

    References:
        Kaynak: Methods of combining multiple classifiers and their applications to handwritten
        digit recognition, 1995; by way of scikit-learn.

    Example:
        >>> data = digits()
        >>> data.x.shape, float(data.x.max()), data.y[:4].tolist()
        ((1797, 64), 1.0, [0, 1, 2, 3])
    """
    return _from_sklearn("digits", scale=1.0 / 16.0)


def iris() -> Dataset:
    """150 iris flowers of three species: sepal and petal length and width in cm.

    Returns:
        Rows of 4 lengths and the species of each.

    References:
        Fisher: The use of multiple measurements in taxonomic problems. Annals of Eugenics 7(2),
        1936; by way of scikit-learn.

    Example:
        >>> iris().feature_names[2], iris().class_names
        ('petal length (cm)', ('setosa', 'versicolor', 'virginica'))
    """
    return _from_sklearn("iris")


def wine() -> Dataset:
    """178 wines of three growers: 13 chemical measurements, in their own units.

    Returns:
        Rows of 13 measurements and the grower of each.

    References:
        Aeberhard, Forina: Wine. UCI Machine Learning Repository, 1992.
        https://doi.org/10.24432/C5PC7J; by way of scikit-learn.

    Example:
        >>> wine().x.shape
        (178, 13)
    """
    return _from_sklearn("wine")


def breast_cancer() -> Dataset:
    """569 breast tumours, malignant (0) or benign (1): 30 measurements of cell nuclei.

    Returns:
        Rows of 30 measurements and the diagnosis of each.

    References:
        Wolberg, Mangasarian, Street, Street: Breast cancer Wisconsin (diagnostic). UCI Machine
        Learning Repository, 1993. https://doi.org/10.24432/C5DW2B; by way of scikit-learn.

    Example:
        >>> breast_cancer().x.shape, breast_cancer().class_names
        ((569, 30), ('malignant', 'benign'))
    """
    return _from_sklearn("breast_cancer")


def read_idx(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "..."]:
    """Read an idx file, such as those of MNIST, compressed (``.gz``) or not.

    Args:
        path: The file.

    Returns:
        The array, in the byte order of this machine.

    Raises:
        FileNotFoundError: There is no such file; the message says where it is published.
        ValueError: It is no idx file, or it is truncated.

    References:
        LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition.
        Proceedings of the IEEE 86(11), 1998. https://doi.org/10.1109/5.726791

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
        >>> read_idx(path)
        array([7, 2, 1], dtype=uint8)
    """
    content = read_bytes(path)
    name = Path(path).name
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(f"{name} is no idx file: it starts with {content[:4]!r}.{_place(path)}")
    dtype, rank = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:start]) if len(content) >= start else (-1,)
    needed = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != needed or len(content) < start:
        raise ValueError(
            f"{name} is truncated or damaged: {len(content)} bytes where its header promises "
            f"{needed}.{_place(path)}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_npz(
    path: str | os.PathLike[str], *, packed: Iterable[str] = (), num_columns: int | None = None
) -> dict[str, np.ndarray]:
    """Read an npz file, unpacking those of its arrays that hold eight bits to a byte.

    Args:
        path: The file.
        packed: Names of arrays whose last axis is packed, first bit highest (``numpy.packbits``).
        num_columns: Number of bits of a row; by default eight times the number of bytes.

    Returns:
        Names to arrays; unpacked ones are uint8 of zeros and ones.

    Raises:
        FileNotFoundError: There is no such file; the message says where it is published.
        ValueError: It is no npz file, or lacks an array named in `packed`.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "bits.npz"
        >>> np.savez(path, train=np.packbits([[1, 0, 1], [0, 1, 1]], axis=1))
        >>> read_npz(path, packed=["train"], num_columns=3)["train"].tolist()
        [[1, 0, 1], [0, 1, 1]]
    """
    name, packed, content = Path(path).name, tuple(packed), read_bytes(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name} is no npz file, or damaged: {error}.{_place(path)}") from error
    missing = [key for key in packed if key not in arrays]
    if missing:
        raise ValueError(f"{name} has no arrays {missing}; it has {sorted(arrays)}.")
    for key in packed:
        if arrays[key].dtype != np.uint8:
            raise ValueError(f"'{key}' of {name} has dtype {arrays[key].dtype}; bits are uint8.")
        arrays[key] = np.unpackbits(arrays[key], axis=-1, count=num_columns)
    return arrays


def read_amat(path: str | os.PathLike[str]) -> Float[np.ndarray, "N D"] | UInt8[np.ndarray, "N D"]:
    r"""Read an amat file: numbers in text, a row to a line, as of the binarized MNIST.

    Args:
        path: The file, compressed (``.gz``) or not.

    Returns:
        uint8 where every number is 0 or 1, else float32.

    Raises:
        FileNotFoundError: There is no such file; the message says where it is published.
        ValueError: The rows have unequal lengths, or something is no number.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.amat"
        >>> _ = path.write_text("0 1 1\n1 0 0\n")
        >>> read_amat(path)
        array([[0, 1, 1], [1, 0, 0]], dtype=uint8)
    """
    content = read_bytes(path)
    try:
        if not content.strip():
            raise ValueError("it is empty")
        if not content.translate(None, b"01 \t\r\n"):  # bits: many, so without parsing numbers
            rows = [line for line in content.translate(None, b" \t\r").split(b"\n") if line]
            bits = np.frombuffer(b"".join(rows), np.uint8) - np.uint8(ord("0"))
            lone = max(map(len, content.split()[:1000])) == 1
            if lone and len({len(row) for row in rows}) == 1:
                return bits.reshape(len(rows), -1)
        numbers = np.loadtxt(io.BytesIO(content), dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{Path(path).name} is no amat file: {error}.{_place(path)}") from error
    return numbers


def read_csv(
    path: str | os.PathLike[str], *, delimiter: str = ",", header: bool = True
) -> dict[str, np.ndarray]:
    r"""Read a table of text by columns.

    Args:
        path: The file (UTF-8), compressed (``.gz``) or not.
        delimiter: What stands between two cells; a tab also turns quoting off.
        header: Whether the first line names the columns; else they are called ``"0"``, ``"1"``, ...

    Returns:
        Names to columns: int64 or float64 where every cell is a number (an empty cell, ``NA`` or
        ``nan`` is NaN), else strings.

    Raises:
        FileNotFoundError: There is no such file; the message says where it is published.
        ValueError: The lines have unequal numbers of cells, or two columns have one name.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("n,length,kind\n1,2.5,a\n2,,b\n")
        >>> read_csv(path)["length"]
        array([2.5, nan])
    """
    name = Path(path).name
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no UTF-8 text: {error}.{_place(path)}") from error
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    lines = [r for r in csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting) if r]
    if not lines:
        raise ValueError(f"{name} is empty.{_place(path)}")
    names = [cell.strip() for cell in lines[0]] if header else list(map(str, range(len(lines[0]))))
    if len(set(names)) < len(names):
        raise ValueError(f"{name} has two columns of one name: {names}. Is header=False meant?")
    rows = lines[1:] if header else lines
    for number, row in enumerate(rows, start=1 + header):
        if len(row) != len(names):
            raise ValueError(
                f"Row {number} of {name} has {len(row)} cells, but there are {len(names)} columns."
            )
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {key: _column(cells) for key, cells in zip(names, columns, strict=True)}


def _from_sklearn(name: str, scale: float = 1.0) -> Dataset:
    from sklearn import datasets

    raw = getattr(datasets, f"load_{name}")()
    return Dataset(
        x=(raw.data * scale).astype(np.float32),
        y=raw.target.astype(np.int64),
        feature_names=tuple(map(str, raw.feature_names)),
        class_names=tuple(map(str, raw.target_names)),
        source=f"scikit-learn, load_{name}",
    )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file whole, uncompressed when it is gzipped, whatever its name says.

    Raises:
        FileNotFoundError: There is no such file; the message says where it is published.
        ValueError: The compressed file is truncated or damaged.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.gz"
        >>> _ = path.write_bytes(gzip.compress(b"a note"))
        >>> read_bytes(path)
        b'a note'
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file {path}.{_place(path)}") from error
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path.name} is truncated or damaged: {error}.{_place(path)}") from error


def _place(path: str | os.PathLike[str]) -> str:
    name = Path(path).name.lower()
    found = next((place for part, place in _PLACES if part in name), None)
    return "" if found is None else f" It is published at {found}."


def _column(cells: Iterable[str]) -> np.ndarray:
    cells = [cell.strip() for cell in cells]
    filled = ["nan" if cell.lower() in ("", "na", "nan") else cell for cell in cells]
    for dtype in (np.int64, np.float64):
        try:
            return np.array(filled, dtype=dtype)
        except (ValueError, OverflowError):
            continue
    return np.array(cells)
