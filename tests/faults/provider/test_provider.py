"""The simulated provider as tests and programs use it: scripts, records, pace, limits, its life."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from helpers.provider_calls import KEY, PROTOCOLS, ask, client_of, fail, listen
from ultra.clients import connect
from ultra.errors import BadCall, MissingExtra
from ultra.faults.provider import Failure, Question, Reply, SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from trio.testing import MockClock

QUESTION = {"model": "any", "messages": [{"role": "user", "content": "Why?"}]}


# --- what is answered ----------------------------------------------------------------------------


async def test_scripted_replies_come_in_their_order_and_then_answers_are_made_up(
    provider: SimulatedProvider,
) -> None:
    provider.script("first", Reply("second"))
    provider.script("third")

    texts = [(await ask(provider, "openai")).content for _ in range(4)]

    assert texts[:3] == ["first", "second", "third"]
    assert texts[3] == (await ask(provider, "anthropic")).content


async def test_a_models_own_script_goes_before_that_of_all(provider: SimulatedProvider) -> None:
    provider.script("for any")
    provider.script("for a", "for a again", model="a")

    asked = ["b", "a", "a"]
    texts = [(await ask(provider, "openai", model=model)).content for model in asked]

    assert texts == ["for any", "for a", "for a again"]


async def test_a_request_that_is_refused_leaves_the_script_alone() -> None:
    async with simulated_provider(api_key="right", models=["known"]) as provider:
        provider.script("Yes.")
        await fail(provider, "openai", key="wrong", model="known")
        await fail(provider, "openai", key="right", model="unknown")

        assert (await ask(provider, "openai", key="right", model="known")).content == "Yes."


async def test_a_function_may_decide_what_is_answered() -> None:
    def respond(question: Question) -> Reply | Failure | str:
        return Failure("overloaded") if question.prompt == "Fail!" else f"{question.model}: {question.prompt}"

    async with simulated_provider(respond=respond) as provider:
        assert (await ask(provider, "gemini", "Why?", model="a/b:c")).content == "a/b:c: Why?"
        client = client_of(provider, "gemini")
        with pytest.raises(Exception, match="overloaded"):
            await client.generate("Fail!")
        await client.aclose()


async def test_what_that_function_raises_is_logged_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def respond(question: Question) -> str:
        raise ZeroDivisionError(question.prompt)

    async with simulated_provider(respond=respond) as provider:
        error, _ = await fail(provider, "openai")

    assert (error.status, error.message) == (500, "respond raised ZeroDivisionError('Why?')")
    assert "ZeroDivisionError: Why?" in caplog.text


async def test_a_stream_that_is_held_goes_on_when_it_may(provider: SimulatedProvider) -> None:
    hold = trio.Event()
    provider.script(Reply(("one ", "two ", "three"), hold=hold))
    client = client_of(provider, "openai")
    async with aclosing(client.stream("Why?")) as answer:
        assert await anext(answer) == "one "
        assert provider.requests[-1].outcome == "open"
        hold.set()
        assert [str(piece) async for piece in answer] == ["two ", "three", "one two three"]
    await client.aclose()


async def test_a_plain_answer_that_is_held_comes_when_it_may(
    provider: SimulatedProvider, nursery: trio.Nursery
) -> None:
    hold = trio.Event()
    provider.script(Reply("Yes.", hold=hold))
    nursery.start_soon(partial(ask, provider, "ollama"))
    await provider.wait_for_requests(1)
    assert provider.requests[-1].outcome == "open"

    hold.set()

    assert await provider.requests[-1].wait_ended() == "answered"


# --- what was asked ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_is_kept_without_its_key(provider: SimulatedProvider, protocol: str) -> None:
    await ask(provider, protocol, "Why?", extra_headers={"X-Team": "blue"})

    (request,) = provider.requests
    assert (request.protocol, request.method, request.status) == (protocol, "POST", 200)
    assert request.has_key
    assert request.headers["x-team"] == "blue"
    assert "Why?" in json.dumps(request.body)
    assert request.outcome == "answered"
    assert KEY not in repr(request)


async def test_a_key_in_the_query_is_not_kept_either(provider: SimulatedProvider) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(f"{provider.url}/v1beta/models?pageSize=3&key={KEY}")

    (request,) = provider.requests
    assert (request.has_key, request.query) == (True, "pageSize=3")
    assert KEY not in repr(request)


async def test_only_the_last_requests_are_kept_and_all_are_counted() -> None:
    async with simulated_provider(keep_requests=2) as provider:
        for prompt in ("one", "two", "three"):
            await ask(provider, "openai", prompt)

        kept = [request.question.prompt for request in provider.requests if request.question]
        assert kept == ["two", "three"]
        assert provider.request_count == 3
        await provider.wait_for_requests(3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_the_client_wants_closed_is_closed_behind_the_answer(
    provider: SimulatedProvider, *, stream: bool
) -> None:
    question = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    request = httpx.Request(
        "POST",
        f"{provider.url}/v1/chat/completions",
        headers={"connection": "close", "authorization": f"Bearer {KEY}"},
        json=question,
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = await trio.open_tcp_stream(request.url.host, request.url.port or 0)
    async with connection:
        await connection.send_all(
            f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.content
        )
        with trio.fail_after(20):
            answer = b"".join([bytes(piece) async for piece in connection])

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_provider_notices_that_a_client_has_gone_away(
    provider: SimulatedProvider, *, stream: bool
) -> None:
    provider.script(Reply(("one ", "two"), hold=trio.Event()))
    pieces: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(listen, provider, "anthropic", "Why?", pieces, stream=stream))
        await provider.wait_for_requests(1)
        nursery.cancel_scope.cancel()

    assert await provider.requests[-1].wait_ended() == "abandoned"


# --- pace and limits -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_take_the_time_that_was_set(autojump_clock: MockClock, *, stream: bool) -> None:
    async with simulated_provider(latency=3.0, tokens_per_second=2.0) as provider:
        provider.script("one two three four")
        start = trio.current_time()
        await ask(provider, "openai", stream=stream)

        assert trio.current_time() - start == pytest.approx(3.0 + 4 / 2.0, abs=0.01)


async def test_a_stream_is_written_token_by_token(autojump_clock: MockClock) -> None:
    async with simulated_provider(latency=3.0, tokens_per_second=2.0) as provider:
        provider.script("one two three")
        client = client_of(provider, "anthropic")
        start = trio.current_time()
        async with aclosing(client.stream("Why?")) as answer:
            times = [trio.current_time() - start async for _ in answer]
        await client.aclose()

    assert times == pytest.approx([3.5, 4.0, 4.5, 4.5], abs=0.01)


async def test_latencies_out_of_a_range_are_decided_by_the_seed(autojump_clock: MockClock) -> None:
    async def measure(seed: int) -> list[float]:
        taken = []
        async with simulated_provider(latency=(1.0, 5.0), seed=seed) as provider:
            for _ in range(3):
                start = trio.current_time()
                await ask(provider, "openai")
                taken.append(trio.current_time() - start)
        return taken

    once, again, other = await measure(1), await measure(1), await measure(2)

    assert all(1.0 <= time <= 5.1 for time in once)
    assert again == pytest.approx(once, abs=0.01)
    assert other != pytest.approx(once, abs=0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_past_the_rate_limit_is_told_when_to_come_again(
    autojump_clock: MockClock, protocol: str
) -> None:
    async with simulated_provider(requests_per_minute=2) as provider:
        for _ in range(2):
            await ask(provider, protocol)
        error, _ = await fail(provider, protocol)

        assert (error.status, error.kind, error.retryable) == (429, "rate_limit", True)
        assert "Rate limit reached on requests per min: Limit 2" in error.message
        if protocol != "ollama":
            assert error.retry_after == pytest.approx(30.0, abs=0.1)
        await trio.sleep(30.0)
        assert (await ask(provider, protocol)).finish_reason == "stop"


async def test_clients_learn_the_limits_from_the_headers(autojump_clock: MockClock) -> None:
    async with simulated_provider(requests_per_minute=60, tokens_per_minute=6000) as provider:
        for protocol in ("openai", "anthropic"):
            provider.script("one two three")
            client = client_of(provider, protocol)
            await client.generate("Why?")
            learned = client.rate_limits
            await client.aclose()

            assert learned is not None
            assert (learned.requests_per_minute, learned.tokens_per_minute) == (60, 6000)
            assert learned.requests_remaining in {58, 59}
            assert learned.tokens_remaining in range(5980, 6000)


# --- bad requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "found"),
    [
        ("/v1/chat/completions", 400, ("error", "type", "invalid_request_error")),
        ("/v1/messages", 400, ("error", "type", "invalid_request_error")),
        ("/v1beta/models/m:generateContent", 400, ("error", "status", "INVALID_ARGUMENT")),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model": 7}', b"\xff", b"[" * 5000])
async def test_what_cannot_be_read_is_a_bad_request_in_the_words_of_the_protocol(
    provider: SimulatedProvider, path: str, status: int, found: tuple[str, str, str], body: bytes
) -> None:
    headers = {"authorization": "Bearer k", "x-goog-api-key": "k"}
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{provider.url}{path}", content=body, headers=headers)

    assert response.status_code == status
    outer, inner, word = found
    assert response.json()[outer][inner] == word
    assert provider.requests[-1].question is None


async def test_ollama_says_what_it_could_not_read(provider: SimulatedProvider) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{provider.url}/api/chat", json={"model": "m"})

    assert response.status_code == 400
    assert "messages" in response.json()["error"]


async def test_anthropic_requires_a_limit_of_tokens(provider: SimulatedProvider) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{provider.url}/v1/messages", json=QUESTION, headers={"x-api-key": "k"})

    assert response.status_code == 400
    assert "max_tokens" in response.json()["error"]["message"]


async def test_gemini_streams_only_as_events(provider: SimulatedProvider) -> None:
    url = f"{provider.url}/v1beta/models/m:streamGenerateContent"
    body = {"contents": [{"parts": [{"text": "Why?"}]}]}
    async with httpx.AsyncClient(headers={"x-goog-api-key": "k"}) as client:
        assert (await client.post(url, json=body)).status_code == 400
        assert (await client.post(f"{url}?alt=sse", json=body)).status_code == 200


async def test_a_request_that_is_too_large_is_refused(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultra.faults.provider.endpoint._LARGEST_REQUEST", 1000)
    client = client_of(provider, "anthropic")
    with pytest.raises(Exception, match="exceeds the maximum allowed size"):
        await client.generate("word " * 1000)
    assert (await client.generate("word")).finish_reason == "stop"
    await client.aclose()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_not_found_and_kept(provider: SimulatedProvider, method: str) -> None:
    async with httpx.AsyncClient(headers={"authorization": "Bearer k"}) as client:
        response = await client.request(method, f"{provider.url}/v2/answers")

    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"Invalid URL ({method} /v2/answers)"
    assert provider.requests[-1].path == "/v2/answers"


async def test_azure_names_the_model_in_the_path(provider: SimulatedProvider) -> None:
    client = connect("azure:my-deployment", base_url=provider.url, api_key=KEY)
    completion = await client.generate("Why?")
    await client.aclose()

    assert completion.model == "my-deployment"
    assert provider.requests[-1].path == "/openai/deployments/my-deployment/chat/completions"


# --- its life ------------------------------------------------------------------------------------


async def test_many_answers_at_once_are_kept_apart(provider: SimulatedProvider) -> None:
    expected = {prompt: (await ask(provider, "openai", prompt)).content for prompt in map(str, range(8))}
    got: dict[tuple[str, str], str] = {}

    async def one(protocol: str, prompt: str) -> None:
        got[protocol, prompt] = (await ask(provider, protocol, prompt, stream=True)).content

    async with trio.open_nursery() as nursery:
        for protocol in PROTOCOLS:
            for prompt in expected:
                nursery.start_soon(one, protocol, prompt)

    assert got == {(protocol, prompt): expected[prompt] for protocol in PROTOCOLS for prompt in expected}
    assert [request.outcome for request in provider.requests] == ["answered"] * 48


async def test_leaving_the_block_closes_every_connection_in_the_middle_of_answers() -> None:
    errors: list[str] = []

    async def one(protocol: str, *, stream: bool) -> None:
        error, text = await fail(provider, protocol, stream=stream)
        errors.append(error.kind)
        assert text in {"", "one "}

    async with trio.open_nursery() as nursery:
        async with simulated_provider() as provider:
            for protocol in PROTOCOLS:
                for stream in (False, True):
                    provider.script(Reply(("one ", "two"), hold=trio.Event()))
                    nursery.start_soon(partial(one, protocol, stream=stream))
            await provider.wait_for_requests(10)
        assert [request.outcome for request in provider.requests] == ["abandoned"] * 10

    assert errors == ["connection"] * 10
    assert trio.lowlevel.current_statistics().tasks_living < 10
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", int(provider.url.rpartition(":")[2]))


async def test_what_goes_wrong_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with simulated_provider():
            raise KeyError("mine")


async def test_an_address_in_use_is_an_error(provider: SimulatedProvider) -> None:
    port = int(provider.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        async with simulated_provider(port=port):
            pass


async def test_two_providers_run_side_by_side(provider: SimulatedProvider) -> None:
    async with simulated_provider(seed=1) as other:
        assert other.url != provider.url
        assert (await ask(other, "openai")).content != (await ask(provider, "openai")).content


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency": -1}, "latency is -1; give seconds"),
        ({"latency": (2, 1)}, "latency is .2, 1.; give seconds"),
        ({"tokens_per_second": 0}, "tokens_per_second=0 is not allowed; give more than 0"),
        ({"tokens_per_minute": 0}, "tokens_per_minute=0 is not allowed"),
    ],
)
async def test_a_bad_setting_is_refused_before_anything_is_served(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadCall, match=message):
        async with simulated_provider(**settings):
            pass


async def test_an_unknown_protocol_has_no_base_url(provider: SimulatedProvider) -> None:
    with pytest.raises(
        BadCall, match=r"no protocol 'cohere'; there are: openai, .*, anthropic, gemini, ollama"
    ):
        provider.base_url("cohere")


async def test_clients_find_the_provider_through_the_environment(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    named = [protocol for protocol in PROTOCOLS if protocol != "openai_responses"]
    for protocol in named:
        client = connect(f"{protocol}:any")
        await client.generate("Why?")
        await client.aclose()

    assert [request.protocol for request in provider.requests] == named


@pytest.mark.parametrize("missing", ["hypercorn", "starlette"])
def test_without_its_extra_the_error_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("ultra.faults.provider", missing)):
            monkeypatch.delitem(sys.modules, name)
    # None in the place of a module makes its import fail.
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(MissingExtra, match="the simulated provider needs the extra 'serve'"):
        __import__("ultra.faults.provider")
