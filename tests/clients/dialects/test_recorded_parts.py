"""What recorded answers hold beside their text: thoughts with signatures, calls, and why there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.dialect_clients import going_on, turn_of
from helpers.paths import NO_RECORDINGS, WIRE
from helpers.recordings import Recording, load
from ultra._support.cooperative import run_at_once
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient
from ultra.clients.wire.response_head import ResponseHead
from ultra.messages.chat import ChatMessage
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.results import Completion

pytestmark = pytest.mark.skipif(not WIRE.exists(), reason=NO_RECORDINGS)

CLIENTS: dict[str, Callable[..., HTTPClient]] = {
    "openai-chat": OpenAIClient,
    "anthropic-messages": AnthropicClient,
    "gemini-generate": GeminiClient,
    "ollama-chat": OllamaClient,
}


def recorded(name: str) -> Recording:
    return next(each for each in load() if each.name == name)


def client_for(recording: Recording) -> HTTPClient:
    return CLIENTS[recording.dialect]("m", provider=recording.provider, base_url="http://127.0.0.1:1/v1")


def read(recording: Recording) -> Completion:
    head = ResponseHead(recording.provider, recording.status, dict(recording.headers))
    dialect = client_for(recording).dialect
    if not recording.streamed:
        return run_at_once(dialect.decode_whole(recording.body, head))
    decoder = dialect.decoder(head)
    for begin in range(0, len(recording.body), 7):
        for _ in decoder.feed(recording.body[begin : begin + 7]):
            pass
    for _ in decoder.flush():
        pass
    return decoder.completion()


@pytest.mark.parametrize("name", ["anthropic-thinking", "anthropic-stream-thinking"])
def test_anthropics_thoughts_go_back_as_they_came(name: str) -> None:
    recording = recorded(name)
    completion = read(recording)

    (part,) = completion.reasoning_parts
    assert (part.text, part.provider) == (recording.expect["reasoning_text"], "anthropic")
    assert part.signature
    assert part.signature.encode() in recording.body
    block = sent_back(recording, completion)["messages"][1]["content"][0]
    assert block == {"type": "thinking", "thinking": part.text, "signature": part.signature}


def test_anthropics_thoughts_are_counted_where_it_counts_them() -> None:
    usage = read(recorded("anthropic-thinking")).usage

    assert usage
    assert (usage.output, usage.reasoning) == (39, 23)


def test_geminis_signature_goes_back_with_the_text_that_it_came_with() -> None:
    recording = recorded("gemini-text")
    completion = read(recording)

    (part,) = completion.reasoning_parts
    assert part.signature
    assert part.signature.encode() in recording.body
    turn = sent_back(recording, completion)["contents"][1]
    assert turn == {
        "role": "model",
        "parts": [{"text": "It is February.", "thoughtSignature": part.signature}],
    }


@pytest.mark.parametrize("name", ["deepseek-reasoning-content", "gpustack-stream-no-done"])
def test_thoughts_before_an_answer_without_calls_are_not_sent_back(name: str) -> None:
    completion = read(recorded(name))

    assert completion.reasoning
    assert completion.reasoning_parts == ()


def test_a_prompt_that_gemini_blocks_costs_no_output() -> None:
    completion = read(recorded("gemini-prompt-blocked"))

    assert (completion.finish_reason, completion.content) == ("content_filter", "")
    assert completion.usage
    assert completion.usage.output == 0


def test_no_recorded_answer_has_calls_that_nobody_made() -> None:
    for recording in load():
        if recording.status == 200 and "error_message" not in recording.expect:
            expected = [call["name"] for call in recording.expect.get("tool_calls", ())]
            completion = read(recording)
            assert [call.name for call in completion.tool_calls] == expected
            assert (completion.finish_reason == "tool_calls") is bool(expected)


def sent_back(recording: Recording, completion: Completion) -> dict[str, list[dict[str, list[object]]]]:
    """The payload of the next turn."""
    client = client_for(recording)
    request = going_on(ModelRequest.of("Hi"), turn_of(completion), ChatMessage("user", "And?"))
    return client.dialect.encode(request, client.options, stream=False)
