"""The record of a training run: reports, looks between them, validations, patience, Ctrl-C."""

import contextlib
import signal

import numpy as np
import pytest

from deepgen_ppl.loop import Progress, Record, explained, interruptible, noticed, uninterrupted

LOSSES = np.random.default_rng(0).normal(size=250)


def filled(pieces: list[int], **options) -> Record:
    record = Record(250, **options)
    for size in pieces:
        record.add(LOSSES[record.done : record.done + size], seconds=0.1 * (record.done + size))
    return record


@pytest.mark.parametrize("pieces", [[250], [1, 2, 247], [2] * 125, [7] * 35 + [5]])
def test_reports_do_not_depend_on_when_steps_are_looked_at(pieces: list[int]) -> None:
    history = filled(pieces).history
    assert history["step"] == list(range(2, 251, 2))
    np.testing.assert_allclose(history["loss"], LOSSES.reshape(-1, 2).mean(1))
    np.testing.assert_allclose(history["seconds"], 0.1 * np.arange(2, 251, 2))


def test_a_restored_record_goes_on_as_the_whole_one() -> None:
    part = filled([101])
    other = Record(250)
    other.restore(part.manifest(), np.concatenate(part.losses))
    other.add(LOSSES[101:], seconds=25.0)
    np.testing.assert_allclose(other.history["loss"], filled([250]).history["loss"])
    assert other.history["step"] == filled([250]).history["step"]


def test_looks_wait_for_callbacks_and_validations_alone() -> None:
    assert Record(1000, awaited=True).bound() == 10
    assert Record(1000, validated=True).bound() == 10
    assert Record(1000, validated=True, per_epoch=64).bound() == 64
    assert Record(1000, per_epoch=64).bound() == 1000
    epochs = filled([250], validated=True, per_epoch=100).history["step"]
    assert {100, 200, 250} <= set(epochs)


def test_steps_between_looks_follow_their_pace() -> None:
    record = Record(10_000)
    assert record.ahead(4096) == 1
    record.add(np.zeros(1), seconds=0.01)
    assert record.ahead(4096) == 50
    assert record.ahead(8) == 8
    assert not record.enough(0.4)
    assert record.enough(0.52)
    assert not Record(10_000, awaited=True).enough(100.0)


def test_patience_counts_validations_without_improvement() -> None:
    record = Record(250, validated=True, patience=2)
    assert [record.judge(value, True) for value in (3.0, 2.0, 2.5, 2.0)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert record.stopped == "no better validation loss in 2 validations"
    assert not record.running


def test_callbacks_hear_of_reports_and_may_stop() -> None:
    told: list[Progress] = []
    record = filled([3])
    record.tell([told.append], dict)
    assert told == []
    record.add(LOSSES[3:4], seconds=1.0)
    record.tell([told.append, lambda now: now.step >= 4], dict)
    assert [now.step for now in told] == [4]
    assert told[0].loss == pytest.approx(LOSSES[2:4].mean())
    assert record.stopped == "a callback asked to stop"


def test_the_first_ctrl_c_is_held_and_the_second_is_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_waits_for_what_must_not_be_torn() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("failed, and was interrupted")
    with interruptible() as interrupted:  # what holds Ctrl-C outside holds it still
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert interrupted()


def test_ctrl_c_that_fell_on_deaf_ears_is_heard_at_the_next_check() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), noticed() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        check()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_verb_says_how_far_it_was() -> None:
    with (
        pytest.raises(KeyboardInterrupt, match="importance interrupted after 3 of 9 rows"),
        explained("importance", lambda: "3 of 9 rows"),
    ):
        raise KeyboardInterrupt
