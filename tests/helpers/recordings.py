"""The recorded exchanges beside the repository, and what they say a client should give."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from helpers.paths import NO_RECORDINGS, WIRE


@dataclass(frozen=True)
class Recording:
    name: str
    provider: str
    dialect: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    expect: dict[str, Any]
    streamed: bool


def recordings() -> list[Any]:
    """Every exchange, as parameters of a test; one skipped parameter where there are none."""
    found = [pytest.param(each, id=each.name) for each in load()]
    absent = pytest.mark.skip(reason=NO_RECORDINGS)
    return found or [pytest.param(None, id="absent", marks=absent)]


def load() -> list[Recording]:
    paths = sorted([*WIRE.glob("recorded/*.json"), *WIRE.glob("reported/*.json")])
    return [_read(json.loads(path.read_text())) for path in paths if path.name != "index.json"]


def _read(exchange: dict[str, Any]) -> Recording:
    request, response = exchange["request"], exchange["response"]
    headers = [(name, value) for name, value in response["headers"]]
    asked = json.loads(request["body"]) if request.get("body") else {}
    content_type = dict(headers).get("content-type", "")
    streamed = (
        bool(asked.get("stream"))
        or "streamGenerateContent" in request["path"]
        or content_type.startswith(("text/event-stream", "application/x-ndjson"))
    )
    return Recording(
        name=exchange["id"],
        provider=exchange["provider"],
        dialect=exchange["dialect"],
        status=response["status"],
        headers=headers,
        body=response["body"].encode(),
        expect=exchange["expect"],
        streamed=streamed,
    )
