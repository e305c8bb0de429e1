"""Hedged calls: the first answer wins, and the other call is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ultra.actors.model.hedging import Hedge, HedgedCall, percentile
from ultra.clients.adapter import OnText
from ultra.errors import BadCall, ClientCrashed, ModelError
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion


class Backend:
    """Answers after `seconds`, streams its name first if told, or fails."""

    def __init__(
        self, name: str, seconds: float, *, fails: bool = False, first_text: float | None = None
    ) -> None:
        self.name, self.seconds, self.fails, self.first_text = name, seconds, fails, first_text
        self.calls = self.cancelled = 0

    async def __call__(self, on_text: OnText | None) -> Completion:
        self.calls += 1
        try:
            if self.first_text is not None and on_text is not None:
                await trio.sleep(self.first_text)
                on_text(self.name)
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.fails:
            raise ModelError(f"{self.name} failed")
        return Completion(content=self.name)


def hedged(
    *calls: Callable[[OnText | None], Awaitable[Completion]], delay: float = 1, on_text: OnText | None = None
) -> tuple[HedgedCall, list[float]]:
    hedges: list[float] = []

    async def note() -> AbstractContextManager[None]:
        hedges.append(trio.current_time())
        return nullcontext()

    return HedgedCall(calls, delay, on_hedge=note, on_text=on_text), hedges


async def test_a_call_that_is_fast_enough_is_not_hedged(autojump_clock: MockClock) -> None:
    fast, spare = Backend("fast", 0.5), Backend("spare", 0.1)
    call, hedges = hedged(fast, spare)
    assert (await call.run()).content == "fast"
    assert (hedges, spare.calls, call.hedge_won) == ([], 0, False)


async def test_the_hedge_wins_over_a_slow_call_which_is_cancelled(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 100), Backend("spare", 1)
    call, hedges = hedged(slow, spare)
    start = trio.current_time()
    assert (await call.run()).content == "spare"
    assert trio.current_time() - start == pytest.approx(2)
    assert (len(hedges), slow.cancelled, call.hedge_won) == (1, 1, True)


async def test_the_first_call_may_still_win_and_the_hedge_is_cancelled(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 2), Backend("spare", 100)
    call, hedges = hedged(slow, spare)
    assert (await call.run()).content == "slow"
    assert (len(hedges), spare.cancelled, call.hedge_won) == (1, 1, False)


async def test_one_deployment_can_be_asked_twice(autojump_clock: MockClock) -> None:
    times = iter([100.0, 1.0])
    seen: list[float] = []

    async def backend(_on_text: OnText | None) -> Completion:
        seconds = next(times)
        await trio.sleep(seconds)
        seen.append(seconds)
        return Completion(content=str(seconds))

    call, _ = hedged(backend)
    assert (await call.run()).content == "1.0"
    assert seen == [1.0]


async def test_whoever_streams_first_wins_and_alone_is_heard(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    slow, spare = Backend("slow", 1, first_text=5), Backend("spare", 50, first_text=2)
    call, _ = hedged(slow, spare, on_text=heard.append)
    assert (await call.run()).content == "spare"
    assert heard == ["spare"]
    assert slow.cancelled == 1


async def test_a_first_call_that_streams_before_the_delay_is_not_hedged(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    slow, spare = Backend("slow", 50, first_text=0.5), Backend("spare", 1)
    call, hedges = hedged(slow, spare, on_text=heard.append)
    assert (await call.run()).content == "slow"
    assert (hedges, spare.calls, heard) == ([], 0, ["slow"])


async def test_a_failure_before_the_delay_is_raised_at_once_and_not_hedged(autojump_clock: MockClock) -> None:
    broken, spare = Backend("broken", 0.5, fails=True), Backend("spare", 1)
    call, hedges = hedged(broken, spare)
    with pytest.raises(ModelError, match="broken failed"):
        await call.run()
    assert hedges == []


async def test_when_one_of_two_fails_the_others_answer_counts(autojump_clock: MockClock) -> None:
    call, _ = hedged(Backend("broken", 1.5, fails=True), Backend("spare", 3))
    assert (await call.run()).content == "spare"
    call, _ = hedged(Backend("slow", 3), Backend("broken", 0.5, fails=True))
    assert (await call.run()).content == "slow"


async def test_when_both_fail_the_first_calls_error_is_raised(autojump_clock: MockClock) -> None:
    call, _ = hedged(Backend("one", 3, fails=True), Backend("two", 0.5, fails=True))
    with pytest.raises(ModelError, match="one failed"):
        await call.run()


@pytest.mark.parametrize("first_text", [None, 0.5])
async def test_an_answer_that_comes_while_the_hedge_waits_for_its_permission_waits_for_none(
    first_text: float | None, autojump_clock: MockClock
) -> None:
    async def asks_others() -> AbstractContextManager[None]:
        await trio.sleep(60)
        return nullcontext()

    heard: list[str] = []
    slow, spare = Backend("slow", 2, first_text=first_text), Backend("spare", 1)
    call = HedgedCall((slow, spare), 0.1, on_hedge=asks_others, on_text=heard.append)
    begun = trio.current_time()
    assert (await call.run()).content == "slow"
    assert trio.current_time() - begun == pytest.approx(2 + (first_text or 0))
    assert spare.calls == 0

    call = HedgedCall((Backend("broken", 2, fails=True), spare), 1, on_hedge=asks_others)
    begun = trio.current_time()
    with pytest.raises(ModelError, match="broken failed"):
        await call.run()
    assert trio.current_time() - begun == pytest.approx(2)
    assert spare.calls == 0


async def test_a_client_that_breaks_down_is_no_group_of_errors(autojump_clock: MockClock) -> None:
    async def breaks(_on_text: OnText | None) -> Completion:
        await trio.sleep(2)
        raise ClientCrashed("it is gone")

    slow = Backend("slow", 100)
    for calls in ((breaks, slow), (slow, breaks)):
        call, _ = hedged(*calls)
        with pytest.raises(ClientCrashed, match="it is gone"):
            await call.run()
    assert slow.cancelled == 2


async def test_cancelling_cancels_both(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 100), Backend("spare", 100)
    call, _ = hedged(slow, spare)
    with trio.move_on_after(5):
        await call.run()
    assert (slow.cancelled, spare.cancelled) == (1, 1)


def test_the_delay_is_a_number_or_the_models_own_95th_percentile() -> None:
    assert Hedge(2.0).delay([]) == 2.0
    assert Hedge("p95").delay([1.0] * 19) == float("inf")
    assert Hedge("p95").delay([float(n) for n in range(1, 101)]) == 95.0
    assert percentile([3.0], 0.95) == 3.0


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), "p50", True])
def test_another_delay_is_refused(after: Any) -> None:
    with pytest.raises(BadCall, match="p95"):
        Hedge(after)


# --- reasoning -------------------------------------------------------------------------------------------


class Thinker:
    """Thinks at some times [s], and then answers, or fails, at another."""

    def __init__(self, name: str, *thinks_at: float, ends_at: float, fails: bool = False) -> None:
        self.name, self.thinks_at, self.ends_at, self.fails = name, thinks_at, ends_at, fails

    async def __call__(self, on_text: OnText | None) -> Completion:
        begun = trio.current_time()
        for number, at in enumerate(self.thinks_at):
            await trio.sleep(begun + at - trio.current_time())
            if on_text is not None:
                on_text(ReasoningDelta(f"{self.name}{number} "))
        await trio.sleep(begun + self.ends_at - trio.current_time())
        if self.fails:
            raise ModelError(f"{self.name} failed")
        if on_text is not None:
            on_text(self.name)
        return Completion(content=self.name)


class Reader:
    """What a reader has: reasoning, with the rest void, and text; `signs` counts the empty pieces."""

    def __init__(self) -> None:
        self.thoughts: list[str] = []
        self.texts: list[str] = []
        self.voided: list[list[str]] = []
        self.signs = 0

    def take(self, piece: str) -> None:
        if isinstance(piece, ReasoningDelta):
            assert not self.texts, "reasoning came behind the text"
            self.thoughts.append(piece.part.text)
        elif piece:
            self.texts.append(piece)
        else:
            self.signs += 1

    def void(self) -> None:
        self.voided.append(self.thoughts)
        self.thoughts = []


async def read(*calls: Thinker) -> Reader:
    reader = Reader()

    async def permit() -> AbstractContextManager[None]:
        return nullcontext()

    call = HedgedCall(calls, 1, on_hedge=permit, on_text=reader.take, on_void=reader.void)
    await call.run()
    return reader


async def test_who_thinks_first_is_heard_until_the_other_answers(autojump_clock: MockClock) -> None:
    reader = await read(Thinker("slow", 0.5, 2.0, 9.0, ends_at=20), Thinker("spare", 0.6, 1.5, ends_at=3))
    assert reader.voided == [["slow0 ", "slow1 "]]
    assert "".join(reader.thoughts) == "spare0 spare1 "
    assert reader.texts == ["spare"]
    assert reader.signs == 2  # what waited was a sign of life meanwhile


async def test_a_hedge_that_loses_leaves_no_reasoning(autojump_clock: MockClock) -> None:
    reader = await read(Thinker("first", 0.5, 1.8, ends_at=3), Thinker("spare", 0.2, 0.9, ends_at=50))
    assert (reader.voided, reader.thoughts, reader.texts) == ([], ["first0 ", "first1 "], ["first"])


async def test_a_hedge_that_thinks_alone_and_loses_is_void(autojump_clock: MockClock) -> None:
    reader = await read(Thinker("first", ends_at=3), Thinker("spare", 0.2, ends_at=50))
    assert (reader.voided, reader.thoughts, reader.texts) == ([["spare0 "]], [], ["first"])


async def test_reasoning_of_a_call_that_fails_is_void_and_the_others_goes_on(
    autojump_clock: MockClock,
) -> None:
    broken = Thinker("broken", 0.5, ends_at=2, fails=True)
    reader = await read(broken, Thinker("spare", 0.2, 1.5, ends_at=3))
    assert reader.voided == [["broken0 "]]
    assert reader.thoughts == ["spare0 ", "spare1 "]
    assert reader.texts == ["spare"]


async def test_reasoning_prevents_no_hedge(autojump_clock: MockClock) -> None:
    reader = await read(Thinker("slow", 0.1, 0.2, 0.3, ends_at=30), Thinker("spare", ends_at=1))
    assert reader.texts == ["spare"]
