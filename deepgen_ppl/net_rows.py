"""Rows of discrete data: labels to numbers of states and back, missing cells, ranges checked.

A cell that is missing is masked in a `numpy.ma.MaskedArray`, or False in a mask of observed cells
as the languages' ``obs_mask`` has it; NaN, None and the empty string are missing labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

States = Mapping[str, tuple[str, ...]]


def encode(states: States, rows: Any) -> np.ma.MaskedArray:
    """Labels to numbers of states, a missing cell masked.

    Args:
        states: Each variable's labels.
        rows: A sequence of rows of labels in the order of the variables, or a mapping of variables
            to columns of labels; a variable without a column is missing in every row.

    Returns:
        The numbers, `(row, variable)`; None, NaN and "" are masked.

    Raises:
        ValueError: A label, a variable or a shape that the variables do not have.

    Example:
        >>> encode({"rain": ("no", "yes"), "wet": ("no", "yes")}, [["yes", None], ["no", "yes"]])
        masked_array(
          data=[[1, --],
                [0, 1]],
          mask=[[False,  True],
                [False, False]],
          fill_value=-1)
    """
    if isinstance(rows, Mapping):
        columns = _columns(states, rows)
    else:
        table = np.asarray(rows, dtype=object)
        if table.ndim != 2 or table.shape[1] != len(states):
            raise ValueError(
                f"Rows of labels have the shape (row, {len(states)}), a column for each of "
                f"{list(states)}; this has the shape {table.shape}."
            )
        columns = dict(zip(states, table.T, strict=True))
    numbers = np.stack([label_numbers(v, states[v], columns[v]) for v in states], axis=1)
    return np.ma.MaskedArray(numbers, numbers < 0, fill_value=-1)


def decode(states: States, rows: Any) -> np.ndarray:
    """Numbers of states to labels, None where a cell is masked.

    Args:
        states: Each variable's labels.
        rows: Numbers, `(row, variable)`.

    Returns:
        The labels, an array of objects.

    Raises:
        ValueError: A number outside of the range, or another shape.

    Example:
        >>> decode({"rain": ("no", "yes"), "wet": ("no", "yes")}, [[1, 0]]).tolist()
        [['yes', 'no']]
    """
    numbers, observed = as_rows(states, rows)
    labels = np.full(numbers.shape, None, dtype=object)
    for column, names in enumerate(states.values()):
        labels[:, column] = np.array(names, dtype=object)[numbers[:, column]]
    labels[~observed] = None
    return labels


def as_rows(
    states: States, rows: Any, mask: Any = None
) -> tuple[Int[np.ndarray, "N V"], Bool[np.ndarray, "N V"]]:
    """Rows as numbers of states, 0 where a cell is missing, beside the mask of observed cells.

    Args:
        states: Each variable's labels.
        rows: Numbers of states, `(row, variable)`, masked where missing; or labels, as `encode`
            takes them.
        mask: Observed cells, `(row, variable)`; all that are not masked by default.

    Returns:
        Numbers and mask.

    Raises:
        ValueError: A shape, a number or a label that the variables do not have; NaN.

    Example:
        >>> as_rows({"rain": ("no", "yes")}, [[1], [0]], mask=[[True], [False]])
        (array([[1], [0]]), array([[ True], [False]]))
    """
    if isinstance(rows, Mapping) or np.asanyarray(rows).dtype.kind in "OUS":
        rows = encode(states, rows)
    data, shape = np.ma.getdata(rows), (np.shape(rows)[0] if np.ndim(rows) else 0, len(states))
    if np.shape(rows) != shape:
        raise ValueError(
            f"Rows have the shape (row, {len(states)}), a column for each of {list(states)}; these "
            f"have the shape {np.shape(rows)}."
        )
    observed = ~np.ma.getmaskarray(rows)
    if mask is not None:
        if np.shape(mask) != shape or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"The mask is boolean, True where a cell is observed, and has the shape of the "
                f"rows {shape}; this one is {np.asarray(mask).dtype} of shape {np.shape(mask)}."
            )
        observed = observed & np.asarray(mask)
    numbers = np.zeros(shape, np.int64)
    for column, (variable, labels) in enumerate(states.items()):
        seen = observed[:, column]
        numbers[seen, column] = _checked(variable, labels, data[seen, column], np.flatnonzero(seen))
    return numbers, observed


def state_numbers(variable: str, labels: Sequence[str], values: Any) -> Any:
    """The values of one variable as numbers of states, whether they came as labels or numbers.

    Args:
        variable: Its name, for messages.
        labels: Its states.
        values: One value or an array of them: labels (None, NaN, "" missing), or numbers, masked
            where missing.

    Returns:
        int64 numbers of the same shape, a masked array where a value is missing.

    Raises:
        ValueError: A label or number that the variable does not have.

    Example:
        >>> int(state_numbers("rain", ("no", "yes"), "yes"))
        1
        >>> state_numbers("rain", ("no", "yes"), ["yes", "no", "yes"])
        array([1, 0, 1])
    """
    array = np.ma.asarray(values) if np.ma.isMaskedArray(values) else np.asarray(values)
    missing = np.ma.getmaskarray(array).ravel()
    flat, numbers = np.ma.getdata(array).ravel(), np.full(array.size, -1, np.int64)
    if array.dtype.kind in "OUS":
        numbers[~missing] = label_numbers(variable, labels, flat[~missing])
    else:
        numbers[~missing] = _checked(variable, labels, flat[~missing], np.flatnonzero(~missing))
    numbers = numbers.reshape(array.shape)
    return np.ma.MaskedArray(numbers, numbers < 0) if (numbers < 0).any() else numbers


def label_numbers(variable: str, labels: Sequence[str], cells: Any) -> Int[np.ndarray, "N"]:
    """Labels of one variable to numbers of states, -1 where a cell is missing.

    Raises:
        ValueError: A label that the variable does not have, with its row.

    Example:
        >>> label_numbers("rain", ("no", "yes"), ["yes", None])
        array([ 1, -1])
    """
    places: dict[Any, int] = {label: number for number, label in enumerate(labels)}
    numbers = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        missing = cell is None or cell == "" or cell != cell
        number = -1 if missing else places.get(str(cell))
        if number is None:
            raise ValueError(
                f"'{variable}' has no state {str(cell)!r} (row {row}); its states are "
                f"{list(labels)}."
            )
        numbers[row] = number
    return numbers


def ancestral(
    order: Sequence[str],
    parents: Mapping[str, Sequence[str]],
    tables: Mapping[str, np.ndarray],
    num_samples: int,
    seed: int,
    fixed: Mapping[str, Any],
) -> Int[np.ndarray, "num_samples V"]:
    """Rows drawn with parents before children; columns in the order of the tables.

    Args:
        order: Every variable after its parents.
        parents: Each variable's parents.
        tables: Each variable's probabilities, axes (parents in order, own states).
        num_samples: Number of rows.
        seed: Seed of NumPy's generator.
        fixed: Numbers of states that are not drawn, one or a value for each row.

    Example:
        >>> tables = {"a": np.array([0.0, 1.0]), "b": np.array([[1.0, 0.0], [0.0, 1.0]])}
        >>> ancestral(["a", "b"], {"a": (), "b": ("a",)}, tables, 2, 0, {}).tolist()
        [[1, 1], [1, 1]]
    """
    rng = np.random.default_rng(seed)
    column = {v: np.zeros(num_samples, np.int64) for v in tables}
    for variable in order:
        uniform = rng.random(num_samples)  # drawn for fixed ones too: the others stay the same
        if variable in fixed:
            column[variable][:] = fixed[variable]
            continue
        limits = tables[variable].cumsum(-1)[..., :-1]
        rows = limits[tuple(column[p] for p in parents[variable])]
        column[variable] = (uniform[:, None] >= rows).sum(-1)
    return np.stack(list(column.values()), axis=1)


def check_fixed(parents: Mapping[str, Sequence[str]], fixed: Mapping[str, Any]) -> None:
    """Refuse fixed variables below drawn ones.

    Args:
        parents: Each variable's parents.
        fixed: What is not drawn.

    Raises:
        ValueError: A fixed variable has a parent that is not fixed.
    """
    for variable in fixed:
        loose = [p for p in parents[variable] if p not in fixed]
        if loose:
            raise ValueError(
                f"'{variable}' is given but its parent '{loose[0]}' is not: drawing forwards "
                "would not condition on it. Use `exact(net, given=...).sample(...)`."
            )


def log_prob(
    parents: Mapping[str, Sequence[str]],
    log_tables: Mapping[str, np.ndarray],
    numbers: Int[np.ndarray, "N V"],
) -> Float[np.ndarray, "N"]:
    """Log probability of whole rows, columns in the order of the tables.

    Args:
        parents: Each variable's parents.
        log_tables: Log probabilities of each variable, axes (parents in order, own states).
        numbers: Numbers of states.
    """
    column = dict(zip(log_tables, numbers.T, strict=True))
    total = np.zeros(len(numbers))
    for variable, table in log_tables.items():
        total += table[tuple(column[v] for v in (*parents[variable], variable))]
    return total


def _columns(states: States, rows: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in rows if name not in states]
    if unknown:
        raise ValueError(f"There is no variable {unknown[0]!r}; the variables are {list(states)}.")
    lengths = {name: len(np.atleast_1d(np.asarray(cells))) for name, cells in rows.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"The columns have unequal lengths: {lengths}.")
    absent = [None] * next(iter(lengths.values()))
    return {v: np.atleast_1d(np.asarray(rows.get(v, absent), dtype=object)) for v in states}


def _checked(
    variable: str, labels: Sequence[str], values: np.ndarray, rows: Int[np.ndarray, "N"]
) -> Int[np.ndarray, "N"]:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"'{variable}' takes numbers of states or labels; got {values.dtype}.")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(
            f"'{variable}' is NaN in row {rows[np.isnan(values).argmax()]}. If it is missing, say "
            "so: a masked array, or mask=, which is True where a cell is observed."
        )
    wrong = (values < 0) | (values >= len(labels)) | (values != np.floor(values))
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"'{variable}' is {values[first]} in row {rows[first]}; its states are the whole "
            f"numbers 0 to {len(labels) - 1} ({', '.join(labels)})."
        )
    return values.astype(np.int64)
