"""One call, and all who want its answer."""

from __future__ import annotations

import math

import pytest
import trio

from helpers.model_actors import Transcript
from ultra.actors.model.messages import LocalRequest, ResponseListener
from ultra.actors.model.single_flight import Abandoned, SharedCall, Waiter
from ultra.errors import ModelError
from ultra.messages.chat import ReasoningPart
from ultra.messages.results import Completion


def join(shared: SharedCall, deadline: float = math.inf) -> tuple[Waiter, Transcript]:
    transcript = Transcript()
    waiter = Waiter(deadline, LocalRequest(transcript))
    shared.add(waiter)
    return waiter, transcript


def waiting(listener: ResponseListener) -> Waiter:
    return Waiter(math.inf, LocalRequest(listener))


class Broken:
    """A listener that raises; `attempts` has those that it was told of."""

    def __init__(self) -> None:
        self.attempts: list[int] = []

    def chunk(self, text: str, *, begins: bool) -> None:
        raise ZeroDivisionError(text, begins)

    def reasoning(self, part: ReasoningPart, *, begins: bool) -> None:
        raise ZeroDivisionError(part, begins)

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        self.attempts.append(attempt)
        raise ZeroDivisionError(error, wait)


async def test_a_waiter_hears_each_piece_and_once_that_a_text_begins() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear("to")
    shared.hear("ken")
    shared.complete(Completion(content="token"))
    assert transcript.pieces == ["to", "ken"]
    assert transcript.beginnings == 1


async def test_who_joins_later_hears_the_text_so_far_and_then_the_same() -> None:
    shared = SharedCall()
    _, first = join(shared)
    shared.start_attempt()
    shared.hear("to")
    shared.hear("k")
    _, second = join(shared)
    assert second.pieces == ["tok"]
    shared.hear("ens")
    assert first.text == second.text == "tokens"
    assert first.beginnings == second.beginnings == 1


async def test_who_joins_after_the_answer_hears_the_whole_answer() -> None:
    shared = SharedCall()
    shared.start_attempt()
    shared.complete(Completion(content="whole"))
    _, late = join(shared)
    assert late.pieces == ["whole"]


async def test_a_new_attempt_begins_the_text_again() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear("half an ans")
    shared.start_attempt()
    assert transcript.text == "half an ans"
    shared.hear("the ")
    _, late = join(shared)
    shared.hear("answer")
    assert transcript.text == late.text == "the answer"
    assert (transcript.beginnings, late.beginnings) == (2, 1)


async def test_the_answer_tells_what_was_not_heard() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear("to")
    shared.complete(Completion(content="token"))
    assert transcript.pieces == ["to", "ken"]


async def test_the_answer_begins_the_text_again_where_the_answer_is_not_what_was_heard() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear(" token")
    shared.complete(Completion(content="token"))
    assert transcript.text == "token"
    assert transcript.beginnings == 2


async def test_the_answer_begins_the_text_again_where_the_attempt_before_was_heard() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear("broken")
    shared.start_attempt()
    shared.complete(Completion(content="whole"))
    assert transcript.text == "whole"
    assert transcript.beginnings == 2


async def test_the_time_of_the_first_text_is_that_of_the_attempt_that_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shared = SharedCall()
    assert shared.first_text_at is None
    shared.start_attempt()
    shared.hear("a")
    first = shared.first_text_at
    await trio.sleep(1)
    shared.hear("b")
    assert shared.first_text_at == first
    shared.start_attempt()
    await trio.sleep(1)
    shared.hear("c")
    assert shared.first_text_at == trio.current_time()


async def test_all_hear_of_a_retry_and_who_joins_during_the_wait_hears_what_is_left_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shared = SharedCall()
    error = ModelError("busy", kind="rate_limit")
    _, early = join(shared)
    shared.start_attempt()
    shared.retrying(1, error, 4.0)
    await trio.sleep(3.5)
    _, late = join(shared)
    await trio.sleep(2)  # the time has come, and the attempt has not begun
    _, latest = join(shared)
    shared.start_attempt()
    _, too_late = join(shared)
    assert early.retries == [(1, error, 4.0)]
    assert late.retries == [(1, error, 0.5)]
    assert latest.retries == [(1, error, 0.0)]
    assert too_late.retries == []


async def test_who_has_left_or_raises_hears_of_no_retry_any_more() -> None:
    shared = SharedCall()
    broken = Broken()
    waiter = waiting(broken)
    shared.add(waiter)
    shared.retrying(1, ModelError("busy"), 0.0)
    shared.retrying(2, ModelError("busy"), 0.0)
    assert broken.attempts == [1]
    waiter.listener = broken
    waiter.leave()
    waiter.hear_of_retry(3, ModelError("busy"), 0.0)
    assert broken.attempts == [1]


async def test_the_deadline_is_the_latest_of_those_who_wait() -> None:
    shared = SharedCall()
    join(shared, 5.0)
    late, _ = join(shared, 9.0)
    assert shared.deadline == 9.0
    late.leave()
    assert shared.deadline == 5.0


async def test_who_has_left_hears_nothing_more() -> None:
    shared = SharedCall()
    gone, transcript = join(shared)
    _, other = join(shared)
    shared.start_attempt()
    shared.hear("a")
    gone.leave()
    gone.leave()
    shared.hear("b")
    assert transcript.text == "a"
    assert other.text == "ab"
    assert shared.is_heard


async def test_a_listener_that_makes_another_waiter_leave_does_no_harm() -> None:
    shared = SharedCall()
    others: list[Waiter] = []

    class Meddler(Transcript):
        def chunk(self, text: str, *, begins: bool) -> None:
            super().chunk(text, begins=begins)
            for other in others:
                other.leave()

    shared.add(waiting(Meddler()))
    other, transcript = join(shared)
    others.append(other)
    shared.start_attempt()
    shared.hear("a")
    assert other.has_left
    assert not shared.abandoned
    assert transcript.text == ""


async def test_the_last_to_leave_cancels_the_call() -> None:
    shared = SharedCall()
    first, _ = join(shared)
    second, _ = join(shared)
    with shared.scope() as scope:
        first.leave()
        assert not scope.cancel_called
        second.leave()
        assert scope.cancel_called
    assert shared.abandoned
    with pytest.raises(Abandoned):
        shared.check()


async def test_an_abandoned_call_lets_nothing_more_begin() -> None:
    shared = SharedCall()
    waiter, _ = join(shared)
    waiter.leave()
    with pytest.raises(Abandoned):
        await shared.sleep(1000)
    assert shared.scope().cancel_called


async def test_leaving_ends_the_wait_before_another_attempt(autojump_clock: trio.testing.MockClock) -> None:
    shared = SharedCall()
    waiter, _ = join(shared)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_abandonment, shared)
        await trio.sleep(1)
        waiter.leave()
    assert trio.current_time() == begun + 1


async def _expect_abandonment(shared: SharedCall) -> None:
    with pytest.raises(Abandoned):
        await shared.sleep(1000)


async def test_leaving_after_the_answer_cancels_nothing() -> None:
    shared = SharedCall()
    waiter, _ = join(shared)
    with shared.scope() as scope:
        shared.complete(Completion(content="answer"))
        waiter.leave()
    assert not scope.cancel_called
    assert not shared.abandoned


async def test_waiting_ends_with_the_call_or_with_leaving() -> None:
    shared = SharedCall()
    stays, _ = join(shared)
    goes, _ = join(shared)
    ended: list[Waiter] = []

    async def wait(waiter: Waiter) -> None:
        await shared.wait(waiter)
        ended.append(waiter)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, stays)
        nursery.start_soon(wait, goes)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        goes.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [goes]
        shared.end()
    assert ended == [goes, stays]
    await wait(stays)  # at once, now that it has ended


async def test_the_text_so_far_takes_the_room_of_the_text_and_not_of_its_pieces() -> None:
    shared = SharedCall()
    shared.start_attempt()
    for _ in range(100_000):
        shared.hear("x")
    _, late = join(shared)
    assert late.pieces == ["x" * 100_000]


async def test_a_listener_that_raises_is_heard_no_more_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = SharedCall()
    waiter = waiting(Broken())
    shared.add(waiter)
    _, other = join(shared)
    shared.start_attempt()
    shared.hear("a")
    shared.hear("b")
    assert other.text == "ab"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    waiter.leave()
    assert not shared.abandoned


# --- reasoning -------------------------------------------------------------------------------------------


def think(shared: SharedCall, *words: str) -> None:
    for each in words:
        shared.hear_reasoning(ReasoningPart(each, "maker"))


async def test_reasoning_is_heard_before_the_text_and_each_begins_once() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    think(shared, "Hm", ".")
    shared.hear("4")
    shared.complete(Completion(content="4", reasoning="Hm."))
    assert transcript.told == [
        ("reasoning", "Hm", True),
        ("reasoning", ".", False),
        ("text", "4", True),
    ]


async def test_reasoning_is_no_first_text() -> None:
    shared = SharedCall()
    shared.start_attempt()
    think(shared, "Hm.")
    assert shared.first_text_at is None
    shared.hear("4")
    assert shared.first_text_at is not None


async def test_who_joins_later_hears_the_reasoning_so_far_block_by_block() -> None:
    shared = SharedCall()
    shared.start_attempt()
    think(shared, "H", "m.")
    shared.hear_reasoning(ReasoningPart("", "maker", signature="s"))
    think(shared, "So")
    _, late = join(shared)
    assert late.thoughts.parts() == [ReasoningPart("Hm.", "maker", "s"), ReasoningPart("So", "maker")]
    shared.hear("4")
    _, later = join(shared)
    assert [kind for kind, _, _ in later.told] == ["reasoning", "reasoning", "text"]


async def test_the_reasoning_of_a_failed_attempt_is_void() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    think(shared, "Wrong")
    shared.start_attempt()
    think(shared, "Right", ".")
    shared.hear("4")
    assert transcript.told == [
        ("reasoning", "Wrong", True),
        ("reasoning", "Right", True),
        ("reasoning", ".", False),
        ("text", "4", True),
    ]


async def test_reasoning_that_no_other_follows_is_void_before_the_text() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    think(shared, "Wrong")
    shared.start_attempt()
    shared.hear("4")
    assert transcript.told == [("reasoning", "Wrong", True), ("reasoning", "", True), ("text", "4", True)]


async def test_reasoning_is_void_where_the_answer_that_follows_only_calls_tools() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    think(shared, "Wrong")
    shared.start_attempt()
    shared.complete(Completion(content=""))
    assert transcript.told == [("reasoning", "Wrong", True), ("reasoning", "", True)]


async def test_text_that_is_replaced_has_its_reasoning_ahead_of_it_again() -> None:
    shared = SharedCall()
    _, transcript = join(shared)
    shared.start_attempt()
    shared.hear("Hm.</think>4")
    shared.complete(Completion(content="4", reasoning="Hm."))
    assert transcript.told == [
        ("text", "Hm.</think>4", True),
        ("reasoning", "Hm.", True),
        ("text", "4", True),
    ]


@pytest.mark.parametrize("joins", ["before", "after"])
async def test_an_answer_that_did_not_stream_tells_its_reasoning_first(joins: str) -> None:
    shared = SharedCall()
    transcript = join(shared)[1] if joins == "before" else Transcript()
    shared.start_attempt()
    sealed = ReasoningPart("Hm.", "anthropic", signature="s")
    shared.complete(Completion(content="4", reasoning="Hm.", reasoning_parts=(sealed,)))
    if joins == "after":
        shared.add(waiting(transcript))
    assert transcript.told == [("reasoning", "Hm.", True), ("text", "4", True)]
    assert transcript.thoughts.parts() == [sealed]


async def test_a_waiter_of_a_call_that_was_broken_off_hears_that_its_reasoning_is_void() -> None:
    broken, shared = SharedCall(), SharedCall()
    waiter, transcript = join(broken)
    broken.start_attempt()
    think(broken, "Wrong")
    broken.remove(waiter)
    shared.add(waiter)
    shared.start_attempt()
    shared.hear("4")
    assert transcript.told[1:] == [("reasoning", "", True), ("text", "4", True)]


async def test_the_reasoning_so_far_takes_the_room_of_its_text() -> None:
    shared = SharedCall()
    shared.start_attempt()
    for _ in range(100_000):
        think(shared, "x")
    _, late = join(shared)
    assert late.told == [("reasoning", "x" * 100_000, True)]
