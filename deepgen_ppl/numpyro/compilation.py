"""Compiling once: programs kept per function and shapes, and on request JAX's cache on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from deepgen_ppl.halves import switch
from deepgen_ppl.kept import Kept
from deepgen_ppl.numpyro.convolutions import trace
from deepgen_ppl.numpyro.fingerprint import fingerprint, surroundings

if TYPE_CHECKING:
    from deepgen_ppl.numpyro.structure import Pair

Compiled = Callable[..., Any]

_MOST_KEPT = 64
"""Functions kept for one owner, the oldest go first: machine code takes memory maps, of which a
process has about 65,000."""

FAST_COMPILE: Any = {"xla_backend_optimization_level": 0}
"""Half the time to compile, and the same results up to rounding."""


class _Entry(NamedTuple):
    run: Compiled
    shapes: Any


_KEPT: Kept[_Entry] = Kept()


class Build:
    """Functions of one program, compiled together, or taken as they were compiled before.

    A function is known by its name, by the structure, shapes and types of its arguments (arrays
    are inputs, so other values of the same shapes do not compile again), and by the fingerprint of
    the program: one whose closure or globals changed, or the handlers around it, is compiled again.

    Args:
        owner: the program's own function; when it is gone, so is what was compiled for it.
        *also: whatever else the code of its functions depends on, by `fingerprint`.

    Example:
        >>> import jax.numpy as jnp
        >>> def owner(): ...
        >>> build = Build(owner)
        >>> build.add("double", lambda x: 2 * x, jnp.ones(3)).shape
        (3,)
        >>> build.compile()["double"](jnp.ones(3)).tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(self, owner: Any, *also: Any) -> None:
        self.seconds = 0.0
        self._code = fingerprint(owner, *also), surroundings(), switch()
        self._table = _KEPT.of(owner)
        self._keys: dict[str, Hashable] = {}
        self._lowered: dict[str, Any] = {}
        self._options: dict[str, Any] = {}

    def add(
        self, name: str, fn: Callable, *args: Any, static: Hashable = (), once: bool = False
    ) -> Any:
        """Trace a function unless it is known, and return the shapes of what it returns.

        Args:
            name: its name among the owner's functions.
            fn: the function.
            *args: arguments, or their shapes.
            static: whatever else its code depends on.
            once: whether it runs once or twice only, so that compiling fast counts for more than
                fast code.
        """
        began = time.perf_counter()
        self._keys[name] = key = (name, static, structure_of(args), self._code)
        shapes: Any
        if key in self._table:
            shapes = self._table[key].shapes
        else:
            self._lowered[name] = lowered = trace(fn, *args).lower()
            self._options[name] = FAST_COMPILE if once else None
            shapes = lowered.out_info
        self.seconds += time.perf_counter() - began
        return shapes

    def compile(self) -> dict[str, Compiled]:
        """Compile what is new, each function in a thread of its own, and return all by name."""
        began = time.perf_counter()
        if self._lowered:
            with ThreadPoolExecutor(min(len(self._lowered), os.cpu_count() or 1)) as pool:
                jobs = {
                    name: pool.submit(lowered.compile, compiler_options=self._options[name])
                    for name, lowered in self._lowered.items()
                }
            for name, job in jobs.items():
                entry = _Entry(job.result(), self._lowered[name].out_info)
                self._table[self._keys[name]] = entry
            kept = set(self._keys.values())
            old = [key for key in self._table if key not in kept]
            for key in old[: max(len(self._table) - _MOST_KEPT, 0)]:
                del self._table[key]
            self._lowered = {}
        self.seconds += time.perf_counter() - began
        return {name: self._table[key].run for name, key in self._keys.items()}


def compiled(
    owner: Any, name: str, fn: Callable, *args: Any, static: Hashable = (), once: bool = False
) -> Compiled:
    """Return one function of a program, compiled for the shapes of some arguments."""
    build = owner if isinstance(owner, Build) else Build(owner)
    build.add(name, fn, *args, static=static, once=once)
    return build.compile()[name]


def kept(build: Build, name: str, fn: Callable, *args: Any) -> Any:
    """Return what a function of a program returns, compiled fast and kept: for what runs seldom.

    Args:
        build: where it is kept; its code must depend on nothing that this does not know.
        name: its name there.
        fn: the function.
        *args: its arguments.

    Example:
        >>> def owner(): ...
        >>> kept(Build(owner), "double", lambda x: 2 * x, 3.0).item()
        6.0
    """
    return compiled(build, name, fn, *args, once=True)(*args)


def quickly(fn: Callable, *args: Any) -> Any:
    """Return what a function returns, compiled fast: for what runs once and is not kept.

    Args:
        fn: the function.
        *args: its arguments.

    Example:
        >>> quickly(lambda x: 2 * x, 3.0).item()
        6.0
    """
    return jax.jit(fn).lower(*args).compile(compiler_options=FAST_COMPILE)(*args)


def build_of(pair: Pair, *also: Any) -> Build:
    """Return the functions of a model and its guide: kept with the guide, known by both.

    Args:
        pair: model and guide; what is kept is gone with the guide, or with a model without one.
        *also: whatever else their code depends on, by `fingerprint`.
    """
    readings = [
        (
            program.role,
            program.data_plates,
            program.tables,
            sorted(program.fixed),
            program.num_rows,
            program.state,
            list(program.params),
            [(n, s.role, s.shape, s.plates, s.reparametrised) for n, s in program.sites.items()],
        )
        for program in pair.programs
    ]
    functions = [program.fn for program in pair.programs]
    return Build(functions[-1], *functions, readings, pair[2:], *also)


def use_compilation_cache(path: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs on disk, so that a new process need not compile them again.

    It sets JAX's own persistent compilation cache for this process, with thresholds that keep small
    programs too. Nothing is kept on disk unless this is called.

    Args:
        path: the folder; by default `deepgen_ppl/jax` in the user's cache folder.

    Returns:
        The folder.

    Cost:
        A file of about 0.1 to 1 MB for each compiled function; JAX evicts none by itself.

    References:
        https://docs.jax.dev/en/latest/persistent_compilation_cache.html

    Example:
        >>> import tempfile
        >>> before = jax.config.jax_compilation_cache_dir
        >>> folder = use_compilation_cache(tempfile.mkdtemp())
        >>> folder.is_dir()
        True
        >>> jax.config.update("jax_compilation_cache_dir", before)
    """
    from jax.experimental.compilation_cache import compilation_cache

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(path) if path is not None else base / "deepgen_ppl" / "jax"
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX asks for the folder once, at the first compilation
    return folder


def structure_of(args: Sequence[Any]) -> Hashable:
    """Return structure, shapes and types of arguments, by which compiled code is known."""
    leaves, tree = jax.tree.flatten(args)
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    context = (jax.dtypes.canonicalize_dtype(float), str(device))
    return (tree, tuple(map(_leaf, leaves)), context)


def _leaf(leaf: Any) -> Hashable:
    abstract = jax.typeof(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    where = leaf.sharding if getattr(leaf, "committed", False) else None
    return (abstract.shape, abstract.dtype, bool(getattr(abstract, "weak_type", False)), where)
