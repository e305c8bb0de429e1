"""A fault plan, applied by the simulated provider: what Ultra's clients and bare sockets see of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from helpers.provider_calls import KEY, PROTOCOLS, ask, client_of, fail, listen
from ultra.errors import BadCall, ModelError
from ultra.faults.plan import FaultPlan
from ultra.faults.provider import Reply, simulated_provider

if TYPE_CHECKING:
    from trio.testing import MockClock

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True])

PATHS = {
    "openai": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/*",
    "ollama": "/api/chat",
}


@every_protocol
@streamed_or_not
async def test_a_status_has_the_error_body_of_the_protocol(protocol: str, *, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_status(status=503, retry_after=2.5, times=1)
    async with simulated_provider(faults=plan) as provider:
        error, _ = await fail(provider, protocol, stream=stream)
        completion = await ask(provider, protocol, stream=stream)

    assert (error.status, error.retry_after) == (503, 2.5)
    assert error.kind in {"overloaded", "server"}
    assert "overloaded" in error.message.lower() or "server busy" in error.message
    assert completion.finish_reason == "stop"
    assert [request.outcome for request in provider.requests] == ["failed", "answered"]
    assert plan.counts == {"http_status": 1}


async def test_a_status_may_have_a_body_of_its_own() -> None:
    plan = FaultPlan(seed=1).http_content_type(value="text/html")
    plan.http_status(status=502, body=b"<html><title>Bad gateway</title></html>")
    async with simulated_provider(faults=plan) as provider:
        error, _ = await fail(provider, "openai")

    assert (error.status, error.message) == (502, "Bad gateway")


async def test_a_status_without_error_has_an_empty_body() -> None:
    plan = FaultPlan(seed=1).http_status(status=204)
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
        response = await client.get(f"{provider.url}/v1/models")

    assert (response.status_code, response.content) == (204, b"")


@every_protocol
async def test_a_rule_is_for_the_urls_that_it_names(protocol: str) -> None:
    plan = FaultPlan(seed=1).http_status(f"*{PATHS[protocol]}", status=500)
    async with simulated_provider(faults=plan) as provider:
        for asked in PROTOCOLS:
            if asked == protocol:
                await fail(provider, asked)
            else:
                await ask(provider, asked)


async def test_the_plan_tells_where_it_struck_but_not_the_key() -> None:
    plan = FaultPlan(seed=1).http_status(status=500)
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
        await client.get(f"{provider.url}/v1beta/models?key={KEY}")

    assert [injection.where for injection in plan.injections] == [f"{provider.url}/v1beta/models"]
    assert KEY not in str(plan)


@every_protocol
@streamed_or_not
@pytest.mark.parametrize("after_bytes", [0, 30])
async def test_a_broken_connection_is_an_error_of_the_connection(
    protocol: str, after_bytes: int, *, stream: bool
) -> None:
    plan = FaultPlan(seed=1).http_disconnect(after_bytes=after_bytes, times=1)
    async with simulated_provider(faults=plan) as provider:
        error, text = await fail(provider, protocol, stream=stream)
        completion = await ask(provider, protocol, stream=stream)

    assert (error.kind, error.retryable, text) == ("connection", True, "")
    assert completion.finish_reason == "stop"
    assert [request.outcome for request in provider.requests] == ["broken", "answered"]


@every_protocol
@streamed_or_not
@pytest.mark.parametrize("after_bytes", [0, 30])
async def test_a_body_that_ends_too_early_is_no_answer(
    protocol: str, after_bytes: int, *, stream: bool
) -> None:
    plan = FaultPlan(seed=1).http_truncate(after_bytes=after_bytes, times=1)
    async with simulated_provider(faults=plan) as provider:
        error, text = await fail(provider, protocol, stream=stream)
        completion = await ask(provider, protocol, stream=stream)

    assert error.kind in {"connection", "protocol", "server"}
    assert text == ""
    assert completion.finish_reason == "stop"
    assert [request.outcome for request in provider.requests] == ["broken", "answered"]


async def test_what_is_cut_is_cut_at_that_byte() -> None:
    plan = FaultPlan(seed=1).http_truncate("*/v1/models", after_bytes=9)
    plan.http_disconnect("*/v1/models/*", after_bytes=9)
    bearer = {"authorization": "Bearer k"}
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient(headers=bearer) as client:
        cut = await client.get(f"{provider.url}/v1/models")
        async with client.stream("GET", f"{provider.url}/v1/models/any") as response:
            body = response.aiter_raw()
            broken = await anext(body)
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                await anext(body)

    assert (cut.content, broken) == (b'{"object"', b'{"id":"an')


@streamed_or_not
async def test_a_cut_past_the_end_changes_nothing(*, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_disconnect(after_bytes=1_000_000)
    async with simulated_provider(faults=plan) as provider:
        assert (await ask(provider, "openai", stream=stream)).finish_reason == "stop"


@streamed_or_not
async def test_a_slow_body_takes_its_time(autojump_clock: MockClock, *, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_slow_body(seconds=0.5, piece=100)
    async with simulated_provider(faults=plan) as provider:
        provider.script("one two three")
        start = trio.current_time()
        completion = await ask(provider, "openai", stream=stream)

    assert completion.content == "one two three"
    assert trio.current_time() - start >= 0.5 * 4


async def test_a_slow_body_comes_byte_by_byte(autojump_clock: MockClock) -> None:
    plan = FaultPlan(seed=1).http_slow_body(seconds=(0.1, 0.2))
    async with simulated_provider(faults=plan) as provider:
        pieces, body = await _read_raw(f"{provider.url}/api/version")

    assert len(pieces) == len(body)
    assert 0.1 * len(body) <= trio.current_time() <= 0.25 * len(body)


async def _read_raw(url: str) -> tuple[list[bytes], bytes]:
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        pieces = [data async for data in response.aiter_raw()]
    return pieces, b"".join(pieces)


@every_protocol
@pytest.mark.parametrize("after_events", [0, 3])
async def test_a_malformed_event_breaks_the_protocol(protocol: str, after_events: int) -> None:
    plan = FaultPlan(seed=1).http_malformed_events(after_events=after_events)
    async with simulated_provider(faults=plan) as provider:
        plain = await ask(provider, protocol)
        error, text = await fail(provider, protocol, stream=True)

    assert plain.finish_reason == "stop"
    assert (error.kind, error.status) == ("protocol", 200)
    third_is_text = protocol not in {"anthropic", "openai_responses"}
    assert bool(text) == (after_events > 0 and third_is_text)
    assert plain.content.startswith(text)
    assert plan.counts == {"http_malformed_events": 1}


@every_protocol
async def test_a_stream_may_report_an_error_in_its_middle(protocol: str) -> None:
    plan = FaultPlan(seed=1).http_stream_error(after_events=6, status=503)
    async with simulated_provider(faults=plan) as provider:
        plain = await ask(provider, protocol)
        error, text = await fail(provider, protocol, stream=True)

    assert (error.status, error.retryable) == (200, True)
    assert "overloaded" in error.message.lower() or "server busy" in error.message
    assert text
    assert plain.content.startswith(text)
    assert provider.requests[-1].outcome == "failed"
    assert plan.counts == {"http_stream_error": 1}


async def test_a_stream_error_of_no_error_status_is_refused() -> None:
    with pytest.raises(BadCall, match="status=200 is no failure; give an HTTP status from 400 to 599"):
        FaultPlan().http_stream_error(status=200)


@streamed_or_not
async def test_a_wrong_content_type_is_told_as_it_is_wanted(*, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_content_type(value="text/html")
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
        body = {"model": "any", "stream": stream, "messages": [{"role": "user", "content": "Why?"}]}
        response = await client.post(
            f"{provider.url}/v1/chat/completions", json=body, headers={"authorization": "Bearer k"}
        )

    assert response.headers["content-type"] == "text/html"
    assert response.headers.get_list("content-type") == ["text/html"]


@streamed_or_not
async def test_a_huge_body_is_more_than_a_client_takes(*, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_huge_body(size=3_000_000)
    async with simulated_provider(faults=plan) as provider:
        client = client_of(provider, "openai", max_response_bytes=1_000_000)
        answer = client.stream("Why?")
        with pytest.raises(ModelError, match=r"1000000|1,000,000"):
            await (anext(answer) if stream else client.generate("Why?"))
        await answer.aclose()
        await client.aclose()
        assert await provider.requests[-1].wait_ended() in {"abandoned", "broken"}


async def test_a_huge_body_has_the_size_that_it_should() -> None:
    plan = FaultPlan(seed=1).http_huge_body(size=100_001)
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
        assert len((await client.get(f"{provider.url}/v1/models")).content) == 100_001
    assert provider.requests[-1].outcome == "broken"


@streamed_or_not
async def test_a_provider_may_never_answer(autojump_clock: MockClock, *, stream: bool) -> None:
    plan = FaultPlan(seed=1).http_read_timeout(times=1)
    async with simulated_provider(faults=plan) as provider:
        pieces: list[str] = []
        with trio.move_on_after(30) as scope:
            await listen(provider, "openai", "Why?", pieces, stream=stream)
        assert scope.cancelled_caught
        assert await provider.requests[-1].wait_ended() == "abandoned"
        assert (await ask(provider, "openai", stream=stream)).finish_reason == "stop"


async def test_a_connection_that_fails_is_nothing_that_a_server_can_do() -> None:
    plan = FaultPlan(seed=1).http_status(times=1).http_connect_error()
    with pytest.raises(
        BadCall, match=r"'http_connect_error \*' cannot be applied by a server: .*http_disconnect"
    ):
        async with simulated_provider(faults=plan):
            pass


async def test_rules_apply_together() -> None:
    plan = FaultPlan(seed=1).http_content_type(value="text/plain").http_slow_body(seconds=0, piece=3)
    plan.http_status(status=418, retry_after=7)
    async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
        response = await client.get(f"{provider.url}/v1/models")

    assert (response.status_code, response.headers["content-type"]) == (418, "text/plain")
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_faults_strike_as_often_as_they_should_under_load() -> None:
    plan = FaultPlan(seed=3).http_status(status=500, times=10, skip=5)
    failed: list[Any] = []

    async def one(protocol: str) -> None:
        try:
            await ask(provider, protocol, stream=True)
        except ModelError as error:
            failed.append(error.status)

    async with simulated_provider(faults=plan) as provider, trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(partial(one, PROTOCOLS[number % len(PROTOCOLS)]))

    assert failed == [500] * 10
    outcomes = [request.outcome for request in provider.requests]
    assert (outcomes.count("failed"), outcomes.count("answered")) == (10, 14)


async def test_the_same_seed_strikes_the_same_requests() -> None:
    async def statuses(seed: int) -> list[int | None]:
        plan = FaultPlan(seed=seed).http_status(status=500, probability=0.5)
        async with simulated_provider(faults=plan) as provider, httpx.AsyncClient() as client:
            for _ in range(12):
                await client.get(f"{provider.url}/v1/models", headers={"authorization": "Bearer k"})
            return [request.status for request in provider.requests]

    once, again, other = await statuses(1), await statuses(1), await statuses(2)

    assert set(once) == {200, 500}
    assert again == once != other


async def test_a_fault_takes_the_place_of_a_scripted_reply_without_using_it() -> None:
    plan = FaultPlan(seed=1).http_status(status=500, times=1)
    async with simulated_provider(faults=plan) as provider:
        provider.script(Reply("Yes."))
        await fail(provider, "openai")

        assert (await ask(provider, "openai")).content == "Yes."
