"""BIF: published networks are read and written back to the same numbers; errors name the line."""

from pathlib import Path

import numpy as np
import pytest

from deepgen_ppl import bif
from deepgen_ppl.bayes_net import BayesNet

NETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "bayes_nets"
# nodes, arcs, free parameters, as the bnlearn repository publishes them
PUBLISHED = {
    "asia": (8, 8, 18),
    "cancer": (5, 4, 10),
    "earthquake": (5, 4, 10),
    "sachs": (11, 17, 178),
    "survey": (6, 6, 21),
    "alarm": (37, 46, 509),
    "child": (20, 25, 230),
    "hepar2": (70, 123, 1453),
    "andes": (223, 338, 1157),
    "link": (724, 1125, 14211),
    "water": (32, 66, 10083),
    "barley": (48, 84, 114005),
    "diabetes": (413, 602, 429409),
}

WEATHER = """network weather {
  property author someone ;
}
// a comment
variable rain {
  type discrete [ 2 ] { yes, no };
  property position = (1, 2) ;
}
variable "wet grass" { /* two
lines */ type discrete [ 3 ] { dry, "a bit", soaked }; }
probability ( rain ) {
  table 0.2, 0.8;
}
probability ( "wet grass" | rain ) {
  (yes) 0.1, 0.2, 0.7;
  (no) 0.9 0.05 0.05;
}
"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_read_and_written_back_to_the_same_numbers(name: str) -> None:
    path = NETS / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    net = BayesNet.from_bif(path)
    num_arcs = sum(map(len, net.parents.values()))
    assert (len(net.variables), num_arcs, net.num_parameters) == PUBLISHED[name]
    again = BayesNet(*bif.parse(net.to_bif())[1:], name=net.name)
    assert again.states == net.states and again.parents == net.parents
    assert list(again.states) == list(net.states)
    for variable, table in net.tables.items():
        np.testing.assert_array_equal(again.tables[variable], table)


def test_comments_quotes_and_properties_are_read() -> None:
    content = bif.parse(WEATHER)
    assert content.name == "weather"
    assert content.states["wet grass"] == ("dry", "a bit", "soaked")
    np.testing.assert_array_equal(content.tables["wet grass"], [[0.1, 0.2, 0.7], [0.9, 0.05, 0.05]])
    assert bif.parse(bif.write(*content[1:], name="weather")).states == content.states


def test_the_last_parent_of_a_whole_table_runs_fastest_and_the_own_state_slowest() -> None:
    listed = "table 0.6 0.05 0.2 0.1 0.4 0.95 0.8 0.9;"
    text = "".join(f"variable {v} {{ type discrete [ 2 ] {{ f, t }}; }}\n" for v in "abc")
    text += "probability (a) { table 0.5 0.5; } probability (b) { table 0.5 0.5; }\n"
    content = bif.parse(text + f"probability (c | a, b) {{ {listed} }}")
    np.testing.assert_array_equal(content.tables["c"][:, :, 0], [[0.6, 0.05], [0.2, 0.1]])


def test_a_default_row_fills_what_is_not_listed() -> None:
    text = WEATHER.replace("(no) 0.9 0.05 0.05;", "default 0.5, 0.25, 0.25;")
    np.testing.assert_array_equal(
        bif.parse(text).tables["wet grass"], [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]
    )


MISTAKES = {
    "no semicolon": ("0.2, 0.8;", "0.2, 0.8", 13, "expected a probability or ';', found '}'"),
    "too few": (
        "0.1, 0.2, 0.7",
        "0.1, 0.2",
        15,
        "expected 3 probabilities of 'wet grass', found 2",
    ),
    "no number": ("0.2, 0.8;", "0.2, much;", 12, "found 'much'"),
    "unknown state": ("(no)", "(maybe)", 16, "one of ['yes', 'no'], found 'maybe'"),
    "one state too many": ("(no)", "(no, no)", 16, "expected one state for each parent"),
    "unknown parent": ("| rain", "| snow", 14, "expected a variable that is declared above, found"),
    "row twice": ("(no)", "(yes)", 16, "stand a second time"),
    "row missing": ("(no) 0.9 0.05 0.05;", "", 17, "expected the probabilities of 'wet grass' for"),
    "wrong number of states": ("[ 2 ]", "[ 4 ]", 6, "['yes', 'no'], where [ 4 ] is announced"),
    "unclosed states": ("yes, no };", "yes, no ;", 6, "expected ',' or '}'"),
    "continuous": ("discrete [ 2 ]", "continuous", 6, "expected 'discrete', found 'continuous'"),
    "open quote": ('variable "wet grass"', 'variable "wet grass', 9, "is not closed"),
    "no block": ("probability ( rain ) {\n  table 0.2, 0.8;\n}", "", 5, "no probability block"),
    "stray word": ("// a comment", "hello", 4, "expected 'network', 'variable' or 'probability'"),
    "two blocks": ('"wet grass" | rain', "rain", 14, "'rain' has a second probability block"),
    "two variables": ('variable "wet grass"', "variable rain", 9, "declared a second time"),
    "row sums to more than one": (
        "0.9 0.05 0.05",
        "0.9 0.05 0.15",
        16,
        "The probabilities of 'wet grass' for rain=no sum to 1.1, and have to sum to one",
    ),
    "table sums to less": ("0.2, 0.8;", "0.2,\n 0.7;", 12, "of 'rain' sum to 0.9, and have to"),
    "default sums to less": ("(no) 0.9", "default 0.8", 16, "for rain=no sum to 0.9, and have"),
    "negative": ("0.1, 0.2, 0.7", "0.4, -0.1, 0.7", 15, "negative, -0.1, for wet grass=a bit"),
    "cut off": ("  (no) 0.9 0.05 0.05;\n}\n", "", 15, "found the end of the text"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_malformed_text_is_refused_with_line_and_expectation(name: str) -> None:
    old, new, line, message = MISTAKES[name]
    assert old in WEATHER
    with pytest.raises(ValueError) as raised:
        bif.parse(WEATHER.replace(old, new, 1))
    assert f"line {line}:" in str(raised.value), raised.value
    assert message in str(raised.value)


def test_a_file_is_written_whole_and_named_in_errors(tmp_path: Path) -> None:
    net = BayesNet.student()
    for name in ("student.bif", "student.bif.gz"):
        net.to_bif(tmp_path / name)
        assert BayesNet.from_bif(tmp_path / name).variables == net.variables
    (tmp_path / "broken.bif").write_text("variable x {")
    with pytest.raises(ValueError, match=r"broken\.bif: BIF, line 1: expected '}'"):
        BayesNet.from_bif(tmp_path / "broken.bif")
    with pytest.raises(FileNotFoundError, match="bnlearn"):
        BayesNet.from_bif(tmp_path / "absent.bif")


def test_a_name_that_bif_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold the name"):
        bif.write({'a"b': ("x", "y")}, {'a"b': ()}, {'a"b': np.array([0.5, 0.5])})
