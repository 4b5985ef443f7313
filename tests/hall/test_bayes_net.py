"""Bayesian networks as data: what is refused, what is counted, drawn and independent."""

import itertools
import json

import numpy as np
import pytest

from deepgen_ppl import directed
from deepgen_ppl.bayes_net import BayesNet

STUDENT = BayesNet.student()
BITS = ("0", "1")


def random_net(seed: int, num_variables: int = 5) -> BayesNet:
    """A random graph over variables of two or three states, their order shuffled."""
    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in rng.permutation(num_variables)]
    states = {v: tuple(map(str, range(rng.integers(2, 4)))) for v in sorted(names)}
    parents = {
        v: tuple(p for p in rng.permutation(names[:i])[:3] if rng.random() < 0.7)
        for i, v in enumerate(names)
    }
    tables = {}
    for v in names:
        shape = [len(states[p]) for p in (*parents[v], v)]
        table = rng.gamma(0.7, size=shape)
        tables[v] = table / table.sum(-1, keepdims=True)
    return BayesNet(states, parents, tables)


def every_row(net: BayesNet) -> np.ndarray:
    return np.array(list(itertools.product(*(range(len(s)) for s in net.states.values()))))


def joint_table(net: BayesNet) -> np.ndarray:
    shape = [len(labels) for labels in net.states.values()]
    return np.exp(net.log_prob(every_row(net))).reshape(shape)


@pytest.mark.parametrize("seed", range(5))
def test_the_joint_sums_to_one_and_its_conditionals_are_the_tables(seed: int) -> None:
    net = random_net(seed)
    joint = joint_table(net)
    assert joint.sum() == pytest.approx(1.0, abs=1e-12)
    for variable, above in net.parents.items():
        keep = [net.variables.index(v) for v in (*above, variable)]
        axes = tuple(i for i in range(joint.ndim) if i not in keep)
        family = joint.sum(axes, keepdims=True).transpose(*keep, *axes)
        family = family.reshape(net.tables[variable].shape)
        conditional = family / family.sum(-1, keepdims=True)
        np.testing.assert_allclose(conditional, net.tables[variable], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_samples_have_the_frequencies_of_the_joint(seed: int) -> None:
    net, num_samples = random_net(seed), 40_000
    rows = net.sample(num_samples, seed=seed)
    sizes = [len(labels) for labels in net.states.values()]
    counts = np.bincount(np.ravel_multi_index(rows.T, sizes), minlength=int(np.prod(sizes)))
    expected = joint_table(net).ravel()
    error = np.sqrt(expected * (1 - expected) / num_samples)
    assert (np.abs(counts / num_samples - expected) <= 5 * error + 1e-12).all()


def test_samples_condition_on_fixed_values_whose_ancestors_are_fixed() -> None:
    given = {"difficulty": "hard", "intelligence": 1, "grade": ["B"] * 20_000}
    rows = STUDENT.sample(20_000, seed=1, given=given)
    assert (rows[:, :3] == [1, 1, 1]).all()
    for column, probability in ((3, 0.8), (4, 0.6)):
        error = np.sqrt(probability * (1 - probability) / 20_000)
        assert abs(rows[:, column].mean() - probability) < 5 * error
    with pytest.raises(ValueError, match="'grade' is given but its parent 'difficulty' is not"):
        STUDENT.sample(3, given={"grade": "A"})
    with pytest.raises(ValueError, match="no state 'D'"):
        STUDENT.sample(3, given={"difficulty": "D"})


def test_the_student_network_has_the_parameters_of_the_book() -> None:
    assert STUDENT.parameter_counts() == (15, 47, 12, 6)
    assert STUDENT.order.index("grade") > STUDENT.order.index("intelligence")
    assert [str(s) for s in STUDENT.independencies()] == [
        "difficulty ⊥ intelligence, SAT",
        "intelligence ⊥ difficulty",
        "grade ⊥ SAT | difficulty, intelligence",
        "SAT ⊥ difficulty, grade, letter | intelligence",
        "letter ⊥ difficulty, intelligence, SAT | grade",
    ]


def independent(joint: np.ndarray, a: int, b: int, given: tuple[int, ...]) -> bool:
    """Whether a and b are independent given the rest in the numbers of the joint table."""
    axes = tuple(i for i in range(joint.ndim) if i not in (a, b, *given))
    table = joint.sum(axes, keepdims=True)
    product = table.sum(a, keepdims=True) * table.sum(b, keepdims=True)
    return bool(np.allclose(table * table.sum((a, b), keepdims=True), product, atol=1e-10))


@pytest.mark.parametrize("seed", range(6))
def test_d_separation_is_independence_in_the_numbers(seed: int) -> None:
    net = random_net(seed)  # random tables have no independence that the graph does not imply
    joint = joint_table(net)
    columns = range(len(net.variables))
    for a, b in itertools.combinations(columns, 2):
        rest = [c for c in columns if c not in (a, b)]
        for size in range(len(rest) + 1):
            for given in itertools.combinations(rest, size):
                names = [net.variables[c] for c in given]
                separated = net.d_separated(net.variables[a], net.variables[b], names)
                assert separated == independent(joint, a, b, given), (a, b, given)


def test_a_blanket_separates_a_variable_from_all_others() -> None:
    for seed in range(5):
        net = random_net(seed, num_variables=7)
        for variable in net.variables:
            blanket = net.markov_blanket(variable)
            others = set(net.variables) - blanket - {variable}
            if others:
                assert net.d_separated(variable, others, blanket)
            for member in blanket:  # and none of it can be left out
                assert not net.d_separated(variable, member, blanket - {member})
    assert net.moral_graph().keys() == set(net.variables)
    assert all(net.moral_graph()[v] == net.markov_blanket(v) for v in net.variables)


def test_labels_become_numbers_and_come_back() -> None:
    rows = [["hard", "low", "C", None, "weak"], ["easy", "high", "A", "high", float("nan")]]
    numbers = STUDENT.encode(rows)
    assert numbers.tolist() == [[1, 0, 2, None, 0], [0, 1, 0, 1, None]]
    assert STUDENT.decode(numbers).tolist() == [rows[0], [*rows[1][:4], None]]
    assert STUDENT.state_numbers("SAT", np.ma.MaskedArray([1, 7], [False, True])).tolist() == [
        1,
        None,
    ]
    full = STUDENT.sample(20)
    assert (STUDENT.encode(STUDENT.decode(full)) == full).all()
    np.testing.assert_array_equal(STUDENT.log_prob(STUDENT.decode(full)), STUDENT.log_prob(full))


def test_plain_data_goes_through_json() -> None:
    again = BayesNet.from_dict(json.loads(json.dumps(STUDENT.to_dict())))
    assert again.states == STUDENT.states and again.parents == STUDENT.parents
    for variable, table in STUDENT.tables.items():
        np.testing.assert_array_equal(again.tables[variable], table)
        with pytest.raises(ValueError, match="read-only"):
            again.tables[variable][...] = 0
    with pytest.raises(ValueError, match="this has"):
        BayesNet.from_dict({"states": {}, "edges": []})


def test_rows_within_the_precision_of_files_are_normalised() -> None:
    net = BayesNet({"a": BITS}, {}, {"a": [0.3, 0.7000003]})
    assert net.tables["a"].sum() == pytest.approx(1.0, abs=1e-15)


def net_with(**changes: object) -> BayesNet:
    content: dict = {
        "states": {"a": BITS, "b": BITS, "c": BITS},
        "parents": {"b": ("a",), "c": ("a", "b")},
        "tables": {"a": [0.5, 0.5], "b": np.full((2, 2), 0.5), "c": np.full((2, 2, 2), 0.5)},
    }
    for key, value in changes.items():
        content[key] = {**content[key], **value}  # type: ignore[dict-item]
    return BayesNet(**content)


BAD_ROW = np.full((2, 2, 2), 0.5)
BAD_ROW[1, 0] = [0.5, 0.6]
NEGATIVE = np.full((2, 2, 2), 0.5)
NEGATIVE[0, 1] = [1.5, -0.5]

REFUSED = {
    "cycle": (
        {"parents": {"a": ("c",)}, "tables": {"a": np.full((2, 2), 0.5)}},
        r"cycle: a -> c -> a|a -> b -> c -> a",
    ),
    "loop": ({"parents": {"a": ("a",)}, "tables": {"a": np.full((2, 2), 0.5)}}, "cycle: a -> a"),
    "sum": ({"tables": {"c": BAD_ROW}}, r"'c' for a=1, b=0 sum to 1\.1,"),
    "sum of a root": ({"tables": {"a": [0.5, 0.4]}}, r"'a' sum to 0\.9,"),
    "negative": ({"tables": {"c": NEGATIVE}}, r"negative, -0\.5, for c=1 given a=0, b=1"),
    "nan": ({"tables": {"a": [np.nan, 0.5]}}, "not finite, nan, for a=0"),
    "shape": (
        {"tables": {"b": np.full((3, 2), 0.5)}},
        r"shape \(3, 2\); .* \(a: 2, b: 2\), the shape \(2, 2\)",
    ),
    "text": ({"tables": {"a": ["x", "y"]}}, "no array of numbers"),
    "unknown parent": ({"parents": {"b": ("z",)}}, "parent 'z' of 'b'"),
    "parent twice": ({"parents": {"c": ("a", "a")}}, "a parent twice"),
    "parent as text": ({"parents": {"b": "a"}}, "tuple of names"),
    "unknown child": ({"parents": {"z": ("a",)}}, "`parents` has 'z'"),
    "unknown table": ({"tables": {"z": [1.0]}}, "`tables` has 'z'"),
    "no table": ({"states": {"d": BITS}}, "'d' has no table"),
    "equal states": ({"states": {"a": ("0", "0")}}, "no two are equal"),
    "states as text": ({"states": {"a": "01"}}, "tuple of strings"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_is_refused_by_name(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        net_with(**changes)


ROWS_REFUSED = {
    "range": ([[0, 0, 0, 0, 0], [0, 0, 3, 0, 0]], r"'grade' is 3 in row 1; .* 0 to 2 \(A, B, C\)"),
    "negative": ([[0, 0, -1, 0, 0]], "'grade' is -1 in row 0"),
    "fraction": ([[0, 0, 0.5, 0, 0]], r"'grade' is 0\.5 in row 0"),
    "nan": ([[0, np.nan, 0, 0, 0]], "'intelligence' is NaN in row 0"),
    "columns": ([[0, 0, 0]], r"have the shape \(1, 3\)"),
    "label": ([["easy", "low", "A+", "low", "weak"]], r"'grade' has no state 'A\+' \(row 0\)"),
    "missing": ([["easy", "low", "A", None, "weak"]], "'SAT' is missing in row 0"),
    "no variable": ({"mark": ["A"]}, "no variable 'mark'"),
    "ragged columns": ({"SAT": ["low"], "grade": ["A", "B"]}, "unequal lengths"),
}


@pytest.mark.parametrize("name", ROWS_REFUSED)
def test_rows_that_do_not_fit_are_refused_by_variable_and_row(name: str) -> None:
    rows, message = ROWS_REFUSED[name]
    with pytest.raises(ValueError, match=message):
        STUDENT.log_prob(rows)


def test_questions_about_unknown_variables_are_refused() -> None:
    with pytest.raises(ValueError, match="no variable 'mark'"):
        STUDENT.markov_blanket("mark")
    with pytest.raises(ValueError, match="two sides"):
        STUDENT.d_separated("grade", "SAT", ["grade"])


def test_layers_put_every_parent_above_its_children() -> None:
    for seed in range(5):
        net = random_net(seed, num_variables=12)
        rows = directed.layers(net.parents)
        depth = {v: i for i, row in enumerate(rows) for v in row}
        assert sorted(depth) == sorted(net.variables)
        assert all(depth[p] < depth[v] for v, above in net.parents.items() for p in above)


def test_a_drawing_has_every_node_inside_and_an_arrow_for_every_arc() -> None:
    figure = STUDENT.draw()
    axes = figure.axes[0]
    assert {t.get_text() for t in axes.texts} == set(STUDENT.variables)
    assert len(axes.patches) == sum(map(len, STUDENT.parents.values()))
    figure.canvas.draw()
    frame = figure.bbox
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
    with pytest.raises(ValueError, match="'matplotlib' or 'graphviz'"):
        STUDENT.draw(engine="ascii")


def test_graphviz_gets_every_arc() -> None:
    pytest.importorskip("graphviz", reason="graphviz is not installed")
    source = STUDENT.draw(engine="graphviz").source
    assert '"intelligence" -> "grade";' in source and source.count("->") == 4
