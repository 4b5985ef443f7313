"""Every Python block of the README and of the documentation runs as it stands there.

The blocks of a page run in order in one interpreter; a block that imports a wing
(`import deepgen_ppl.numpyro as dg`) begins a new one, so that a page may show both languages.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WING = re.compile(r"^import deepgen_ppl\.(numpyro|pyro) as dg$", re.MULTILINE)


class Script(NamedTuple):
    """The blocks of a page that run in one interpreter."""

    page: str
    line: int
    wing: str | None
    code: str


def scripts(page: Path) -> list[Script]:
    text = page.read_text(encoding="utf-8")
    found: list[Script] = []
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 2
        wing = WING.search(match[1])
        if found and wing is None:
            last = found[-1]
            gap = "\n" * (line - last.line - last.code.count("\n"))
            found[-1] = last._replace(code=last.code + gap + match[1])
        else:
            name = str(page.relative_to(ROOT))
            found.append(Script(name, line, wing[1] if wing else None, match[1]))
    return found


SCRIPTS = [script for page in PAGES if page.exists() for script in scripts(page)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: f"{s.page}:{s.line}")
def test_block_runs(script: Script, tmp_path: Path) -> None:
    if script.wing is not None and importlib.util.find_spec(script.wing) is None:
        pytest.skip(f"{script.wing} is not installed")
    file = tmp_path / "block.py"
    file.write_text("\n" * (script.line - 1) + script.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{script.page}, line {script.line}\n{done.stderr}"


def test_the_readme_shows_both_languages() -> None:
    wings = {script.wing for script in SCRIPTS if script.page == "README.md"}
    assert wings >= {"numpyro", "pyro"}


def test_no_page_names_a_path_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<!\w)/(?:home|root|work|Users)/", page.read_text(encoding="utf-8"))
