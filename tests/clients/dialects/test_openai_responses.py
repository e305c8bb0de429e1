"""The Responses API: what is sent, and what its answers mean, plain and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.options import CallOptions
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion

DIALECT = OpenAIResponses("m", provider="openai", base_url="https://x/v1")
EVENTS = {"content-type": "text/event-stream"}


def response(status: str = "completed", text: str = "4", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "status": status,
        "model": "m-1",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I add."}]},
            {"type": "message", "content": [{"type": "output_text", "text": text}]},
        ],
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 1},
        },
        **more,
    }


def plain(body: dict[str, Any]) -> Completion:
    head = ResponseHead("openai", 200, {"content-type": "application/json"})
    return DIALECT.decode(json.dumps(body).encode(), head)


def streamed(*events: dict[str, Any]) -> tuple[str, Completion]:
    decoder = DIALECT.decoder(ResponseHead("openai", 200, EVENTS))
    texts: list[str] = []
    for event in events:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for start in range(0, len(data), 7):
            texts += decoder.feed(data[start : start + 7])
    texts += decoder.flush()
    return "".join(texts), decoder.completion()


DELTAS: tuple[dict[str, Any], ...] = (
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
    {"type": "response.reasoning_summary_text.delta", "delta": "I add."},
    {"type": "response.output_text.delta", "delta": "4"},
)


def test_the_system_prompt_goes_beside_the_messages_and_nothing_is_stored() -> None:
    request = ModelRequest.of("2+2?", "Be terse.")
    options = CallOptions(max_tokens=9, reasoning_effort="low", stop="x", seed=1)
    payload = DIALECT.encode(request, options, stream=False)
    assert {name: value for name, value in payload.items() if value is not None} == {
        "model": "m",
        "instructions": "Be terse.",
        "input": [{"role": "user", "content": "2+2?"}],
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "store": False,
    }


def test_a_plain_answer_and_a_streamed_one_mean_the_same() -> None:
    whole = plain(response())
    assert (whole.content, whole.reasoning, whole.finish_reason) == ("4", "I add.", "stop")
    assert (whole.request_id, whole.model) == ("resp_1", "m-1")
    usage = whole.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.cached, usage.reasoning) == (5, 3, 2, 1)
    assert streamed(*DELTAS, {"type": "response.completed", "response": response()}) == ("4", whole)


@pytest.mark.parametrize("last", [{}, {"output": []}, {"output": None}])
def test_a_gateway_that_tells_the_items_and_no_pieces_of_them_gives_the_text(last: dict[str, Any]) -> None:
    items = [{"type": "response.output_item.done", "item": item} for item in response()["output"]]
    text, told = streamed(*items, {"type": "response.completed", "response": {"status": "completed", **last}})
    assert text == "4"
    assert (told.content, told.reasoning, told.finish_reason) == ("4", "I add.", "stop")


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter",) * 2])
def test_an_incomplete_answer_says_why(reason: str, finish: str) -> None:
    cut = response("incomplete", incomplete_details={"reason": reason})
    assert plain(cut).finish_reason == finish
    assert streamed(*DELTAS, {"type": "response.incomplete", "response": cut})[1].finish_reason == finish


def test_a_refusal_is_no_text() -> None:
    body = response()
    body["output"][1]["content"] = [{"type": "refusal", "refusal": "I cannot."}]
    whole = plain(body)
    assert (whole.content, whole.refusal, whole.finish_reason) == ("", "I cannot.", "refusal")
    refusal = {"type": "response.refusal.delta", "delta": "I cannot."}
    assert streamed(refusal, {"type": "response.completed", "response": body})[1].refusal == "I cannot."


def test_a_failure_keeps_the_providers_words() -> None:
    failed = response("failed", error={"code": "server_error", "message": "The model overheated"})
    with pytest.raises(ModelError, match="overheated"):
        plain(failed)
    with pytest.raises(ModelError, match="overheated"):
        streamed(*DELTAS, {"type": "response.failed", "response": failed})
    with pytest.raises(ModelError, match="slow down"):
        streamed({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"})


def test_a_stream_without_its_last_event_was_cut_off() -> None:
    with pytest.raises(ModelError, match="before the answer was complete"):
        streamed(*DELTAS)
