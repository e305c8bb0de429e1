"""Checks that a client gives what a recording expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ultra.errors import ModelError
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from helpers.recordings import Recording
    from ultra.clients.http.client import HTTPClient

KEY = "sk-secret-key"

FRAMINGS = [
    pytest.param(size, chunked, id=f"{size or 'whole'}-{'chunked' if chunked else 'length'}")
    for size, chunked in ((None, False), (None, True), (7, False), (1, True))
]
"""How an answer is cut into pieces, and whether as chunks of HTTP: each of all, and not each with each."""

FINISHES = {  # for the exchanges that leave the normalised name out
    "stop": "stop",
    "end_turn": "stop",
    "content_filter": "content_filter",
    "refusal": "refusal",
}


async def check(client: HTTPClient, recording: Recording) -> None:
    expect = recording.expect
    texts: list[str] = []
    last: Completion | None = None
    error: ModelError | None = None
    try:
        if recording.streamed:
            async for piece in client.stream("Hello"):
                if isinstance(piece, Completion):
                    last = piece
                else:
                    assert last is None, "text after the completion"
                    texts.append(piece)
        else:
            last = await client.generate("Hello")
            texts.append(last.content)
    except ModelError as raised:
        error = raised
    if "error_message" in expect:
        assert last is None
        assert error is not None
        check_error(error, expect)
        assert "".join(texts) == expect.get("partial_text", "")
    else:
        assert error is None
        assert last is not None
        check_completion(last, expect)
        assert "".join(texts) == expect["text"]


def check_completion(completion: Completion, expect: dict[str, Any]) -> None:
    usage = completion.usage or Usage()
    assert completion.content == expect["text"]
    assert usage.input == expect.get("input_tokens_total", expect["input_tokens"])
    assert usage.output == (expect.get("output_tokens_total", expect["output_tokens"]))
    assert completion.finish_reason == expect.get("finish_normalized", FINISHES.get(expect["finish_reason"]))
    if "cached_tokens" in expect:
        assert usage.cached == expect["cached_tokens"]
    if "reasoning_tokens" in expect:
        assert usage.reasoning == expect["reasoning_tokens"]
    assert completion.reasoning == expect.get("reasoning_text")
    if "refusal_text" in expect:
        assert completion.refusal == expect["refusal_text"]


def check_error(error: ModelError, expect: dict[str, Any]) -> None:
    assert error.message == expect["error_message"]
    assert error.status == expect["status"]
    assert error.retryable == expect["retryable"]
    assert error.retry_after == wait(expect.get("retry_hint", {}))
    assert KEY not in repr(error)


def wait(hint: dict[str, Any]) -> float | None:
    waits = [
        float(hint.get("retry-after-ms", 0)) / 1000,
        float(hint.get("retry-after", 0)),
        hint.get("RetryInfo.retryDelay_s", 0.0),
    ]
    return next((each for each in waits if each), None)
