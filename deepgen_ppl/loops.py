"""Steps of a contraction that repeat, folded into loops."""

from __future__ import annotations

import numpy as np

from deepgen_ppl.plans import Loop, Slot, Step

_LEAST_LOOP = 8
"""Repetitions from which equal steps run as a loop."""

_LONGEST_PERIOD = 4
"""Steps that a loop's body may have."""


def looped(steps: list[Step]) -> list[Step | Loop]:
    """Fold steps that repeat into loops."""
    first_output = steps[0].output if steps else 0
    users: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in step.slots:
            users[slot.source] = max(users.get(slot.source, 0), number)
    found: list[Step | Loop] = []
    at = 0
    while at < len(steps):
        best = (0, 1)
        for period in range(1, _LONGEST_PERIOD + 1):
            count = _repetitions(steps, at, period, first_output, users)
            if count >= _LEAST_LOOP and count * period > best[0] * best[1]:
                best = (count, period)
        count, period = best
        if count:
            found.append(_loop(steps[at : at + count * period], period, first_output))
            at += count * period
        else:
            found.append(steps[at])
            at += 1
    return found


def _repetitions(
    steps: list[Step], at: int, period: int, first_output: int, users: dict[int, int]
) -> int:
    """Return how often the steps from a place on repeat with a period."""
    at_end = at
    while at_end + period < len(steps) and _same(steps, at_end, period, first_output):
        at_end += 1
    count = (at_end - at) // period + 1 if at_end > at else 0
    # Outputs that are needed later than one repetition on would be lost.
    while count >= _LEAST_LOOP:
        inside = range(at, at + (count - 1) * period)
        late = [i for i in inside if users.get(steps[i].output, i) > i + period]
        if not late:
            return count
        count = (late[0] - at) // period
    return 0


def _same(steps: list[Step], i: int, period: int, first_output: int) -> bool:
    """Tell whether a step and the one a period on differ in their indices only."""
    one, other = steps[i], steps[i + period]
    if one.cards != other.cards or len(one.slots) != len(other.slots):
        return False
    if len(one.variables) != len(other.variables):
        return False
    for a, b in zip(one.slots, other.slots, strict=True):
        if a.axes != b.axes or (a.source < first_output) != (b.source < first_output):
            return False
        if a.index.shape != b.index.shape:
            return False
        carried = b.source >= first_output
        if b.source - a.source != (period if carried else 0):
            return False
        if carried and (not np.array_equal(a.index, b.index) or other.output - b.source > period):
            return False
    return True


def _loop(steps: list[Step], period: int, first_output: int) -> Loop:
    """Return steps that repeat as a loop; the outputs of its last repetition are known outside."""
    length = len(steps) // period
    body, initial = [], []
    last = {i: steps[(length - 1) * period + i].output for i in range(period)}
    start = steps[0].output
    for i in range(period):
        copies = steps[i::period]
        slots = []
        for number, slot in enumerate(copies[0].slots):
            index = np.stack([copy.slots[number].index for copy in copies])
            source = slot.source
            if source >= first_output:
                source = last[(source - start) % period]
            slots.append(Slot(source, index, slot.axes))
        needed = [s.source for copy in steps[:period] for s in copy.slots
                  if s.source >= first_output and s.source < start
                  and (s.source - start) % period == i]  # fmt: skip
        initial.append(needed[0] if needed else -1)
        body.append(
            Step(
                tuple(slots),
                copies[0].cards,
                np.stack([copy.variables for copy in copies]),
                np.stack([copy.others for copy in copies]),
                last[i],
            )
        )
    return Loop(tuple(body), tuple(initial), length)
