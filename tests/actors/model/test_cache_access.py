from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from helpers.model_actors import Asker, ask_for, register, start
from ultra import MultiLLMOrchestrator
from ultra.actors.model import cache_access
from ultra.actors.model.cache_access import HEAD_START, LOOKUP_TIMEOUT, WRITE_TIMEOUT, CacheWriter
from ultra.actors.runtime.status import ActorState
from ultra.messages.results import Completion
from ultra.supervisor import ActorSystem
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


class Shard:
    """A shard that keeps answers, and does first what it is told to: raise, wait for so long, give this."""

    def __init__(self, get: Any = None, put: Any = None) -> None:
        self.on_get = get
        self.on_put = put
        self.kept: dict[bytes, Completion] = {}
        self.lookups = self.writes = 0

    async def get(self, key: bytes) -> Any:
        self.lookups += 1
        return await _done(self.on_get) or self.kept.get(key)

    async def put(self, key: bytes, completion: Completion) -> None:
        self.writes += 1
        await _done(self.on_put)
        self.kept[key] = completion

    def statistics(self) -> Any:
        raise NotImplementedError


async def _done(what: Any) -> Any:
    if isinstance(what, BaseException):
        raise what
    if isinstance(what, float):
        await trio.sleep(what)
        return None
    return what


class BadlyNamed(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Panic(BaseException):
    """As an extension in Rust raises it."""


FAULTS = {
    "error": OSError("disk"),
    "no text": BadlyNamed(),
    "panic": Panic("index out of bounds"),
    "exit": SystemExit(1),
    "group": ExceptionGroup("several", [ValueError("one")]),
    "generator": GeneratorExit(),
    "stop": StopAsyncIteration(),
}


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def of_cache(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"].startswith("cache")]


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("where", ["get", "put"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_shard_that_raises_is_a_miss_and_is_left_alone_for_a_while(
    fault: str, where: str, *, instant: bool, logs: list[Any], autojump_clock: MockClock
) -> None:
    model = register(FakeModel())
    shard: Any = Shard(**{where: FAULTS[fault]})
    shard.instant = instant
    model.shard = shard
    async with ActorSystem() as system:
        ref = start(system, model)
        for number in range(5):
            assert (await ref.ask(ask_for(f"{number}"))).content == f"fake: {number}"
        assert ref.snapshot().state is ActorState.RUNNING
        assert ref.snapshot().restarts == 0
        assert [entry["event"] for entry in of_cache(logs)] == ["cache unavailable"]
        assert (shard.lookups, shard.writes) == ((1, 0) if where == "get" else (1, 1))
        shard.on_get = shard.on_put = None
        await trio.sleep(31)
        await ref.ask(ask_for("later"))
        await trio.sleep(1)
        assert (await ref.ask(ask_for("later"))).cached
    assert of_cache(logs)[-1]["event"] == "cache available again"


@pytest.mark.parametrize(
    "given",
    ["text", 7, {"content": "x"}, Completion(content=""), Completion(content="x", finish_reason="length")],
)
async def test_what_a_shard_gives_is_a_whole_answer_or_a_miss(given: Any, logs: list[Any]) -> None:
    model = register(FakeModel())
    model.shard = Shard(get=given)
    async with ActorSystem() as system:
        response = await start(system, model).ask(ask_for())
    assert (response.content, response.cached) == ("fake: Q", False)


async def test_odd_fields_of_a_kept_answer_are_left_out() -> None:
    model = register(FakeModel())
    model.shard = Shard(get=Completion(content="x", usage={"input": 1}, request_id=object()))  # type: ignore[arg-type]
    async with ActorSystem() as system:
        response = await start(system, model).ask(ask_for())
    assert (response.content, response.cached, response.request_id) == ("x", True, None)


async def test_a_lookup_that_hangs_delays_one_round_of_requests_only(
    autojump_clock: MockClock, logs: list[Any]
) -> None:
    model = register(FakeModel())
    shard = model.shard = Shard(get=1e9)
    async with ActorSystem() as system:
        ref = start(system, model)
        for expected in (LOOKUP_TIMEOUT, 0):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    Asker(nursery, ref, ask_for(f"{expected} {number}"))
            assert trio.current_time() - began == pytest.approx(expected)
    assert shard.lookups == 50
    assert {entry["event"] for entry in of_cache(logs)} == {"cache unavailable"}


async def test_a_lookup_takes_no_more_than_a_quarter_of_a_request_s_time(autojump_clock: MockClock) -> None:
    model = register(FakeModel())
    model.shard = Shard(get=1e9)
    async with ActorSystem() as system:
        began = trio.current_time()
        await start(system, model).ask(ask_for(time_left=0.4))
        assert trio.current_time() - began == pytest.approx(0.1)
    assert not model.cache_outage.is_on  # others may have more time


async def test_no_lookup_outlives_its_request(autojump_clock: MockClock) -> None:
    ended = trio.Event()

    class Watched(Shard):
        async def get(self, key: bytes) -> Any:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

    fake = FakeModel()
    model = register(fake)
    model.shard = Watched()
    async with ActorSystem() as system:
        began = trio.current_time()
        with trio.move_on_after(0.5):
            await start(system, model).ask(ask_for())
        await ended.wait()
        assert trio.current_time() - began == pytest.approx(0.5)
    assert not fake.calls


async def test_a_slow_write_delays_one_reply_a_little_and_no_other(autojump_clock: MockClock) -> None:
    model = register(FakeModel())
    shard = model.shard = Shard(put=1.0)
    async with ActorSystem() as system:
        ref = start(system, model)
        for number, expected in enumerate((HEAD_START, 0, 0)):
            began = trio.current_time()
            await ref.ask(ask_for(f"{number}"))
            assert trio.current_time() - began == pytest.approx(expected)
        assert (await ref.ask(ask_for("2"))).cached  # though it is not kept yet
        shard.on_put = None
        await trio.sleep(5)
        assert len(shard.kept) == 3
        assert not model.cache_is_slow  # which may change back


async def test_a_shard_is_slow_until_a_write_was_fast(autojump_clock: MockClock) -> None:
    async def time_of(prompt: str) -> float:
        began = trio.current_time()
        await ref.ask(ask_for(prompt))
        return trio.current_time() - began

    model = register(FakeModel())
    shard = model.shard = Shard(put=1.0)
    async with ActorSystem() as system:
        ref = start(system, model)
        assert await time_of("first") == pytest.approx(HEAD_START)
        await trio.sleep(2)
        assert await time_of("after a slow write") == 0
        await trio.sleep(2)
        shard.on_put = HEAD_START
        assert await time_of("after another") == 0
        await trio.sleep(2)
        shard.on_put = 1.0
        assert await time_of("after one that was just fast enough") == pytest.approx(HEAD_START)


async def test_a_write_that_hangs_is_given_up_and_so_are_those_behind_it(
    autojump_clock: MockClock, logs: list[Any]
) -> None:
    model = register(FakeModel())
    shard = model.shard = Shard(put=1e9)
    began = trio.current_time()
    async with ActorSystem() as system:
        ref = start(system, model)
        for number in range(20):
            await ref.ask(ask_for(f"{number}"))
    assert trio.current_time() - began == pytest.approx(WRITE_TIMEOUT)
    assert shard.writes == 1
    assert [entry["event"] for entry in of_cache(logs)] == ["cache unavailable"]


async def test_answers_that_wait_to_be_kept_are_bounded(
    autojump_clock: MockClock, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_access, "MOST_WAITING", 10)
    model = register(FakeModel())
    shard = model.shard = Shard(put=0.1)
    async with ActorSystem() as system:
        ref = start(system, model)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                Asker(nursery, ref, ask_for(f"{number}"))
    assert len(shard.kept) == 10
    (entry,) = of_cache(logs)
    assert "too many answers" in entry["error"]


async def test_their_text_is_bounded_too(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_access, "MOST_WAITING_CHARACTERS", 100)
    model = register(FakeModel("x" * 60))
    shard = model.shard = Shard(put=0.1)
    async with ActorSystem() as system:
        ref = start(system, model)
        for number in range(3):
            await ref.ask(ask_for(f"{number}"))
    assert len(shard.kept) == 1


class Store:
    """A store with one shard for all models."""

    secret = bytes(32)

    def __init__(self, shard: Shard) -> None:
        self.one = shard

    def shard(self, name: str) -> Any:
        return self.one

    async def aclose(self) -> None:
        pass


async def test_what_waits_is_kept_when_the_orchestrator_is_left(autojump_clock: MockClock) -> None:
    shard = Shard(put=0.5)
    async with MultiLLMOrchestrator(cache=Store(shard)) as orchestrator:
        orchestrator.register_model("m", FakeModel())
        for number in range(3):
            await orchestrator.get_model_response("m", f"{number}")
    assert len(shard.kept) == 3


async def test_leaving_does_not_wait_long_for_a_slow_store(autojump_clock: MockClock) -> None:
    shard = Shard(put=1.9)
    async with MultiLLMOrchestrator(cache=Store(shard)) as orchestrator:
        orchestrator.register_model("m", FakeModel())
        for number in range(50):
            await orchestrator.get_model_response("m", f"{number}")
        began = trio.current_time()
    assert trio.current_time() - began <= WRITE_TIMEOUT
    assert len(shard.kept) == 1


async def test_a_cancelled_block_waits_for_no_write(autojump_clock: MockClock) -> None:
    shard = Shard(put=1.0)
    began = trio.current_time()
    with trio.move_on_after(0.1) as scope:
        async with MultiLLMOrchestrator(cache=Store(shard)) as orchestrator:
            orchestrator.register_model("m", FakeModel())
            await orchestrator.get_model_response("m", "Q")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() - began == pytest.approx(0.1)
    assert not shard.kept


async def test_an_answer_that_waits_is_not_kept_for_a_model_that_was_unregistered(
    autojump_clock: MockClock,
) -> None:
    shard = Shard(put=0.5)
    async with MultiLLMOrchestrator(cache=Store(shard)) as orchestrator:
        orchestrator.register_model("m", FakeModel())
        for number in range(3):
            await orchestrator.get_model_response("m", f"{number}")
        await orchestrator.unregister_model("m")
    assert len(shard.kept) == 1


async def test_after_its_block_a_writer_keeps_nothing_more() -> None:
    model = register(FakeModel())
    shard = Shard()
    async with CacheWriter() as writer:
        pass
    await writer.put(model, shard, b"k", Completion(content="x"))
    assert writer.waiting(shard, b"k") is None
    assert not shard.writes
