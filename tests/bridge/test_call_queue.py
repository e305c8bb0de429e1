from __future__ import annotations

from collections.abc import Callable

import pytest

from ultra.bridge.call_queue import BATCH, CallQueue


class Thread:
    """Stands for the other thread: it is woken, and delivers when the test says so."""

    def __init__(self) -> None:
        self.wakes: list[Callable[[], None]] = []
        self.queue = CallQueue(self.wakes.append)
        self.got: list[object] = []

    def send(self, *values: object) -> None:
        for value in values:
            self.queue.put(self.got.append, value)
            self.queue.flush()

    def turn(self) -> None:
        self.wakes.pop(0)()


def test_calls_are_made_in_order_and_share_one_wake_up() -> None:
    thread = Thread()

    thread.send(1, 2, 3)

    assert (len(thread.wakes), thread.got) == (1, [])
    thread.turn()
    assert (len(thread.wakes), thread.got) == (0, [1, 2, 3])


def test_a_call_that_comes_after_the_delivery_wakes_anew() -> None:
    thread = Thread()
    thread.send(1)
    thread.turn()

    thread.send(2)

    assert len(thread.wakes) == 1
    thread.turn()
    assert thread.got == [1, 2]


def test_calls_that_are_put_by_a_call_wake_anew() -> None:
    thread = Thread()
    thread.queue.put(thread.send, "from within")
    thread.queue.flush()

    thread.turn()

    assert thread.got == []
    thread.turn()
    assert thread.got == ["from within"]
    assert thread.wakes == []


def test_a_flood_is_delivered_in_portions() -> None:
    thread = Thread()
    thread.send(*range(2 * BATCH + 1))

    for portion in (BATCH, 2 * BATCH, 2 * BATCH + 1):
        assert len(thread.wakes) == 1
        thread.turn()
        assert thread.got == list(range(portion))
    assert thread.wakes == []


def test_what_is_put_waits_for_a_flush() -> None:
    thread = Thread()

    thread.queue.put(thread.got.append, 1)
    assert thread.wakes == []

    thread.queue.flush()
    thread.queue.flush()
    assert len(thread.wakes) == 1


def test_calls_whose_wake_up_failed_wait_for_the_next_flush() -> None:
    ways: list[Exception | None] = [ConnectionError("nobody there"), None]
    wakes: list[Callable[[], None]] = []

    def wake(deliver: Callable[[], None]) -> None:
        way = ways.pop(0)
        if way is not None:
            raise way
        wakes.append(deliver)

    queue, got = CallQueue(wake), list[int]()
    queue.put(got.append, 1)
    with pytest.raises(ConnectionError):
        queue.flush()

    queue.flush()
    wakes.pop()()

    assert got == [1]
