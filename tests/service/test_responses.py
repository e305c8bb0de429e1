"""OpenAI's responses by the core of the service: bytes, the order of events, items, what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from helpers.service_protocols import GOLDEN, PIXEL, RESPONSES, events_of, question, said
from helpers.services import Answer, ask, service_of
from ultra import ModelError, Usage
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, ToolCall
from ultra.service.core import Service
from ultra.testing import FakeAnswer, FakeModel

USAGE = Usage(input=7, output=4, cached=2, reasoning=1)


def paris() -> FakeModel:
    return FakeModel("It is Paris.", usage=USAGE)


def masked(body: bytes, run_id: str) -> bytes:
    """The body without what differs from run to run."""
    body = body.replace(run_id.encode(), b"RUN")
    return re.sub(rb'"(created|completed)_at":\d+', rb'"\1_at":0', body)


async def asked(service: Service, model: str = "a", **more: Any) -> Answer:
    async with service.running():
        return await ask(service, question(RESPONSES, model, **more), RESPONSES)


WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


async def test_a_whole_response_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    answer = await asked(service_of({"a": paris(), "b": paris()}), "council", metadata={"a": "b"})

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    got = masked(answer.body, answer.headers["x-ultra-run-id"])
    assert got + b"\n" == (GOLDEN / "response.json").read_bytes()


async def test_a_stream_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Paris"}')
    thought = ReasoningPart("It has a river.", "openai", encrypted="x", id="rs_1")
    said_it = FakeAnswer("Let ", "me see.", usage=USAGE, tool_calls=(call,), reasoning_parts=(thought,))
    service = service_of({"a": FakeModel(lambda _: said_it, streams=False)})
    answer = await asked(service, stream=True, tools=[WEATHER])

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    got = masked(answer.body, answer.headers["x-ultra-run-id"])
    assert got == (GOLDEN / "response.sse").read_bytes()


async def test_events_are_numbered_and_each_item_and_part_begins_and_ends() -> None:
    answer = await asked(service_of({"a": paris()}), stream=True)

    events = events_of(answer)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events if event["type"] != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert said(RESPONSES, answer) == "It is Paris."


async def test_the_last_event_has_what_the_whole_response_has() -> None:
    service = service_of({"a": paris()})
    async with service.running():
        whole = (await ask(service, question(RESPONSES, "a"), RESPONSES)).json
        streamed = await ask(service, question(RESPONSES, "a", stream=True), RESPONSES)
    last = events_of(streamed)[-1]["response"]

    for response in (whole, last):
        for name in ("id", "created_at", "completed_at"):
            del response[name]
        response["output"][0].pop("id")
    assert whole == last


async def test_a_response_says_what_was_asked_for() -> None:
    given: dict[str, Any] = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 99,
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": False,
        "user": "me",
    }
    a = paris()
    answer = await asked(service_of({"a": a}), **given)

    body = answer.json
    assert {name: body[name] for name in given} == given | {"reasoning": {"effort": "low", "summary": None}}
    assert body["model"] == "a"
    assert body["store"] is False
    options = a.calls[0].options
    assert (options.temperature, options.top_p, options.max_tokens) == (0.5, 0.9, 99)
    assert options.reasoning_effort == "low"
    assert a.calls[0].system == "Be brief."


async def test_a_conversation_of_items_reaches_the_model() -> None:
    a = paris()
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "low"}
    file = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,SGVsbG8="}
    given = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "enc"},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a":1}', "id": "fc"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Sun."}]},
        {"type": "ultra:panel", "id": "panel_1"},
        {"role": "user", "content": [{"type": "input_text", "text": "And here?"}, image, file]},
    ]
    answer = await asked(service_of({"a": a}), input=given, instructions="Be brief.", tools=[WEATHER])

    assert answer.status == 200
    system, first, turn, rain, sun, last = a.calls[0].request.messages
    assert system.text == "Be brief.\n\nBe kind."
    assert (first.role, first.text) == ("user", "Weather?")
    assert turn.parts[0] == ReasoningPart("", "openai", encrypted="enc", id="rs_1")
    assert turn.text == "I look."
    assert [call.id for call in turn.tool_calls] == ["c1", "c2"]
    assert [(each.role, each.text) for each in (rain, sun)] == [("tool", "Rain."), ("tool", "Sun.")]
    assert [type(part) for part in last.parts[1:]] == [ImagePart, FilePart]
    assert a.calls[0].request.tools[0].name == "weather"


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_comes_back_to_the_model_that_thought_it(*, stream: bool) -> None:
    thought = ReasoningPart("hm", "gemini", signature="sig")
    call = ToolCall("c1", "weather", "{}")
    a = FakeModel([FakeAnswer(tool_calls=(call,), reasoning_parts=(thought,)), "Rain."])
    service = service_of({"a": a})
    include = ["reasoning.encrypted_content"]
    async with service.running():
        body = question(RESPONSES, "a", tools=[WEATHER], include=include, stream=stream)
        answer = await ask(service, body, RESPONSES)
        output = events_of(answer)[-1]["response"]["output"] if stream else answer.json["output"]
        result = {"type": "function_call_output", "call_id": "c1", "output": "Rain"}
        items = [{"role": "user", "content": "Q"}, *output, result]
        again = await ask(service, question(RESPONSES, "a", input=items, tools=[WEATHER]), RESPONSES)

    assert [item["type"] for item in output] == ["reasoning", "function_call"]
    assert again.status == 200
    assert thought in a.calls[1].request.messages[1].parts


async def test_encrypted_reasoning_is_only_sent_to_who_asks_for_it() -> None:
    thought = ReasoningPart("hm", "openai", encrypted="enc")
    answer = await asked(service_of({"a": FakeModel(lambda _: FakeAnswer("x", reasoning_parts=(thought,)))}))

    assert [item["type"] for item in answer.json["output"]] == ["reasoning", "message"]
    assert "encrypted_content" not in answer.json["output"][0]


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["a", "council"])
@pytest.mark.parametrize(
    "form",
    [{"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}, {"type": "json_object"}],
)
async def test_an_answer_of_a_given_form_is_nothing_but_json(
    form: dict[str, Any], model: str, *, stream: bool
) -> None:
    fenced = '```json\n{"city": "Paris"}\n```'
    service = service_of({"a": FakeModel(fenced), "b": FakeModel(fenced)})
    answer = await asked(service, model, text={"format": form}, stream=stream)

    assert json.loads(said(RESPONSES, answer)) == {"city": "Paris"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish", ["length", "other"])
async def test_an_answer_that_was_cut_is_incomplete(finish: Any, *, stream: bool) -> None:
    service = service_of({"a": FakeModel(lambda _: FakeAnswer("It is", finish_reason=finish))})
    answer = await asked(service, stream=stream)

    response = events_of(answer)[-1]["response"] if stream else answer.json
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    if stream:
        assert events_of(answer)[-1]["type"] == "response.incomplete"


async def test_a_choice_of_allowed_tools_leaves_the_others_out() -> None:
    a = paris()
    other = {**WEATHER, "name": "other"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    await asked(service_of({"a": a}), tools=[WEATHER, other], tool_choice=choice)

    assert [tool.name for tool in a.calls[0].request.tools] == ["other"]
    found = a.calls[0].request.tool_choice
    assert found is not None
    assert found.mode == "required"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_extension_adds_an_item_of_the_panel_and_a_field(*, stream: bool) -> None:
    service = service_of({"a": paris(), "b": paris(), "c": FakeModel().fail(ModelError("x"), times=9)})
    answer = await asked(service, "council", ultra={"expose": ["panel"]}, stream=stream)

    response = events_of(answer)[-1]["response"] if stream else answer.json
    message, panel = response["output"]
    assert message["type"] == "message"
    assert panel["type"] == "ultra:panel"
    assert [each["model"] for each in panel["responses"]] == ["a", "b"]
    assert [each["model"] for each in panel["failed_models"]] == ["c"]
    assert response["ultra"]["status"] == "degraded"


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"background": True}, "unsupported_value", "background"),
        ({"previous_response_id": "resp_1"}, "unsupported_value", "previous_response_id"),
        ({"conversation": "conv_1"}, "unsupported_value", "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_value", "prompt"),
        ({"top_logprobs": 2}, "unsupported_value", "top_logprobs"),
        ({"text": {"format": {"type": "xml"}}}, "unsupported_value", "text.format"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_value", "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "unsupported_value", "input[0].type"),
        ({"input": [{"role": "boss", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"role": "user", "content": 5}]}, "invalid_type", "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "text"}]}]},
            "invalid_value",
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "unsupported_value",
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "/etc/passwd"}]}]},
            "invalid_value",
            "input[0].content[0]",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "invalid_value",
            "input[0]",
        ),
        (
            {
                "instructions": "Be brief.",
                "input": [
                    {"role": "user", "content": "Q"},
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"role": "assistant", "content": "x"},
                ],
            },
            "invalid_value",
            "input[2]",
        ),
    ],
)
async def test_what_is_wrong_is_refused_by_its_name(more: dict[str, Any], code: str, param: str) -> None:
    a = paris()
    answer = await asked(service_of({"a": a}), **more)

    assert answer.status == 400
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert a.calls == []
