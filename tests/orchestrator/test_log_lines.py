"""What the log tells of a request and of a run, and to whom each line belongs."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from helpers.event_loops import nap, on_every_loop
from ultra import Completion, ModelError, MultiLLMOrchestrator, QuorumNotReached, RetryPolicy, Usage
from ultra._support.log import get_logger
from ultra.clients.pricing import Price
from ultra.simulation.one_seed import logging_off
from ultra.stores.contracts import CacheKey, CacheShard, CacheStatistics
from ultra.strategies import Stage
from ultra.supervisor import RestartIntensity
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)
ADAPTER_LOG = get_logger("ultra.clients")


def named(events: list[Any], name: str) -> list[Any]:
    return [event for event in events if event["event"] == name]


class Reporting:
    """An async client whose library part writes a line of Ultra's, and which fails at first."""

    def __init__(self) -> None:
        self.calls = 0

    async def generate(self, prompt: str) -> str:
        await nap(0)
        self.calls += 1
        ADAPTER_LOG.info("asked")
        if self.calls == 1:
            raise ZeroDivisionError("in the client")
        return prompt


class ReportingInThread(Reporting):
    """The same, but synchronous, so that it runs in a thread."""

    def generate(self, prompt: str) -> str:  # type: ignore[override]
        self.calls += 1
        ADAPTER_LOG.info("asked")
        if self.calls == 1:
            raise ZeroDivisionError("in the client")
        return prompt


class BrokenShard:
    async def get(self, key: CacheKey) -> Completion | None:
        raise OSError("the disk is gone")

    async def put(self, key: CacheKey, completion: Completion) -> None:
        raise OSError("the disk is gone")

    def statistics(self) -> CacheStatistics:
        return CacheStatistics()


class BrokenStore:
    def shard(self, name: str) -> CacheShard:
        return BrokenShard()

    secret = b"s" * 32

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("make", [Reporting, ReportingInThread])
@on_every_loop
async def test_each_line_of_a_request_names_run_stage_model_and_what_its_caller_has_bound(
    make: type[Reporting],
) -> None:
    with capture_logs() as events:
        orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, cache=BrokenStore(), stages=["initial"])
        orchestrator.register_model("m", make())
        async with orchestrator:
            with bound_contextvars(tenant="blue", model="of the caller"):
                result = await orchestrator.process_responses("Q")
    names = ["cache unavailable", "asked", "attempt failed", "retrying", "asked", "run ended"]
    lines = [event for event in events if not event["event"].startswith("actor ")]
    assert [event["event"] for event in lines] == names
    for event in lines[:-1]:
        told = {name: event[name] for name in ("run_id", "stage", "model", "tenant")}
        assert told == {"run_id": result.run_id, "stage": "initial", "model": "m", "tenant": "blue"}
    assert (lines[-1]["run_id"], lines[-1]["tenant"]) == (result.run_id, "blue")


@on_every_loop
async def test_lines_of_the_judge_and_of_single_requests_have_the_fields_too() -> None:
    judge = FakeModel(name="judge", failures=[ModelError("broken", kind="server")] * 3)
    with capture_logs() as events:
        orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, judge="judge", stages=["initial"])
        orchestrator.register_model("m", FakeModel("1", name="m"))
        orchestrator.register_model("judge", judge)
        async with orchestrator:
            with bound_contextvars(tenant="blue"):
                result = await orchestrator.process_responses("Q", models=["m"])
            [end] = named(events, "all attempts failed")
            assert (end["run_id"], end["stage"], end["model"]) == (result.run_id, "judge", "judge")
            assert end["tenant"] == "blue"
            with bound_contextvars(tenant="red"), pytest.raises(Exception, match="All attempts"):
                await orchestrator.get_model_response(Failing(), "Q", stage="mine")
    end = named(events, "all attempts failed")[-1]
    assert (end["stage"], end["model"], end["tenant"]) == ("mine", "unregistered-1", "red")
    assert end["run_id"]
    assert len(named(events, "run ended")) == 1


class Failing:
    async def generate(self, prompt: str) -> str:
        await nap(0)
        raise ModelError("no", kind="auth")


@on_every_loop
async def test_lifecycle_lines_belong_to_nobody() -> None:
    class Crashing:
        """Crashes the actor, since no shard may give such a thing."""

    orchestrator = MultiLLMOrchestrator(
        retry=AT_ONCE, intensity=RestartIntensity(0, within=1), stages=["initial"]
    )
    orchestrator.register_model("m", FakeModel(name="m"))
    with capture_logs() as events, bound_contextvars(tenant="blue"):
        async with orchestrator:
            tree = orchestrator._lifespan.tree
            assert tree is not None

            async def crash() -> None:
                await trio.lowlevel.checkpoint()
                tree.target(orchestrator._registry.get("m")).ref.tell(Crashing())

            await orchestrator._lifespan.trio_run.run(crash)
            with pytest.raises(QuorumNotReached):
                await orchestrator.process_responses("Q")
    lifecycle = [event for event in events if event["logger"] == "ultra.supervisor"]
    assert {event["event"] for event in lifecycle} >= {"actor started", "actor crashed", "actor down"}
    assert all("tenant" not in event and "run_id" not in event for event in lifecycle)


# --- the line at the end of a run --------------------------------------------------------------------


def priced(fake: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    settings = {"retry": RetryPolicy(max_retries=0), "stages": ["initial"], **settings}
    orchestrator = MultiLLMOrchestrator(**settings)
    orchestrator.register_model("m", fake, price=Price(input=1e6, output=1e6))
    return orchestrator


ANSWER = Completion("yes", usage=Usage(2, 1), finish_reason="stop")


async def test_a_run_ends_with_one_line(autojump_clock: MockClock) -> None:
    with capture_logs() as events:
        async with priced(FakeModel(ANSWER, seconds=2)) as orchestrator:
            result = await orchestrator.process_responses("Q")
            await orchestrator.process_responses("Q")  # from the cache
    first, second = named(events, "run ended")
    assert first == {
        "event": "run ended",
        "log_level": "info",
        "logger": "ultra.run",
        "run_id": result.run_id,
        "status": "success",
        "strategy": "synthesize",
        "seconds": 2.0,
        "tokens": 3,
        "cost": 3.0,
        "failures": 0,
    }
    assert (second["seconds"], second["tokens"], second["cost"]) == (0.0, 0, 0.0)


async def test_a_degraded_run_ends_with_a_warning() -> None:
    with capture_logs() as events:
        orchestrator = priced(FakeModel(ANSWER))
        orchestrator.register_model("broken", FakeModel(failures=[ModelError("no", kind="auth")]))
        await orchestrator.process_responses("Q")
    [end] = named(events, "run ended")
    assert (end["log_level"], end["status"], end["failures"], end["tokens"]) == ("warning", "degraded", 1, 3)


@on_every_loop
async def test_a_failed_run_ends_with_an_error_and_with_what_it_had_spent() -> None:
    failing = FakeModel([ANSWER, ModelError("gone", kind="auth")])
    stages = ["initial", Stage(name="second", prompt=lambda _: "2")]
    with capture_logs() as events:
        orchestrator = priced(failing, stages=stages)
        with pytest.raises(QuorumNotReached):
            await orchestrator.process_responses("Q")
    [end] = named(events, "run ended")
    assert (end["log_level"], end["status"], end["kind"]) == ("error", "failed", "QuorumNotReached")
    assert (end["tokens"], end["cost"]) == (3, 3.0)
    assert "gone" in end["error"]


async def test_a_run_that_nobody_waits_for_ends_as_cancelled(autojump_clock: MockClock) -> None:
    with capture_logs() as events:
        async with priced(FakeModel(seconds=math.inf)) as orchestrator:
            with trio.move_on_after(3):
                await orchestrator.process_responses("Q")
            async with orchestrator.stream_responses("Q") as run:
                await anext(aiter(run))
    for end in named(events, "run ended"):
        assert (end["log_level"], end["status"]) == ("info", "cancelled")
    assert [end["seconds"] for end in named(events, "run ended")] == [3.0, 0.0]


async def test_a_run_whose_coordinator_hangs_ends_with_a_line_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_self: object, _message: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("ultra.actors.coordinator.actor.Coordinator.receive", hang)
    with capture_logs() as events:
        async with priced(FakeModel(ANSWER)) as orchestrator:
            with pytest.raises(TimeoutError):
                await orchestrator.process_responses("Q", timeout=3)
    [end] = named(events, "run ended")
    assert (end["status"], end["kind"], end["seconds"]) == ("failed", "DeadlineExceeded", 4.0)


# --- exceptions of clients ---------------------------------------------------------------------------


def of_tracebacks(caplog: pytest.LogCaptureFixture) -> list[BaseException]:
    return [record.exc_info[1] for record in caplog.records if record.exc_info and record.exc_info[1]]


@pytest.mark.parametrize("kind", [ZeroDivisionError, ConnectionError, TimeoutError, KeyError])
@on_every_loop
async def test_what_a_client_raises_is_shown_once_with_its_traceback(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(prompt: str) -> str:
        await nap(0)
        raise kind("in the client")

    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, stages=["initial"])
    orchestrator.register_model("m", broken)
    with pytest.raises(QuorumNotReached) as caught:
        await orchestrator.process_responses("Q")
    [shown] = of_tracebacks(caplog)
    assert isinstance(shown, kind)
    assert shown.__traceback__ is not None
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__
    assert cause is not None
    assert caught.value.failures["m"]
    with pytest.raises(Exception, match="All attempts failed") as single:
        await orchestrator.get_model_response("m", "Q", use_cache=False)
    assert isinstance(single.value.__cause__, ModelError)
    assert isinstance(single.value.__cause__.__cause__, kind)


async def test_the_errors_of_several_models_are_the_cause_of_a_missed_quorum() -> None:
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, stages=["initial"])
    for name in "ab":
        orchestrator.register_model(name, FakeModel(failures=[KeyError(name)] * 9))
    with pytest.raises(QuorumNotReached) as caught:
        await orchestrator.process_responses("Q")
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    found = {str(error.__cause__.__cause__) for error in group.exceptions if error.__cause__}
    assert found == {"'a'", "'b'"}


async def test_errors_that_clients_raise_on_purpose_show_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, stages=["initial"])
    orchestrator.register_model("m", FakeModel(failures=[ModelError("overloaded", kind="overloaded")] * 9))
    with pytest.raises(QuorumNotReached):
        await orchestrator.process_responses("Q")
    assert len(caplog.records) == 7  # three attempts, two retries, two ends
    assert of_tracebacks(caplog) == []


async def test_what_one_deployment_raises_is_shown_before_the_next_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, stages=["initial"])
    orchestrator.register_model("m", [FakeModel(failures=[KeyError("k")]), FakeModel("yes")])
    result = await orchestrator.process_responses("Q")
    assert result.status == "success"
    [shown] = of_tracebacks(caplog)
    assert isinstance(shown, KeyError)
    [line] = [record for record in caplog.records if "deployment failed" in record.message]
    assert (line.run_id, line.stage, line.model) == (result.run_id, "initial", "m")  # type: ignore[attr-defined]


def test_the_plain_log_has_the_bound_variables_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        orchestrator = MultiLLMOrchestrator(stages=["initial"])
        orchestrator.register_model("m", FakeModel("yes"))
        with bound_contextvars(tenant="blue"):
            await orchestrator.process_responses("Q")

    trio.run(go)
    assert not structlog.is_configured()
    [record] = [record for record in caplog.records if record.name == "ultra.run"]
    assert "tenant=blue" in record.message
    assert (record.tenant, record.status) == ("blue", "success")  # type: ignore[attr-defined]


class Payload:
    """What an exception of a client may hold, such as a prompt."""


async def test_a_failed_run_keeps_nothing_alive_in_a_cycle() -> None:
    alive: list[weakref.ref[Payload]] = []

    async def broken(prompt: str) -> str:
        await nap(0)
        payload = Payload()
        alive.append(weakref.ref(payload))
        raise RuntimeError(prompt, payload)

    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, stages=["initial"], cache_enabled=False)
    orchestrator.register_model("m", broken)
    gc.disable()
    try:
        with logging_off():  # pytest keeps what is logged, with its tracebacks
            async with orchestrator:
                for _ in range(5):
                    with suppress(QuorumNotReached):  # pytest.raises makes a cycle
                        await orchestrator.process_responses("Q")
                await nap(0)
                assert len(alive) == 15
                assert sum(each() is not None for each in alive) <= 3  # of the latest run
    finally:
        gc.enable()
