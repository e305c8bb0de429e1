"""The service behind Hypercorn on a real socket: clients, hang-ups, limits, the end."""

from __future__ import annotations

import json
from functools import partial
from math import inf
from typing import Any

import httpx
import openai
import pytest
import trio

from helpers.services import CHAT, chat, client_of, service_of, serving, text_of, until
from ultra import ModelError, Usage
from ultra.clients import connect
from ultra.config.serving import ServeConfig
from ultra.faults.provider import simulated_provider
from ultra.service.core import Service
from ultra.service.server import listen, serve
from ultra.service.setup import _Served
from ultra.testing import FakeAnswer, FakeModel

PATIENCE = 20.0


def two(**more: Any) -> dict[str, object]:
    return {"a": FakeModel("It is Paris.", usage=Usage(input=7, output=4), **more), "b": FakeModel("Lyon.")}


async def in_thread(service: Service, work: Any) -> Any:
    """Call ``work(client)`` in a thread, with the official client for a running service."""

    def call(url: str) -> Any:
        http: Any = httpx.Client(trust_env=False)  # the types of its own want a fork of httpx
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", http_client=http) as client:
            return work(client)

    async with serving(service) as url:
        return await trio.to_thread.run_sync(partial(call, url))


MESSAGES: Any = [{"role": "user", "content": "Which city?"}]


async def test_the_official_client_gets_a_whole_answer() -> None:
    def work(client: openai.OpenAI) -> Any:
        return client.chat.completions.create(model="council", messages=MESSAGES)

    answer = await in_thread(service_of(two()), work)

    assert answer.choices[0].message.content == "It is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "council"
    assert answer.usage.total_tokens > 20


async def test_the_official_client_gets_a_stream_with_usage() -> None:
    def work(client: openai.OpenAI) -> Any:
        options: Any = {"include_usage": True}
        return list(
            client.chat.completions.create(
                model="council", messages=MESSAGES, stream=True, stream_options=options
            )
        )

    chunks = await in_thread(service_of(two()), work)

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is Paris."
    assert chunks[-1].usage.total_tokens > 20


async def test_the_stream_helper_of_the_official_client_reads_the_extension_past() -> None:
    def work(client: openai.OpenAI) -> Any:
        with client.chat.completions.stream(
            model="council", messages=MESSAGES, extra_body={"ultra": {"expose": ["panel"]}}
        ) as stream:
            for _ in stream:
                pass
            return stream.get_final_completion()

    final = await in_thread(service_of(two()), work)

    assert final.choices[0].message.content == "It is Paris."


async def test_the_official_client_sees_the_extension_of_a_stream() -> None:
    def work(client: openai.OpenAI) -> Any:
        extra = {"ultra": {"expose": ["panel"]}}
        stream: Any = client.chat.completions.create(
            model="council", messages=MESSAGES, stream=True, extra_body=extra
        )
        return [chunk.ultra for chunk in stream if hasattr(chunk, "ultra")]

    (told,) = await in_thread(service_of(two()), work)

    assert [each["content"] for each in told["responses"]] == ["It is Paris.", "Lyon."]


async def test_the_official_async_client_works_on_trio_too() -> None:
    http: Any
    async with serving(service_of(two())) as url, httpx.AsyncClient(trust_env=False) as http:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", http_client=http)
        answer = await client.chat.completions.create(model="a", messages=MESSAGES)

    assert answer.choices[0].message.content == "It is Paris."


async def test_the_official_client_calls_a_failing_model_once() -> None:
    model = FakeModel().fail(ModelError("words", kind="server"), times=99)

    def work(client: openai.OpenAI) -> Any:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="a", messages=MESSAGES)
        return caught.value

    error = await in_thread(service_of({"a": model}), work)

    assert error.status_code == 502
    assert error.code == "model_failed"
    assert len(model.calls) == 1


async def test_the_official_client_raises_an_error_in_the_middle() -> None:
    model = FakeModel(FakeAnswer("It ", "is.", piece_seconds=0.05)).fail(after_pieces=1)

    def work(client: openai.OpenAI) -> Any:
        with pytest.raises(openai.APIError) as caught:
            list(client.chat.completions.create(model="a", messages=MESSAGES, stream=True))
        return caught.value

    error = await in_thread(service_of({"a": model}), work)

    assert error.code == "model_failed"
    assert error.type == "server_error"


async def test_the_official_client_lists_models_and_finds_one_with_a_slash() -> None:
    def work(client: openai.OpenAI) -> Any:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("nobody")
        names = [model.id for model in client.models.list()]
        return names, client.models.retrieve("local/a").id, caught.value

    names, one, missing = await in_thread(service_of({"local/a": FakeModel()}), work)

    assert names == ["council", "local/a"]
    assert one == "local/a"
    assert missing.code == "model_not_found"


async def test_a_provider_behind_it_is_told_the_depth_and_the_service_refuses_one() -> None:
    async with simulated_provider() as provider:
        orchestrator = _Served()
        url = provider.base_url("openai")
        orchestrator.register_model("gpt", connect("openai:any", base_url=url, api_key="any-key-will-do"))
        async with client_of(Service(orchestrator, ServeConfig())) as client:
            answer = await client.post(CHAT, json=chat("gpt"))
            refused = await client.post(CHAT, json=chat("gpt"), headers={"x-ultra-depth": "1"})

    assert answer.status_code == 200
    assert [request.headers["x-ultra-depth"] for request in provider.requests] == ["1"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "recursion_refused")


async def hung_up_on(url: str, body: object) -> trio.SocketStream:
    """A connection on which a request was sent, and whose answer is not read."""
    host, _, port = url.removeprefix("http://").partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n"
    await stream.send_all(head.encode() + data)
    return stream


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_cancels_the_calls_of_its_run(*, stream: bool) -> None:
    models = {"a": FakeModel(seconds=inf), "b": FakeModel(seconds=inf)}
    service = service_of(models, settings=ServeConfig(linger=0))
    async with serving(service) as url:
        connection = await hung_up_on(url, chat(stream=stream))
        for model in models.values():
            await model.asked.wait()
        await connection.aclose()
        await until(lambda: not any(model.running for model in models.values()))

    assert [model.cancelled for model in models.values()] == [1, 1]


async def raw_answer(url: str, *sent: bytes) -> bytes:
    """What is answered, at first, to these bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        for data in sent:
            await stream.send_all(data)
        with trio.fail_after(PATIENCE):
            return bytes(await stream.receive_some())


async def test_a_body_that_is_too_large_is_refused() -> None:
    service = service_of(two(), settings=ServeConfig(max_body=1000))
    chunked = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    async with serving(service) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        told = await client.post(CHAT, content=b"x" * 2000)
        untold = await raw_answer(url, chunked, *(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(11)))
        fine = await client.post(CHAT, json=chat("a"))

    assert [told.status_code, fine.status_code] == [413, 200]
    assert told.json()["error"]["code"] == "request_too_large"
    assert b" 413 " in untold


async def test_a_body_that_does_not_arrive_is_waited_for_only_so_long() -> None:
    service = service_of(two(), settings=ServeConfig(body_timeout=0.1))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n".encode()
    async with serving(service) as url:
        answer = await raw_answer(url, head)

    assert b" 408 " in answer


async def test_more_requests_than_are_allowed_at_once_are_refused_for_now() -> None:
    model = FakeModel("Paris.", gated=True)
    service = service_of({"a": model}, settings=ServeConfig(max_running=1))
    async with client_of(service) as client, trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.post, CHAT, json=chat("a")))
        await model.asked.wait()
        refused = await client.post(CHAT, json=chat("a", text="another"))
        model.gate.set()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_answers_have_the_name_of_their_request() -> None:
    async with client_of(service_of(two())) as client:
        own = await client.get("/v1/models", headers={"x-request-id": "mine-1"})
        strange = await client.get("/v1/models", headers={"x-request-id": "a b"})

    assert own.headers["x-request-id"] == "mine-1"
    assert strange.headers["x-request-id"].startswith("req_")


async def test_unknown_addresses_and_methods_are_told_in_the_shape_of_the_protocol() -> None:
    async with client_of(service_of(two())) as client:
        unknown = await client.get("/v1/nothing")
        wrong = await client.get(CHAT)
        others = [await client.options("/v1/messages"), await client.put("/v1/runs/abc")]
        head = await client.head("/healthz")

    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert [each.headers["allow"] for each in (wrong, *others)] == ["POST", "POST", "GET, HEAD, DELETE"]
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/chat/completions", CHAT),
        ("/v1/v1/messages", "/v1/messages"),
        ("//v1/responses", "/v1/responses"),
        ("/v1/chat/completions/", CHAT),
    ],
)
async def test_an_address_that_is_nearly_right_is_told_the_right_one(asked: str, meant: str) -> None:
    """Clients add /v1 to what they are given, or leave that to who gives it."""
    async with client_of(service_of(two())) as client:
        answer = await client.post(f"{str(client.base_url).rstrip('/')}{asked}", json={})

    assert answer.status_code == 404
    assert f"did you mean {meant!r}?" in answer.text


async def test_a_signal_lets_what_is_under_way_be_answered_and_refuses_the_rest() -> None:
    model = FakeModel(FakeAnswer("It ", "is ", "Paris."), gated=True)
    service = service_of({"a": model})
    send, receive = trio.open_memory_channel[int](9)
    urls: list[str] = []
    announced = trio.Event()

    def announce(url: str) -> None:
        urls.append(url)
        announced.set()

    answers: list[httpx.Response] = []

    async def ask_one(client: httpx.AsyncClient) -> None:
        answers.append(await client.post(CHAT, json=chat("a", stream=True)))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as serving_nursery:
            signals = aiter(receive)
            serving_nursery.start_soon(
                partial(serve, service, listen("127.0.0.1", 0), announce=announce, signals=signals)
            )
            await announced.wait()
            async with (
                httpx.AsyncClient(base_url=urls[0], trust_env=False, timeout=PATIENCE) as client,
                trio.open_nursery() as nursery,
            ):
                assert (await client.get("/readyz")).status_code == 200
                nursery.start_soon(ask_one, client)
                await model.asked.wait()
                await send.send(15)
                await until(lambda: service.is_draining)
                refused = await client.post(CHAT, json=chat("a", text="late"))
                ready = await client.get("/readyz")
                alive = await client.get("/healthz")
                model.gate.set()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (ready.status_code, alive.status_code) == (503, 200)
    chunks = [json.loads(line[6:]) for line in answers[0].text.split("\n") if line.startswith("data: {")]
    assert text_of(chunks) == "It is Paris."
    assert answers[0].text.endswith("data: [DONE]\n\n")


async def test_a_second_signal_ends_the_waiting() -> None:
    model = FakeModel(seconds=inf)
    service = service_of({"a": model})
    send, receive = trio.open_memory_channel[int](9)
    announced = trio.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        announced.set()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            signals = aiter(receive)
            nursery.start_soon(
                partial(serve, service, listen("127.0.0.1", 0), announce=announce, signals=signals)
            )
            await announced.wait()
            connection = await hung_up_on(urls[0], chat("a", stream=True))
            await model.asked.wait()
            await send.send(15)
            await send.send(15)
        await connection.aclose()

    assert model.cancelled == 1
