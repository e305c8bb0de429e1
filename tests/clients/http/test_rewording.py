"""Requests that a server refuses for something they can do without are sent once more without it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ultra.clients import HTTPClient, connect
from ultra.clients.quirks import Quirks
from ultra.errors import BadCall, ModelError
from ultra.messages.chat import ChatMessage, TextPart, ToolCall
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import Completion
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "test-key-0123456789"

ANSWERS: dict[str, Any] = {
    "openai": {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]},
    "anthropic": {"content": [{"type": "text", "text": "4"}], "stop_reason": "end_turn"},
    "gemini": {"candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": "STOP"}]},
    "ollama": {"message": {"content": "4"}, "done": True},
    "responses": {
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "4"}]}],
    },
}


class Endpoint(httpx.AsyncBaseTransport):
    """Answers with JSON; `refuse` returns the words against a payload, and None takes it."""

    def __init__(
        self, dialect: str, refuse: Callable[[str, dict[str, Any]], str | None], status: int = 400
    ) -> None:
        self.dialect, self.refuse, self.status = dialect, refuse, status
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        payload = json.loads(request.content)
        self.seen.append((request.url.path, payload))
        words = self.refuse(request.url.path, payload)
        if words is not None:
            return httpx.Response(self.status, json={"error": {"message": words}})
        dialect = "responses" if request.url.path.endswith("/responses") else self.dialect
        return httpx.Response(200, json=ANSWERS[dialect])


async def ask(client: HTTPClient, *, stream: bool) -> str:
    if not stream:
        return (await client.generate("2+2?", system="Be terse.")).content
    heard, last = "", None
    async with client.stream("2+2?", system="Be terse.") as pieces:
        async for piece in pieces:
            if isinstance(piece, Completion):
                last = piece
            else:
                heard += piece
    assert last is not None
    assert last.content == heard
    return heard


def has(payload: dict[str, Any], path: str) -> bool:
    found: Any = payload
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return False
        found = found[name]
    return True


SYSTEM_WORDS = {
    "openai": "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    "gemini": "Developer instruction is not enabled for models/m",
    "ollama": "template: System role not supported",
}

MORE_SYSTEM_WORDS = [
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (500, "Only user, assistant and tool roles are supported!"),
    (422, "[{'loc': ['body', 'messages', 0, 'role'], 'msg': \"Input should be 'user' or 'assistant'\"}]"),
    (400, "Invalid role: system"),
    (400, "This model does not support system prompts"),
]

REFUSED = [
    ("openai", "temperature", "Unsupported value: 'temperature' does not support 0.2 with this model."),
    ("openai", "temperature", "invalid temperature: only 1 is allowed for this model"),
    ("openai", "top_p", "Unsupported parameter: 'top_p' is not supported with this model."),
    ("openai", "seed", "Unknown parameter: 'seed'"),
    ("openai", "stop", "'stop' is not supported with this model"),
    ("openai", "reasoning_effort", "Unrecognized request argument supplied: reasoning_effort"),
    ("openai", "max_tokens", "'max_tokens' is not supported with this model. Use 'max_completion_tokens'"),
    ("anthropic", "temperature", "`temperature` and `top_p` cannot both be specified for this model."),
    ("anthropic", "temperature", "`temperature` is deprecated for this model."),
    ("anthropic", "output_config.effort", "This model does not support the effort parameter."),
    (
        "gemini",
        "generationConfig.thinkingConfig.thinkingLevel",
        "Thinking level is not supported for this model.",
    ),
    ("ollama", "think", '"m" does not support thinking'),
]


def connected(dialect: str, endpoint: Endpoint) -> HTTPClient:
    return connect(
        f"{dialect}:m",
        api_key=KEY,
        base_url="http://x" if dialect != "openai" else "http://x/v1",
        transport=endpoint,
        temperature=0.2,
        top_p=0.9,
        max_tokens=100,
        seed=1,
        stop="END",
        reasoning_effort="low",
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("dialect", "path", "words"), REFUSED)
async def test_a_field_that_a_server_refuses_by_name_is_left_out_and_stays_out(
    dialect: str, path: str, words: str, *, stream: bool
) -> None:
    endpoint = Endpoint(dialect, lambda _, payload: words if has(payload, path) else None)
    client = connected(dialect, endpoint)
    assert await ask(client, stream=stream) == "4"
    assert [has(payload, path) for _, payload in endpoint.seen] == [True, False]
    assert await ask(client, stream=stream) == "4"
    assert len(endpoint.seen) == 3
    left = {name for name in endpoint.seen[0][1] if name != path.partition(".")[0]}
    assert left <= endpoint.seen[2][1].keys(), "nothing else was left out"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("dialect", SYSTEM_WORDS)
async def test_without_a_system_role_the_system_prompt_goes_ahead_of_the_question(
    dialect: str, *, stream: bool
) -> None:
    def refuse(_: str, payload: dict[str, Any]) -> str | None:
        system = "systemInstruction" in payload or any(
            message.get("role") == "system" for message in payload.get("messages", ())
        )
        return SYSTEM_WORDS[dialect] if system else None

    endpoint = Endpoint(dialect, refuse)
    client = connected(dialect, endpoint)
    for _ in range(2):
        assert await ask(client, stream=stream) == "4"
    assert len(endpoint.seen) == 3
    assert "Be terse.\\n\\n2+2?" in json.dumps(endpoint.seen[-1][1])


@pytest.mark.parametrize(("status", "words"), MORE_SYSTEM_WORDS)
async def test_chat_templates_refuse_the_system_role_in_many_words(status: int, words: str) -> None:
    endpoint = Endpoint(
        "openai", lambda _, payload: words if payload["messages"][0]["role"] == "system" else None, status
    )
    assert await ask(connected("openai", endpoint), stream=False) == "4"
    assert len(endpoint.seen) == 2


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "ollama"])
async def test_an_account_that_may_not_stream_is_asked_for_the_whole_answer(dialect: str) -> None:
    words = "Your organization must be verified to stream this model."
    endpoint = Endpoint(dialect, lambda _, payload: words if payload.get("stream") else None)
    client = connected(dialect, endpoint)
    for _ in range(2):
        assert await ask(client, stream=True) == "4"
    assert [bool(payload.get("stream")) for _, payload in endpoint.seen] == [True, False, False]


async def test_stream_options_are_left_out_where_they_are_not_known() -> None:
    words = "Extra inputs are not permitted: stream_options"
    endpoint = Endpoint("openai", lambda _, payload: words if "stream_options" in payload else None, 422)
    assert await ask(connected("openai", endpoint), stream=True) == "4"
    assert endpoint.seen[-1][1]["stream"] is True


HINT = {"type": "ephemeral"}
CALLED = (
    ChatMessage("user", (TextPart("Is it warm?", HINT),)),
    ChatMessage("assistant", "", tool_calls=(ToolCall("c", "weather", "{}", signature="s"),)),
    ChatMessage("tool", "21", tool_call_id="c"),
)


@pytest.mark.parametrize(
    ("name", "base_url", "hints", "signed"),
    [
        ("openai:gpt-5", None, False, False),
        ("groq:m", None, False, False),
        ("openrouter:google/gemini-3-pro", None, True, False),
        ("openai:m", "https://openrouter.ai/api/v1", True, False),
        ("openai:gemini-3-pro", "https://generativelanguage.googleapis.com/v1beta/openai", False, True),
        ("openai:gemini-3-pro", "https://us-central1-aiplatform.googleapis.com/v1/x/openapi", False, True),
        ("azure:m", "https://name.openai.azure.com", False, False),
    ],
)
async def test_hints_and_signatures_go_in_openais_form_only_where_they_are_known(
    name: str, base_url: str | None, *, hints: bool, signed: bool
) -> None:
    endpoint = Endpoint("openai", lambda _path, _payload: None)
    client = connect(name, base_url=base_url, api_key=KEY, transport=endpoint)
    assert isinstance(client, HTTPClient)
    await client.respond(ModelRequest(messages=CALLED))

    ((_, payload),) = endpoint.seen
    assert ("cache_control" in json.dumps(payload)) is hints
    (call,) = payload["messages"][1]["tool_calls"]
    assert call.get("extra_content") == ({"google": {"thought_signature": "s"}} if signed else None)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini", "ollama"])
@pytest.mark.parametrize(
    "words",
    [
        "registry.ollama.ai/library/gemma does not support tools",
        "tool_choice is not supported by this model",
        "response_format is not supported",
        "output format is not supported with this model",
        "Unknown name toolConfig: cannot find field",
        "responseJsonSchema is not supported for this model",
    ],
)
async def test_tools_and_schemas_are_never_left_out_of_a_request(dialect: str, words: str) -> None:
    endpoint = Endpoint(dialect, lambda _path, _payload: words)
    client = connect(f"{dialect}:m", base_url="https://x.example/v1", api_key=KEY, transport=endpoint)
    assert isinstance(client, HTTPClient)
    asked = ModelRequest(
        messages=(ChatMessage("user", "Is it warm?"),),
        tools=(Tool("weather"),),
        tool_choice=ToolChoice("required"),
        output=JsonSchema("answer", {"type": "object"}),
    )
    with pytest.raises(ModelError):
        await client.respond(asked)

    whole = endpoint.seen[0][1]
    assert all({**payload} == whole for _, payload in endpoint.seen)


async def test_several_refusals_in_a_row_are_all_heeded() -> None:
    def refuse(_: str, payload: dict[str, Any]) -> str | None:
        for name in ("max_tokens", "temperature", "top_p"):
            if name in payload:
                return f"Unsupported parameter: '{name}' is not supported with this model."
        return None

    endpoint = Endpoint("openai", refuse)
    client = connected("openai", endpoint)
    for _ in range(2):
        assert await ask(client, stream=False) == "4"
    assert len(endpoint.seen) == 5
    assert endpoint.seen[-1][1]["max_completion_tokens"] == 100


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_what_helps_nothing_is_neither_repeated_nor_remembered(*, stream: bool) -> None:
    endpoint = Endpoint("openai", lambda *_: "Unsupported parameter: 'temperature' is not supported.")
    client = connected("openai", endpoint)
    for _ in range(2):
        with pytest.raises(ModelError, match="temperature"):
            await ask(client, stream=stream)
    assert ["temperature" in payload for _, payload in endpoint.seen] == [True, False, True, False]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "temperature must be between 0 and 1"),
        (429, "temperature is not supported"),
        (500, "the upstream stream is not available; temperature unknown"),
        (401, "system prompts are not supported"),
        (400, "This model's maximum context length is 8192 tokens"),
        (400, "max_tokens is too large: this model supports at most 4096 completion tokens"),
    ],
)
async def test_other_refusals_are_the_callers_to_see(status: int, words: str) -> None:
    endpoint = Endpoint("openai", lambda *_: words, status)
    with pytest.raises(ModelError):
        await ask(connected("openai", endpoint), stream=False)
    assert len(endpoint.seen) == 1


async def test_what_a_caller_writes_into_the_body_stays_there() -> None:
    endpoint = Endpoint(
        "openai", lambda _, payload: "Unknown parameter: 'top_k'" if "top_k" in payload else None
    )
    client = connect("openai:m", api_key=KEY, transport=endpoint, extra_body={"top_k": 5})
    with pytest.raises(ModelError, match="top_k"):
        await client.generate("Hi")
    assert len(endpoint.seen) == 1


async def test_a_thinking_budget_is_sent_where_a_level_is_not_known() -> None:
    path = "generationConfig.thinkingConfig.thinkingLevel"
    words = "Thinking level is not supported for this model. Please use thinking budget instead."
    endpoint = Endpoint("gemini", lambda _, payload: words if has(payload, path) else None)
    assert await ask(connected("gemini", endpoint), stream=False) == "4"
    assert endpoint.seen[-1][1]["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 1024}


SHOWN = SamplingOptions(show_reasoning=True, reasoning_effort="low")


@pytest.mark.parametrize(
    ("provider", "path", "words", "left"),
    [
        (
            "openai",
            "reasoning.summary",
            "Your organization must be verified to generate reasoning summaries. Please go to settings.",
            {"reasoning": {"effort": "low"}},
        ),
        (
            "openai",
            "reasoning.summary",
            "Unsupported parameter: 'reasoning.summary' is not supported with the 'm' model.",
            {"reasoning": {"effort": "low"}},
        ),
        (
            "openai",
            "reasoning.effort",
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            {"reasoning": {"summary": "auto"}},
        ),
        (
            "gemini",
            "generationConfig.thinkingConfig.includeThoughts",
            "Unable to submit request because thinking is not supported by this model.",
            {"thinkingConfig": {"thinkingLevel": "low"}},
        ),
        (
            "anthropic",
            "thinking",
            "adaptive thinking is not supported on this model",
            {"output_config": {"effort": "low"}},
        ),
    ],
)
async def test_a_model_that_cannot_show_what_it_thinks_answers_without(
    provider: str, path: str, words: str, left: dict[str, Any]
) -> None:
    endpoint = Endpoint(provider, lambda _, payload: words if has(payload, path) else None)
    more = {"api": "responses"} if provider == "openai" else {}
    client = connect(f"{provider}:m", api_key=KEY, base_url="http://x", transport=endpoint, **more)
    for _ in range(2):
        assert (await client.respond(ModelRequest.of("2+2?", options=SHOWN))).content == "4"
    assert len(endpoint.seen) == 3
    last = endpoint.seen[-1][1]
    assert left.items() <= {**last, **last.get("generationConfig", {})}.items()


# --- the Responses API ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("provider", ["openai", "azure"])
async def test_a_model_of_the_responses_api_is_found_by_the_servers_words(
    provider: str, *, stream: bool
) -> None:
    words = "This model is only supported in v1/responses and not in v1/chat/completions."
    endpoint = Endpoint("openai", lambda path, _: None if path.endswith("/responses") else words, 404)
    client = connect(f"{provider}:m", api_key=KEY, base_url="http://x", transport=endpoint)
    for _ in range(2):
        assert await ask(client, stream=stream) == "4"
    assert len(endpoint.seen) == 3
    assert endpoint.seen[-1][1]["instructions"] == "Be terse."


async def test_models_that_are_known_to_have_no_other_api_are_asked_there_at_once() -> None:
    endpoint = Endpoint("openai", lambda *_: None)
    for model in ("o3-pro", "gpt-5-pro", "gpt-5.1-codex", "codex-mini-latest"):
        assert await ask(connect(f"openai:{model}", api_key=KEY, transport=endpoint), stream=False) == "4"
    assert {path for path, _ in endpoint.seen} == {"/v1/responses"}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("provider", "base_url", "options", "path"),
    [
        ("vllm", "http://x/v1", {"api": "responses"}, "/v1/responses"),
        ("openai", "http://x/v1/responses", {}, "/v1/responses"),
        ("openai", "http://x/v1/responses/", {}, "/v1/responses"),
        ("azure", "http://x", {"api": "responses"}, "/openai/v1/responses"),
        ("azure", "http://x/openai/v1/responses", {}, "/openai/v1/responses"),
        ("openai", "http://x/v1/responses", {"api": "chat"}, "/v1/chat/completions"),
        ("openai", "http://x/v1", {}, "/v1/chat/completions"),
    ],
)
async def test_the_responses_api_of_any_server_is_asked_where_the_user_says_so(
    provider: str, base_url: str, options: dict[str, Any], path: str, *, stream: bool
) -> None:
    endpoint = Endpoint("openai", lambda *_: None)
    client = connect(f"{provider}:m", api_key=KEY, base_url=base_url, transport=endpoint, **options)
    assert await ask(client, stream=stream) == "4"
    assert [path for path, _ in endpoint.seen] == [path]


def test_what_else_is_told_of_the_model_stays_beside_its_api() -> None:
    client = connect("vllm:m", api="responses", images=True, quirks=Quirks(no_system=True))
    assert client.info.images is True
    assert client.info.quirks == Quirks(no_system=True, responses=True)
    assert client.cache_identity != connect("vllm:m").cache_identity


def test_an_api_that_there_is_not_is_refused_with_the_choices() -> None:
    with pytest.raises(BadCall, match=r"api is 'completions'.*chat, responses"):
        connect("vllm:m", api="completions")
    with pytest.raises(BadCall, match="unknown option 'api'; the options of anthropic are"):
        connect("anthropic:m", api_key=KEY, api="responses")


# --- what is known before -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base_url", "expected"),
    [
        ("openai:gpt-5", None, "max_completion_tokens"),
        ("openai:gpt-5", "https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("openai:gpt-5", "https://notapi.openai.com.example/v1", "max_tokens"),
        ("azure:gpt-5-mini", "https://r.openai.azure.com", "max_completion_tokens"),
        ("vllm:m", "http://x/v1", "max_tokens"),
    ],
)
async def test_the_name_of_the_limit_is_known_before(name: str, base_url: str | None, expected: str) -> None:
    endpoint = Endpoint("openai", lambda *_: None)
    await connect(name, api_key=KEY, base_url=base_url, transport=endpoint, max_tokens=9).generate("Hi")
    assert [field for field in endpoint.seen[0][1] if field.startswith("max")] == [expected]


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base_url", "path"),
    [
        ("openai:m", "http://x/v1", "/v1/chat/completions"),
        ("openai:m", "http://x/v1/chat/completions/", "/v1/chat/completions"),
        ("openai:m", "http://x", "/v1/chat/completions"),
        ("openai:m", "http://x/api", "/api/v1/chat/completions"),
        ("anthropic:m", "http://x/v1", "/v1/messages"),
        ("anthropic:m", "http://x/v1/messages", "/v1/messages"),
        ("gemini:m", "http://x/v1beta", "/v1beta/models/m:generateContent"),
        ("gemini:m", "http://x/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("ollama:m", "http://x/v1", "/api/chat"),
        ("ollama:m", "http://x/api/chat", "/api/chat"),
        ("ollama:m", "http://x/api", "/api/chat"),
        ("azure:m", "http://x/openai", "/openai/deployments/m/chat/completions"),
        ("azure:m", "http://x/openai/deployments/m", "/openai/deployments/m/chat/completions"),
        (
            "azure:m",
            "http://x/openai/deployments/m/chat/completions",
            "/openai/deployments/m/chat/completions",
        ),
        ("azure:m", "http://x/openai/v1", "/openai/v1/chat/completions"),
    ],
)
async def test_addresses_work_as_people_paste_them(name: str, base_url: str, path: str) -> None:
    endpoint = Endpoint(
        name.partition(":")[0].replace("azure", "openai"),
        lambda found, _: None if found == path else "404 page not found",
        404,
    )
    client = connect(name, api_key=KEY, base_url=base_url, transport=endpoint)
    for _ in range(2):
        assert (await client.generate("Hi")).content == "4"
    assert len(endpoint.seen) <= 3
    assert endpoint.seen[-1][0] == path


async def test_an_address_that_cannot_be_right_is_named_in_the_error() -> None:
    endpoint = Endpoint("anthropic", lambda *_: "404 page not found", 404)
    with pytest.raises(ModelError, match=r"asked at http://x/wrong/v1/messages; is base_url") as caught:
        await connect("anthropic:m", api_key=KEY, base_url="http://x/wrong", transport=endpoint).generate(
            "Hi"
        )
    assert not caught.value.retryable
