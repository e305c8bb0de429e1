"""Chat completions by the core of the service: bytes, errors, limits of tokens, the extension."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from helpers.service_protocols import RESPONSES
from helpers.services import CHAT, ask, chat, data_of, service_of
from ultra import ModelError, Usage
from ultra.clients.catalog import ModelInfo
from ultra.messages.chat import ToolCall
from ultra.messages.results import Completion
from ultra.testing import FakeAnswer, FakeModel

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Er"
    "kJggg=="
)


def paris(**more: Any) -> FakeModel:
    return FakeModel("It is Paris.", usage=Usage(input=7, output=4), **more)


def lyon(**more: Any) -> FakeModel:
    return FakeModel("It is Lyon.", usage=Usage(input=5, output=3), **more)


def masked(body: bytes, run_id: str) -> bytes:
    """The body without what differs from run to run."""
    return re.sub(rb'"created":\d+', b'"created":0', body.replace(run_id.encode(), b"RUN"))


async def test_a_whole_answer_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    service = service_of({"a": paris(), "b": lyon()})
    async with service.running():
        answer = await ask(service, chat("council"))

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    # Two answers and the synthesis: 7 + 5 + 7 tokens in, 4 + 3 + 4 out.
    assert masked(answer.body, answer.headers["x-ultra-run-id"]) == (
        b'{"id":"chatcmpl-RUN","object":"chat.completion","created":0,"model":"council","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"It is Paris.","refusal":null},"finish_reason":"stop",'
        b'"logprobs":null}],"usage":{"prompt_tokens":19,"completion_tokens":11,"total_tokens":30,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},'
        b'"system_fingerprint":null}'
    )


async def test_a_stream_has_the_bytes_of_the_protocol_and_nothing_else() -> None:
    service = service_of({"a": FakeModel(FakeAnswer("Pa", "ris."))})
    async with service.running():
        answer = await ask(service, chat("a", stream=True))

    head = b'data: {"id":"chatcmpl-RUN","object":"chat.completion.chunk","created":0,"model":"a","choices":['
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    said = masked(answer.body, answer.headers["x-ultra-run-id"])
    assert answer.text == "Paris."
    assert said.startswith(
        head + b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    )
    assert said.endswith(head + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert b"\nid:" not in said
    assert b"\nretry:" not in said
    assert b"usage" not in said
    assert all(len(chunk["choices"]) == 1 for chunk in answer.chunks)


async def test_usage_comes_in_a_chunk_of_its_own_only_if_it_is_asked_for() -> None:
    service = service_of({"a": paris(), "b": lyon()})
    async with service.running():
        answer = await ask(service, chat(stream=True, stream_options={"include_usage": True}))

    *others, last = answer.chunks
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 30


async def test_the_model_of_each_chunk_is_the_name_that_was_asked_for() -> None:
    service = service_of({"a": paris(), "b": lyon()})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert {chunk["model"] for chunk in answer.chunks} == {"council"}
    assert len({(chunk["id"], chunk["created"]) for chunk in answer.chunks}) == 1


async def test_tool_calls_are_passed_on_whole_and_in_chunks() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Paris"}')
    said = FakeAnswer.of(Completion("", tool_calls=(call,), finish_reason="tool_calls"))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    model = FakeModel(lambda _: said)
    service = service_of({"a": model})
    async with service.running():
        whole = await ask(service, chat("a", tools=tools, tool_choice="auto"))
        streamed = await ask(service, chat("a", tools=tools, stream=True))

    wanted = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": call.arguments},
    }
    choice = whole.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [wanted]
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed.chunks]
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[{"index": 0, **wanted}]]
    assert streamed.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert model.calls[0].request.tools[0].name == "weather"


async def test_a_choice_of_allowed_tools_leaves_the_others_out() -> None:
    a = paris()
    tools = [{"type": "function", "function": {"name": name}} for name in ("weather", "other")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools[1:]}}
    async with (service := service_of({"a": a})).running():
        await ask(service, chat("a", tools=tools, tool_choice=choice))
        wrong = await ask(service, chat("a", tools=tools, tool_choice={"type": "allowed_tools"}))

    request = a.calls[0].request
    assert [tool.name for tool in request.tools] == ["other"]
    assert request.tool_choice is not None
    assert request.tool_choice.mode == "required"
    assert (wrong.status, wrong.error["param"]) == (400, "tool_choice")


async def test_an_answer_that_was_cut_says_so() -> None:
    service = service_of({"a": FakeModel(FakeAnswer.of(Completion("It is", finish_reason="length")))})
    async with service.running():
        answer = await ask(service, chat("a", max_tokens=2))

    assert answer.json["choices"][0]["finish_reason"] == "length"


async def test_the_limit_of_tokens_is_that_of_the_answer_and_not_of_what_it_is_made_of() -> None:
    a, b = paris(), lyon()
    service = service_of({"a": a, "b": b})
    async with service.running():
        await ask(service, chat(max_tokens=5, max_completion_tokens=9, temperature=0.5, seed=3))
        await ask(service, chat("b", max_tokens=6))

    first, synthesis = a.calls
    assert first.options.max_tokens is None
    assert synthesis.options.max_tokens == 9
    assert {call.options.temperature for call in a.calls} == {0.5}
    assert {call.options.seed for call in a.calls} == {3}
    assert b.calls[-1].options.max_tokens == 6


async def test_a_system_message_an_image_and_a_history_reach_the_model() -> None:
    a = paris()
    service = service_of({"a": a})
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
    ]
    async with service.running():
        answer = await ask(service, {"model": "a", "messages": messages})

    assert answer.status == 200
    assert a.calls[0].system == "Be brief."
    assert a.calls[0].request.has_images
    assert len(a.calls[0].request.messages) == 4


FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["a", "council"])
@pytest.mark.parametrize("form", [FORM, {"type": "json_object"}])
async def test_an_answer_of_a_given_form_is_nothing_but_json(
    form: dict[str, Any], model: str, *, stream: bool
) -> None:
    fenced = '```json\n{"city": "Paris"}\n```'
    service = service_of({"a": FakeModel(fenced), "b": FakeModel(fenced)})
    async with service.running():
        answer = await ask(service, chat(model, response_format=form, stream=stream))

    text = answer.text if stream else answer.json["choices"][0]["message"]["content"]
    assert json.loads(text) == {"city": "Paris"}


async def test_an_answer_that_has_not_its_form_is_never_sent() -> None:
    service = service_of({"a": FakeModel("It is Paris.")})
    async with service.running():
        answer = await ask(service, chat("a", response_format=FORM, stream=True))

    assert (answer.status, answer.error["code"]) == (502, "model_failed")
    assert "Paris" not in answer.body.decode()


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (chat("nobody"), 404, "model_not_found", "model"),
        (chat("a", response_format={"type": "xml"}), 400, "unsupported_value", "response_format"),
        (
            chat("a", response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
            400,
            "invalid_value",
            "response_format.json_schema.schema",
        ),
        (chat("a", n=2), 400, "unsupported_value", "n"),
        (chat("a", logprobs=True), 400, "unsupported_value", "logprobs"),
        (chat("a", modalities=["text", "audio"]), 400, "unsupported_value", "modalities"),
        (chat("a", functions=[{"name": "f"}], function_call="auto"), 400, "unsupported_value", "functions"),
        (chat("a", temperature="hot"), 400, "invalid_type", "temperature"),
        (chat("a", max_tokens=0), 400, "invalid_value", "max_tokens"),
        (chat("a", tool_choice="required"), 400, "invalid_value", "tool_choice"),
        ({"messages": []}, 400, "missing_required_parameter", "model"),
        ({"model": "a", "messages": []}, 400, "invalid_value", "messages"),
        (
            {"model": "a", "messages": [{"role": "boss", "content": "x"}]},
            400,
            "invalid_value",
            "messages[0].role",
        ),
        (chat("a", ultra={"panel": ["nobody"]}), 404, "model_not_found", "ultra"),
        (chat("a", ultra={"strategy": "no_such"}), 400, "invalid_value", "ultra"),
        (chat("a", ultra={"strategy": "os:system"}), 400, "invalid_value", "ultra"),
        (chat("a", ultra={"nonsense": 1}), 400, "invalid_type", "ultra"),
        (chat("council", ultra={"quorum": 9}), 400, "invalid_value", None),
        (chat("council", ultra={"timeout": 1e9}), 400, "invalid_value", "timeout"),
        (b"no json", 400, "invalid_json", None),
        (b"[1]", 400, "invalid_json", None),
        (
            b'{"model": "a", "messages": [], "metadata": ' + b"[" * 70 + b"]" * 70 + b"}",
            400,
            "invalid_json",
            None,
        ),
        (b"[" * 100_000, 400, "invalid_json", None),
        (b'{"model": "\xff"}', 400, "invalid_json", None),
    ],
)
async def test_a_wrong_request_is_refused_in_the_shape_of_the_protocol(
    body: object, status: int, code: str | None, param: str | None
) -> None:
    a = paris()
    service = service_of({"a": a})
    async with service.running():
        answer = await ask(service, body)

    assert answer.status == status
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert "x-should-retry" not in answer.headers
    assert answer.headers["x-request-id"]
    assert a.calls == []


async def test_an_image_without_a_model_that_sees_is_refused() -> None:
    blind = paris()
    blind.info = ModelInfo(images=False)
    service = service_of({"a": blind})
    content = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    async with service.running():
        answer = await ask(service, {"model": "council", "messages": [{"role": "user", "content": content}]})

    assert (answer.status, answer.error["code"]) == (422, "no_vision_model")


SYSTEM, DEVELOPER, USER, SAID, TOOL = "system", "developer", "user", "assistant", "tool"


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("given", "reaches"),
    [
        ([(SYSTEM, "Greet.")], [(USER, "Greet.")]),
        ([(SYSTEM, "Be brief."), (DEVELOPER, "Greet.")], [(SYSTEM, "Be brief."), (USER, "Greet.")]),
        (
            [(USER, "One?"), (SAID, "1"), (USER, "Two?"), (SYSTEM, "In French.")],
            [(USER, "One?"), (SAID, "1"), (SYSTEM, "In French."), (USER, "Two?")],
        ),
        (
            [(USER, "Hi"), (SAID, "Hi!"), (SYSTEM, "Sum up.")],
            [(USER, "Hi"), (SAID, "Hi!"), (USER, "Sum up.")],
        ),
        ([(USER, "Hi"), (DEVELOPER, "a"), (SYSTEM, "b")], [(SYSTEM, "a\n\nb"), (USER, "Hi")]),
    ],
)
async def test_instructions_may_come_last_as_for_openai(
    path: str, given: list[tuple[str, str]], reaches: list[tuple[str, str]]
) -> None:
    a = paris()
    messages = [{"role": role, "content": text} for role, text in given]
    async with (service := service_of({"a": a})).running():
        answer = await ask(service, {"model": "a", "messages": messages, "input": messages}, path)

    assert answer.status == 200
    assert [(each.role, each.text) for each in a.calls[0].request.messages] == reaches


async def test_instructions_behind_the_result_of_a_tool_leave_it_behind_its_call() -> None:
    a = paris()
    call = {"id": "call_1", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
        {"role": "system", "content": "Be brief."},
    ]
    async with (service := service_of({"a": a})).running():
        answer = await ask(service, {"model": "a", "messages": messages})

    assert answer.status == 200
    assert [each.role for each in a.calls[0].request.messages] == [SYSTEM, USER, SAID, TOOL]


async def test_a_path_in_place_of_an_image_reads_no_file() -> None:
    service = service_of({"a": paris()})
    content = [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]
    async with service.running():
        answer = await ask(service, {"model": "a", "messages": [{"role": "user", "content": content}]})

    assert (answer.status, answer.error["param"]) == (400, "messages[0].content[0]")


async def test_a_file_as_windows_writes_it_is_a_body() -> None:
    async with (service := service_of({"a": paris()})).running():
        answer = await ask(service, b"\xef\xbb\xbf" + json.dumps(chat("a")).encode())

    assert answer.status == 200


@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/v1/messages", "/v1/runs"])
async def test_a_body_that_is_not_there_is_told_as_that(path: str) -> None:
    async with (service := service_of({"a": paris()})).running():
        answers = [await ask(service, body, path) for body in (b"", b" \n")]

    assert [each.status for each in answers] == [400, 400]
    assert all("the body is empty" in each.error["message"] for each in answers)


async def test_unknown_fields_are_left_alone() -> None:
    service = service_of({"a": paris()})
    more: dict[str, Any] = {
        "user": "me",
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "functions": [],
        "function_call": None,
        "plugins": [{"id": "web"}],
    }
    async with service.running():
        answer = await ask(service, chat("a", **more))

    assert answer.status == 200
    assert "ultra" not in answer.json


# --- what fails --------------------------------------------------------------------------------------

SECRET = "sk-secret-0123456789 in the provider's words"


async def test_a_quorum_that_is_missed_after_calls_were_paid_is_not_retried() -> None:
    service = service_of(
        {"a": paris(), "b": FakeModel().fail(ModelError(SECRET, kind="server"), times=9)},
        ensemble={"quorum": 2},
    )
    async with service.running():
        answer = await ask(service, chat())

    assert (answer.status, answer.error["code"]) == (502, "quorum_not_reached")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.error["ultra"]["failed_models"] == [{"model": "b", "stage": "initial", "error": "server"}]
    assert SECRET not in answer.body.decode()


@pytest.mark.parametrize(
    ("kind", "status", "error_type"),
    [
        ("rate_limit", 429, "rate_limit_error"),
        ("auth", 502, "server_error"),
        ("quota", 502, "server_error"),
        ("bad_request", 400, "invalid_request_error"),
        ("overloaded", 503, "overloaded_error"),
        ("timeout", 504, "timeout_error"),
        ("server", 502, "server_error"),
        ("content", 502, "server_error"),
    ],
)
async def test_the_failure_of_one_model_has_the_status_of_its_kind(
    kind: Any, status: int, error_type: str
) -> None:
    model = FakeModel().fail(ModelError(SECRET, kind=kind, retry_after=7.2), times=9)
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, chat("a"))

    assert (answer.status, answer.error["type"]) == (status, error_type)
    assert answer.headers["x-should-retry"] == "false"
    assert SECRET not in answer.body.decode()
    assert answer.headers["retry-after"] == "8"


async def test_nothing_is_said_of_paying_where_no_call_was_made() -> None:
    model = FakeModel().fail(ModelError("x", kind="server"), times=99)
    service = service_of({"a": model})
    async with service.running():
        answers = [await ask(service, chat("a", text=f"question {number}")) for number in range(30)]

    last = answers[-1]
    assert len(model.calls) < 30  # the breaker is open
    assert (last.status, last.error["type"]) == (503, "overloaded_error")
    assert "x-should-retry" not in last.headers
    assert int(last.headers["retry-after"]) > 0


async def test_a_synthesis_that_fails_is_replaced_by_a_candidate_and_the_headers_say_so() -> None:
    a = paris().fail(ModelError(SECRET), at=2)
    b = lyon().fail(ModelError(SECRET), at=2)
    service = service_of({"a": a, "b": b})
    async with service.running():
        answer = await ask(service, chat())

    assert answer.status == 200
    assert answer.headers["x-ultra-status"] == "degraded"
    assert answer.headers["x-ultra-source"] == "best_candidate"
    assert answer.headers["x-ultra-failed"] == "2"


async def test_an_ensemble_without_a_synthesis_is_told_as_its_own_error() -> None:
    service = service_of({"a": paris()}, ensemble={"stages": ["initial"]})
    async with service.running():
        answer = await ask(service, chat())

    assert (answer.status, answer.error["code"]) == (500, "no_answer")


# --- the extension -----------------------------------------------------------------------------------


async def test_the_extension_of_a_whole_answer_tells_of_the_run() -> None:
    service = service_of({"a": paris(), "b": lyon(), "c": FakeModel().fail(ModelError(SECRET), times=9)})
    async with service.running():
        answer = await ask(
            service, chat(ultra={"expose": ["panel", "usage", "analysis"], "analysts": "none"})
        )

    told = answer.json["ultra"]
    assert told["status"] == "degraded"
    assert told["source"] == "primary"
    assert told["written_by"] == "a"
    assert told["failed_models"] == [{"model": "c", "stage": "initial", "error": "server"}]
    assert [each["content"] for each in told["responses"]] == ["It is Paris.", "It is Lyon."]
    assert told["usage"] == answer.json["usage"]
    assert told["analysis"] == []
    assert SECRET not in answer.body.decode()


async def test_the_extension_of_a_stream_is_on_a_chunk_that_every_client_understands() -> None:
    service = service_of({"a": paris(), "b": lyon()})
    async with service.running():
        answer = await ask(service, chat(stream=True, ultra={"expose": ["panel"]}))

    (told,) = [chunk for chunk in answer.chunks if "ultra" in chunk]
    assert told["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert len(told["ultra"]["responses"]) == 2


async def test_the_fields_of_fusion_choose_the_panel_and_the_judge() -> None:
    a, b, c = paris(), lyon(), FakeModel("It is Rome.")
    service = service_of({"a": a, "b": b, "c": c})
    plugin = {"id": "fusion", "analysis_models": ["a", "b"], "model": "c", "max_tool_calls": 4}
    async with service.running():
        answer = await ask(service, chat(plugins=[plugin]))

    assert answer.json["choices"][0]["message"]["content"] == "It is Rome."
    assert answer.json["ultra"]["written_by"] == "c"
    assert [len(model.calls) for model in (a, b, c)] == [1, 1, 1]


async def test_a_model_with_fusion_writes_what_a_panel_of_all_has_found() -> None:
    a, b = paris(), lyon()
    service = service_of({"a": a, "b": b})
    async with service.running():
        answer = await ask(service, chat("b", plugins=[{"id": "fusion"}], ultra={"analysts": "none"}))

    assert answer.json["ultra"]["written_by"] == "b"
    assert answer.json["model"] == "b"


async def test_fusion_that_is_not_enabled_changes_nothing() -> None:
    service = service_of({"a": paris(), "b": lyon()})
    async with service.running():
        answer = await ask(service, chat("b", plugins=[{"id": "fusion", "enabled": False}]))

    assert "ultra" not in answer.json


async def test_a_strategy_of_the_request_replaces_that_of_the_ensemble() -> None:
    service = service_of({"a": paris(), "b": lyon(), "c": lyon(), "d": lyon()})
    async with service.running():
        answer = await ask(service, chat(ultra={"strategy": "vote"}))

    assert answer.json["choices"][0]["message"]["content"] == "It is Lyon."
    assert answer.json["ultra"]["strategy"] == "vote"


async def test_an_answer_that_is_chosen_is_streamed_once_it_is_chosen() -> None:
    models = {"a": paris(), "b": lyon(), "c": lyon(), "d": lyon()}
    service = service_of(models, ensemble={"strategy": "vote", "stages": None})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert answer.text == "It is Lyon."
    assert data_of(answer.body)[-1] == b"[DONE]"
