r"""BIF, the interchange format of Bayesian networks, as text: a parser and a writer.

The dialect is that of the bnlearn repository, and what is common beside it: comments, quoted names,
properties (skipped), a ``table`` of a variable that has parents, a ``default`` row.

References:
    Cozman: The interchange format for Bayesian networks, 1998.
    https://www.cs.washington.edu/dm/vfml/appendixes/bif.htm
    Scutari: Bayesian network repository. https://www.bnlearn.com/bnrepository
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float, Int

from deepgen_ppl.net_checks import wrong_row

_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|(?P<token>\"[^\"\n]*\"|[{}()\[\]|,;]|[^\s{}()\[\]|,;\"]+)|\n|[^\S\n]+|.",
    re.DOTALL,
)
_PUNCTUATION = frozenset("{}()[]|,;")
_PLAIN = re.compile(r"[^\s{}()\[\]|,;\"/]+")


class Content(NamedTuple):
    """What a BIF text says.

    Attributes:
        name: Name of the network.
        states: Each variable's states.
        parents: Each variable's parents.
        tables: Each variable's probabilities, axes (parents in order, own states), as written.
    """

    name: str
    states: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]
    tables: dict[str, Float[np.ndarray, "..."]]


def parse(text: str) -> Content:
    """Read a network from BIF text.

    Args:
        text: The text.

    Returns:
        States, parents and tables; whether parents make a cycle is not yet checked.

    Raises:
        ValueError: The text is malformed, or a row of a table is no distribution; the message has
            the line, what was expected there and what was found.

    Cost: Linear in the text; about a second for 400,000 probabilities.

    Example:
        >>> content = parse('''
        ... network weather { }
        ... variable rain { type discrete [ 2 ] { yes, no }; }
        ... variable wet { type discrete [ 2 ] { yes, no }; }
        ... probability ( rain ) { table 0.2, 0.8; }
        ... probability ( wet | rain ) { (yes) 0.9, 0.1; (no) 0.1, 0.9; }
        ... ''')
        >>> content.parents["wet"], content.tables["wet"].tolist()
        (('rain',), [[0.9, 0.1], [0.1, 0.9]])
        >>> parse("variable rain { type continuous; }")
        Traceback (most recent call last):
        ...
        ValueError: BIF, line 1: expected 'discrete', found 'continuous'.
    """
    tokens = _Tokens(text)
    content = Content("unknown", {}, {}, {})
    declared: dict[str, int] = {}
    while (keyword := tokens.peek()) is not None:
        line = tokens.line
        if keyword == "network":
            content = content._replace(name=_network(tokens))
        elif keyword == "variable":
            name, states = _variable(tokens)
            if name in content.states:
                _fail(line, f"variable '{name}' is declared a second time (first in line "
                      f"{declared[name]})")  # fmt: skip
            content.states[name], declared[name] = states, line
        elif keyword == "probability":
            _probability(tokens, content)
        else:
            _fail(line, f"expected 'network', 'variable' or 'probability', found {keyword!r}")
    for name, line in declared.items():
        if name not in content.tables:
            _fail(line, f"variable '{name}' has no probability block")
    return Content(
        content.name,
        content.states,
        {name: content.parents[name] for name in declared},
        {name: content.tables[name] for name in declared},
    )


def write(
    states: Mapping[str, Sequence[str]],
    parents: Mapping[str, Sequence[str]],
    tables: Mapping[str, Float[np.ndarray, "..."]],
    *,
    name: str = "unknown",
) -> str:
    """BIF text of a network; every probability is written so that it is read back exactly.

    Args:
        states: Each variable's states.
        parents: Each variable's parents.
        tables: Each variable's probabilities, axes (parents in order, own states).
        name: Name of the network.

    Returns:
        The text, in the dialect of the bnlearn repository.

    Raises:
        ValueError: A name contains a quotation mark or a line break, which BIF cannot hold.

    Example:
        >>> print(write({"rain": ("yes", "no")}, {"rain": ()}, {"rain": np.array([0.2, 0.8])}))
        network unknown {
        }
        variable rain {
          type discrete [ 2 ] { yes, no };
        }
        probability ( rain ) {
          table 0.2, 0.8;
        }
        <BLANKLINE>
    """
    lines = [f"network {_written(name)} {{", "}"]
    for variable, labels in states.items():
        listed = ", ".join(map(_written, labels))
        lines += [f"variable {_written(variable)} {{",
                  f"  type discrete [ {len(labels)} ] {{ {listed} }};", "}"]  # fmt: skip
    for variable, above in parents.items():
        table = np.asarray(tables[variable], np.float64)
        head = _written(variable) + (f" | {', '.join(map(_written, above))}" if above else "")
        lines.append(f"probability ( {head} ) {{")
        for index in np.ndindex(*table.shape[:-1]):
            values = ", ".join(map(repr, table[index].tolist()))
            where = ", ".join(
                _written(states[p][int(i)]) for p, i in zip(above, index, strict=True)
            )
            lines.append(f"  ({where}) {values};" if above else f"  table {values};")
        lines.append("}")
    return "\n".join(lines) + "\n"


class _Tokens:
    """The words and marks of a text, one after the other, with the line of each."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        self._lines: list[int] = []
        self._at = 0
        line = 1
        for match in _TOKEN.finditer(text):
            token = match["token"]
            if token is not None:
                self._tokens.append(token)
                self._lines.append(line)
            elif not (whole := match[0]).isspace() and not whole.startswith(("//", "/*")):
                _fail(line, f"a quotation mark that opens here is not closed: {whole!r}")
            else:
                line += whole.count("\n")
        self._last = self._lines[-1] if self._lines else line

    @property
    def line(self) -> int:
        return self._lines[self._at] if self._at < len(self._lines) else self._last

    def peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def take(self, expected: str) -> str:
        """The next token, whatever it is; `expected` says what the text ought to have here."""
        if self._at >= len(self._tokens):
            _fail(self._last, f"expected {expected}, found the end of the text")
        self._at += 1
        return self._tokens[self._at - 1]

    def mark(self, mark: str) -> None:
        """Take this very mark or keyword."""
        line = self.line
        found = self.take(f"'{mark}'")
        if found != mark:
            _fail(line, f"expected '{mark}', found {found!r}")

    def name(self, what: str) -> str:
        line = self.line
        found = self.take(what)
        if found in _PUNCTUATION:
            _fail(line, f"expected {what}, found {found!r}")
        return found.strip('"')

    def names(self, what: str, closing: str) -> list[str]:
        """Names separated by commas, up to the closing mark, which is taken too."""
        found = [self.name(what)]
        while (mark := self.peek()) == ",":
            self.mark(",")
            found.append(self.name(what))
        if mark != closing:
            shown = "the end of the text" if mark is None else repr(mark)
            _fail(self.line, f"expected ',' or '{closing}' after {what}, found {shown}")
        self.mark(closing)
        return found

    def numbers(self) -> list[float]:
        """Numbers, separated by commas or spaces, up to a semicolon."""
        found: list[float] = []
        while True:
            line = self.line
            token = self.take("a probability or ';'")
            if token == ";":
                return found
            if token != ",":
                found.append(_number(token, line))

    def skip(self, what: str) -> None:
        """Everything up to the semicolon that ends a property."""
        while self.take(f"';' after {what}") != ";":
            pass


def _network(tokens: _Tokens) -> str:
    tokens.mark("network")
    name = tokens.name("the name of the network")
    tokens.mark("{")
    while tokens.peek() == "property":
        tokens.skip("a property")
    tokens.mark("}")
    return name


def _variable(tokens: _Tokens) -> tuple[str, tuple[str, ...]]:
    tokens.mark("variable")
    name = tokens.name("the name of a variable")
    tokens.mark("{")
    states: tuple[str, ...] = ()
    while tokens.peek() in ("type", "property"):
        if tokens.peek() == "property":
            tokens.skip("a property")
            continue
        for mark in ("type", "discrete", "["):
            tokens.mark(mark)
        line = tokens.line
        size = tokens.take("the number of states")
        tokens.mark("]")
        tokens.mark("{")
        states = tuple(tokens.names(f"a state of '{name}'", "}"))
        tokens.mark(";")
        if size != str(len(states)):
            _fail(line, f"'{name}' has {len(states)} states, {list(states)}, where [ {size} ] is "
                  "announced")  # fmt: skip
    line = tokens.line
    tokens.mark("}")
    if not states:
        _fail(line, f"expected 'type' of variable '{name}', found '}}'")
    return name, states


def _probability(tokens: _Tokens, content: Content) -> None:
    tokens.mark("probability")
    tokens.mark("(")
    line = tokens.line
    name = _known(tokens.name("the name of a variable"), content, line)
    if name in content.tables:
        _fail(line, f"'{name}' has a second probability block")
    above: list[str] = []
    if tokens.peek() == "|":
        tokens.mark("|")
        line = tokens.line
        above = [_known(p, content, line) for p in tokens.names(f"a parent of '{name}'", ")")]
    else:
        tokens.mark(")")
    tokens.mark("{")
    shape = tuple(len(content.states[v]) for v in (*above, name))
    table, lines = np.full(shape, np.nan), np.zeros(shape[:-1], int)
    places = [{label: i for i, label in enumerate(content.states[p])} for p in above]
    entries: dict[str | None, Callable[[], None]] = {
        "table": lambda: _whole_table(tokens, name, table, lines),
        "default": lambda: _default_row(tokens, name, table, lines),
        "(": lambda: _row(tokens, name, above, places, table, lines),
        "property": lambda: tokens.skip("a property"),
    }
    while (entry := entries.get(tokens.peek())) is not None:
        entry()
    line = tokens.line
    tokens.mark("}")
    missing = np.argwhere(np.isnan(table).any(-1))
    if len(missing):
        labels = [content.states[p][i] for p, i in zip(above, missing[0], strict=True)]
        where = f" for ({', '.join(labels)})" if above else ""
        _fail(line, f"expected the probabilities of '{name}'{where} before the block ends")
    wrong = wrong_row(name, content.states, above, table)
    if wrong is not None:
        _fail(int(lines[wrong[0]]), wrong[1].removesuffix("."))
    content.parents[name], content.tables[name] = tuple(above), table


def _row(
    tokens: _Tokens,
    name: str,
    above: list[str],
    places: list[dict[str, int]],
    table: Float[np.ndarray, "..."],
    lines: Int[np.ndarray, "..."],
) -> None:
    tokens.mark("(")
    line = tokens.line
    labels = tokens.names(f"a state of a parent of '{name}'", ")")
    if len(labels) != len(above):
        _fail(line, f"expected one state for each parent of '{name}' ({', '.join(above) or 'none'})"
              f", found ({', '.join(labels)})")  # fmt: skip
    for parent, place, label in zip(above, places, labels, strict=True):
        if label not in place:
            _fail(line, f"expected a state of '{parent}', one of {list(place)}, found {label!r}")
    index = tuple(place[label] for place, label in zip(places, labels, strict=True))
    if not np.isnan(table[index]).any():
        _fail(line, f"the probabilities of '{name}' for ({', '.join(labels)}) stand a second time")
    table[index], lines[index] = _counted(tokens, name, table.shape[-1], line), line


def _default_row(
    tokens: _Tokens, name: str, table: Float[np.ndarray, "..."], lines: Int[np.ndarray, "..."]
) -> None:
    line = tokens.line
    tokens.mark("default")
    row = _counted(tokens, name, table.shape[-1], line)
    lines[np.isnan(table).any(-1)] = line
    table[...] = np.where(np.isnan(table), row, table)


def _whole_table(
    tokens: _Tokens, name: str, table: Float[np.ndarray, "..."], lines: Int[np.ndarray, "..."]
) -> None:
    line = tokens.line
    tokens.mark("table")
    values = np.array(_counted(tokens, name, table.size, line))
    own_first = values.reshape(table.shape[-1], *table.shape[:-1])  # the last parent runs fastest
    table[...], lines[...] = np.moveaxis(own_first, 0, -1), line


def _counted(tokens: _Tokens, name: str, count: int, line: int) -> list[float]:
    numbers = tokens.numbers()
    if len(numbers) != count:
        _fail(line, f"expected {count} probabilities of '{name}', found {len(numbers)}")
    return numbers


def _number(token: str, line: int) -> float:
    try:
        return float(token)
    except ValueError:
        _fail(line, f"expected a probability or ';', found {token!r}")


def _known(name: str, content: Content, line: int) -> str:
    if name not in content.states:
        _fail(line, f"expected a variable that is declared above, found '{name}'")
    return name


def _written(name: str) -> str:
    if '"' in name or "\n" in name:
        raise ValueError(f"BIF cannot hold the name {name!r}: rename it without quotes or breaks.")
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def _fail(line: int, message: str) -> NoReturn:
    raise ValueError(f"BIF, line {line}: {message}.")
