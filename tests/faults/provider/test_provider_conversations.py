"""What the simulated provider generates and notes of conversations: calls, JSON, images, tools."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Annotated, Any, Literal, TypedDict

import httpx
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from ultra.faults.provider import (
    Call,
    Media,
    Message,
    Question,
    Reply,
    SimulatedProvider,
    ToolResult,
    endpoint,
)
from ultra.faults.provider.generation import IMAGE_TOKENS, compose, count_tokens, fit
from ultra.faults.provider.schema_values import value_for
from ultra.messages.tools import Tool, ToolChoice


class Leaf(Struct):
    kind: Literal["a", "b"]
    share: Annotated[float, Meta(ge=0, le=1)]
    count: Annotated[int, Meta(gt=2, lt=5)]
    name: Annotated[str, Meta(min_length=20, max_length=30)]
    on: bool
    at: Annotated[int, Meta(multiple_of=5, ge=3, le=12)]


class Extra(TypedDict, total=False):
    note: str


class Tree(Struct):
    leaf: Leaf
    others: Annotated[list[Leaf], Meta(min_length=2)]
    below: Tree | None
    more: Extra
    either: str | int
    pair: tuple[int, str]


@given(st.integers())
def test_a_generated_value_satisfies_its_schema(seed: int) -> None:
    value = value_for(msgspec.json.schema(Tree), Random(seed))

    assert isinstance(msgspec.convert(value, Tree), Tree)
    assert value == value_for(msgspec.json.schema(Tree), Random(seed))


@pytest.mark.parametrize(
    "schema",
    [{}, {"$ref": "#"}, {"$ref": "#/nowhere"}, {"type": None}, {"type": []}, {"enum": []}, True, None],
)
def test_a_schema_that_says_nothing_has_a_value(schema: object) -> None:
    json.dumps(value_for(schema, Random(1)))


def test_geminis_names_of_types_and_nested_references_are_understood() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"n": {"type": "INTEGER"}, "all": {"allOf": [{"$ref": "#/$defs/x"}]}},
    }
    value = value_for({**schema, "$defs": {"x": {"const": 7}}}, Random(1))

    assert isinstance(value["n"], int)
    assert value["all"] == 7


TOOLS = (Tool("weather", "What the weather is."), Tool("clock"))


def question(text: str, **settings: Any) -> Question:
    return Question(model="m", messages=(Message("user", text),), tools=TOOLS, **settings)


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("Why?", ToolChoice(), []),
        ("Use a tool.", ToolChoice(), ["weather"]),
        ("What says the clock?", ToolChoice(), ["clock"]),
        ("Ask clock and weather!", ToolChoice(), ["weather", "clock"]),
        ("Ask clock and weather!", ToolChoice(parallel=False), ["weather"]),
        ("Ask clock.", ToolChoice("none"), []),
        ("Why?", ToolChoice("required"), ["weather"]),
        ("Ask weather.", ToolChoice("named", "clock"), ["clock"]),
    ],
)
def test_a_question_decides_what_is_called(text: str, choice: ToolChoice, called: list[str]) -> None:
    reply = compose(question(text, choice=choice), 0)

    assert [call.name for call in reply.calls] == called
    assert bool(reply.text) is not bool(called)


def test_after_results_the_model_answers_with_them() -> None:
    asked = question("Ask weather.")
    results = (Message("tool", "", results=(ToolResult("c", "weather", "21 degrees"),)),)
    reply = compose(msgspec.structs.replace(asked, messages=(*asked.messages, *results)), 0)

    assert reply.calls == ()
    assert isinstance(reply.text, str)
    assert reply.text.startswith("weather says 21 degrees.")


def test_images_documents_and_tools_count_as_tokens() -> None:
    plain = Question(model="m", messages=(Message("user", "Why?"),))
    media = (Media("image", "image/png", 9), Media("document", "application/pdf", 9))
    seen = Question(model="m", messages=(Message("user", "Why?", media),))

    assert count_tokens(seen) - count_tokens(plain) == 2 * IMAGE_TOKENS
    assert count_tokens(question("Why?")) > count_tokens(plain)
    assert fit(Reply("Yes."), seen, "id").media_tokens == (IMAGE_TOKENS, IMAGE_TOKENS)


@given(st.integers(1, 30))
def test_calls_keep_to_the_limit_of_tokens(limit: int) -> None:
    calls = (Call("weather", {"city": "Rome", "days": 3}), Call("clock", {}))
    answer = fit(Reply("one two", calls=calls), question("Why?", max_tokens=limit), "id")

    assert answer.output <= limit
    assert (answer.finish == "tool_calls") is (len(answer.whole_calls) == 2)
    assert all(json.loads(call.arguments) == call.object for call in answer.whole_calls)


async def test_what_a_request_holds_is_noted_and_logged(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}],
        "tools": [{"type": "function", "function": {"name": "clock"}}],
    }
    headers = {"authorization": "Bearer k"}
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(endpoint.log, "info", lambda _event, **said: lines.append(said))
    async with httpx.AsyncClient(headers=headers) as client:
        await client.post(f"{provider.base_url('openai')}/chat/completions", json=body)
    while not lines:
        await trio.lowlevel.checkpoint()

    (line,) = lines
    assert {name: line[name] for name in ("messages", "tools", "images", "documents")} == {
        "messages": 1,
        "tools": 1,
        "images": 1,
        "documents": 0,
    }
    asked = provider.requests[-1].question
    assert asked is not None
    assert asked.images == (Media("image", None, 0, "https://example.com/a.png"),)


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **more}


USER = {"role": "user", "content": "Why?"}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", chat(USER, {"role": "tool", "content": "x"}), "tool_call_id"),
    ("/v1/chat/completions", chat(USER, {"role": "tool", "content": "x", "tool_call_id": "z"}), "preceeding"),
    ("/v1/chat/completions", chat(USER, CALLING, USER), "did not have response messages: c"),
    ("/v1/chat/completions", chat(USER, tool_choice="required"), "only allowed when 'tools'"),
    (
        "/v1/chat/completions",
        chat(
            {
                "role": "user",
                "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            }
        ),
        "Unknown parameter: 'messages\\[0\\].content\\[0\\].cache_control'",
    ),
    (
        "/v1/chat/completions",
        chat(
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            }
        ),
        "no image of a supported type",
    ),
    (
        "/v1/responses",
        {"model": "m", "input": [{"type": "function_call_output", "call_id": "z", "output": "x"}]},
        "No tool call found for function call output with call_id z",
    ),
    (
        "/v1/responses",
        {"model": "m", "input": [{"type": "function_call", "call_id": "z", "name": "f", "arguments": "{}"}]},
        "No tool output found for function call z",
    ),
    (
        "/v1/responses",
        {"model": "m", "input": [{"type": "reasoning", "id": "r", "summary": []}], "store": False},
        "Item with id 'r' not found",
    ),
    (
        "/v1/responses",
        {"model": "m", "input": [{"type": "reasoning", "id": "r", "encrypted_content": "forged"}]},
        "could not be verified",
    ),
    (
        "/v1beta/models/gemini-3-pro:generateContent",
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
            ]
        },
        "missing a thought_signature",
    ),
    (
        "/v1beta/models/gemini-2.5-pro:generateContent",
        {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f"}}]}]},
        "function call turn comes immediately after a user turn",
    ),
    (
        "/v1/messages",
        {"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": "Hi"}]},
        r"first message must use the",
    ),
    (
        "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
        "immediately after a function call turn",
    ),
    ("/api/chat", {"model": "m", "messages": [{"role": "user", "images": ["?"]}]}, "illegal base64"),
]


@pytest.mark.parametrize(("path", "body", "message"), REFUSED)
async def test_what_the_real_api_refuses_is_refused(
    provider: SimulatedProvider, path: str, body: dict[str, Any], message: str
) -> None:
    headers = {"authorization": "Bearer k", "x-goog-api-key": "k"}
    async with httpx.AsyncClient(headers=headers) as client:
        response = await client.post(provider.url + path, json=body)

    assert response.status_code == 400
    assert re.search(message, json.dumps(response.json()["error"]))
