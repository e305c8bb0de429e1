"""How connections of HTTP/1 end: when the client asks for it, and when it is silent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.service_protocols import PATHS, question
from helpers.service_sockets import all_of, connected, really_serving
from helpers.services import service_of
from ultra.config.serving import ServeConfig
from ultra.testing import FakeModel

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def post(path: str, version: str, head: str, **more: Any) -> bytes:
    body = json.dumps(question(path, "a", **more)).encode()
    lines = f"POST {path} HTTP/{version}\r\nhost: localhost\r\n{head}content-length: {len(body)}\r\n\r\n"
    return lines.encode() + body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("version", "head"), [("1.0", ""), ("1.1", "connection: close\r\n")])
async def test_a_connection_that_the_client_wants_closed_is_closed_behind_the_reply(
    path: str, version: str, head: str, *, stream: bool
) -> None:
    """So do proxies such as nginx ask; of HTTP/1.0, a stream has no other end."""
    service = service_of({"a": FakeModel("It is Paris.")})
    async with really_serving(service) as url, await connected(url) as connection:
        await connection.send_all(post(path, version, head, stream=stream))
        answer = await all_of(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Paris" in answer


async def test_a_connection_that_is_idle_behind_a_reply_is_closed() -> None:
    service = service_of({"a": FakeModel("Paris.")}, settings=ServeConfig(idle_timeout=0.1))
    async with really_serving(service) as url:
        async with await connected(url) as connection:
            await connection.send_all(HEALTH)
            whole = await all_of(connection)
        async with await connected(url) as connection:
            await connection.send_all(post(PATHS[0], "1.1", "", stream=True))
            streamed = await all_of(connection)

    assert whole.endswith(b'{"status":"ok"}')
    assert streamed.endswith(b"0\r\n\r\n")


async def test_requests_behind_each_other_on_a_connection_are_answered_in_their_order() -> None:
    async with (
        really_serving(service_of({"a": FakeModel("Paris.")})) as url,
        await connected(url) as connection,
    ):
        first = post(PATHS[0], "1.1", "", stream=True)
        await connection.send_all(first + HEALTH + post(PATHS[2], "1.1", "connection: close\r\n"))
        answer = await all_of(connection)

    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.index(b"[DONE]") < answer.index(b'"ok"') < answer.index(b'"end_turn"')


async def test_while_the_service_drains_no_connection_is_kept_for_the_next_request() -> None:
    """The next one would be refused here, too, and a client that connects again finds another replica."""
    service = service_of({"a": FakeModel("Paris.")})
    async with really_serving(service) as url:
        service.is_draining = True
        answers: list[bytes] = []
        for request in (post(PATHS[0], "1.1", ""), HEALTH.replace(b"healthz", b"readyz")):
            async with await connected(url) as connection:
                await connection.send_all(request)
                answers.append(await all_of(connection))

    assert [each.partition(b"\r\n")[0].strip() for each in answers] == [b"HTTP/1.1 503", b"HTTP/1.1 503"]
    assert [each.lower().count(b"connection: close\r\n") for each in answers] == [1, 1]


def test_a_connection_may_be_idle_for_longer_than_in_load_balancers() -> None:
    """Else one of theirs, of 60 seconds, sends a request on a connection that is just being closed."""
    assert ServeConfig().idle_timeout > 60
