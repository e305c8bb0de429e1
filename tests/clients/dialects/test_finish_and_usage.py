"""Why models stopped, and what broken answers used, in every dialect, plain and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.byte_server import events
from ultra._support.cooperative import run_at_once
from ultra.clients.dialects.anthropic import AnthropicMessages
from ultra.clients.dialects.base import Dialect
from ultra.clients.dialects.gemini import GeminiGenerate
from ultra.clients.dialects.ollama import OllamaChat
from ultra.clients.dialects.openai_chat import OpenAIChat
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion, Usage

CHAT, ANTHROPIC, GEMINI, OLLAMA, RESPONSES = (
    kind("m", provider="p", base_url="http://127.0.0.1:1")
    for kind in (OpenAIChat, AnthropicMessages, GeminiGenerate, OllamaChat, OpenAIResponses)
)
DIALECTS = (CHAT, ANTHROPIC, GEMINI, OLLAMA, RESPONSES)


def plain(dialect: Dialect, body: Any) -> Completion:
    return run_at_once(dialect.decode_whole(json.dumps(body).encode(), ResponseHead("p", 200, {})))


def streamed(dialect: Dialect, *payloads: Any) -> Completion:
    decoder = dialect.decoder(ResponseHead("p", 200, {"content-type": "text/event-stream"}))
    for _ in (*decoder.feed(events(*payloads)), *decoder.flush()):
        pass
    return decoder.completion()


def whole(dialect: Dialect, reason: str | None) -> Any:
    """A plain answer that ended for this reason."""
    bodies: dict[Dialect, Any] = {
        CHAT: {"choices": [{"message": {"content": "4"}, "finish_reason": reason}]},
        ANTHROPIC: {"content": [{"type": "text", "text": "4"}], "stop_reason": reason},
        GEMINI: {"candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": reason}]},
        OLLAMA: {"message": {"content": "4"}, "done": reason is not None, "done_reason": reason},
        RESPONSES: {"output": [{"content": [{"type": "output_text", "text": "4"}]}], "status": reason},
    }
    return bodies[dialect]


def pieces(dialect: Dialect, reason: str | None) -> list[Any]:
    """The same as a stream, which says at its end that nothing follows."""
    text = {"type": "text_delta", "text": "4"}
    completed = {"type": "response.completed", "response": {"status": reason}}
    found: dict[Dialect, list[Any]] = {
        CHAT: [{"choices": [{"delta": {"content": "4"}, "finish_reason": reason}]}],
        ANTHROPIC: [
            {"type": "content_block_delta", "delta": text},
            {"type": "message_delta", "delta": {"stop_reason": reason}},
        ],
        GEMINI: [{"candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": reason}]}],
        OLLAMA: [
            {"message": {"content": "4"}},
            *([{"done": True, "done_reason": reason}] if reason else []),
        ],
        RESPONSES: [
            {"type": "response.output_text.delta", "delta": "4"},
            *([completed] if reason else []),
        ],
    }
    return [*found[dialect], "[DONE]"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_reason_that_is_not_known_is_neither_a_stop_nor_none(dialect: Dialect) -> None:
    for reason in ("something_new", "OTHER", "x" * 10_000):
        assert plain(dialect, whole(dialect, reason)).finish_reason == "other"
        assert streamed(dialect, *pieces(dialect, reason)).finish_reason == "other"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_where_no_reason_is_given_none_is_told(dialect: Dialect) -> None:
    assert plain(dialect, whole(dialect, None)).finish_reason is None
    assert streamed(dialect, *pieces(dialect, None)).finish_reason is None


@pytest.mark.parametrize("dialect", [CHAT, ANTHROPIC, GEMINI])
@pytest.mark.parametrize(
    ("word", "reason"),
    [("end_turn", "stop"), ("STOP", "stop"), ("pause_turn", "length"), ("MALFORMED_FUNCTION_CALL", "other")],
)
def test_the_words_of_one_api_are_understood_in_another(dialect: Dialect, word: str, reason: str) -> None:
    assert plain(dialect, whole(dialect, word)).finish_reason == reason
    assert streamed(dialect, *pieces(dialect, word)).finish_reason == reason


def test_an_old_ollama_gives_no_reason_for_an_ordinary_end() -> None:
    done = {"message": {"content": "4"}, "done": True}
    assert plain(OLLAMA, done).finish_reason == "stop"
    assert streamed(OLLAMA, done).finish_reason == "stop"


@pytest.mark.parametrize("status", ["in_progress", "queued"])
def test_a_response_that_is_still_being_written_is_no_whole_one(status: str) -> None:
    assert plain(RESPONSES, whole(RESPONSES, status)).finish_reason == "other"


def test_what_says_that_it_is_incomplete_did_not_stop() -> None:
    body = {**whole(RESPONSES, "incomplete"), "incomplete_details": {"reason": "stop"}}
    assert plain(RESPONSES, body).finish_reason == "other"
    assert plain(RESPONSES, whole(RESPONSES, "incomplete")).finish_reason == "length"


def test_no_word_is_no_reason() -> None:
    assert (read_finish_reason(None), read_finish_reason("")) == (None, None)


# --- what broken answers used ----------------------------------------------------------------------

COUNTS: dict[Dialect, Any] = {
    CHAT: {"usage": {"prompt_tokens": 9, "completion_tokens": 4}},
    ANTHROPIC: {"usage": {"input_tokens": 9, "output_tokens": 4}},
    GEMINI: {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4}},
    OLLAMA: {"prompt_eval_count": 9, "eval_count": 4},
    RESPONSES: {"usage": {"input_tokens": 9, "output_tokens": 4}},
}
USED = Usage(input=9, output=4)
ERROR = {"error": {"message": "the model broke off", "code": 500}}


def counting(dialect: Dialect) -> Any:
    """A piece of a stream that tells the counts so far, and no end."""
    counts = COUNTS[dialect]
    if dialect is ANTHROPIC:
        return {"type": "message_start", "message": counts}
    if dialect is RESPONSES:
        return {"type": "response.failed", "response": {**counts, "status": "failed", **ERROR}}
    body: dict[Dialect, Any] = {
        CHAT: {"choices": []},
        GEMINI: {"candidates": []},
        OLLAMA: {"message": {"content": "4"}},
    }
    return {**body[dialect], **counts}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_in_a_plain_answer_keeps_its_counts(dialect: Dialect) -> None:
    with pytest.raises(ModelError) as caught:
        plain(dialect, {**whole(dialect, None), **COUNTS[dialect], **ERROR})
    assert caught.value.usage == USED


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("end", ["cut", "error"])
def test_a_stream_that_breaks_off_has_told_its_counts(dialect: Dialect, end: str) -> None:
    content = events(counting(dialect), *([ERROR] if end == "error" else []))
    decoder = dialect.decoder(ResponseHead("p", 200, {"content-type": "text/event-stream"}))
    with pytest.raises(ModelError):
        for _ in (*decoder.feed(content), *decoder.flush(), decoder.completion()):
            pass
    assert decoder.usage == USED
    head = ResponseHead("p", 200, {"content-type": "text/event-stream"})
    with pytest.raises(ModelError) as caught:
        run_at_once(dialect.decode_whole(content, head))
    assert caught.value.usage == USED


@pytest.mark.parametrize(
    ("dialect", "counts"),
    [
        (CHAT, {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}}),
        (
            GEMINI,
            {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 40}},
        ),
        (RESPONSES, {"usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 40}}),
    ],
)
def test_what_a_total_has_above_the_sum_is_counted_and_marked(dialect: Dialect, counts: Any) -> None:
    assert plain(dialect, {**whole(dialect, "stop"), **counts}).usage == Usage(
        input=10, output=30, estimated=True
    )


@pytest.mark.parametrize("total", [0, 3, 15, None])
def test_a_total_that_is_not_above_the_sum_changes_nothing(total: int | None) -> None:
    counts = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": total}}
    assert plain(CHAT, {**whole(CHAT, "stop"), **counts}).usage == Usage(input=10, output=5)


def test_a_missing_count_is_the_rest_of_the_total() -> None:
    counts = {"usage": {"completion_tokens": 5, "total_tokens": 40}}
    assert plain(CHAT, {**whole(CHAT, "stop"), **counts}).usage == Usage(input=35, output=5, estimated=True)


@pytest.mark.parametrize(
    ("dialect", "counts"),
    [
        (
            CHAT,
            {
                "prompt_tokens": 60,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
            },
        ),
        (
            RESPONSES,
            {
                "input_tokens": 60,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
            },
        ),
        (
            ANTHROPIC,
            {
                "input_tokens": 10,
                "output_tokens": 4,
                "cache_read_input_tokens": 30,
                "cache_creation_input_tokens": 20,
            },
        ),
    ],
)
def test_what_was_written_into_the_cache_of_the_provider_is_told(dialect: Dialect, counts: Any) -> None:
    answer = plain(dialect, {**whole(dialect, "stop"), "usage": counts})
    assert answer.usage == Usage(input=60, output=4, cached=30, written=20)


@pytest.mark.parametrize(
    ("dialect", "counts"),
    [
        (
            CHAT,
            {
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 400},
            },
        ),
        (
            RESPONSES,
            {
                "input_tokens": 10,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 30},
                "output_tokens_details": {"reasoning_tokens": 400},
            },
        ),
    ],
)
def test_a_part_that_is_above_its_whole_was_counted_apart(dialect: Dialect, counts: Any) -> None:
    answer = plain(dialect, {**whole(dialect, "stop"), "usage": counts})
    assert answer.usage == Usage(input=40, output=404, cached=30, reasoning=400, estimated=True)


def test_ollama_tells_what_a_prompt_that_it_cut_has_cost() -> None:
    completion = Completion(content="4", usage=USED)
    with pytest.raises(ModelError) as caught:
        OLLAMA.check(completion, ModelRequest.of("word " * 5_000))
    assert caught.value.usage == USED


def test_the_stop_sequence_that_ended_an_answer_is_known() -> None:
    end = {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    *text, last, _ = pieces(ANTHROPIC, None)
    answers = (
        plain(ANTHROPIC, {**whole(ANTHROPIC, None), **end}),
        streamed(ANTHROPIC, *text, {**last, "delta": end}),
    )

    assert [(each.finish_reason, each.stop_sequence) for each in answers] == [("stop", "END")] * 2
