"""The dead letters: the newest are kept, all are counted."""

from __future__ import annotations

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
        letters.add("/somebody", number, "stopped")

    assert [letter.message for letter in letters.newest(count)] == newest
    assert [letter.message for letter in letters] == [3, 4, 5]
    assert (len(letters), letters.total) == (3, 5)
    assert {letter.time for letter in letters} == {mock_clock.current_time()}
