"""What exact inference keeps of a program: the same question is answered from it, no other is."""

import gc
import importlib
import math
import weakref
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PROGRAMS = "exact"
X = np.array([-0.7, 0.4, 1.9, 2.2], "float32")


@pytest.fixture
def evaluations(wing: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of states at which a program was evaluated."""
    tables = importlib.import_module(f"deepgen_ppl.{wing}.tables")
    seen, evaluate = [], tables.Tables.evaluate

    def counted(self: Any, x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return evaluate(self, x)

    monkeypatch.setattr(tables.Tables, "evaluate", counted)
    return seen


def settings() -> dict[str, Any]:
    return {
        "means": np.array([-1.0, 0.5, 2.0], "float32"),
        "rows": np.array([0.3, 0.5, 0.2], "float32"),
        "factor": 1.0,
    }


def law(found: dict[str, Any], x: np.ndarray, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """The marginals of `adjusted`, `(row, state)`."""
    means = found["means"] * found["factor"] + shift
    joint = found["rows"] * np.exp(-(((x[:, None] - means) / scale) ** 2) / 2)
    return joint / joint.sum(1, keepdims=True)


def test_the_same_question_is_answered_from_what_is_kept(
    exact: Any, programs: ModuleType, evaluations: list[int]
) -> None:
    own = settings()
    model = programs.adjusted(own)
    first = exact(model, X)
    asked = len(evaluations)
    assert asked > 0
    again = exact(model, X.copy(), given={"z": [0, 1, 2, 0]})
    assert len(evaluations) == asked
    np.testing.assert_array_equal(again.marginals["z"].argmax(-1), [0, 1, 2, 0])
    assert again.posterior(num_samples=3).draws["z"].shape == (1, 3, 4)
    np.testing.assert_allclose(first.marginals["z"], law(own, X), atol=2e-6)


Change = Callable[[dict[str, Any], np.ndarray], Any]
CHANGES: dict[str, Change] = {
    "data": lambda own, x: x + 1.0,
    "data in place": lambda own, x: np.add(x, 0.5, out=x),
    "one cell": lambda own, x: np.put(x, 2, -3.0),
    "fewer rows": lambda own, x: x[:2],
    "more rows": lambda own, x: np.concatenate([x, x]),
    "number": lambda own, x: own.update(factor=1.5),
    "array": lambda own, x: own.update(means=own["means"][::-1].copy()),
    "array in place": lambda own, x: np.put(own["means"], 0, 1.2),
    "fewer states": lambda own, x: own.update(means=np.array([-1.0, 1.0], "float32"),
                                              rows=np.array([0.5, 0.5], "float32")),
}  # fmt: skip


def test_what_changed_is_seen(exact: Any, programs: ModuleType) -> None:
    """Data, shapes, numbers and arrays of a closure, changed one after the other."""
    own, x = settings(), X.copy()
    model = programs.adjusted(own)
    np.testing.assert_allclose(exact(model, x).marginals["z"], law(own, x), atol=2e-6)
    for name, change in CHANGES.items():
        found = change(own, x)
        x = x if found is None else found
        for _ in range(2):
            answer = exact(model, x).marginals["z"]
            np.testing.assert_allclose(answer, law(own, x), atol=2e-6, err_msg=name)


def test_globals_and_bound_values_are_seen(
    exact: Any, programs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings()
    model = programs.adjusted(own)
    for shift, scale in ((0.0, 1.0), (0.6, 1.0), (0.6, 2.0), (0.0, 1.0)):
        monkeypatch.setattr(programs, "SHIFT", shift)
        wanted = law(own, X, shift, scale)
        for answer in (
            exact(model, X, model_kwargs={"scale": scale}),
            exact(partial(model, scale=scale), X),
        ):
            np.testing.assert_allclose(answer.marginals["z"], wanted, atol=2e-6)


def test_parameters_and_continuous_latents_are_seen(exact: Any, programs: ModuleType) -> None:
    model = programs.shifted()
    for shift, mean in ((0.2, 0.0), (0.9, 0.0), (0.9, -0.7), (0.2, 0.0)):
        (value,) = programs.tensors((np.array(shift, "float32"),))
        answer = exact(model, X, params={"shift": value}, given={"mean": mean})
        gap = X[:, None] - shift - mean - np.arange(2)
        joint = np.array([0.7, 0.3]) * np.exp(-(gap**2) / 2)
        law = joint / joint.sum(1, keepdims=True)
        np.testing.assert_allclose(answer.marginals["z"], law, atol=2e-6)
    with pytest.raises(ValueError, match="'mean' is continuous"):
        exact(model, X, params={"shift": value})


def test_supports_that_follow_the_data_are_seen(exact: Any, programs: ModuleType) -> None:
    model = programs.trials()
    for limit in ([2, 3], [3, 1], [3, 3], [2, 3]):
        answer = exact(model, np.array(limit))
        for row, most in enumerate(limit):
            counts = np.arange(most + 1)
            choose = np.array([math.comb(most, k) for k in counts])
            joint = choose * 0.4**counts * 0.6 ** (most - counts)
            joint = joint * np.exp(-((1.5 - counts) ** 2) / 2)
            found = answer.marginals["z"][row, : most + 1]
            np.testing.assert_allclose(found, joint / joint.sum(), atol=2e-6)


def test_handlers_around_the_question_are_seen(exact: Any, programs: ModuleType) -> None:
    def law(value: int | None) -> float:
        prior = np.array([0.7, 0.3])
        b = np.array([[0.8, 0.2], [0.3, 0.7]])
        c = np.array([[0.9, 0.1], [0.4, 0.6]])
        last = np.ones(2) if value is None else c[:, value]
        joint = prior * (b @ last)
        return float(joint[1] / joint.sum())

    for value in (None, 1, 0, None):
        if value is None:
            found = exact(programs.pair).marginals["a"][1]
        else:
            with programs.fixed_to(float(value)):
                found = exact(programs.pair).marginals["a"][1]
        np.testing.assert_allclose(found, law(value), atol=1e-6)


def test_what_is_kept_dies_with_the_program(exact: Any, programs: ModuleType) -> None:
    model = programs.adjusted(settings())
    exact(model, X)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
