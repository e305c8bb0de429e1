"""Events on the wire."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from ultra import Event, MultiLLMOrchestrator, RetryPolicy
from ultra.messages.chat import ChatMessage, ReasoningPart, ToolCall
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    PromptFitted,
    ReasoningChunk,
    RunCompleted,
    RunFailed,
    StageCompleted,
    StageStarted,
    ToolEnded,
    ToolsCalled,
    ToolStarted,
)
from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult
from ultra.testing import FakeAnswer, FakeModel

RESPONSE = ModelResponse(model_name="a", stage="initial", content="é\n", quality=0.5)
FAILURE = ModelFailure(model_name="a", stage="initial", message="m", error="E", kind="auth", attempts=2)
CALL = ToolCall("1", "weather", '{"city":"Paris"}')
COMMON: dict[str, Any] = {"run_id": "r", "seq": 3, "time": 1.5}
MODEL: dict[str, Any] = {**COMMON, "stage": "initial", "model_name": "a"}

EVENTS: list[Event] = [
    StageStarted(**COMMON, stage="initial", models=("a", "b"), asks="all"),
    ModelStarted(**MODEL),
    Chunk(**MODEL, text="te\nxt", restart=True),
    ReasoningChunk(**MODEL, part=ReasoningPart("Hm.", "anthropic", signature="s"), restart=True),
    ModelRetrying(**MODEL, attempt=1, wait=0.5, kind="rate_limit", message="m"),
    ModelResponded(**MODEL, response=RESPONSE),
    ModelFailed(**MODEL, failure=FAILURE),
    PromptFitted(**MODEL, cut={"b": 7}),
    ToolsCalled(**MODEL, calls=(CALL,)),
    ToolStarted(**COMMON, stage="tools", call=CALL),
    ToolEnded(**COMMON, stage="tools", call=CALL, message=ChatMessage("tool", "ok", tool_call_id="1")),
    StageCompleted(**COMMON, stage="initial", answered=("a",), failed=("b",), quality={"a": 0.5}),
    RunCompleted(**COMMON, result=OrchestrationResult(run_id="r", prompt="Q", final_synthesis=None)),
    RunFailed(**COMMON, error="QuorumNotReached", message="m"),
]


def test_there_is_an_example_of_each_kind_of_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_encodes_to_json_and_decodes_to_the_same(event: Event) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


def test_events_are_told_apart_by_a_tag_that_readers_in_any_language_can_use() -> None:
    tags = [msgspec.json.decode(msgspec.json.encode(event))["type"] for event in EVENTS]
    assert tags == [
        "stage_started",
        "model_started",
        "chunk",
        "reasoning",
        "model_retrying",
        "model_response",
        "model_failed",
        "prompt_fitted",
        "tools_called",
        "tool_started",
        "tool_ended",
        "stage_completed",
        "run_completed",
        "run_failed",
    ]


def test_events_do_not_change() -> None:
    with pytest.raises(AttributeError):
        EVENTS[0].seq = 4  # type: ignore[misc]


async def test_all_events_of_a_real_run_survive_the_wire() -> None:
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=0))
    orchestrator.register_model("stream", FakeModel(FakeAnswer("to", "ken"), name="stream"))
    orchestrator.register_model("broken", FakeModel(failures=[RuntimeError("down")] * 9))
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        events = [event async for event in run]
    lines = [msgspec.json.encode(event) for event in events]
    assert [msgspec.json.decode(line, type=Event) for line in lines] == events
