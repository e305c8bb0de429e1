"""Answers that no recorded exchange shows, as the providers document or users report them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.byte_server import events
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = ResponseHead("p", 200, {"content-type": "text/event-stream", "x-request-id": "r1"})


def client(kind: Callable[..., HTTPClient]) -> HTTPClient:
    return kind("m", provider="p", base_url="http://127.0.0.1:1")


def decode(kind: Any, body: Any) -> Completion:
    return client(kind).dialect.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), HEAD)


def stream(kind: Any, *payloads: Any) -> tuple[list[str], Completion]:
    decoder = client(kind).dialect.decoder(HEAD)
    lines = "".join(f"{json.dumps(each)}\n" for each in payloads).encode()
    body = lines if kind is OllamaClient else events(*payloads)
    texts = [*decoder.feed(body), *decoder.flush()]
    return [text for text in texts if text], decoder.completion()


# --- the OpenAI dialect --------------------------------------------------------------------------


def chat(usage: Any = None, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, Usage(input=5, output=3)),
        (
            # xAI counts reasoning beside the completion, and only the total shows it.
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "total_tokens": 18,
                "completion_tokens_details": {"reasoning_tokens": 10},
            },
            Usage(input=5, output=13, reasoning=10),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 13,
                "total_tokens": 18,
                "completion_tokens_details": {"reasoning_tokens": 10},
            },
            Usage(input=5, output=13, reasoning=10),
        ),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 2}, Usage(input=5, cached=2)),
        ({"prompt_tokens": 5.0, "completion_tokens": "3"}, Usage(input=5, output=3)),
        ({"prompt_tokens": 5, "completion_tokens_details": None}, Usage(input=5)),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": "many"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_is_read_where_it_can_be(usage: Any, expected: Usage | None) -> None:
    assert decode(OpenAIClient, chat(usage, content="Hi")).usage == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "Hi"}, {"type": "image_url"}, {"type": "text", "text": "!"}], "Hi!"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}], "Hi"),
    ],
)
def test_content_is_text_null_or_a_list(content: Any, text: str) -> None:
    assert decode(OpenAIClient, chat(content=content)).content == text


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "other"),  # it calls none: they were lost
        ("function_call", "other"),
        ("content_filter", "content_filter"),
        ("something_new", "other"),
    ],
)
def test_finish_reasons_get_their_common_names(wire: str, finish: str | None) -> None:
    assert decode(OpenAIClient, chat(finish=wire, content="Hi")).finish_reason == finish


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource"])
def test_a_model_that_broke_off_has_not_answered(finish: str) -> None:
    with pytest.raises(ModelError, match=f"broke off: {finish}") as caught:
        decode(OpenAIClient, chat(finish=finish, content="Hi"))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "m", "code": 502}}, "server"),
        ({"object": "error", "message": "m", "code": 400}, "bad_request"),
        ({"choices": []}, "server"),
        ({"choices": [{}]}, "protocol"),
        ({}, "server"),
        (b"<html>Sign in</html>", "protocol"),
        (b"", "protocol"),
        (b"[]", "protocol"),
        (b'{"choices": [{"message": {"content": 7}}]}', "protocol"),
    ],
)
def test_what_is_no_answer_is_an_error(body: Any, kind: str) -> None:
    with pytest.raises(ModelError) as caught:
        decode(OpenAIClient, body)
    assert caught.value.kind == kind
    assert caught.value.request_id == "r1"


def test_usage_may_come_on_every_chunk_and_the_last_one_counts() -> None:
    _, completion = stream(
        OpenAIClient,
        {"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        "[DONE]",
    )
    assert completion.usage == Usage(input=5, output=2)


def test_groqs_usage_is_found() -> None:
    finish = {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": {"prompt_tokens": 5}}}
    assert stream(OpenAIClient, finish)[1].usage == Usage(input=5)


def test_a_refusal_may_come_in_pieces() -> None:
    texts, completion = stream(
        OpenAIClient,
        {"choices": [{"delta": {"refusal": "I can"}}]},
        {"choices": [{"delta": {"refusal": "not."}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    )
    assert texts == []
    assert (completion.content, completion.refusal) == ("", "I cannot.")
    assert completion.finish_reason == "refusal"


def test_nothing_after_done_is_read() -> None:
    finish = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert stream(OpenAIClient, finish, "[DONE]", finish)[0] == ["Hi"]


# --- Anthropic -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "other"),  # without a call
        ("refusal", "refusal"),
        ("something_new", "other"),
    ],
)
def test_anthropics_stop_reasons_get_their_common_names(wire: str, finish: str | None) -> None:
    assert decode(AnthropicClient, {"content": [], "stop_reason": wire}).finish_reason == finish


def test_anthropic_may_answer_nothing() -> None:
    assert decode(AnthropicClient, {"content": [], "stop_reason": "end_turn"}).content == ""


def test_anthropics_blocks_of_text_are_one_answer() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Hel"},
        {"type": "server_tool_use", "text": "not this"},
        {"type": "text", "text": "lo", "citations": None},
    ]
    completion = decode(AnthropicClient, {"content": blocks, "stop_reason": "end_turn"})
    assert (completion.content, completion.reasoning) == ("Hello", "hm")


def test_the_reason_of_a_refusal_is_kept() -> None:
    body = {"content": [], "stop_reason": "refusal", "stop_details": {"explanation": "Blocked."}}
    assert decode(AnthropicClient, body).refusal == "Blocked."


def test_counts_that_anthropic_repeats_as_null_do_not_erase_earlier_ones() -> None:
    _, completion = stream(
        AnthropicClient,
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 7}}},
        {"type": "content_block_start", "content_block": {"type": "text", "text": "H"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "i"}},
        {"type": "something_new"},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": None, "output_tokens": 2},
        },
        {"type": "message_stop"},
    )
    assert completion.content == "Hi"
    assert completion.usage == Usage(input=12, output=2, cached=7)


# --- Gemini --------------------------------------------------------------------------------------


def gemini(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    parts = [] if text is None else [{"text": text}]
    return {"candidates": [{"content": {"parts": parts}, "finishReason": finish}], **more}


@pytest.mark.parametrize(
    ("wire", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("SOMETHING_NEW", "other"),
    ],
)
def test_geminis_finish_reasons_get_their_common_names(wire: str, finish: str | None) -> None:
    assert decode(GeminiClient, gemini("Hi", wire)).finish_reason == finish


def test_gemini_may_end_at_max_tokens_without_a_part() -> None:
    body = {"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}
    completion = decode(GeminiClient, body)
    assert (completion.content, completion.finish_reason) == ("", "length")


def test_geminis_array_is_one_answer() -> None:
    body = [gemini("Hel"), gemini("lo", "STOP", responseId="g1")]
    assert decode(GeminiClient, body).content == "Hello"


def test_geminis_thoughts_are_no_part_of_the_answer() -> None:
    thought = {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]}
    texts, completion = stream(GeminiClient, thought, gemini("Hi", "STOP"))
    assert texts == ["Hi"]
    assert (completion.content, completion.reasoning) == ("Hi", "hm")


def test_output_that_gemini_counts_only_in_the_total_is_found() -> None:
    counts = {"promptTokenCount": 5, "thoughtsTokenCount": 10, "totalTokenCount": 18}
    _, completion = stream(GeminiClient, gemini("Hi", "STOP", usageMetadata=counts))
    assert completion.usage == Usage(input=5, output=13, reasoning=10)


def test_a_total_smaller_than_its_parts_gives_no_negative_count() -> None:
    counts = {"promptTokenCount": 50, "thoughtsTokenCount": 10, "totalTokenCount": 18}
    usage = decode(GeminiClient, gemini("Hi", "STOP", usageMetadata=counts)).usage
    assert usage == Usage(input=50, output=10, reasoning=10)


def test_geminis_response_id_stands_in_for_a_request_id() -> None:
    body = json.dumps(gemini("Hi", "STOP", responseId="g1")).encode()
    completion = client(GeminiClient).dialect.decode(body, ResponseHead("gemini", 200, {}))
    assert completion.request_id == "g1"


# --- Ollama --------------------------------------------------------------------------------------


def test_an_older_ollama_gives_no_reason() -> None:
    completion = decode(OllamaClient, {"message": {"content": "Hi"}, "done": True})
    assert (completion.finish_reason, completion.usage) == ("stop", None)


def test_ollamas_thinking_is_no_part_of_the_answer() -> None:
    texts, completion = stream(
        OllamaClient,
        {"message": {"content": "", "thinking": "hm"}, "done": False},
        {"message": {"content": "Hi"}, "done": False},
        {"message": {"content": ""}, "done": True, "done_reason": "length", "prompt_eval_count": 5},
    )
    assert texts == ["Hi"]
    assert (completion.content, completion.reasoning) == ("Hi", "hm")
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(input=5)


# --- streams that end too early ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (OpenAIClient, {"choices": [{"delta": {"content": "Hi"}}]}),
        (AnthropicClient, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}),
        (GeminiClient, gemini("Hi")),
        (OllamaClient, {"message": {"content": "Hi"}, "done": False}),
    ],
)
def test_a_stream_without_its_end_is_an_error(kind: Callable[..., HTTPClient], payload: Any) -> None:
    with pytest.raises(ModelError, match="ended before the answer was complete") as caught:
        stream(kind, payload)
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)


@pytest.mark.parametrize("kind", [OpenAIClient, AnthropicClient, GeminiClient])
def test_a_reader_that_stops_after_the_last_text_knows_that_the_answer_is_finished(kind: Any) -> None:
    """As where its time is over: the rest of the pieces is never asked for, and lives on in a traceback."""
    told: dict[Any, tuple[Any, ...]] = {
        OpenAIClient: (chat(finish="stop", content="Hi"),),
        GeminiClient: ({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]},),
        AnthropicClient: (
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    }
    decoder = client(kind).dialect.decoder(HEAD)
    pieces = decoder.feed(events(*told[kind]))
    texts = [next(pieces) for _ in told[kind]]

    assert texts[0] == "Hi"
    assert decoder.finished
    assert decoder.completion().content == "Hi"
    assert pieces is not None  # it was not closed meanwhile
