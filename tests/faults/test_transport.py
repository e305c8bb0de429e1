"""The faulty transport, around one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ultra.faults import FaultPlan, FaultyTransport

if TYPE_CHECKING:
    from trio.testing import MockClock

URL = "https://api.example/v1/chat"
EVENTS = [b'data: {"text": "one"}\n\n', b'data: {"text": "two"}\n\n', b"data: [DONE]\n\n"]


class Events(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in EVENTS:
            yield event

    async def aclose(self) -> None:
        self.closed = True


class Server:
    """Counts requests; `/stream` gives events, all else a text."""

    def __init__(self) -> None:
        self.requests = 0
        self.body = Events()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if request.url.path.endswith("stream"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=self.body)
        return httpx.Response(200, text="0123456789")


def _client(plan: FaultPlan, server: Server | None = None, timeout: float = 30.0) -> httpx.AsyncClient:
    inner = httpx.MockTransport(server or Server())
    return httpx.AsyncClient(transport=FaultyTransport(plan, inner), timeout=timeout)


async def _stream(plan: FaultPlan) -> bytes:
    async with _client(plan) as client, client.stream("GET", "https://api.example/stream") as response:
        return b"".join([piece async for piece in response.aiter_raw()])


async def test_without_a_rule_that_matches_nothing_is_changed() -> None:
    plan = FaultPlan().http_status("https://other.example/*")
    async with _client(plan) as client:
        response = await client.get(URL)

    assert (response.status_code, response.text) == (200, "0123456789")
    assert plan.counts == {"http_status": 0}


async def test_a_status_takes_the_place_of_the_server() -> None:
    server = Server()
    plan = FaultPlan().http_status("*/v1/*", 529, retry_after=1.5, body=b'{"error": {}}', times=1)
    async with _client(plan, server) as client:
        first, second = await client.get(URL), await client.get(URL)

    assert (first.status_code, first.headers["retry-after"], first.json()) == (529, "1.5", {"error": {}})
    assert (second.status_code, server.requests) == (200, 1)
    assert [injection.where for injection in plan.injections] == [URL]


async def test_a_connection_can_be_refused() -> None:
    async with _client(FaultPlan().http_connect_error()) as client:
        with pytest.raises(httpx.ConnectError, match="refused"):
            await client.get(URL)


async def test_silence_lasts_as_long_as_the_read_timeout(autojump_clock: MockClock) -> None:
    async with _client(FaultPlan().http_read_timeout(), timeout=12.0) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL)

    assert trio.current_time() == 12.0


async def test_a_disconnect_comes_after_some_of_the_body() -> None:
    async with (
        _client(FaultPlan().http_disconnect(after_bytes=4)) as client,
        client.stream("GET", URL) as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"0123"
        with pytest.raises(httpx.RemoteProtocolError, match="closed"):
            await anext(pieces)


async def test_a_truncated_body_looks_like_a_whole_one() -> None:
    async with _client(FaultPlan().http_truncate(after_bytes=4)) as client:
        response = await client.get(URL)

    assert response.text == "0123"
    assert "content-length" not in response.headers


async def test_a_slow_body_takes_its_time(autojump_clock: MockClock) -> None:
    async with _client(FaultPlan().http_slow_body(seconds=2.0, piece=3)) as client:
        response = await client.get(URL)

    assert response.text == "0123456789"
    assert trio.current_time() == 8.0


async def test_an_event_stream_can_have_half_an_event() -> None:
    body = await _stream(FaultPlan().http_malformed_events(after_events=1))

    assert body == b"".join([EVENTS[0], b'data: {"tex\n\n', *EVENTS[1:]])


async def test_an_event_stream_can_end_in_an_error() -> None:
    body = await _stream(FaultPlan().http_stream_error(after_events=1, status=503))

    assert body.startswith(EVENTS[0] + b'data: {"error"')
    assert b"503" in body
    assert b"[DONE]" not in body


async def test_an_event_stream_can_end_without_its_last_events() -> None:
    assert await _stream(FaultPlan().http_truncate(after_bytes=len(EVENTS[0]))) == EVENTS[0]


async def test_the_content_type_can_be_wrong() -> None:
    async with _client(FaultPlan().http_content_type(value="text/html")) as client:
        response = await client.get(URL)

    assert response.headers["content-type"] == "text/html"
    assert response.text == "0123456789"


async def test_a_body_can_be_huge() -> None:
    async with _client(FaultPlan().http_huge_body(size=200_000)) as client:
        response = await client.get(URL)

    assert len(response.content) == 200_000


async def test_faults_of_the_body_apply_one_after_the_other(autojump_clock: MockClock) -> None:
    plan = FaultPlan().http_truncate(after_bytes=4).http_slow_body(seconds=1.0, piece=2)
    async with _client(plan) as client:
        response = await client.get(URL)

    assert response.text == "0123"
    assert trio.current_time() == 2.0


async def test_closing_the_response_closes_the_one_inside() -> None:
    server = Server()
    plan = FaultPlan().http_truncate(after_bytes=1)
    async with _client(plan, server) as client, client.stream("GET", "https://api.example/stream"):
        pass

    assert server.body.closed


async def test_what_may_be_secret_in_a_url_is_matched_without_and_recorded_nowhere() -> None:
    plan = FaultPlan().http_status("*/v1/chat", 429, times=1).http_status("*?key=*", 500)
    async with _client(plan) as client:
        statuses = [
            (await client.get("https://me:password@api.example/v1/chat?key=s3cret")).status_code
            for _ in range(2)
        ]

    assert statuses == [429, 500]
    assert [injection.where for injection in plan.injections] == [URL, URL]
    assert "s3cret" not in str(plan)
    assert "password" not in str(plan)


async def test_a_server_is_asked_not_to_pack_events_that_are_to_be_changed() -> None:
    asked: list[str] = []

    def server(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200)

    plan = FaultPlan().http_malformed_events("*/v1/chat")
    async with httpx.AsyncClient(transport=FaultyTransport(plan, httpx.MockTransport(server))) as client:
        await client.get(URL)
        await client.get("https://api.example/other")

    assert asked[0] == "identity" != asked[1]


async def test_an_answer_without_events_is_left_alone_and_not_counted() -> None:
    plan = FaultPlan().http_malformed_events().http_stream_error()
    async with _client(plan) as client:
        response = await client.get(URL)

    assert response.text == "0123456789"
    assert plan.counts == {"http_malformed_events": 0, "http_stream_error": 0}


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (FaultPlan().http_malformed_events(after_events=1), b'{"n": 1}\n{"n":\n{"n": 22}\n'),
        (
            FaultPlan().http_stream_error(after_events=1, status=429),
            b'{"n": 1}\n{"error": "injected by a fault plan: status 429"}\n',
        ),
    ],
)
async def test_lines_of_json_are_events_too(plan: FaultPlan, expected: bytes) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        headers = {"content-type": "application/x-ndjson; charset=utf-8"}
        return httpx.Response(200, headers=headers, content=b'{"n": 1}\n{"n": 22}\n')

    async with httpx.AsyncClient(transport=FaultyTransport(plan, httpx.MockTransport(server))) as client:
        assert (await client.get(URL)).content == expected


async def test_a_slow_body_ends_when_it_is_closed(autojump_clock: MockClock) -> None:
    plan = FaultPlan().http_slow_body(seconds=1.0, piece=1)
    async with _client(plan) as client, client.stream("GET", URL) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"0"
        await response.aclose()
        with pytest.raises(httpx.StreamClosed):
            await anext(pieces)

    assert trio.current_time() == 1.0
