"""Checkpoints: tensors and a manifest in one archive, checked against the run that loads it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepgen_ppl import archive

Arrays = dict[str, np.ndarray]


def flatten(tree: Any, prefix: str = "") -> tuple[Arrays, Any]:
    """Return the tensors of nested dicts and lists by path, and the rest as JSON with their places.

    Example:
        >>> arrays, rest = flatten({"w": torch.zeros(2), "lr": 0.1}, "state")
        >>> sorted(arrays), rest
        (['state/w'], {'w': {'tensor': 'state/w'}, 'lr': 0.1})
    """
    arrays: Arrays = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            arrays[path] = to_host(value)
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {str(key): walk(item, f"{path}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, f"{path}/{i}") for i, item in enumerate(value)]
        if isinstance(value, int | float | str | bool | None):
            return value
        raise ValueError(f"{path} holds a {type(value).__name__}, which no file can keep as data")

    return arrays, walk(tree, prefix)


def restore(rest: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `flatten` was given."""
    if isinstance(rest, Mapping):
        if set(rest) == {"tensor"}:
            return torch.tensor(arrays[rest["tensor"]])
        return {key: restore(value, arrays) for key, value in rest.items()}
    if isinstance(rest, list):
        return [restore(value, arrays) for value in rest]
    return rest


def to_host(value: Tensor) -> np.ndarray:
    """Return a tensor as a host array."""
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()


class Checkpoint:
    """A file that holds the state of a run.

    Args:
        path: The file; written under a temporary name and renamed.
        settings: What must agree between the run that wrote it and the run that loads it.
        every: Least number of seconds between two writes.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], every: float = 30.0
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
        """Write a tree of tensors, further arrays and a manifest, atomically."""
        state, rest = flatten(tree, "state")
        about = {"kind": "checkpoint", "settings": self.settings, "tree": rest, **manifest}
        archive.save(self.path, {**state, **arrays}, about)
        self._written = time.monotonic()

    def load(self) -> tuple[Any, Arrays, dict[str, Any]]:
        """Return the tree, the further arrays and the manifest.

        Raises:
            ValueError: The file is truncated or foreign, or of a run with other settings.
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
        rest = {n: a for n, a in arrays.items() if not n.startswith("state/")}
        return restore(manifest["tree"], arrays), rest, manifest
