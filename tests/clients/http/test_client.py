"""What every client over HTTP does with the network, shown on the OpenAI dialect."""

from __future__ import annotations

import gzip
import json
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from helpers.byte_server import Received, Server, events, fixed, head, serve
from ultra.clients import CallOptions, HTTPLimits, OpenAIClient
from ultra.clients.http.connections import _certificates
from ultra.clients.http.pools import ConnectionPool
from ultra.clients.wire.rate_limits import RateLimits
from ultra.errors import BadCall, ModelError
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

KEY = "sk-0123456789abcdef"
JSON = [("content-type", "application/json")]
EVENTS = [("content-type", "text/event-stream")]


def chunk(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


ANSWER = json.dumps({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}).encode()
STREAM = events(chunk("Hel"), chunk("lo"), chunk(finish="stop"), "[DONE]")


def client_of(server: Server, **limits: Any) -> OpenAIClient:
    base_url = f"{server.url}/v1"
    return OpenAIClient("m", provider="openai", base_url=base_url, api_key=KEY, limits=HTTPLimits(**limits))


def connections_of(client: OpenAIClient) -> list[object]:
    """What the client holds open in this trio run."""
    pool = client._connections._transports[trio.lowlevel.current_trio_token()]
    assert isinstance(pool, ConnectionPool)
    return [*pool.connections]


async def text_of(stream: AsyncIterator[str | Completion]) -> str:
    return "".join([piece async for piece in stream if isinstance(piece, str)])


async def failure_of(client: OpenAIClient, *, stream: bool = False) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await (text_of(client.stream("Hi")) if stream else client.generate("Hi"))
    await client.aclose()
    return caught.value


# --- connections ---------------------------------------------------------------------------------


async def test_calls_after_each_other_share_a_connection(nursery: trio.Nursery) -> None:
    async def answer(stream: trio.SocketStream, request: Received) -> None:
        wanted = (
            fixed(200, EVENTS, STREAM, chunked=True)
            if request.json.get("stream")
            else fixed(200, JSON, ANSWER)
        )
        await wanted(stream, request)

    server = await serve(nursery, answer)
    client = client_of(server)
    await client.generate("Hi")
    assert await text_of(client.stream("Hi")) == "Hello"
    await client.generate("Hi")
    await client.aclose()
    assert (len(server.requests), server.connections) == (3, 1)


async def test_a_closed_client_opens_again_when_called(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    client = client_of(server)
    for _ in range(2):
        assert (await client.generate("Hi")).content == "Hello"
        await client.aclose()
    await client.aclose()
    assert server.connections == 2


class Answering(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(200, content=ANSWER)


def test_a_client_that_nobody_closed_can_be_used_by_the_next_trio_run() -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://x/v1", transport=Answering())
    for _ in range(3):
        assert trio.run(client.generate, "Hi").content == "Hello"
    assert len(client._connections._transports) == 1


async def test_closing_the_client_fails_its_calls_in_flight(nursery: trio.Nursery) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1")

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(200, JSON, ("content-length", "100")))
        await client.aclose()
        await trio.sleep_forever()

    server = await serve(nursery, answer)
    client.dialect.base_url = f"{server.url}/v1"
    error = await failure_of(client)
    assert (error.kind, error.retryable) == ("connection", True)


async def test_a_refused_connection_may_be_tried_again() -> None:
    error = await failure_of(OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1"))
    assert (error.kind, error.retryable, error.status) == ("connection", True, None)
    assert "cannot connect" in error.message


async def test_a_server_that_speaks_no_tls_is_a_connection_error(nursery: trio.Nursery) -> None:
    async def speak_plainly(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listeners = await nursery.start(partial(trio.serve_tcp, speak_plainly, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    client = OpenAIClient("m", provider="openai", base_url=f"https://127.0.0.1:{port}/v1")
    assert (await failure_of(client)).kind == "connection"


async def test_the_proxy_of_the_environment_is_used(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    client = OpenAIClient("m", provider="openai", base_url="http://model.example/v1")
    assert (await client.generate("Hi")).content == "Hello"
    await client.aclose()
    assert server.requests[0].target == "http://model.example/v1/chat/completions"


async def test_a_redirect_is_not_followed(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(307, [("location", "/elsewhere?key=1")], b""))
    error = await failure_of(client_of(server))
    assert (error.kind, error.retryable, error.status) == ("bad_request", False, 307)
    assert "redirects to '/elsewhere', which is not followed" in error.message
    assert len(server.requests) == 1


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_server_is_left_after_the_read_timeout(nursery: trio.Nursery, *, stream: bool) -> None:
    async def answer(connection: trio.SocketStream, request: Received) -> None:
        await connection.send_all(head(200, EVENTS if stream else JSON, ("content-length", "100")))
        await trio.sleep_forever()

    server = await serve(nursery, answer)
    error = await failure_of(client_of(server, read_timeout=0.02), stream=stream)
    assert (error.kind, error.retryable) == ("timeout", True)
    assert "silent for read_timeout (0.02 s)" in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_never_ends_is_left_after_the_whole_timeout(
    nursery: trio.Nursery, *, stream: bool
) -> None:
    async def answer(connection: trio.SocketStream, request: Received) -> None:
        await connection.send_all(head(200, EVENTS if stream else JSON, ("content-length", "100000")))
        while True:
            await connection.send_all(b": still here\n")
            await trio.sleep(0.005)

    server = await serve(nursery, answer)
    error = await failure_of(client_of(server, timeout=0.05), stream=stream)
    assert (error.kind, error.retryable) == ("timeout", True)
    assert "within timeout (0.05 s)" in error.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_without_end_is_bounded(nursery: trio.Nursery, *, stream: bool, packed: bool) -> None:
    body = b": x\n" * 100_000
    headers = [*(EVENTS if stream else JSON), *([("content-encoding", "gzip")] if packed else [])]
    server = await serve(nursery, fixed(200, headers, gzip.compress(body) if packed else body))
    error = await failure_of(client_of(server, max_response_bytes=1000), stream=stream)
    assert (error.kind, error.retryable) == ("protocol", False)
    assert "longer than max_response_bytes (1000 bytes)" in error.message


async def test_a_packed_answer_is_unpacked(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, [*JSON, ("content-encoding", "gzip")], gzip.compress(ANSWER)))
    client = client_of(server)
    assert (await client.generate("Hi")).content == "Hello"
    await client.aclose()


async def test_what_cannot_be_unpacked_is_a_protocol_error(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, [*JSON, ("content-encoding", "gzip")], ANSWER))
    assert (await failure_of(client_of(server))).kind == "protocol"


# --- streams -------------------------------------------------------------------------------------


async def test_pieces_arrive_while_the_server_still_writes(nursery: trio.Nursery) -> None:
    seen = trio.Event()

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(200, EVENTS, ("connection", "close")) + events(chunk("Hel")))
        await seen.wait()
        await stream.send_all(events(chunk("lo"), chunk(finish="stop")))
        await stream.aclose()

    client = client_of(await serve(nursery, answer))
    stream = client.stream("Hi")
    assert await anext(stream) == "Hel"
    seen.set()
    assert await anext(stream) == "lo"
    completion = await anext(stream)
    assert isinstance(completion, Completion)
    assert (completion.content, completion.finish_reason) == ("Hello", "stop")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await client.aclose()


async def hangs_after_text(stream: trio.SocketStream, request: Received) -> None:
    await stream.send_all(head(200, EVENTS, ("content-length", "1000")) + events(chunk("Hel"), chunk("lo")))
    assert await stream.receive_some() == b""


async def test_a_stream_that_is_left_closes_its_connection(nursery: trio.Nursery) -> None:
    client = client_of(await serve(nursery, hangs_after_text))
    async with client.stream("Hi") as stream:
        assert await anext(stream) == "Hello"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert connections_of(client) == []
    await client.aclose()


async def test_a_stream_that_was_never_begun_sends_nothing(nursery: trio.Nursery) -> None:
    server = await serve(nursery, hangs_after_text)
    client = client_of(server)
    await client.stream("Hi").aclose()
    await client.aclose()
    assert server.requests == []


async def test_a_cancelled_stream_closes_its_connection(nursery: trio.Nursery) -> None:
    client = client_of(await serve(nursery, hangs_after_text))
    stream = client.stream("Hi")
    assert await anext(stream) == "Hello"
    with trio.move_on_after(0.02) as scope:
        await anext(stream)
    assert scope.cancelled_caught
    assert connections_of(client) == []
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await client.aclose()


async def test_a_cancelled_call_closes_its_connection(nursery: trio.Nursery) -> None:
    called = trio.Event()

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        called.set()
        assert await stream.receive_some() == b""

    client = client_of(await serve(nursery, answer))
    async with trio.open_nursery() as calls:
        calls.start_soon(client.generate, "Hi")
        await called.wait()
        calls.cancel_scope.cancel()
    assert connections_of(client) == []
    await client.aclose()


class GoesOnForEver(httpx.AsyncByteStream):
    """A body that sends white space, closed or not."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(1.0)
            yield b" "


async def test_an_answer_that_is_too_long_is_left_even_if_its_transport_goes_on(
    autojump_clock: MockClock,
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=GoesOnForEver()))
    client = OpenAIClient(
        "m",
        provider="openai",
        base_url="http://in.memory/v1",
        limits=HTTPLimits(max_response_bytes=2),
        transport=transport,
    )

    with trio.fail_after(60), pytest.raises(ModelError, match="longer than max_response_bytes"):
        await client.generate("Hi")

    assert trio.current_time() == 3.0
    await client.aclose()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_stream_cut_off_before_its_end_is_an_error(nursery: trio.Nursery, *, chunked: bool) -> None:
    cut = events(chunk("Hel"), chunk("lo"))
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", "1000")

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(
            head(200, EVENTS, framing) + (b"%x\r\n%b\r\n" % (len(cut), cut) if chunked else cut)
        )
        await stream.aclose()

    client = client_of(await serve(nursery, answer))
    stream = client.stream("Hi")
    assert await anext(stream) == "Hello"
    with pytest.raises(ModelError) as caught:
        await anext(stream)
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await client.aclose()


@pytest.mark.parametrize("ending", ["closes", "hangs"])
async def test_a_stream_that_the_network_breaks_after_its_finish_reason_is_whole(
    nursery: trio.Nursery, ending: str
) -> None:
    async def answer(stream: trio.SocketStream, request: Received) -> None:
        whole = events(chunk("Hello"), chunk(finish="stop"))
        await stream.send_all(head(200, EVENTS, ("content-length", "1000")) + whole)
        if ending == "closes":
            await stream.aclose()
        else:
            await stream.receive_some()

    client = client_of(await serve(nursery, answer), read_timeout=0.05)
    *texts, completion = [piece async for piece in client.stream("Hi")]
    assert texts == ["Hello"]
    assert isinstance(completion, Completion)
    assert completion.finish_reason == "stop"
    await client.aclose()


async def test_done_without_a_finish_reason_ends_an_answer(nursery: trio.Nursery) -> None:
    client = client_of(await serve(nursery, fixed(200, EVENTS, events(chunk("Hel"), "[DONE]"))))
    text, completion = [piece async for piece in client.stream("Hi")]
    assert text == "Hel"
    assert isinstance(completion, Completion)
    assert completion.finish_reason is None
    await client.aclose()


@pytest.mark.parametrize("sent", [[chunk("Hel")], ["[DONE]"]])
async def test_a_cut_and_an_end_without_an_answer_stay_errors(nursery: trio.Nursery, sent: list[Any]) -> None:
    server = await serve(nursery, fixed(200, EVENTS, events(*sent)))
    error = await failure_of(client_of(server), stream=True)
    assert (error.kind, error.retryable) == ("connection", True)


async def test_a_plain_answer_to_a_call_for_a_stream_is_read_too(nursery: trio.Nursery) -> None:
    client = client_of(await serve(nursery, fixed(200, JSON, ANSWER)))
    text, completion = [piece async for piece in client.stream("Hi")]
    assert text == "Hello"
    assert isinstance(completion, Completion)
    await client.aclose()


async def test_a_stream_that_does_not_end_after_done_is_not_waited_for(nursery: trio.Nursery) -> None:
    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(200, EVENTS, ("content-length", "9999")) + STREAM)
        await stream.receive_some()

    client = client_of(await serve(nursery, answer))
    with trio.fail_after(2):
        assert await text_of(client.stream("Hi")) == "Hello"
    await client.aclose()


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_the_provider_repeats_is_taken_out_of_the_error(
    nursery: trio.Nursery, *, stream: bool
) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    error = await failure_of(client_of(await serve(nursery, fixed(401, JSON, body))), stream=stream)
    assert error.message == "Incorrect API key provided: ***"
    assert KEY not in _shown(error)


async def test_a_token_in_a_header_of_the_call_is_a_secret_too(nursery: trio.Nursery) -> None:
    token = "eyJ0eXAiOiJKV1Qi"
    body = json.dumps({"error": {"message": f"expired: {token}"}}).encode()
    client = client_of(await serve(nursery, fixed(401, JSON, body)))
    client.options = client.options.override(extra_headers={"Authorization": f"Bearer {token}"})
    error = await failure_of(client)
    assert error.message == "expired: ***"
    assert token not in repr(client.options)


async def test_no_error_of_the_network_shows_the_key() -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1", api_key=KEY)
    assert KEY not in _shown(await failure_of(client))


def _shown(error: BaseException) -> str:
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(lines) + repr(error) + repr(vars(error))


# --- errors of httpx -----------------------------------------------------------------------------


class Broken(httpx.AsyncBaseTransport):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (httpx.ConnectTimeout("slow"), "timeout", True),
        (httpx.ReadTimeout("slow"), "timeout", True),
        (httpx.WriteTimeout("slow"), "timeout", True),
        (httpx.PoolTimeout("slow"), "timeout", True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "connection", False),
        (httpx.ConnectError("All connection attempts failed"), "connection", True),
        (httpx.ProxyError("403"), "connection", True),
        (httpx.ReadError(""), "connection", True),
        (httpx.RemoteProtocolError("Server disconnected"), "connection", True),
        (httpx.LocalProtocolError("Illegal header value"), "bad_request", False),
        (httpx.UnsupportedProtocol("gopher"), "bad_request", False),
        (httpx.InvalidURL("bad"), "bad_request", False),
        (OSError("disk"), "connection", True),
    ],
)
async def test_errors_of_httpx_become_model_errors(error: Exception, kind: str, *, retryable: bool) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://x/v1", transport=Broken(error))
    found = await failure_of(client)
    assert (found.kind, found.retryable, found.provider) == (kind, retryable, "openai")
    assert found.__context__ is None


class Slow(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(1000)
        raise AssertionError


async def test_the_whole_timeout_runs_on_trios_clock(autojump_clock: MockClock) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://x/v1", transport=Slow())
    began = trio.current_time()
    assert (await failure_of(client)).kind == "timeout"
    assert trio.current_time() - began == pytest.approx(600)


# --- requests ------------------------------------------------------------------------------------


async def test_extra_headers_and_body_win(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    client = client_of(server)
    headers = {"Authorization": "Bearer t", "X-A": "1"}
    await client.generate("Hi", extra_headers=headers, extra_body={"model": "n", "z": 1})
    await client.aclose()
    request = server.requests[0]
    assert (request.headers["authorization"], request.headers["x-a"]) == ("Bearer t", "1")
    assert (request.json["model"], request.json["z"]) == ("n", 1)


async def test_options_of_a_call_win_over_those_of_its_client(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    client = client_of(server)
    client.options = client.options.override(temperature=0.1, seed=1, extra_body={"a": 1, "b": 1})
    await client.generate("Hi", temperature=0.9, extra_body={"b": 2})
    await client.aclose()
    sent = server.requests[0].json
    assert (sent["temperature"], sent["seed"], sent["a"], sent["b"]) == (0.9, 1, 1, 2)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (b"Hi", {}, "the prompt must be text, not bytes"),
        ("Hi", {"temperature": "hot"}, "an option of the call is not allowed"),
        ("Hi \ud800", {}, "cannot be written as JSON"),
        ("Hi", {"extra_body": {"x": object()}}, "cannot be sent to a model"),
        ("Hi", {"temprature": 1}, "unknown option 'temprature'; the options of a call are: .*temperature"),
    ],
)
async def test_what_cannot_be_asked_is_a_bad_call(prompt: Any, options: dict[str, Any], message: str) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(BadCall, match=message):
        await client.generate(prompt, **options)
    with pytest.raises(BadCall, match=message):
        client.stream(prompt, **options)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"style": "formal"}, "unknown option 'style'; the options of a call are: system, temperature"),
        ({"system": "Be kind."}, "system is not an option of a request; give it as a message"),
        ({"extra_headers": {"x key": "1"}}, "the name 'x key' in extra_headers"),
    ],
)
async def test_an_option_of_a_request_that_there_is_not_is_a_bad_call(
    extra: dict[str, Any], message: str
) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1")
    request = ModelRequest.of("Hi", options=SamplingOptions(extra=extra))
    with pytest.raises(BadCall, match=message):
        await client.respond(request)
    with pytest.raises(BadCall, match=message):
        client.stream_response(request)


async def test_an_option_of_the_client_that_is_no_json_is_a_bad_call() -> None:
    options = CallOptions(extra_body={"x": object()})
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1", options=options)
    with pytest.raises(BadCall, match="cannot be written as JSON"):
        await client.generate("Hi")


async def test_the_limits_that_an_answer_tells_are_kept(nursery: trio.Nursery) -> None:
    headers = [*JSON, ("x-ratelimit-limit-req-minute", "60"), ("x-ratelimit-remaining-req-minute", "59")]
    client = client_of(await serve(nursery, fixed(200, headers, ANSWER)))
    assert client.rate_limits is None
    await client.generate("Hi")
    await client.aclose()
    assert client.rate_limits == RateLimits(requests_per_minute=60, requests_remaining=59)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTPS_PROXY", "htp://me:p@ssword@host", "Unknown scheme for proxy"),
        ("HTTPS_PROXY", "http://me:p@ssword@host:port", "Invalid port"),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE or SSL_CERT_DIR name cannot be read"),
    ],
)
async def test_an_environment_that_cannot_work_is_a_mistake_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    _certificates.cache_clear()
    monkeypatch.setenv(variable, value)
    client = OpenAIClient("m", provider="p", base_url="https://model.invalid/v1")
    with pytest.raises(ModelError, match=message) as caught:
        await client.generate("Hello")
    await client.aclose()
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)
    assert "ssword" not in str(caught.value)


async def test_without_the_environment_its_certificates_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    _certificates.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    client = OpenAIClient("m", provider="p", base_url="https://127.0.0.1:1/v1", trust_env=False)
    with pytest.raises(ModelError, match="cannot connect"):
        await client.generate("Hello")
    await client.aclose()
    _certificates.cache_clear()
