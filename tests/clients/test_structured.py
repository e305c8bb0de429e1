"""How each dialect asks for an output, by what is known of its model: by schema, tool, JSON mode or words."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from ultra.clients import ModelInfo, connect
from ultra.clients.adapter import ClientAdapter
from ultra.clients.structured import in_words
from ultra.messages.chat import ChatMessage, ImagePart, TextPart, ToolCall
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool

SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}},
    "required": ["total"],
    "additionalProperties": False,
}
REQUEST = msgspec.structs.replace(ModelRequest.of("How much?"), output=JsonSchema("bill", SCHEMA))
WORDS = "Answer with one JSON value"
ANSWER = '{"total":1}'


class Endpoint(httpx.AsyncBaseTransport):
    """Keeps what it is sent, and answers with a text, or with a call of the only tool that it is given."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = msgspec.json.decode(request.content)
        self.sent.append(body)
        tools = body.get("tools")
        reply = self._anthropic(tools) if "/messages" in request.url.path else self._openai(tools)
        if body.get("stream"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=reply[1])
        return httpx.Response(200, json=reply[0])

    def _openai(self, tools: Any) -> tuple[dict[str, Any], bytes]:
        message: dict[str, Any] = {"content": ANSWER}
        if tools:
            call = {"name": tools[0]["function"]["name"], "arguments": ANSWER}
            message = {"content": None, "tool_calls": [{"index": 0, "id": "1", "function": call}]}
        finish = "tool_calls" if tools else "stop"
        plain = {"choices": [{"message": message, "finish_reason": finish}]}
        chunk = {"choices": [{"index": 0, "delta": message, "finish_reason": finish}]}
        return plain, b"data: " + msgspec.json.encode(chunk) + b"\n\ndata: [DONE]\n\n"

    def _anthropic(self, tools: Any) -> tuple[dict[str, Any], bytes]:
        block: dict[str, Any] = {"type": "text", "text": ANSWER}
        if tools:
            block = {"type": "tool_use", "id": "1", "name": tools[0]["name"], "input": {"total": 1}}
        stop = "tool_use" if tools else "end_turn"
        usage = {"input_tokens": 1, "output_tokens": 1}
        plain = {
            "type": "message",
            "role": "assistant",
            "content": [block],
            "stop_reason": stop,
            "usage": usage,
        }
        delta = (
            {"type": "input_json_delta", "partial_json": ANSWER}
            if tools
            else {"type": "text_delta", "text": ANSWER}
        )
        empty = {**block, "input": {}} if tools else {**block, "text": ""}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**plain, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": empty},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage},
            {"type": "message_stop"},
        ]
        return plain, b"".join(
            f"event: {event['type']}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"
            for event in events
        )


async def asked(
    model: str,
    mode: str | None,
    *,
    streamed: bool = False,
    request: ModelRequest = REQUEST,
    **options: Any,
) -> dict[str, Any]:
    """What is sent; the answer is always the JSON as text."""
    endpoint = Endpoint()
    client = connect(model, api_key="k", transport=endpoint, output=mode, **options)
    adapter = ClientAdapter(client, owned=True)
    pieces: list[str] = []
    completion = await adapter.call(request, on_text=pieces.append if streamed else None)
    await adapter.aclose()
    assert completion.content == ANSWER
    assert (completion.finish_reason, completion.tool_calls) == ("stop", ())
    assert not streamed or "".join(pieces) == ANSWER
    (sent,) = endpoint.sent
    return sent


def last_text(sent: dict[str, Any]) -> str:
    content = sent["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("openai:x", "schema"),
        ("openai:x", "json"),
        ("openai:x", "tool"),
        ("openai:x", "none"),
        ("openai:x", None),
        ("anthropic:x", "schema"),
        ("anthropic:x", "tool"),
        ("anthropic:x", None),
    ],
)
async def test_a_model_is_asked_as_the_catalog_says(model: str, mode: Any, *, streamed: bool) -> None:
    # A model that the catalog does not know, so that only what is told counts.
    sent = await asked(model, mode, streamed=streamed)

    in_prompt = WORDS in last_text(sent)
    assert in_prompt == (mode in {"json", "none", None})
    if mode == "schema" and model.startswith("openai"):
        assert sent["response_format"]["json_schema"] == {"name": "bill", "schema": SCHEMA, "strict": True}
    elif mode == "schema":
        told = sent["output_config"]["format"]["schema"]["properties"]["total"]
        assert told == {"type": "number", "description": "minimum: 0"}
    elif mode == "json":
        assert sent["response_format"] == {"type": "json_object"}
    elif mode == "tool":
        tool = sent["tools"][0]
        assert (tool.get("function", tool).get("parameters") or tool.get("input_schema")) == SCHEMA
        assert "name" in str(sent["tool_choice"])
    else:
        assert not {"response_format", "tools", "output_config"} & sent.keys()


async def test_a_model_of_the_catalog_is_asked_natively_and_an_unknown_one_in_words() -> None:
    assert "response_format" in await asked("openai:gpt-4o", None)
    assert WORDS in last_text(await asked("openai:nobody-knows-it", None))
    assert WORDS in last_text(await asked("vllm:m", None, base_url="http://example.com/v1"))


async def test_json_mode_gives_way_to_what_the_caller_sends() -> None:
    sent = await asked("openai:x", "json", extra_body={"response_format": {"type": "text"}})
    assert sent["response_format"] == {"type": "text"}


async def test_a_model_that_thinks_or_has_tools_of_its_own_is_asked_in_words_and_not_by_a_tool() -> None:
    sent = await asked("openai:x", "tool", reasoning_effort="low")
    assert WORDS in last_text(sent)
    assert "tools" not in sent


async def test_a_schema_that_is_not_strict_is_told_in_words_to_an_api_that_takes_no_other() -> None:
    loose = msgspec.structs.replace(REQUEST, output=JsonSchema("bill", SCHEMA, strict=False))
    assert WORDS in last_text(await asked("anthropic:x", "schema", request=loose))
    sent = await asked("openai:x", "schema", request=loose)
    assert sent["response_format"]["json_schema"]["strict"] is False


# --- in words --------------------------------------------------------------------------------------------


def test_the_words_stand_behind_the_last_question_and_behind_tool_results() -> None:
    image = ImagePart(url="https://example.com/a.png")
    history = (
        ChatMessage("user", "A"),
        ChatMessage("assistant", "B"),
        ChatMessage("user", (TextPart("C"), image)),
    )
    request = in_words(ModelRequest(messages=history, output=REQUEST.output))
    assert request.output is None
    assert request.messages[:2] == history[:2]
    assert request.messages[2].parts[:2] == history[2].parts
    assert WORDS in request.messages[2].text

    call = ChatMessage("assistant", "", tool_calls=(ToolCall("1", "f"),))
    turns = (ChatMessage("user", "A"), call, ChatMessage("tool", "7", tool_call_id="1"))
    request = in_words(ModelRequest(messages=turns, tools=(Tool("f"),), output=REQUEST.output))
    assert request.messages[:3] == turns
    assert request.messages[3].role == "user"
    assert in_words(ModelRequest.of("A")) == ModelRequest.of("A")


class Foreign:
    """A request client of another package."""

    stream_response = None

    def __init__(self, info: ModelInfo | None = None) -> None:
        self.requests: list[ModelRequest] = []
        self.info = info

    async def respond(self, request: ModelRequest) -> Completion:
        self.requests.append(request)
        return Completion(ANSWER)


@pytest.mark.parametrize("mode", [None, "schema"])
async def test_a_request_client_of_another_package_has_the_schema_and_the_words_unless_it_says_how(
    mode: Any,
) -> None:
    client = Foreign(ModelInfo(output=mode))
    await ClientAdapter(client).call(REQUEST)
    (request,) = client.requests
    assert request.output == REQUEST.output
    assert (WORDS in request.prompt) == (mode is None)
