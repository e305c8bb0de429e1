"""What the service bears on a real socket: sizes, times, slow clients, broken requests, other origins."""

from __future__ import annotations

import base64
import json
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from helpers.services import CHAT, chat, client_of, service_of
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.service import server
from ultra.service.server import listen, serve
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.service.core import Service

PATIENCE = 20.0
KEY = "sk-ultra-of-alice"
HEADERS = {"authorization": f"Bearer {KEY}"}


def keyed(**settings: object) -> Service:
    keys = (KeyConfig(name="alice", hash=hash_of(KEY)),)
    return service_of(
        {"a": FakeModel("Paris.")},
        settings=ServeConfig(keys=keys, **settings),  # type: ignore[arg-type]
    )


@asynccontextmanager
async def really_serving(service: Service) -> AsyncIterator[str]:
    """Serve it as the command does, with its times and sizes; yields the address."""
    send, receive = trio.open_memory_channel[int](1)
    urls: list[str] = []
    announced = trio.Event()

    def announce(url: str) -> None:
        urls.append(url)
        announced.set()

    async def run() -> None:
        await serve(service, listen("127.0.0.1", 0), announce=announce, signals=aiter(receive))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await announced.wait()
        yield urls[0]
        await send.send(15)


async def connected(url: str) -> trio.SocketStream:
    host, _, port = url.removeprefix("http://").partition(":")
    return await trio.open_tcp_stream(host, int(port))


async def all_of(stream: trio.SocketStream) -> bytes:
    """What comes until the connection is closed."""
    data = b""
    with trio.fail_after(PATIENCE):
        try:
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass
    return data


async def test_a_body_is_not_read_of_somebody_without_a_key() -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n".encode()
    async with really_serving(keyed()) as url, await connected(url) as stream:
        await stream.send_all(head)
        with trio.fail_after(PATIENCE):
            answer = bytes(await stream.receive_some())

    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_each_limit_of_a_request_is_told_in_the_shape_of_the_protocol() -> None:
    image = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 3000).decode()
    picture = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "What?"}]
    body = {"model": "a", "messages": [{"role": "user", "content": picture}]}
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    service = keyed(max_body=100_000, max_image=2000)
    async with (
        really_serving(service) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, headers=HEADERS) as client,
    ):
        answers = {
            "request_too_large": await client.post(CHAT, content=b" " * 100_001),
            "headers_too_large": await client.post(CHAT, json=chat("a"), headers={"x": "y" * 2**16}),
            "image_too_large": await client.post(CHAT, json=body),
            "invalid_json": await client.post(CHAT, json=chat("a", metadata=deep)),
            "unsupported_media_type": await client.post(CHAT, content=b"{}", headers={"content-type": "a/b"}),
        }
        native = await client.post("/v1/runs", json={"prompt": body["messages"], "models": ["a"]})
        fine = await client.post(CHAT, json=chat("a"))

    assert {code: answer.json()["error"]["code"] for code, answer in answers.items()} == {
        code: code for code in answers
    }
    assert [answer.status_code for answer in answers.values()] == [413, 431, 413, 400, 415]
    assert native.json()["error"]["code"] == "image_too_large"
    assert fine.status_code == 200


async def test_headers_beyond_all_measure_end_the_connection() -> None:
    async with really_serving(keyed()) as url, await connected(url) as stream:
        with trio.fail_after(PATIENCE):
            try:
                await stream.send_all(b"GET / HTTP/1.1\r\n" + b"x-many: " + b"y" * 2**20)
            except trio.BrokenResourceError:
                return
            answer = await all_of(stream)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_clients_that_send_slowly_are_disconnected_and_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_HEAD_TIMEOUT", 0.5)
    service = keyed(body_timeout=0.5)
    body_wanted = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n"
    )
    ended: list[bytes] = []

    async def dribble(url: str, start: bytes) -> None:
        async with await connected(url) as stream, trio.open_nursery() as nursery:
            await stream.send_all(start)
            nursery.start_soon(drip, stream)
            ended.append(await all_of(stream))
            nursery.cancel_scope.cancel()

    async def drip(stream: trio.SocketStream) -> None:
        while True:
            await trio.sleep(0.05)
            try:
                await stream.send_all(b"x")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async with (
        really_serving(service) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, headers=HEADERS) as client,
    ):
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    start = b"POST /v1/chat" if number % 2 else body_wanted.encode()
                    nursery.start_soon(dribble, url, start)
                answer = await client.post(CHAT, json=chat("a"), timeout=PATIENCE)
                assert answer.status_code == 200

    assert len(ended) == 40
    assert sum(b" 408 " in each for each in ended) >= 20


@pytest.mark.parametrize("streams", [False, True])
async def test_a_connection_that_is_idle_after_its_answers_is_closed(
    monkeypatch: pytest.MonkeyPatch, *, streams: bool
) -> None:
    monkeypatch.setattr(server, "_HEAD_TIMEOUT", 0.2)
    body = json.dumps(chat("a", stream=streams)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    async with really_serving(keyed()) as url, trio.open_nursery() as nursery:

        async def ask_and_wait() -> None:
            async with await connected(url) as stream:
                await stream.send_all(head.encode() + body)
                answer = await all_of(stream)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.endswith(b"0\r\n\r\n" if streams else b"}")

        for _ in range(20):
            nursery.start_soon(ask_and_wait)


async def test_a_flood_of_broken_requests_stops_nothing() -> None:
    seeded = random.Random(14)
    whole = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 30\r\n\r\n"
    broken = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        whole.encode() + b"{" * 30,
        whole.encode() + b"\xff" * 30,
        whole.encode() + b"{}",
    ]

    async def send(url: str, data: bytes) -> None:
        try:
            async with await connected(url) as stream:
                await stream.send_all(data)
                if seeded.random() < 0.5:
                    with trio.move_on_after(0.2):
                        await stream.receive_some()
        except (OSError, trio.BrokenResourceError):
            pass

    service = keyed(body_timeout=1.0)
    async with (
        really_serving(service) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, headers=HEADERS) as client,
    ):
        with trio.fail_after(PATIENCE):
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    for _ in range(60):
                        data = seeded.choice(broken)
                        if seeded.random() < 0.3:
                            data = seeded.randbytes(200)
                        nursery.start_soon(send, url, data)
                answer = await client.post(CHAT, json=chat("a"), timeout=PATIENCE)
                assert answer.status_code == 200

    assert service._active == 0


async def test_pages_of_other_origins_may_ask_only_where_the_settings_name_them() -> None:
    page = {"origin": "https://chat.example.org"}
    preflight = {**page, "access-control-request-method": "POST", "access-control-request-headers": "x"}
    async with client_of(keyed()) as client:
        refused = await client.options(CHAT, headers=preflight)
        plain = await client.post(CHAT, json=chat("a"), headers={**HEADERS, **page})
    async with client_of(keyed(cors_origins=("https://chat.example.org",))) as client:
        allowed = await client.options(CHAT, headers=preflight)
        other = await client.options(CHAT, headers={**preflight, "origin": "https://evil.example"})
        answer = await client.post(CHAT, json=chat("a"), headers={**HEADERS, **page})
        without = await client.post(CHAT, json=chat("a"), headers=page)

    assert refused.status_code == 405
    assert "access-control-allow-origin" not in {*refused.headers, *plain.headers}
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers
    assert (answer.status_code, without.status_code) == (200, 401)
    assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"


async def test_without_keys_a_page_that_is_named_may_ask_and_no_other() -> None:
    settings = ServeConfig(cors_origins=("https://chat.example.org",))
    async with client_of(service_of({"a": FakeModel("Paris.")}, settings=settings)) as client:
        named = await client.post(CHAT, json=chat("a"), headers={"origin": "https://chat.example.org"})
        other = await client.post(CHAT, json=chat("a"), headers={"origin": "https://evil.example"})

    assert (named.status_code, other.status_code) == (200, 403)
