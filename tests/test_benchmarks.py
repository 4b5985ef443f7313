"""The benchmark harness: cases are listed and named, ratios and limits are judged rightly."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import measure, run, tables
from benchmarks.case import Case, Contender, Limit, Run, Skip, Target

ROOT = Path(__file__).resolve().parents[1]


def sleeper(name: str, seconds: float, compile_seconds: float = 0.0) -> Contender:
    def prepare():
        def once(seed: int) -> Run:
            time.sleep(seconds)
            return Run(seconds, compile_seconds, {"final loss": seed / 2})

        return once

    return Contender(name, prepare)


def absent(name: str) -> Contender:
    def prepare():
        raise Skip("not installed here")

    return Contender(name, prepare)


TINY = Case(
    work=10,
    unit="steps",
    contenders=(sleeper("ours", 0.001, 0.01), sleeper("theirs", 0.003), absent("nobody")),
    targets=(
        Target("ours", "theirs", 2.0),
        Target("ours", "theirs", 2.0, "total"),
        Target("ours", "nobody", 1.0),
    ),
    limits=(Limit("ours", "seconds", 1.0), Limit("ours", "final loss", 0.5)),
    repeats=3,
)


def test_list_names_every_case_file_without_importing_any():
    code = "import sys; from benchmarks import run; run.main(['--list']); print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for path in (ROOT / "benchmarks" / "cases").glob("[a-z]*.py"):
        assert path.stem in out
    assert not {"jax", "torch"} & set(out.splitlines()[-1].split())


def test_every_case_states_a_summary_and_variants():
    for case in run.listings():
        assert case.summary.endswith(".")
        assert case.variants


def test_a_case_is_chosen_by_name_or_with_its_variant():
    known = run.listings()
    assert [v for _, v in run.selected(["numpyro_svi"], known)] == ["small", "big"]
    assert [v for _, v in run.selected(["numpyro_svi-big"], known)] == ["big"]
    with pytest.raises(ValueError, match="there is no benchmark case 'vae'; the cases are"):
        run.selected(["vae"], known)


def test_ratios_are_taken_within_rounds_and_judged():
    figures = measure.measure("tiny", lambda: TINY)
    by_run, total = figures["ratios"]
    assert by_run["median"] == pytest.approx(3.0) and by_run["met"]
    assert total["median"] == pytest.approx(0.003 / 0.011) and not total["met"]
    assert figures["contenders"][0]["rate"] == pytest.approx(10_000)
    assert [limit["met"] for limit in figures["limits"]] == [True, False]
    assert figures["skipped_contenders"] == {"nobody": "Skip: not installed here"}


def test_a_case_that_cannot_run_says_why():
    def build():
        raise Skip("Old Faithful is not here")

    figures = measure.measure("gmm", build)
    assert "SKIPPED: Old Faithful is not here" in tables.case_table(figures)


def test_tables_and_json_hold_the_figures():
    figures = json.loads(json.dumps(measure.measure("tiny", lambda: TINY)))
    text = tables.page({**run.machine(None), "quick": True, "cases": [figures]})
    assert "SKIPPED nobody: Skip: not installed here" in text
    assert ">= 2 met" in text and ">= 2 MISSED" in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize("name", ["importance-numpyro-small", "importance-pyro-small"])
def test_a_real_case_runs_quickly_in_a_process_of_its_own(name, tmp_path):
    wing = name.split("-")[1]
    pytest.importorskip("jax" if wing == "numpyro" else "pyro")
    out = tmp_path / "figures.json"
    assert run.main([name, "--quick", "--json", str(out)]) == 0
    (figures,) = json.loads(out.read_text())["cases"]
    assert figures["skipped_contenders"] == {}
    assert figures["contenders"][0]["quality"]["peak MiB above start"] > 0
