"""The dead letters: the newest are kept, all are counted."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from ultra.actors.runtime.dead_letters import DeadLetters

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize(("count", "newest"), [(0, []), (2, [4, 5]), (9, [3, 4, 5])])
async def test_the_newest_come_oldest_first_and_older_ones_are_gone(
    count: int, newest: list[int], mock_clock: MockClock
) -> None:
    letters = DeadLetters(3)
    for number in range(1, 6):
        letters.add(f"/{number}", number, "stopped")

    assert [int(letter.path[1:]) for letter in letters.newest(count)] == newest
    assert [int(letter.path[1:]) for letter in letters] == [3, 4, 5]
    assert (len(letters), letters.total) == (3, 5)
    assert {letter.time for letter in letters} == {mock_clock.current_time()}


class Payload:
    """A large message, with a size that cannot be asked for."""

    def __sizeof__(self) -> int:
        raise RuntimeError("no size")


@pytest.mark.usefixtures("mock_clock")
async def test_a_dead_letter_says_what_the_message_was_and_does_not_keep_it() -> None:
    letters = DeadLetters(3)
    payload = Payload()
    alive = weakref.ref(payload)
    letters.add("/somebody", payload, "down")
    letters.add("/somebody", "x" * 1000, "down")
    del payload
    gc.collect()
    assert alive() is None
    assert [letter.message_type for letter in letters] == ["Payload", "str"]
    assert all(letter.size > 0 for letter in letters)
    assert list(letters)[1].size > 1000
