"""Readings of programs: kept while nothing they use changes, checked again where something does."""

from collections.abc import Sequence

import numpy as np
import pytest

from deepgen_ppl import readings
from deepgen_ppl.discrete import Coordinates
from deepgen_ppl.readings import Reading, digests
from deepgen_ppl.scopes import Evaluate, Term
from deepgen_ppl.tabulation import tabulate

SITES = Coordinates.of({"z": np.arange(3)[None]}, {"z": (5,)})
PLATES = {"z": ("rows",)}
TERMS = [
    Term("prior", 0, (5,), ("rows",), ("z",)),
    Term("x", 5, (5,), ("rows",), ("z",)),
    Term("free", 10, (2,), (None,), ()),
]
USES = {"prior": frozenset[int](), "x": frozenset({0, 1}), "free": frozenset({2})}


class Program:
    """Terms of three arguments, and how often each set of them was evaluated."""

    def __init__(self) -> None:
        self.arguments = [np.arange(5.0), np.zeros(5), np.ones(2)]
        self.seen: list[tuple[str, ...]] = []

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return self._terms(x, TERMS)

    def only(self, terms: Sequence[Term]) -> Evaluate:
        return lambda x: self._terms(x, terms)

    def contents(self) -> list[bytes]:
        return digests(self.arguments)

    def read(self) -> Reading:
        found = tabulate(SITES, PLATES, TERMS, self.evaluate)
        return Reading(TERMS, found, USES, self.contents())

    def _terms(self, x: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        self.seen.append(tuple(term.name for term in terms))
        a, b, c = self.arguments
        found = {
            "prior": np.sin(1.0 + x),
            "x": np.cos(x * (1 + a) + b * x[:, ::-1]),
            "free": np.broadcast_to(c, (len(x), 2)),
        }
        return np.concatenate([found[term.name] for term in terms], 1)


@pytest.fixture(params=[1 << 20, 0], ids=["all terms", "changed terms"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(readings, "_FEW_NUMBERS", request.param)
    return Program()


def _asked(program: Program, reading: Reading) -> tuple:
    assert reading.holds(program.evaluate, program.only, program.contents())
    return reading.tables(program.evaluate, program.only, program.contents())


def test_nothing_is_evaluated_where_nothing_changed(program: Program):
    reading = program.read()
    first = _asked(program, reading)
    program.seen.clear()
    again = _asked(program, reading)
    assert program.seen == []
    assert all(one is other for one, other in zip(first[0], again[0], strict=True))


def test_tables_follow_the_arguments(program: Program):
    reading = program.read()
    _asked(program, reading)
    for place, value in ((0, np.ones(5)), (2, np.array([3.0, 4.0])), (0, np.arange(5.0) + 2)):
        program.arguments[place] = value
        program.seen.clear()
        found, constants = _asked(program, reading)
        alone = set(program.seen)
        fresh, other = reading.tabulation.tables(program.evaluate)
        for one, same in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(constants, other)
        if readings._FEW_NUMBERS == 0:
            assert alone == {("free",) if place == 2 else ("x",)}


def test_terms_that_touch_more_at_other_data_are_seen(program: Program):
    reading = program.read()
    _asked(program, reading)
    program.arguments[1] = np.array([0.0, 0.0, 0.0, 0.0, 0.3])
    assert not reading.holds(program.evaluate, program.only, program.contents())
    assert not reading.holds(program.evaluate, program.only, program.contents())


def test_large_tables_are_not_kept(program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readings, "MOST_BYTES", 0)
    reading = program.read()
    _asked(program, reading)
    program.seen.clear()
    _asked(program, reading)
    assert program.seen
