"""How each API is asked to send what a model thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.dialect_clients import posted_by
from ultra.clients import (
    AnthropicClient,
    CallOptions,
    GeminiClient,
    HTTPClient,
    OllamaClient,
    OpenAIClient,
)
from ultra.clients.catalog import Facts
from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage, ReasoningPart, ToolCall
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN = SamplingOptions(show_reasoning=True)
TOOL = Tool(name="look", description="Look.", parameters={"type": "object", "properties": {}})

ANTHROPIC = {"provider": "anthropic", "base_url": "https://api.anthropic.com"}
RESPONSES = {"provider": "openai", "base_url": "https://api.openai.com/v1", "api": "responses"}
GEMINI = {"provider": "gemini", "base_url": "https://generativelanguage.googleapis.com"}
OPENROUTER = {"provider": "openrouter", "base_url": "https://openrouter.ai/api/v1"}

CHAT = {"provider": "openai", "base_url": "https://api.openai.com/v1"}
OLLAMA = {"provider": "ollama", "base_url": "http://127.0.0.1:1"}

BUDGET = {"type": "enabled", "budget_tokens": 8192}
THOUGHTS = {"thinkingConfig": {"includeThoughts": True}}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}


async def sent(make: Callable[..., HTTPClient], model: str, given: Any, request: ModelRequest) -> Any:
    plain = await posted_by(make, request, stream=False, model=model, **given)
    streamed = await posted_by(make, request, stream=True, model=model, **given)
    names = ("reasoning", "thinking", "generationConfig", "think", "max_tokens")
    assert [plain.get(name) for name in names] == [streamed.get(name) for name in names]
    return plain


@pytest.mark.parametrize(
    ("make", "model", "given", "field", "shown"),
    [
        (OpenAIClient, "gpt-5", RESPONSES, "reasoning", {"summary": "auto"}),
        (OpenAIClient, "gpt-4o", RESPONSES, "reasoning", None),  # it is known not to reason
        (GeminiClient, "gemini-3-pro-preview", GEMINI, "generationConfig", THOUGHTS),
        (GeminiClient, "gemini-2.5-pro", GEMINI, "generationConfig", THOUGHTS),
        (AnthropicClient, "claude-opus-4-6", ANTHROPIC, "thinking", ADAPTIVE),
        (AnthropicClient, "claude-sonnet-5", ANTHROPIC, "thinking", ADAPTIVE),
        (AnthropicClient, "claude-sonnet-4-5-20250929", ANTHROPIC, "thinking", BUDGET),
        (AnthropicClient, "claude-opus-4-20250514", ANTHROPIC, "thinking", BUDGET),
        (OpenAIClient, "deepseek/deepseek-r1", OPENROUTER, "reasoning", {"enabled": True}),
        (OpenAIClient, "gpt-5", CHAT, "reasoning", None),
        (OllamaClient, "qwen3", OLLAMA, "think", None),
    ],
)  # fmt: skip
async def test_a_model_is_asked_to_show_what_it_thinks(
    make: Callable[..., HTTPClient], model: str, given: Any, field: str, shown: Any
) -> None:
    asked = await sent(make, model, given, ModelRequest.of("Why?", options=SHOWN))
    not_asked = await sent(make, model, given, ModelRequest.of("Why?"))

    assert asked.get(field) == shown
    assert not_asked.get(field) is None


async def test_the_effort_goes_along() -> None:
    request = ModelRequest.of("Why?", options=SamplingOptions(show_reasoning=True, reasoning_effort="low"))

    assert (await sent(OpenAIClient, "gpt-5", RESPONSES, request))["reasoning"] == {
        "summary": "auto",
        "effort": "low",
    }
    gemini = await sent(GeminiClient, "gemini-2.5-flash", GEMINI, request)
    assert gemini["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 1024}


async def test_a_client_can_have_it_as_its_default_and_a_request_can_do_without() -> None:
    given = {**ANTHROPIC, "options": CallOptions(show_reasoning=True)}
    asked = await sent(AnthropicClient, "claude-opus-4-6", given, ModelRequest.of("Why?"))
    without = ModelRequest.of("Why?", options=SamplingOptions(show_reasoning=False))

    assert asked["thinking"] == ADAPTIVE
    assert "thinking" not in await sent(AnthropicClient, "claude-opus-4-6", given, without)


@pytest.mark.parametrize(
    ("make", "model", "given"),
    [
        (OpenAIClient, "gpt-5.1", RESPONSES),
        (OpenAIClient, "gpt-5.1", CHAT),
        (OpenAIClient, "deepseek/deepseek-r1", OPENROUTER),
        (GeminiClient, "gemini-3-pro-preview", GEMINI),
        (GeminiClient, "gemini-2.5-flash", GEMINI),
        (AnthropicClient, "claude-opus-4-6", ANTHROPIC),
        (AnthropicClient, "claude-sonnet-4-5-20250929", ANTHROPIC),
        (OllamaClient, "qwen3", OLLAMA),
    ],
)
async def test_a_model_that_is_not_to_think_is_not_asked_to_show_what_it_thinks(
    make: Callable[..., HTTPClient], model: str, given: Any
) -> None:
    async def payload(**options: Any) -> Any:
        return await sent(make, model, given, ModelRequest.of("Why?", options=SamplingOptions(**options)))

    assert await payload(reasoning_effort="none", show_reasoning=True) == await payload(
        reasoning_effort="none"
    )


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-4-5-20250929"])
async def test_a_claude_model_that_is_not_to_think_gets_no_effort_that_its_api_does_not_know(
    model: str,
) -> None:
    request = ModelRequest.of("Why?", options=SamplingOptions(reasoning_effort="none", show_reasoning=True))
    payload = await sent(AnthropicClient, model, ANTHROPIC, request)

    assert set(payload) - {"stream"} == {"model", "max_tokens", "messages"}
    assert payload["max_tokens"] == 4096


async def test_a_claude_model_that_is_to_think_may_write_more() -> None:
    async def tokens(options: SamplingOptions, model: str = "claude-opus-4-6") -> Any:
        return await sent(AnthropicClient, model, ANTHROPIC, ModelRequest.of("Why?", options=options))

    assert (await tokens(SHOWN))["max_tokens"] == 16_384
    assert (await tokens(SamplingOptions()))["max_tokens"] == 4096
    few = await tokens(SamplingOptions(show_reasoning=True, max_tokens=1000), "claude-sonnet-4-5")
    assert (few["max_tokens"], "thinking" in few) == (1000, False)  # less than the smallest budget


@pytest.mark.parametrize(("most", "budget"), [(2047, None), (2048, 1024), (5000, 2500)])
async def test_half_of_the_tokens_are_left_for_the_answer_or_the_model_does_not_think(
    most: int, budget: int | None
) -> None:
    options = SamplingOptions(show_reasoning=True, max_tokens=most)
    payload = await sent(
        AnthropicClient, "claude-sonnet-4-5", ANTHROPIC, ModelRequest.of("?", options=options)
    )

    assert payload["max_tokens"] == most
    assert payload.get("thinking", {}).get("budget_tokens") == budget


@pytest.mark.parametrize("model", ["claude-3-5-haiku-latest", "claude-3-haiku-20240307", "claude-2.1"])
async def test_a_claude_model_that_cannot_think_is_not_asked_to(model: str) -> None:
    payload = await sent(AnthropicClient, model, ANTHROPIC, ModelRequest.of("Why?", options=SHOWN))

    assert (payload["max_tokens"], "thinking" in payload) == (4096, False)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-1-20250805", "claude-haiku-4-5"])
@pytest.mark.parametrize(
    "options", [SamplingOptions(), SamplingOptions(show_reasoning=True, temperature=1.0)]
)
async def test_a_claude_model_gets_no_field_of_another_api(model: str, options: SamplingOptions) -> None:
    payload = await sent(AnthropicClient, model, ANTHROPIC, ModelRequest.of("Why?", options=options))

    assert set(payload) - {"temperature", "stream"} == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-2.5-pro"])
async def test_a_gemini_model_that_takes_a_budget_thinks_as_it_likes_unless_an_effort_is_given(
    model: str,
) -> None:
    async def config(**options: Any) -> Any:
        request = ModelRequest.of("Why?", options=SamplingOptions(**options))
        payload = await sent(GeminiClient, model, GEMINI, request)
        return payload.get("generationConfig", {}).get("thinkingConfig")

    assert await config() is None
    assert await config(show_reasoning=True) == {"includeThoughts": True}
    assert await config(reasoning_effort="none") == {"thinkingBudget": 0}
    assert await config(reasoning_effort="none", show_reasoning=True) == {"thinkingBudget": 0}


@pytest.mark.parametrize(
    "request_",
    [
        ModelRequest.of("Why?", options=SamplingOptions(show_reasoning=True, temperature=0.5)),
        ModelRequest(
            messages=(ChatMessage("user", "Why?"),),
            tools=(TOOL,),
            tool_choice=ToolChoice("required"),
            options=SHOWN,
        ),
        ModelRequest(
            messages=(
                ChatMessage("user", "Why?"),
                ChatMessage("assistant", "", tool_calls=(ToolCall(id="1", name="look", arguments="{}"),)),
                ChatMessage("tool", "Blue.", tool_call_id="1"),
            ),
            tools=(TOOL,),
            options=SHOWN,
        ),
    ],
    ids=["temperature", "a tool is forced", "thoughts of the turn are missing"],
)
async def test_a_claude_model_is_not_asked_where_its_api_refuses_to_let_it_think(
    request_: ModelRequest,
) -> None:
    assert "thinking" not in await sent(AnthropicClient, "claude-opus-4-6", ANTHROPIC, request_)


async def test_a_claude_model_goes_on_thinking_in_a_turn_in_which_it_thought() -> None:
    thought = ReasoningPart("Look first.", provider="anthropic", signature="s")
    calls = (ToolCall(id="1", name="look", arguments="{}"),)
    request = ModelRequest(
        messages=(
            ChatMessage("user", "Why?"),
            ChatMessage("assistant", (thought,), tool_calls=calls),
            ChatMessage("tool", "Blue.", tool_call_id="1"),
        ),
        tools=(TOOL,),
        options=SHOWN,
    )

    assert (await sent(AnthropicClient, "claude-opus-4-6", ANTHROPIC, request))["thinking"] == ADAPTIVE


async def test_who_knows_that_a_model_does_not_reason_can_say_so() -> None:
    given = {**RESPONSES, "info": Facts(reasoning=False)}

    assert "reasoning" not in await sent(OpenAIClient, "mine", given, ModelRequest.of("Why?", options=SHOWN))


def test_it_is_true_or_false() -> None:
    with pytest.raises(BadCall, match="show_reasoning"):
        SamplingOptions(show_reasoning="yes")  # type: ignore[arg-type]
    with pytest.raises(BadCall, match="not allowed"):
        SamplingOptions.of({"show_reasoning": "auto"})
