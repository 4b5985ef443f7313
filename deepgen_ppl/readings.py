"""What was read of a program, kept for the next question with its tables while nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from deepgen_ppl.scopes import Differs, Evaluate, Term
from deepgen_ppl.tabulation import Tabulation

Found = tuple[list[np.ndarray], Float[np.ndarray, " c"]]
"""Tables of all pieces, and the constant terms."""

_FEW_NUMBERS = 1 << 20
"""Values of terms up to which it costs less to evaluate all of them than to compile a part."""

MOST_BYTES = 1 << 26
"""Bytes of tables that are kept of one reading."""


class Reading:
    """Terms of a program and how they are tabulated, checked at the arguments of its last runs.

    Which latents a term touches may depend on the values of data and parameters, and so do its
    tables. Both are kept for as long as the arguments that the term uses have the same content.

    Args:
        terms: What each site contributes.
        tabulation: How the tables are found, read at the contents given.
        uses: For each term the numbers of the arguments that it uses, of all where it is missing.
        contents: Digest of each argument.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        tabulation: Tabulation,
        uses: Mapping[str, frozenset[int]],
        contents: Sequence[bytes],
    ) -> None:
        self.terms, self.tabulation, self._uses = list(terms), tabulation, uses
        self._checked, self._tabled = tuple(contents), tuple[bytes, ...]()
        self._found: Found | None = None

    def holds(
        self,
        evaluate: Evaluate,
        only: Callable[[Sequence[Term]], Evaluate],
        contents: Sequence,
        differs: Callable[[Sequence[Term]], Differs] | None = None,
    ) -> bool:
        """Tell whether the reading is true at other arguments of the same shapes, too.

        Terms that use what has another content are checked again by random changes.

        Args:
            evaluate: Coordinates to all terms.
            only: Some terms to what evaluates these alone.
            contents: Digest of each argument.
            differs: Some terms to what tells faster than `only` whether they change.
        """
        changed = self._changed(self._checked, contents)
        if changed:
            some = only(changed) if self._is_large else _columns(evaluate, changed)
            fast = differs(changed) if differs and self._is_large else None
            if not self.tabulation.holds(some, changed, differs=fast):
                return False
        self._checked = tuple(contents)
        return True

    def tables(
        self, evaluate: Evaluate, only: Callable[[Sequence[Term]], Evaluate], contents: Sequence
    ) -> Found:
        """Return the tables of all pieces and the constant terms, those that changed anew.

        Args:
            evaluate: Coordinates to all terms.
            only: Some terms to what evaluates these alone.
            contents: Digest of each argument.
        """
        if self._found is None:
            found = self.tabulation.tables(evaluate)
        else:
            changed = self._changed(self._tabled, contents)
            found = self._found
            if changed and not self._is_large:
                found = self.tabulation.tables(evaluate)
            elif changed:
                found = self.tabulation.renewed(only, changed, found)
        is_small = sum(table.nbytes for table in found[0]) <= MOST_BYTES
        self._found, self._tabled = (found if is_small else None), tuple(contents)
        return found

    @property
    def _is_large(self) -> bool:
        rows = sum(len(bundle) for bundle in self.tabulation.bundles)
        return rows * self.tabulation.num_terms > _FEW_NUMBERS

    def _changed(self, before: Sequence[bytes], now: Sequence[bytes]) -> list[Term]:
        """Return the terms that use an argument whose content is another."""
        moved = {i for i, (one, other) in enumerate(zip(before, now, strict=True)) if one != other}
        every = frozenset(range(len(now)))
        return [term for term in self.terms if self._uses.get(term.name, every) & moved]


def digests(arrays: Iterable[np.ndarray]) -> list[bytes]:
    """Return a digest of the content of each array.

    Example:
        >>> one, same, other = digests([np.ones(3), np.ones(3), np.zeros(3)])
        >>> one == same, one == other
        (True, False)
    """
    found = []
    for array in arrays:
        state = hashlib.blake2b(digest_size=16)
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        found.append(state.digest())
    return found


def _columns(evaluate: Evaluate, terms: Sequence[Term]) -> Evaluate:
    columns = np.concatenate([term.columns for term in terms])
    return lambda x: evaluate(x)[:, columns]
