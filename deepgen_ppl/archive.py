"""The archive: named arrays and a JSON manifest in one file, the format of fits and checkpoints.

An archive is a zip of ``.npy`` members beside ``manifest.json``; it holds data only. Nothing in it
is executed when it is read (no pickle).
"""

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_FORMAT = "deepgen_ppl archive"
_VERSION = 1
_MANIFEST = "manifest.json"
_ZIP_MAGIC = b"PK\x03\x04"


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    manifest: Mapping[str, Any] | None = None,
) -> Path:
    """Write named arrays and a manifest to one file, whole or not at all.

    The file is written under a temporary name in the same folder and renamed, so that a reader (or
    a crash) never meets half of it. Values and dtypes come back exactly, scalars (shape ``()``) and
    empty arrays included.

    Args:
        path: The file to write; an existing one is replaced.
        arrays: Flat names (``"params/encoder/weight"``) to arrays of boolean, number, string or
            time dtype.
        manifest: Anything JSON can hold.

    Returns:
        The path written.

    Raises:
        ValueError: An array has a dtype that ``.npy`` files cannot hold as data (Python objects,
            bfloat16), or the manifest is not JSON.

    Cost:
        One pass over the bytes; no compression.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "fit.dgp"
        >>> _ = save(path, {"params/loc": np.zeros(3, np.float32)}, {"step": 7})
        >>> arrays, manifest = load(path)
        >>> arrays["params/loc"].dtype, manifest["step"]
        (dtype('float32'), 7)
    """
    path = Path(path)
    host = {name: _storable(name, value) for name, value in arrays.items()}
    try:
        text = json.dumps(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "arrays": {k: {"dtype": v.dtype.str, "shape": v.shape} for k, v in host.items()},
                "manifest": dict(manifest or {}),
            }
        )
    except TypeError as error:
        raise ValueError(
            f"The manifest of {path.name} is not JSON ({error}). Keep only strings, numbers, "
            "booleans, lists and dicts with string keys in it; arrays go into `arrays`."
        ) from error
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        file.writestr(zipfile.ZipInfo(_MANIFEST), text)
        for name, array in host.items():
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return path


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read an archive back, checking that it is whole.

    Args:
        path: A file written by `save`.

    Returns:
        The arrays, by name, and the manifest.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated or damaged, is not an archive of this library, is of a
            later version, or lacks an array its manifest lists.

    Cost:
        One pass over the bytes.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> _ = path.write_text("1 2 3")
        >>> load(path)
        Traceback (most recent call last):
        ...
        ValueError: numbers.txt is not a deepgen_ppl file ...
    """
    path = Path(path)
    with path.open("rb") as stream:
        magic = stream.read(len(_ZIP_MAGIC))
    if magic != _ZIP_MAGIC:
        raise ValueError(
            f"{path.name} is not a deepgen_ppl file (it starts with {magic!r}, not with "
            f"{_ZIP_MAGIC!r}). Name a file written by `save`."
        )
    try:
        with zipfile.ZipFile(path) as file:
            header = _read_header(path, file)
            arrays = {
                name: _read_array(path, file, name, about)
                for name, about in header["arrays"].items()
            }
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(
            f"{path.name} is truncated or damaged ({error}). Use another copy of it, or write it "
            "again."
        ) from error
    return arrays, header["manifest"]


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a temporary name beside `path`, renamed to it on success and removed on failure.

    Args:
        path: The file that is to appear whole. Its folder is made where it is missing.

    Yields:
        The name to write to.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(_default_mode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _default_mode() -> int:
    """Permissions of a new file under the user's mask (`mkstemp` makes private ones)."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _storable(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufcSUmM":
        raise ValueError(
            f"Array '{name}' has dtype {array.dtype}, which an archive cannot hold as plain data. "
            "Convert it first (bfloat16 fits exactly into float32)."
        )
    return array


def _read_header(path: Path, file: zipfile.ZipFile) -> dict[str, Any]:
    foreign = f"{path.name} is a zip file but not a deepgen_ppl file"
    if _MANIFEST not in file.namelist():
        raise ValueError(f"{foreign} (no {_MANIFEST} in it). Name a file written by `save`.")
    try:
        header = json.loads(file.read(_MANIFEST))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{foreign} (its {_MANIFEST} is not JSON: {error}).") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(
            f"{foreign} (its {_MANIFEST} does not say so). Name a file written by `save`."
        )
    if header["version"] > _VERSION:
        raise ValueError(
            f"{path.name} was written in version {header['version']} of the format; this release "
            f"reads up to version {_VERSION}. Upgrade deepgen_ppl."
        )
    return header


def _read_array(path: Path, file: zipfile.ZipFile, name: str, about: dict[str, Any]) -> np.ndarray:
    if f"{name}.npy" not in file.namelist():
        raise ValueError(
            f"{path.name} is incomplete: its manifest lists array '{name}', which is missing."
        )
    with file.open(f"{name}.npy") as member:
        try:
            array = np.lib.format.read_array(member, allow_pickle=False)
        except ValueError as error:
            raise ValueError(
                f"{path.name} is damaged: array '{name}' cannot be read ({error})."
            ) from error
        member.read()  # to the end: only there does the zip reader compare the checksum
    if array.dtype.str != about["dtype"] or list(array.shape) != list(about["shape"]):
        raise ValueError(
            f"{path.name} is damaged: array '{name}' is {array.dtype.str}{list(array.shape)}, its "
            f"manifest says {about['dtype']}{list(about['shape'])}."
        )
    return array
