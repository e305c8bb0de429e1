"""Anthropic's messages by the core of the service: bytes, the order of events, blocks, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.service_protocols import GOLDEN, MESSAGES, PIXEL, events_of, question, said
from helpers.services import Answer, ask, service_of
from ultra import ModelError, Usage
from ultra.clients import connect
from ultra.faults.provider import Reply, simulated_provider
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart, ToolCall
from ultra.service.core import Service
from ultra.testing import FakeAnswer, FakeModel

USAGE = Usage(input=7, output=4, cached=2)
COUNT = "/v1/messages/count_tokens"


def paris() -> FakeModel:
    return FakeModel("It is Paris.", usage=USAGE)


async def asked(service: Service, model: str = "a", **more: Any) -> Answer:
    async with service.running():
        return await ask(service, question(MESSAGES, model, **more), MESSAGES)


WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}


async def test_a_whole_message_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    answer = await asked(service_of({"a": paris(), "b": paris()}), "council")

    assert answer.status == 200
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    got = answer.body.replace(answer.headers["x-ultra-run-id"].encode(), b"RUN")
    assert got + b"\n" == (GOLDEN / "message.json").read_bytes()


async def test_a_stream_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Paris"}')
    thought = ReasoningPart("It has a river.", "anthropic", signature="sig")
    said_it = FakeAnswer("Let ", "me see.", usage=USAGE, tool_calls=(call,), reasoning_parts=(thought,))
    service = service_of({"a": FakeModel(lambda _: said_it, streams=False)})
    answer = await asked(service, stream=True, tools=[WEATHER])

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    got = answer.body.replace(answer.headers["x-ultra-run-id"].encode(), b"RUN")
    assert got == (GOLDEN / "message.sse").read_bytes()


async def test_each_block_begins_and_ends_and_the_usage_comes_with_the_end() -> None:
    answer = await asked(service_of({"a": paris(), "b": paris()}), "council", stream=True)

    events = events_of(answer)
    assert [event["type"] for event in events if event["type"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert said(MESSAGES, answer) == "It is Paris."
    assert events[0]["message"]["model"] == "council"
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    # Three calls, each of 7 tokens, of which 2 are from the cache.
    usage = {"input_tokens": 15, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 6}
    assert events[-2]["usage"] == {**usage, "output_tokens": 12}
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("said_it", "ended_by"), [("one END two", "END"), ("one two", None)])
async def test_the_stop_sequence_that_ended_an_answer_is_told(
    said_it: str, ended_by: str | None, *, stream: bool
) -> None:
    """Agents whose tools are words in a text look there for what ended it."""
    async with simulated_provider() as provider:
        provider.script(Reply(said_it))
        model = connect("anthropic:m", base_url=provider.url, api_key="any")
        answer = await asked(service_of({"a": model}), stop_sequences=["END"], stream=stream)

    assert said(MESSAGES, answer).strip() == said_it.partition(" END")[0]
    end = events_of(answer)[-2]["delta"] if stream else answer.json
    reason = "end_turn" if ended_by is None else "stop_sequence"
    assert (end["stop_reason"], end["stop_sequence"]) == (reason, ended_by)


async def test_what_was_written_into_the_cache_of_the_provider_is_told_apart() -> None:
    usage = Usage(input=7, output=4, cached=2, written=3)
    answer = await asked(service_of({"a": FakeModel("It is Paris.", usage=usage)}))
    told = json.loads(answer.body)["usage"]
    assert told == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 2,
        "output_tokens": 4,
    }


async def test_a_conversation_of_blocks_reaches_the_model() -> None:
    a = paris()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    text = {"type": "text", "media_type": "text/plain", "data": "Hello"}
    document = {"type": "document", "title": "a", "source": text, "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "Rain.", "is_error": True},
                {"type": "text", "text": "And here?"},
                image,
                document,
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    answer = await asked(
        service_of({"a": a}),
        messages=messages,
        system=system,
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        metadata={"user_id": "me"},
    )

    assert answer.status == 200
    request = a.calls[0].request
    first, question_, turn, result, last = request.messages
    assert first.parts == (TextPart("Be brief.", {"type": "ephemeral"}),)
    assert question_.text == "Weather?"
    assert turn.parts[0] == ReasoningPart("hm", "anthropic", signature="sig")
    assert turn.tool_calls == (ToolCall("c1", "weather", '{"a":1}'),)
    assert (result.role, result.text, result.is_error) == ("tool", "Rain.", True)
    assert [type(part) for part in last.parts] == [TextPart, ImagePart, FilePart]
    assert request.tool_choice is not None
    assert (request.tool_choice.mode, request.tool_choice.parallel) == ("required", False)
    options = a.calls[0].options
    assert (options.temperature, options.top_p, options.max_tokens) == (0.5, 0.9, 100)
    assert list(options.stop or ()) == ["END"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "thought",
    [
        ReasoningPart("hm", "gemini", signature="sig"),
        ReasoningPart("", "openai", encrypted="enc", id="rs_1"),
        ReasoningPart("hm", "anthropic", signature="sig"),
        ReasoningPart("", "anthropic", encrypted="enc"),
    ],
)
async def test_thoughts_come_back_to_the_model_that_thought_them(
    thought: ReasoningPart, *, stream: bool
) -> None:
    call = ToolCall("c1", "weather", '{"city":"Paris"}')
    a = FakeModel([FakeAnswer("I look.", tool_calls=(call,), reasoning_parts=(thought,)), "Rain."])
    service = service_of({"a": a})
    async with service.running():
        answer = await ask(service, question(MESSAGES, "a", tools=[WEATHER], stream=stream), MESSAGES)
        content = blocks_of(answer) if stream else answer.json["content"]
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "Rain"}
        messages = [
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": [result]},
        ]
        again = await ask(service, question(MESSAGES, "a", messages=messages, tools=[WEATHER]), MESSAGES)

    assert {block["type"] for block in content} > {"text", "tool_use"}
    assert again.status == 200
    turn = a.calls[1].request.messages[1]
    assert turn.parts == (thought, TextPart("I look."))
    assert turn.tool_calls == (call,)


def blocks_of(answer: Answer) -> list[dict[str, Any]]:
    """The blocks that the events of a stream add up to."""
    blocks: list[dict[str, Any]] = []
    arguments = ""
    for event in events_of(answer):
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"])
        elif event["type"] == "content_block_delta":
            delta = dict(event["delta"])
            if delta.pop("type") == "input_json_delta":
                arguments += delta["partial_json"]
                blocks[-1]["input"] = json.loads(arguments)
            else:
                for name, text in delta.items():
                    blocks[-1][name] += text
    return blocks


async def test_thoughts_are_left_out_where_thinking_is_disabled() -> None:
    thought = ReasoningPart("hm", "anthropic", signature="sig")
    service = service_of({"a": FakeModel(lambda _: FakeAnswer("x", reasoning_parts=(thought,)))})
    answer = await asked(service, thinking={"type": "disabled"})

    assert [block["type"] for block in answer.json["content"]] == ["text"]


@pytest.mark.parametrize(
    ("more", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, "high"),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"output_config": {"effort": "max"}}, "max"),
        ({}, None),
    ],
)
async def test_thinking_is_asked_for_as_effort(more: dict[str, Any], effort: str | None) -> None:
    a = paris()
    await asked(service_of({"a": a}), **more)

    assert a.calls[0].options.reasoning_effort == effort


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "schema": SCHEMA}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["a", "council"])
@pytest.mark.parametrize("more", [{"output_config": {"format": FORM}}, {"output_format": FORM}])
async def test_an_answer_of_a_given_form_is_nothing_but_json(
    more: dict[str, Any], model: str, *, stream: bool
) -> None:
    fenced = '```json\n{"city": "Paris"}\n```'
    service = service_of({"a": FakeModel(fenced), "b": FakeModel(fenced)})
    answer = await asked(service, model, stream=stream, **more)

    assert json.loads(said(MESSAGES, answer)) == {"city": "Paris"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("other", "max_tokens"),
    ],
)
async def test_why_an_answer_ends_is_told_in_the_words_of_the_protocol(
    finish: Any, reason: str, *, stream: bool
) -> None:
    service = service_of({"a": FakeModel(lambda _: FakeAnswer("It is", finish_reason=finish))})
    answer = await asked(service, stream=stream)

    told = events_of(answer)[-2]["delta"] if stream else answer.json
    assert told["stop_reason"] == reason


@pytest.mark.parametrize("stream", [False, True])
async def test_the_extension_is_on_the_message_or_on_the_event_of_its_end(*, stream: bool) -> None:
    service = service_of({"a": paris(), "b": paris()})
    answer = await asked(service, "council", plugins=[{"id": "fusion", "model": "b"}], stream=stream)

    told = events_of(answer)[-2] if stream else answer.json
    assert told["ultra"]["written_by"] == "b"


async def test_tokens_are_counted_without_asking_a_model() -> None:
    a = paris()
    service = service_of({"a": a})
    body = {"model": "a", "messages": [{"role": "user", "content": "Which city? " * 100}]}
    async with service.running():
        plain = await ask(service, body, COUNT)
        more = await ask(service, {**body, "system": "Be brief. " * 100, "tools": [WEATHER]}, COUNT)
        missing = await ask(service, {**body, "model": "nobody"}, COUNT)

    assert plain.status == more.status == 200
    assert 200 < plain.json["input_tokens"] < 800
    assert list(plain.json) == ["input_tokens"]
    assert more.json["input_tokens"] > plain.json["input_tokens"] + 100
    assert (missing.status, missing.error["type"]) == (404, "not_found_error")
    assert a.calls == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "song"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "messages[1]",
        ),
        ({"system": 5}, "system"),
        ({"system": "x", "messages": [{"role": "user", "content": ""}]}, "messages[0]"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "most"}}, "tool_choice"),
        ({"mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}]}, "mcp_servers"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": 5}}}}, "output"),
    ],
)
async def test_what_is_wrong_is_refused_by_its_name(more: dict[str, Any], words: str) -> None:
    a = paris()
    answer = await asked(service_of({"a": a}), **more)

    assert answer.status == 400
    assert set(answer.json) == {"type", "error", "request_id"}
    assert answer.json["type"] == "error"
    assert answer.json["request_id"] == answer.headers["request-id"]
    assert answer.error["type"] == "invalid_request_error"
    assert words in answer.error["message"]
    assert a.calls == []


async def test_the_failures_of_models_are_told_without_their_words() -> None:
    service = service_of({"a": FakeModel().fail(ModelError("secret", kind="rate_limit"), times=9)})
    answer = await asked(service)

    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.error["ultra"]["code"] == "rate_limit_exceeded"
    assert "secret" not in answer.body.decode()
