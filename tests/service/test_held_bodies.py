"""A stream goes on for long; the body of its request, which may be long, is not kept so long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.service_protocols import PATHS, question
from helpers.services import service_of
from ultra.service.http import Request
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_keeps_no_copy_of_the_body_of_its_request(
    autojump_clock: MockClock, path: str
) -> None:
    del autojump_clock
    gone: list[str] = []

    class Body(bytes):
        def __del__(self) -> None:
            gone.append("gone")

    model = FakeModel(FakeAnswer("to", "ken", "s"), piece_seconds=1.0)
    service = service_of({"one": model})
    data = json.dumps(question(path, "one", stream=True)).encode()
    async with service.running():
        request = Request(method="POST", path=path, body=Body(data), peer="127.0.0.1")
        answering = service.answering(request)
        del request
        async with answering as reply:
            body: Any = reply.body
            pieces = [await anext(body)]
            assert gone == ["gone"]
            pieces += [piece async for piece in body]

    assert reply.status == 200
    assert b"ken" in b"".join(pieces)
