"""The protocols of the service side by side: one question, asked in each, and what it came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from helpers.services import CHAT, Answer, text_of

RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
PATHS: Final = (CHAT, RESPONSES, MESSAGES)

GOLDEN: Final = Path(__file__).parent.parent / "service" / "golden"

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def question(path: str, model: str = "council", asks: str = "Which city?", **more: Any) -> dict[str, Any]:
    """The body of a request, by this protocol."""
    if path == RESPONSES:
        return {"model": model, "input": asks, **more}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": asks}], **more}
    return {"max_tokens": 100, **body} if path == MESSAGES else body


def said(path: str, answer: Answer) -> str:
    """The text of an answer, whole or streamed."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        body = answer.json
        if path == CHAT:
            return str(body["choices"][0]["message"]["content"])
        if path == MESSAGES:
            return "".join(block["text"] for block in body["content"] if block["type"] == "text")
        return "".join(
            part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]
        )
    if path == CHAT:
        return text_of(answer.chunks)
    events = events_of(answer)
    if path == MESSAGES:
        return "".join(
            each["delta"].get("text", "") for each in events if each["type"] == "content_block_delta"
        )
    return "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream whose events have names; each has the name that its data tell."""
    events: list[dict[str, Any]] = []
    for frame in answer.body.decode().split("\n\n"):
        if not frame or frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def told_error(path: str, answer: Answer) -> dict[str, Any]:
    """The error that ends a stream, in the form of its protocol."""
    if path == CHAT:
        error: dict[str, Any] = answer.chunks[-1]["error"]
        return error
    events = events_of(answer)
    error = next(each["error"] for each in events if each["type"] == "error")
    if path == RESPONSES:
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["status"] == "failed"
        assert events[-1]["response"]["error"]["code"] == error["code"]
    else:
        assert events[-1]["type"] == "error"
    return error
