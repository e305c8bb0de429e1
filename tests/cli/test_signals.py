from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from ultra.cli.signals import run_until_signalled

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLED = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_are_given_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in HANDLED]
    yield
    assert [signal.getsignal(number) for number in HANDLED] == before


def test_work_that_nothing_interrupts_runs_to_its_end() -> None:
    done = []

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        done.append(True)

    assert run_until_signalled(work) is None
    assert done == [True]


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_cancels_the_work_and_is_returned(number: signal.Signals) -> None:
    async def work() -> None:
        signal.raise_signal(number)
        await trio.sleep_forever()

    assert run_until_signalled(work) == number


def test_a_second_signal_does_not_break_off_what_the_first_one_began_to_close() -> None:
    closed = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                await trio.testing.wait_all_tasks_blocked()
                closed.append(True)

    assert run_until_signalled(work) == signal.SIGINT
    assert closed == [True]


def test_a_signal_that_comes_when_the_work_has_just_ended_is_returned_and_not_raised() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGINT)

    assert run_until_signalled(work) == signal.SIGINT


def test_a_signal_that_comes_before_trio_takes_them_cancels_the_work_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_signal_receiver = trio.open_signal_receiver

    def signalled_before(*numbers: int) -> object:
        signal.raise_signal(signal.SIGINT)
        return open_signal_receiver(*numbers)

    monkeypatch.setattr(trio, "open_signal_receiver", signalled_before)

    assert run_until_signalled(trio.sleep_forever) == signal.SIGINT


def test_what_the_work_raises_leaves_as_it_is() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        run_until_signalled(work)


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    async def work() -> None:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        await trio.lowlevel.checkpoint()

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_until_signalled(work) is None
    finally:
        signal.signal(signal.SIGINT, before)
