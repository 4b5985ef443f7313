"""The diagnosis: what was checked, the value, the threshold, the verdict, and what to do."""

import json
import textwrap
from typing import Any, NamedTuple

import numpy as np


class Check(NamedTuple):
    """One row of a diagnosis.

    Attributes:
        name: What was checked.
        value: What was found; None where the check does not apply.
        threshold: The condition on the value, such as ``"< 1.01"``.
        ok: The verdict; None where the check does not apply.
        advice: One sentence: what it means and what to do, naming the worst site or rows.
        source: Where the check comes from.
    """

    name: str
    value: float | None
    threshold: str
    ok: bool | None
    advice: str
    source: str


class Diagnosis(NamedTuple):
    """The checks of one result; printing it shows them as a table.

    Attributes:
        title: What was checked.
        checks: The rows of the table.

    Example:
        >>> row = Check("R-hat", 1.002, "< 1.01", True, "The chains agree.", "a paper")
        >>> print(Diagnosis("mcmc, 4 chains x 1000 draws", (row,)))
        mcmc, 4 chains x 1000 draws: ok
        check  value  threshold  verdict  what it means
        ----------------------------------------------------------------
        R-hat  1.002  < 1.01     ok       The chains agree.
        sources: a paper
    """

    title: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.ok is False)

    def __repr__(self) -> str:
        return _table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: title, verdict and one dict per check.

        Example:
            >>> Diagnosis("svi", ()).to_dict()
            {'title': 'svi', 'ok': True, 'checks': []}
        """
        checks = [check._asdict() for check in self.checks]
        return {"title": self.title, "ok": self.ok, "checks": checks}

    def attrs(self) -> dict[str, str | int]:
        """Attributes for a DataTree: the table as JSON, and the verdict as 0 or 1.

        Example:
            >>> Diagnosis("svi", ()).attrs()["diagnosis_ok"]
            1
        """
        table = self.to_dict()
        for check in table["checks"]:
            if check["value"] is not None and not np.isfinite(check["value"]):
                check["value"] = str(check["value"])  # JSON has no infinity
        return {"diagnosis": json.dumps(table, allow_nan=False), "diagnosis_ok": int(self.ok)}


def _table(diagnosis: Diagnosis, width: int = 100) -> str:
    words = {True: "ok", False: "NOT OK", None: "n/a"}
    rows = [("check", "value", "threshold", "verdict", "what it means")]
    for c in diagnosis.checks:
        value = "-" if c.value is None else f"{c.value:.4g}"
        rows.append((c.name, value, c.threshold, words[c.ok], c.advice))
    sizes = [max(len(row[i]) for row in rows) for i in range(4)]
    room = max(30, width - sum(sizes) - 8)
    rule = "-" * min(width, sum(sizes) + 8 + min(room, max(30, *(len(row[4]) for row in rows))))
    judged = any(check.ok for check in diagnosis.checks)
    verdict = "NOT OK" if not diagnosis.ok else "ok" if judged else "not checked"
    lines = [f"{diagnosis.title}: {verdict}"]
    for number, row in enumerate(rows):
        left = "  ".join(cell.ljust(size) for cell, size in zip(row[:4], sizes, strict=True))
        for part in textwrap.wrap(row[4], room):
            lines.append(f"{left}  {part}")
            left = " " * len(left)
        if number == 0:
            lines.append(rule)
    sources = "sources: " + "; ".join(sorted({check.source for check in diagnosis.checks}))
    return "\n".join([*lines, *textwrap.wrap(sources, width, subsequent_indent="         ")])
