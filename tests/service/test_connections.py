"""How connections of HTTP/1 end: when the client asks for it, and when it is silent."""

from __future__ import annotations

import json
from typing import Any

import h2.connection
import h2.events
import pytest
import trio

from helpers.service_protocols import PATHS, question
from helpers.service_sockets import PATIENCE, all_of, connected, really_serving
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


# --- HTTP/2, which Hypercorn speaks with those who begin with it -------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def test_a_client_that_still_sends_when_it_is_refused_ends_its_own_connection_alone() -> None:
    async with really_serving(service_of({"a": FakeModel("Paris.")})) as url:
        async with await connected(url) as connection:
            client = h2.connection.H2Connection()
            client.initiate_connection()
            head = {":method": "POST", ":path": "/nowhere", ":scheme": "http", ":authority": "localhost"}
            client.send_headers(1, [*head.items()])
            events: list[h2.events.Event] = []
            with trio.fail_after(PATIENCE):
                while not any(isinstance(event, h2.events.StreamEnded) for event in events):
                    await connection.send_all(client.data_to_send())
                    events += client.receive_data(await connection.receive_some())
            client.send_data(1, b"{}")
            await connection.send_all(client.data_to_send())
            await all_of(connection)
        async with await connected(url) as connection:
            await connection.send_all(HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            answer = await all_of(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begins", [PREFACE, PREFACE[:18], PREFACE + b"\0\0\0\4\0\0\0\0\0"])
async def test_a_connection_on_which_nothing_is_asked_is_closed_in_http_2_too(begins: bytes) -> None:
    service = service_of({"a": FakeModel("Paris.")}, settings=ServeConfig(idle_timeout=0.1))
    async with really_serving(service) as url, await connected(url) as connection:
        await connection.send_all(begins)
        told = await all_of(connection)

    assert told  # the settings of the server
