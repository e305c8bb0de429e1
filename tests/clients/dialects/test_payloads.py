"""What each dialect makes of the same request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.dialect_clients import posted_by
from ultra.clients import (
    AnthropicClient,
    AzureOpenAIClient,
    CallOptions,
    GeminiClient,
    HTTPClient,
    OllamaClient,
    OpenAIClient,
)
from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage, TextPart, ToolCall
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = ModelRequest.of("Hi")
EVERYTHING = ModelRequest.of(
    "Hi",
    "Be kind.",
    SamplingOptions(
        temperature=0.5, max_tokens=9, stop=("END", "STOP"), seed=1, top_p=0.9, reasoning_effort="low"
    ),
)
USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be kind."}


def openai(
    provider: str = "openai", base_url: str = "https://api.openai.com/v1", **settings: Any
) -> HTTPClient:
    return OpenAIClient("m", provider=provider, base_url=base_url, **settings)


def responses(**settings: Any) -> HTTPClient:
    return openai(api="responses", **settings)


def mistral(**settings: Any) -> HTTPClient:
    return openai("mistral", "https://api.mistral.ai/v1", **settings)


def vllm(**settings: Any) -> HTTPClient:
    return openai("vllm", "http://127.0.0.1:8000/v1", **settings)


def anthropic(**settings: Any) -> HTTPClient:
    return AnthropicClient("m", provider="anthropic", base_url="https://api.anthropic.com", **settings)


def gemini(**settings: Any) -> HTTPClient:
    base_url = "https://generativelanguage.googleapis.com"
    return GeminiClient("m", provider="gemini", base_url=base_url, **settings)


def ollama(**settings: Any) -> HTTPClient:
    return OllamaClient("m", provider="ollama", base_url="http://127.0.0.1:11434", **settings)


# --- options -------------------------------------------------------------------------------------


async def test_openai_gets_every_option_under_its_name() -> None:
    assert await posted_by(openai, EVERYTHING, stream=False) == {
        "model": "m",
        "messages": [SYSTEM, USER],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 9,
        "stop": ["END", "STOP"],
        "seed": 1,
        "reasoning_effort": "low",
    }


async def test_other_servers_of_the_dialect_get_the_older_name_of_max_tokens() -> None:
    body = await posted_by(vllm, EVERYTHING, stream=False)
    assert body["max_tokens"] == 9
    assert "max_completion_tokens" not in body


async def test_mistral_gets_its_own_name_of_the_seed_and_no_stream_options() -> None:
    body = await posted_by(mistral, EVERYTHING, stream=True)
    assert body["random_seed"] == 1
    assert body["stream"] is True
    assert not {"seed", "stream_options"} & set(body)


async def test_a_stream_asks_openai_for_usage() -> None:
    body = await posted_by(openai, NOTHING, stream=True)
    assert body == {
        "model": "m",
        "messages": [USER],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_anthropic_gets_every_option_that_it_has() -> None:
    assert await posted_by(anthropic, EVERYTHING, stream=True) == {
        "model": "m",
        "max_tokens": 9,
        "system": "Be kind.",
        "messages": [USER],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END", "STOP"],
        "output_config": {"effort": "low"},
        "stream": True,
    }


async def test_anthropic_always_gets_max_tokens() -> None:
    assert await posted_by(anthropic, NOTHING, stream=False) == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [USER],
    }


async def test_gemini_gets_every_option_under_its_name() -> None:
    assert await posted_by(gemini, EVERYTHING, stream=False) == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 9,
            "stopSequences": ["END", "STOP"],
            "seed": 1,
            "thinkingConfig": {"thinkingLevel": "low"},
        },
    }


def test_gemini_streams_at_another_address() -> None:
    assert gemini().dialect.url(stream=True).endswith("/v1beta/models/m:streamGenerateContent?alt=sse")


async def test_ollama_gets_every_option_under_its_name() -> None:
    assert await posted_by(ollama, EVERYTHING, stream=False) == {
        "model": "m",
        "messages": [SYSTEM, USER],
        "options": {"temperature": 0.5, "top_p": 0.9, "num_predict": 9, "stop": ["END", "STOP"], "seed": 1},
        "think": "low",
        "stream": False,
    }


ALL = pytest.mark.parametrize("make", [openai, mistral, vllm, anthropic, gemini, ollama])
STREAM = pytest.mark.parametrize("stream", [False, True])


@ALL
@STREAM
async def test_a_clients_own_options_are_sent_as_those_of_a_request(
    make: Callable[..., HTTPClient], *, stream: bool
) -> None:
    options = CallOptions(
        system="Be kind.",
        temperature=0.5,
        max_tokens=9,
        stop=("END", "STOP"),
        seed=1,
        top_p=0.9,
        reasoning_effort="low",
    )
    expected = await posted_by(make, EVERYTHING, stream=stream)
    assert await posted_by(make, NOTHING, stream=stream, options=options) == expected


async def test_one_stop_text_is_a_list_of_one() -> None:
    request = ModelRequest.of("Hi", options=SamplingOptions(stop="END"))
    assert (await posted_by(openai, request, stream=False))["stop"] == ["END"]


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (OpenAIClient, {"authorization": "Bearer key"}),
        (AzureOpenAIClient, {"api-key": "key"}),
        (AnthropicClient, {"x-api-key": "key", "anthropic-version": "2023-06-01"}),
        (GeminiClient, {"x-goog-api-key": "key"}),
        (OllamaClient, {"authorization": "Bearer key"}),
    ],
)
def test_the_key_travels_in_the_providers_header(client: type[OpenAIClient], headers: dict[str, str]) -> None:
    made = client("m", provider="p", base_url="https://x.example", api_key="key")
    assert made._headers.value.items() >= headers.items()


# --- messages ------------------------------------------------------------------------------------

HISTORY = ModelRequest(
    messages=(
        ChatMessage("system", "Be kind."),
        ChatMessage("user", "What is the capital of France?"),
        ChatMessage("assistant", "Paris."),
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "And of Spain?"),
    )
)
TURNS = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Spain?"},
]


@pytest.mark.parametrize("make", [openai, mistral, vllm, ollama])
@STREAM
async def test_a_conversation_is_sent_message_by_message(
    make: Callable[..., HTTPClient], *, stream: bool
) -> None:
    brief = {"role": "system", "content": "Be brief."}
    body = await posted_by(make, HISTORY, stream=stream)
    assert body["messages"] == [SYSTEM, *TURNS[:2], brief, TURNS[2]]


@STREAM
async def test_anthropic_gets_the_system_messages_beside_the_conversation(*, stream: bool) -> None:
    body = await posted_by(anthropic, HISTORY, stream=stream)
    assert (body["system"], body["messages"]) == ("Be kind.\n\nBe brief.", TURNS)


@STREAM
async def test_gemini_gets_the_system_messages_beside_the_conversation_and_its_own_names_of_roles(
    *, stream: bool
) -> None:
    body = await posted_by(gemini, HISTORY, stream=stream)
    assert body["systemInstruction"] == {"parts": [{"text": "Be kind.\n\nBe brief."}]}
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert [turn["parts"] for turn in body["contents"]] == [[{"text": turn["content"]}] for turn in TURNS]


GREETED = ModelRequest(messages=(ChatMessage("assistant", "Hello!"), ChatMessage("user", "Hi")))


@pytest.mark.parametrize("make", [openai, mistral, vllm, ollama])
async def test_a_conversation_may_begin_with_the_assistant(make: Callable[..., HTTPClient]) -> None:
    body = await posted_by(make, GREETED, stream=False)
    assert body["messages"] == [{"role": "assistant", "content": "Hello!"}, USER]


async def test_apis_that_want_the_user_first_get_a_turn_that_says_that_the_assistant_begins() -> None:
    opening = "[The assistant speaks first.]"
    body = await posted_by(anthropic, GREETED, stream=False)
    assert body["messages"] == [
        {"role": "user", "content": opening},
        {"role": "assistant", "content": "Hello!"},
        USER,
    ]
    contents = (await posted_by(gemini, GREETED, stream=False))["contents"]
    assert [(turn["role"], turn["parts"][0]["text"]) for turn in contents] == [
        ("user", opening),
        ("model", "Hello!"),
        ("user", "Hi"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sent_as"),
    [
        ('{"x": 1', {"arguments": '{"x": 1'}),
        ("no JSON", {"arguments": "no JSON"}),
        ("[1]", {"arguments": [1]}),
        ("", {}),
        ('{ "x":1.0 }', {"x": 1.0}),
    ],
)
@pytest.mark.parametrize("make", [openai, responses, mistral, vllm, anthropic, gemini, ollama])
async def test_arguments_of_an_earlier_call_that_are_no_json_object_are_sent_inside_of_one(
    make: Callable[..., HTTPClient], arguments: str, sent_as: dict[str, Any]
) -> None:
    call = ToolCall("call_1", "f", arguments)
    request = ModelRequest(
        messages=(
            ChatMessage("user", "Hi"),
            ChatMessage("assistant", tool_calls=(call,)),
            ChatMessage("tool", "These are no arguments.", tool_call_id="call_1"),
        )
    )
    body = await posted_by(make, request, stream=False)
    found = arguments_in(body)
    assert (json.loads(found) if isinstance(found, str) else found) == sent_as
    if isinstance(found, str) and "1.0" in arguments:
        assert found == arguments  # to the letter


@pytest.mark.parametrize("make", [openai, responses, mistral, vllm, anthropic, gemini, ollama])
async def test_arguments_that_cannot_be_written_are_a_bad_call(make: Callable[..., HTTPClient]) -> None:
    call = ToolCall("call_1", "f", '{"x": "\ud83d"}')
    result = ChatMessage("tool", "x", tool_call_id="call_1")
    turns = (ChatMessage("user", "Hi"), ChatMessage("assistant", tool_calls=(call,)), result)
    with pytest.raises(BadCall, match="cannot be written as JSON"):
        await posted_by(make, ModelRequest(messages=turns), stream=False)


def arguments_in(body: dict[str, Any]) -> Any:
    """The arguments of the only call in a payload, of whatever dialect."""
    for turn in body.get("messages", body.get("contents", body.get("input", ()))):
        if turn.get("type") == "function_call":
            return turn["arguments"]
        if turn.get("tool_calls"):
            return turn["tool_calls"][0]["function"]["arguments"]
        for part in turn.get("parts", turn.get("content") or ()):
            if "functionCall" in part:
                return part["functionCall"]["args"]
            if isinstance(part, dict) and part.get("type") == "tool_use":
                return part["input"]
    raise AssertionError("there is no call")


def system_in(body: dict[str, Any]) -> list[str]:
    """The system messages in a payload, of whatever dialect."""
    if "messages" in body and "system" not in body:
        return [message["content"] for message in body["messages"] if message["role"] == "system"]
    parts = body["systemInstruction"]["parts"] if "systemInstruction" in body else []
    return [body["system"]] if "system" in body else [part["text"] for part in parts]


@ALL
async def test_the_clients_own_system_prompt_comes_first_where_the_request_has_none(
    make: Callable[..., HTTPClient],
) -> None:
    options = CallOptions(system="Be kind.")
    turns = ModelRequest(messages=tuple(each for each in HISTORY.messages if each.role != "system"))
    body = await posted_by(make, turns, stream=False, options=options)
    assert system_in(body) == ["Be kind."]
    assert body.get("messages", [SYSTEM])[0] in (SYSTEM, TURNS[0])
    assert len(body.get("messages", body.get("contents"))) == 3 + (SYSTEM in body.get("messages", []))


@ALL
async def test_a_system_prompt_of_the_request_takes_the_place_of_the_clients_own(
    make: Callable[..., HTTPClient],
) -> None:
    body = await posted_by(make, EVERYTHING, stream=False, options=CallOptions(system="Be rude."))
    assert system_in(body) == ["Be kind."]


@ALL
async def test_an_empty_system_prompt_is_not_sent(make: Callable[..., HTTPClient]) -> None:
    body = await posted_by(
        make, ModelRequest.of("Hi", ""), stream=False, options=CallOptions(system="Be rude.")
    )
    assert system_in(body) == []


@ALL
async def test_a_system_prompt_of_blanks_is_not_sent(make: Callable[..., HTTPClient]) -> None:
    body = await posted_by(make, ModelRequest.of("Hi", " \n"), stream=False)
    assert system_in(body) == []


async def test_anthropic_gets_no_text_of_blanks_which_it_refuses() -> None:
    # Other models write a line end ahead of a call of a tool, or nothing else.
    request = ModelRequest(
        messages=(
            ChatMessage(
                "system", (TextPart("Be kind.", {"type": "ephemeral"}), TextPart(""), TextPart("\n"))
            ),
            ChatMessage("user", "Hi"),
            ChatMessage("assistant", "\n\n", tool_calls=(ToolCall("c1", "f"),)),
            ChatMessage("tool", " ", tool_call_id="c1"),
            ChatMessage("assistant", " "),
            ChatMessage("user", (TextPart(" "), TextPart("Go on."))),
        ),
        tools=(Tool("f"),),
    )
    body = await posted_by(anthropic, request, stream=False)
    assert [block["text"] for block in body["system"]] == ["Be kind."]
    assert body["messages"] == [
        USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": " "},
                {"type": "text", "text": "Go on."},
            ],
        },
    ]
