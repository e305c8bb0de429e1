"""`POST /v1/runs`: results and events, and that no words of a provider are in them."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from helpers.services import Answer, ask, service_of
from ultra import ModelError, OrchestrationResult
from ultra.messages.events import Event, RunCompleted
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

RUNS = "/v1/runs"
SECRET = "sk-secret-0123456789"


def events_of(answer: Answer) -> list[Any]:
    """The events of a stream, decoded as they are typed."""
    lines = [line for line in answer.body.split(b"\n") if line.startswith((b"data: ", b"{"))]
    return [msgspec.json.decode(line.removeprefix(b"data: "), type=Event) for line in lines]


async def test_a_run_gives_its_result() -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Lyon.")})
    async with service.running():
        answer = await ask(
            service, {"prompt": "Which city?", "models": ["a"], "stages": ["initial"], "samples": 2}, RUNS
        )

    result = msgspec.json.decode(answer.body, type=OrchestrationResult)
    assert answer.status == 200
    assert len(result.steps[0].responses) == 2
    assert result.final_synthesis is None
    assert answer.headers["x-ultra-run-id"] == result.run_id


async def test_an_ensemble_of_the_service_can_be_named_and_changed() -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Lyon.")})
    body = {
        "prompt": [{"role": "user", "content": "Which city?"}],
        "ensemble": "council",
        "strategy": {"name": "best_of", "options": {}},
    }
    async with service.running():
        answer = await ask(service, body, RUNS)

    assert answer.json["strategy"] == "best_of"
    assert answer.json["synthesis_source"] == "selected"


@pytest.mark.parametrize(
    ("form", "accept", "content_type"),
    [
        (None, "", "text/event-stream"),
        ("sse", "", "text/event-stream"),
        ("jsonl", "", "application/jsonl"),
        (None, "application/x-ndjson", "application/jsonl"),
    ],
)
async def test_the_events_of_a_run_are_typed(form: str | None, accept: str, content_type: str) -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Lyon.")})
    body = {"prompt": "Which city?", "stream": True, "ensemble": "council"}
    if form is not None:
        body["format"] = form
    async with service.running():
        answer = await ask(service, body, RUNS, headers={"accept": accept})

    events = events_of(answer)
    assert answer.headers["content-type"].startswith(content_type)
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[-1], RunCompleted)
    assert str(events[-1].result.final_synthesis) == "Paris."
    if content_type == "text/event-stream":
        names = [line for line in answer.body.split(b"\n") if line.startswith(b"event: ")]
        assert names[0] == b"event: stage_started"
        assert names[-1] == b"event: run_completed"


async def test_no_words_of_a_provider_are_in_a_result_or_an_event() -> None:
    def models() -> dict[str, object]:
        error = ModelError(f"the key {SECRET} is wrong", kind="auth")
        return {"a": FakeModel("Paris."), "b": FakeModel().fail(error, times=9)}

    service = service_of(models())
    async with service.running():
        whole = await ask(service, {"prompt": "x", "ensemble": "council"}, RUNS)
        streamed = await ask(service, {"prompt": "y", "ensemble": "council", "stream": True}, RUNS)

    for answer in (whole, streamed):
        assert answer.status == 200
        assert SECRET not in answer.body.decode()
        assert "the call failed (auth)" in answer.body.decode()


async def test_a_run_that_fails_at_once_keeps_its_status(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel().fail(ModelError(SECRET), times=9)})
    async with service.running():
        whole = await ask(service, {"prompt": "x"}, RUNS)
        streamed = await ask(service, {"prompt": "y", "stream": True}, RUNS)

    for answer in (whole, streamed):
        assert (answer.status, answer.error["code"]) == (502, "quorum_not_reached")
        assert answer.headers["x-should-retry"] == "false"
        assert SECRET not in answer.body.decode()


async def test_a_run_that_fails_later_tells_so_in_its_last_event(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel(seconds=20).fail(ModelError(SECRET), times=9)})
    async with service.running():
        answer = await ask(service, {"prompt": "y", "stream": True}, RUNS)

    last = json.loads(answer.body.rstrip().rpartition(b"data: ")[2])
    assert answer.status == 200
    assert last["type"] == "run_failed"
    assert last["error"] == "QuorumNotReached"
    assert b": ultra\n\n" in answer.body
    assert SECRET not in answer.body.decode()


async def test_a_stream_of_events_that_is_given_up_cancels_its_run(autojump_clock: MockClock) -> None:
    model = FakeModel(seconds=inf)
    service = service_of({"a": model})
    async with service.running():
        with trio.move_on_after(10):
            await ask(service, {"prompt": "y", "stream": True}, RUNS)
        await trio.sleep(1)

        assert model.cancelled == 1


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "ensemble": "nobody"},
        {"prompt": "x", "ensemble": "a"},
        {"prompt": "x", "nonsense": 1},
        {"prompt": ""},
        {"prompt": "x", "strategy": "os:system"},
        {"prompt": "x", "quorum": 7},
        {"prompt": "x", "models": []},
        {"prompt": "x", "options": {"extra_headers": {"x": "y"}}},
        {"prompt": "x", "scope": "of another"},
    ],
)
async def test_a_wrong_run_is_refused(body: dict[str, Any]) -> None:
    model = FakeModel("Paris.")
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, body, RUNS)

    assert answer.status in {400, 404}
    assert answer.error["type"] == "invalid_request_error"
    assert model.calls == []


async def test_a_model_answers_alone_or_an_ensemble_under_the_same_name_of_a_field() -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Lyon.")})
    async with service.running():
        alone = await ask(service, {"prompt": "Which city?", "model": "b"}, RUNS)
        together = await ask(service, {"prompt": "Which city?", "model": "council"}, RUNS)
        both = await ask(service, {"prompt": "Which city?", "model": "a", "ensemble": "council"}, RUNS)

    assert [len(step["responses"]) for step in alone.json["steps"]] == [1]
    assert alone.json["final_synthesis"]["content"] == "Lyon."
    assert [step["name"] for step in together.json["steps"]] == ["initial", "synthesis"]
    assert (both.status, both.error["param"]) == (400, "model")
