"""Checkpoints: a pytree of arrays in one archive, checked against the run that loads it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepgen_ppl import archive

Arrays = dict[str, np.ndarray]


def flatten(tree: Any, prefix: str = "") -> Arrays:
    """Return a pytree as host arrays by path; random keys as their data.

    Example:
        >>> flatten({"w": np.zeros(2)}, "params")
        {"params['w']": array([0., 0.])}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): _to_host(leaf) for path, leaf in leaves}


def restore(like: Any, arrays: Mapping[str, np.ndarray], prefix: str = "") -> Any:
    """Return a pytree of the structure of `like` from host arrays by path.

    Raises:
        ValueError: an array is missing, left over, or of another shape; the message names it.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    names = [prefix + jax.tree_util.keystr(path) for path, _ in leaves]
    stored = {name for name in arrays if name.startswith(prefix)}
    for name in sorted(set(names) ^ stored):
        where = "lacks" if name not in stored else "holds the unknown"
        raise ValueError(f"it {where} array {name}")
    values = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        expected = np.shape(_to_host(leaf))
        if arrays[name].shape != expected:
            raise ValueError(f"array {name} has shape {arrays[name].shape}, expected {expected}")
        values.append(_to_device(arrays[name], leaf))
    return jax.tree.unflatten(treedef, values)


class Checkpoint:
    """A file that holds the state of a run.

    Args:
        path: the file; written under a temporary name and renamed.
        settings: what must agree between the run that wrote it and the run that loads it.
        every: least number of seconds between two writes.
    """

    def __init__(
        self, path: str | os.PathLike, settings: Mapping[str, Any], every: float = 30.0
    ) -> None:
        self.path, self.settings, self.every = Path(path), dict(settings), every
        self._written = time.monotonic()

    def exists(self) -> bool:
        """Tell whether there is a file to resume from."""
        return self.path.exists()

    def due(self) -> bool:
        """Tell whether the last write was long enough ago."""
        return time.monotonic() - self._written > self.every

    def save(self, tree: Any, arrays: Arrays, manifest: Mapping[str, Any]) -> None:
        """Write a pytree, further arrays and a manifest, atomically."""
        about = {"kind": "checkpoint", "settings": self.settings, **manifest}
        archive.save(self.path, {**flatten(tree, "state"), **arrays}, about)
        self._written = time.monotonic()

    def load(self, like: Any) -> tuple[Any, Arrays, dict[str, Any]]:
        """Return the pytree, the further arrays and the manifest.

        Raises:
            ValueError: the file is truncated or foreign, or of a run with other settings.
        """
        arrays, manifest = archive.load(self.path)
        cure = f"Delete {self.path}, or give checkpoint= another path."
        if manifest.get("kind") != "checkpoint":
            raise ValueError(f"{self.path} holds a {manifest.get('kind')}, no checkpoint. {cure}")
        for name, value in self.settings.items():
            if manifest["settings"].get(name) != value:
                raise ValueError(
                    f"checkpoint {self.path} is of another run: {name} was "
                    f"{manifest['settings'].get(name)}, now {value}. {cure}"
                )
        try:
            tree = restore(
                like, {n: a for n, a in arrays.items() if n.startswith("state")}, "state"
            )
        except ValueError as error:
            raise ValueError(
                f"checkpoint {self.path} is of another run: {error}. {cure}"
            ) from error
        rest = {n: a for n, a in arrays.items() if not n.startswith("state")}
        return tree, rest, manifest


def _to_host(leaf: Any) -> np.ndarray:
    abstract = isinstance(leaf, jax.ShapeDtypeStruct)
    if _is_key(leaf):
        key_data = jax.random.key_data
        leaf = jax.eval_shape(key_data, leaf) if abstract else key_data(leaf)
    if abstract:
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    if jnp.result_type(leaf) == jnp.bfloat16:
        leaf = jnp.asarray(leaf, jnp.float32)  # exact, and a dtype that files know
    return np.asarray(leaf)


def _to_device(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array))
    return jnp.asarray(array, jnp.result_type(like))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
