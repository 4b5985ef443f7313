"""The report: whole, self-contained, honest about what failed."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepgen_ppl.diagnostics import diagnose_fit
from deepgen_ppl.evidence import evidence
from deepgen_ppl.posterior import Posterior
from deepgen_ppl.report import Section, report

RNG = np.random.default_rng(0)
OBSERVED = RNG.normal(size=20)


class Page(HTMLParser):
    """What a browser would fetch, and which tags are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def chains(shift: float = 0.0) -> Posterior:
    """Four chains of a mean, the first one moved."""
    draws = RNG.normal(size=(4, 100)) + np.array([shift, 0, 0, 0])[:, None]
    return Posterior(
        {"mean": draws},
        dims={"x": ("data",)},
        observed_data={"x": OBSERVED},
        stats={"diverging": np.zeros((4, 100), bool)},
        evaluators={
            "posterior_predictive": lambda d: {"x": d["mean"][:, None] + 0 * OBSERVED},
            "log_likelihood": lambda d: {"x": -0.5 * (OBSERVED - d["mean"][:, None]) ** 2},
        },
    )


def weighted() -> Posterior:
    """Importance draws with a weight a row."""
    log_weights = RNG.normal(size=(200, 20))
    return Posterior(
        {"z": RNG.normal(size=(1, 200, 20))},
        log_weights=log_weights[None],
        evidence=evidence(log_weights, rows="data"),
        method="importance",
        row_dim="data",
        row_axis={"z": 0},
    )


def fit() -> Any:
    """What the report reads of a wing's fit."""
    return SimpleNamespace(
        losses=np.exp(-np.arange(200) / 20),
        history={"validation_step": np.arange(3), "validation_loss": np.array([1.0, 0.5, 0.2])},
        seconds=1.5,
        params={"decoder": {"layers": [np.zeros((3, 2)), None]}},
        guide=lambda: None,
        posterior=lambda num_samples: Posterior({"z": np.zeros((1, 50, 2))}, method="svi"),
        importance=lambda num_particles: weighted(),
        diagnose=lambda: diagnose_fit(np.exp(-np.arange(200) / 20)),
    )


RESULTS = {
    "chains": lambda: chains(),
    "weights": lambda: weighted(),
    "fit": lambda: fit(),
    "maximum likelihood": lambda: SimpleNamespace(**{**vars(fit()), "guide": None}),
    "several": lambda: [Section("one", chains()), Section("two", weighted(), fit())],
    "empty": lambda: Posterior({}),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_page_is_whole_and_fetches_nothing(name: str, tmp_path: Path) -> None:
    text = report(RESULTS[name](), tmp_path / "deep" / "page.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in page.addresses)
    assert "url(" not in text and "@import" not in text
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_a_sound_result_says_so(tmp_path: Path) -> None:
    text = report(chains(), tmp_path / "page.html").read_text()
    assert "checks passed" in text and "Look at this first" not in text


def test_a_failed_check_comes_first_with_its_advice(tmp_path: Path) -> None:
    posterior = chains(shift=5.0)
    text = report(posterior, tmp_path / "page.html").read_text()
    assert "need a look" in text
    advice = posterior.diagnose().failed[0].advice
    assert text.index("Look at this first") < text.index(advice) < text.index("<h3>Posterior</h3>")


def test_text_from_the_user_is_escaped(tmp_path: Path) -> None:
    posterior = Posterior({"<b>z": RNG.normal(size=(4, 50))})
    text = report(posterior, tmp_path / "page.html", title="a < b & c").read_text()
    assert "<b>z" not in text and "<h1>a &lt; b &amp; c</h1>" in text


def test_the_models_sites_are_listed_with_plates_and_roles(tmp_path: Path) -> None:
    text = report(chains(), tmp_path / "page.html", fit=fit()).read_text()
    rows = re.findall(
        r"<tr><td class=\"\"><code>(.*?)</code></td><td class=\"\">.*?role (\w+)", text
    )
    assert rows == [("mean", "latent"), ("x", "observed"), ("decoder.layers.0", "learned")]
    assert "data (20)" in text


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    for wrong in (3, [], [1], "fit"):
        with pytest.raises(TypeError, match="a Posterior, a Fit or a list of Sections"):
            report(wrong, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
