"""The fit: what training found, and the verbs that use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from deepgen_ppl import archive
from deepgen_ppl.diagnosis import Diagnosis
from deepgen_ppl.diagnostics import diagnose_fit
from deepgen_ppl.energy_monitors import diagnose_energy
from deepgen_ppl.evidence import Evidence
from deepgen_ppl.numpyro.infer.checkpoint import flatten, restore
from deepgen_ppl.numpyro.infer.laplace import normal_guide
from deepgen_ppl.numpyro.program import Pair, abstract_params, read_pair

if TYPE_CHECKING:
    import xarray as xr

    from deepgen_ppl.posterior import Posterior


@dataclass
class Fit:
    """What a verb that trains found: `svi`, `contrastive`, `score_matching` and their like.

    Attributes:
        params: learned values by name (constrained; module parameters as pytrees), with mutable
            state such as batch-norm statistics; host arrays.
        losses: loss of each step per datum of the data plate, shape (num_steps,).
        history: "step", "loss" and "seconds" of each report, and with validation data
            "validation_step" and "validation_loss".
        seconds: time of the steps.
        compile_seconds: time of tracing and compiling.
        model: the model.
        guide: the guide, None for maximum likelihood; after `AutoLaplaceApproximation` the normal
            guide at the mode.
        compiled: how the steps ran; "compiled" on this wing.
        reason: why so.
        seed: the seed.
        stopped: why the run ended early; empty otherwise.
        data: the training data; None after `load_fit`.
        model_kwargs: constants passed by name.
        verb: the verb that was called.
        chains: last values of the sites that the negative phase draws, of each chain; of
            `contrastive` only, and not kept in files.
        evidence: the log normaliser that `noise_contrastive` found, not kept in files.
    """

    params: dict[str, Any]
    losses: Float[np.ndarray, " num_steps"]
    history: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    model: Callable
    guide: Callable | None
    compiled: str = "compiled"
    reason: str = "the whole loop is one compiled function"
    seed: int | Array = 0
    stopped: str = ""
    data: tuple | None = field(default=None, repr=False)
    model_kwargs: dict[str, Any] = field(default_factory=dict, repr=False)
    verb: str = "svi"
    chains: dict[str, Any] | None = field(default=None, repr=False)
    evidence: Evidence | None = None

    def posterior(self, *data: Any, num_samples: int = 1000, seed: int = 0) -> Posterior:
        """Draw from the guide.

        Args:
            *data: data, the training data if omitted.
            num_samples: number of draws.
            seed: seed of the draws.

        Returns:
            Equally weighted draws with "lp" and "log_q" among their statistics.
        """
        from deepgen_ppl.numpyro.infer.importance import draw_guide

        return draw_guide(
            self.model,
            self.guide,
            *self._data(data),
            num_samples=num_samples,
            params=self.params,
            model_kwargs=self.model_kwargs,
            seed=seed,
        )

    def importance(
        self, *data: Any, num_particles: int = 1000, seed: int = 0, **options: Any
    ) -> Posterior:
        """Weigh draws from the guide by importance sampling, see `importance`.

        Args:
            *data: data, the training data if omitted.
            num_particles: number of draws.
            seed: seed of the draws.
            **options: further options of `importance`.
        """
        from deepgen_ppl.numpyro.infer.importance import importance

        return importance(
            self.model,
            self.guide,
            *self._data(data),
            num_particles=num_particles,
            params=self.params,
            model_kwargs=self.model_kwargs,
            seed=seed,
            **options,
        )

    def predict(self, *data: Any, num_samples: int = 1000, seed: int = 0) -> xr.DataTree:
        """Draw from the posterior predictive distribution, see `predict`.

        Args:
            *data: data, the training data if omitted.
            num_samples: number of draws.
            seed: seed of the draws.
        """
        from deepgen_ppl.numpyro.infer.predict import predict

        return predict(
            self.model,
            *self._data(data),
            guide=self.guide,
            num_samples=num_samples,
            params=self.params,
            model_kwargs=self.model_kwargs,
            seed=seed,
        )

    def diagnose(self, *data: Any, num_particles: int = 1000, seed: int = 0) -> Diagnosis:
        """Check whether the loss has settled and how good the guide is.

        Args:
            *data: data, the training data if omitted.
            num_particles: draws by which the guide is judged.
            seed: seed of the draws.

        Cost:
            One `importance` of at most 200 rows.
        """
        from deepgen_ppl.numpyro.infer.importance import judge_guide

        if self.verb != "svi":
            return diagnose_energy(self.losses, self.history, self.verb)
        title = f"svi, {len(self.losses)} steps"
        if self.guide is None or (self.data is None and not data):
            return diagnose_fit(self.losses, None, title=title)
        log_weights, rows = judge_guide(self, self._data(data), num_particles, seed)
        return diagnose_fit(self.losses, log_weights, rows=rows, title=title)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the fit to one file of plain data; `load_fit` reads it.

        Args:
            path: the file; written under a temporary name and renamed.

        Returns:
            The path.

        Raises:
            ValueError: the data arguments hold objects that a file cannot describe.
        """
        data = self._data(())
        pair = read_pair(self.model, self.guide, data, model_kwargs=self.model_kwargs, **_LENIENT)
        manifest = {
            "kind": "fit",
            "wing": "numpyro",
            "data": [_describe(value) for value in data],
            "sites": _sites(pair),
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "stopped": self.stopped,
            "verb": self.verb,
            "seed": self.seed if isinstance(self.seed, int) else None,
        }
        arrays = {**flatten(self.params, "params"), "losses": self.losses}
        arrays |= {f"history/{name}": values for name, values in self.history.items()}
        return archive.save(path, arrays, manifest)

    def _data(self, data: tuple) -> tuple:
        if data:
            return data
        if self.data is None:
            raise ValueError("this fit was loaded from a file, which holds no data: pass the data.")
        return self.data


_LENIENT: dict[str, Any] = {"prior": True, "enumerated": True}


def load_fit(
    path: str | os.PathLike,
    model: Callable,
    guide: Callable | None = None,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Fit:
    """Read a fit back, checking it against the model and guide it is used with.

    Args:
        path: a file that `Fit.save` wrote.
        model: the model, which is read again at the stored data shapes.
        guide: the guide.
        model_kwargs: constants passed by name.

    Returns:
        The fit, without data.

    Raises:
        ValueError: the file is truncated, foreign, or the fit of another model.
    """
    arrays, manifest = archive.load(path)
    name = Path(path).name
    guide = normal_guide(guide)
    if manifest.get("kind") != "fit" or manifest.get("wing") != "numpyro":
        found = f"{manifest.get('wing', '')} {manifest.get('kind', 'file')}".strip()
        raise ValueError(f"{name} holds a {found}, not a fit of the NumPyro wing.")
    data = tuple(_abstract(about) for about in manifest["data"])
    try:
        pair = read_pair(model, guide, data, model_kwargs=model_kwargs, **_LENIENT)
        expected = _sites(pair)
        if expected != manifest["sites"]:
            raise ValueError(_difference(manifest["sites"], expected))
        stored = {n: a for n, a in arrays.items() if n.startswith("params")}
        params = restore(abstract_params(pair, data), stored, "params")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is a fit of another model or guide: {error}") from error
    history = {n.removeprefix("history/"): a for n, a in arrays.items() if n.startswith("history/")}
    return Fit(
        params=jax.device_get(params),
        losses=arrays["losses"],
        history=history,
        seconds=manifest["seconds"],
        compile_seconds=manifest["compile_seconds"],
        model=model,
        guide=guide,
        seed=manifest["seed"] if manifest["seed"] is not None else 0,
        stopped=manifest["stopped"],
        verb=manifest.get("verb", "svi"),
        model_kwargs=dict(model_kwargs or {}),
    )


def _sites(pair: Pair) -> dict[str, Any]:
    return {
        program.role: {name: [site.role, list(site.shape)] for name, site in program.sites.items()}
        for program in pair.programs
    }


def _difference(stored: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    for role in stored.keys() | found.keys():
        old, new = stored.get(role, {}), found.get(role, {})
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                words = [" ".join(map(str, site[name])) if name in site else "absent"
                         for site in (old, new)]  # fmt: skip
                return f"site '{name}' of the {role} is {words[0]} in the file and {words[1]} here."
    return "their sites differ."


def _describe(value: Any) -> Any:
    if isinstance(value, jax.Array | np.ndarray):
        return {"shape": list(value.shape), "dtype": str(np.dtype(value.dtype))}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise ValueError(
        f"a data argument is a {type(value).__name__}, which a file cannot describe. Pass arrays, "
        "or bind it to the model with functools.partial."
    )


def _abstract(about: Mapping[str, Any]) -> Any:
    if "shape" in about:
        dtype = jax.dtypes.canonicalize_dtype(np.dtype(about["dtype"]))
        return jax.ShapeDtypeStruct(tuple(about["shape"]), dtype)
    return about["value"]
