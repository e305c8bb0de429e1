"""The MCP server over HTTP, on a real socket: who may ask, several clients at once, cancelling."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from helpers.services import CHAT, PATIENCE, TwoKeys, ask, chat, service_of, serving, until
from ultra import BadCall, MultiLLMOrchestrator, RetryPolicy, Usage
from ultra.clients.pricing import Price
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.mcp.http import PATH, make_mcp_app
from ultra.service.access import Authenticator, Caller
from ultra.service.core import Service
from ultra.stores.memory_limits import MemoryLimits
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from mcp.types import CallToolResult


pytestmark = [
    pytest.mark.usefixtures("no_garbage_is_left"),
    pytest.mark.filterwarnings("ignore:Async generator 'http.*2:ResourceWarning"),  # the SDK's, on trio
]

BODY = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
ACCEPT = {"accept": "application/json, text/event-stream"}
HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@asynccontextmanager
async def serving_mcp(
    models: Mapping[str, object],
    *,
    access: Authenticator | None = None,
    origins: Sequence[str] = (),
    cache: bool = False,
) -> AsyncIterator[str]:
    service = service_of(models, access=access, cache=cache)
    with trio.fail_after(PATIENCE):
        async with serving(service, make_mcp_app(service, origins=origins)) as url:
            yield url + PATH


@asynccontextmanager
async def client_at(url: str, mode: str = "auto", key: str | None = None) -> AsyncIterator[Client]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=PATIENCE) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """How the client greets: by a session of its own, or by single requests."""
    found: str = request.param
    return found


async def test_it_answers_and_tells_of_its_progress(mode: str) -> None:
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    models = {"gpt": FakeModel("Paris."), "claude": FakeModel("Paris.")}
    async with serving_mcp(models) as url, client_at(url, mode) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool("ask", {"prompt": "Which?"}, progress_callback=on_progress)

    assert [tool.name for tool in tools] == ["ask", "compare", "models"]
    assert text(result) == "Paris."
    assert any("gpt answered after" in message for message in messages)


async def test_cancelling_a_call_cancels_the_calls_of_the_models(mode: str) -> None:
    gpt = FakeModel(gated=True)
    async with serving_mcp({"gpt": gpt}) as url, client_at(url, mode) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "ask", {"prompt": "Which?"})
            await until(lambda: gpt.running == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: gpt.cancelled == 1)
        assert (await client.call_tool("models", {})).structured_content["models"][0]["name"] == "gpt"


async def test_two_clients_are_answered_at_once(mode: str) -> None:
    gpt = FakeModel(gated=True)
    answers: dict[str, str] = {}

    async def ask(url: str, prompt: str) -> None:
        async with client_at(url, mode) as client:
            answers[prompt] = text(await client.call_tool("ask", {"prompt": prompt, "ensemble": "gpt"}))

    async with serving_mcp({"gpt": gpt}) as url, trio.open_nursery() as nursery:
        nursery.start_soon(ask, url, "One?")
        nursery.start_soon(ask, url, "Two?")
        await until(lambda: gpt.running == 2)
        gpt.gate.set()

    assert answers == {"One?": "fake: One?", "Two?": "fake: Two?"}


async def test_without_keys_pages_and_names_from_elsewhere_are_refused() -> None:
    async with (
        serving_mcp({"gpt": FakeModel()}) as url,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
    ):
        page = await client.post(url, json=HELLO, headers={**ACCEPT, "origin": "https://evil.example"})
        name = await client.post(url, json=HELLO, headers={**ACCEPT, "host": "evil.example"})
        local = await client.post(url, json=HELLO, headers={**ACCEPT, "origin": "http://localhost:3000"})

    assert page.status_code == 403
    assert "evil.example may not ask" in page.json()["error"]["message"]
    assert name.status_code == 403
    assert "its own machine only" in name.json()["error"]["message"]
    assert local.status_code == 200


async def test_with_keys_only_those_are_let_in_and_pages_only_of_origins_that_are_named() -> None:
    allowed = ["https://Chat.example"]
    async with (
        serving_mcp({"gpt": FakeModel()}, access=TwoKeys(), origins=allowed) as url,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
    ):

        async def status(key: str, **headers: str) -> int:
            given = {**ACCEPT, "authorization": f"Bearer {key}", **headers}
            return (await client.post(url, json=HELLO, headers=given)).status_code

        unknown = await client.post(url, json=HELLO, headers=ACCEPT)
        statuses = [
            await status("three"),
            await status("one"),
            await status("one", origin="https://evil.example"),
            await status("one", origin="http://localhost:3000"),
            await status("one", origin="https://chat.example"),
            await status("one", origin="https://ultra.example", host="ultra.example"),
            await status("one", origin="//["),
        ]

    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert unknown.json()["error"]["message"] == "the key is not known"
    assert statuses == [401, 200, 403, 403, 200, 200, 403]


async def test_nobody_gets_the_session_or_the_kept_answers_of_another_key() -> None:
    gpt = FakeModel(["first", "second"])
    async with serving_mcp({"gpt": gpt}, access=TwoKeys(), cache=True) as url:
        answers = []
        for key in ("one", "two", "one"):
            async with client_at(url, "auto", key) as client:
                answers.append(text(await client.call_tool("ask", {"prompt": "?", "ensemble": "gpt"})))
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            ann = {**ACCEPT, "authorization": "Bearer one"}
            session = (await client.post(url, json=HELLO, headers=ann)).headers["mcp-session-id"]
            bob = {**ACCEPT, "authorization": "Bearer two", "mcp-session-id": session}
            stolen = await client.post(url, json=BODY, headers=bob)
            own = await client.post(url, json=BODY, headers={**ann, "mcp-session-id": session})

    assert answers == ["first", "second", "first"]
    assert stolen.status_code == 404
    assert own.status_code == 200


ALICE = "sk-ultra-of-alice"


def metered(model: FakeModel, **limits: Any) -> Service:
    """A service with one key, which has these limits; a thousand tokens of the model cost a dollar.

    No time goes by for the limits, so that nothing flows back.
    """
    orchestrator = MultiLLMOrchestrator(cache_enabled=False, retry=RetryPolicy(max_retries=0))
    orchestrator.register_model("gpt", model, price=Price(input=1000.0, output=1000.0))
    keys = (KeyConfig(name="alice", hash=hash_of(ALICE), **limits),)
    return Service(orchestrator, ServeConfig(keys=keys), limits=MemoryLimits(now=lambda: 1e9))


async def left_of(service: Service) -> dict[str, float]:
    """What is left of each limit of the key."""
    (key,) = service.settings.keys
    return {limit.name: limit.left for limit in await service.quotas.left(Caller(key.name, key))}


@pytest.mark.parametrize(
    ("tool", "given"),
    [("ask", {"prompt": "Which?", "ensemble": "gpt"}), ("compare", {"prompt": "Which?", "models": ["gpt"]})],
)
async def test_a_call_counts_for_its_key_by_the_tokens_and_dollars_that_it_has_used(
    tool: str, given: dict[str, Any], mode: str
) -> None:
    model = FakeModel("Paris.", usage=Usage(input=100, output=100))
    service = metered(model, tokens_per_minute=100_000, dollars_per_day=50.0)
    with trio.fail_after(PATIENCE):
        async with serving(service, make_mcp_app(service)) as url:
            async with client_at(url + PATH, mode, ALICE) as client:
                result = await client.call_tool(tool, given)
            left = await left_of(service)

    assert not result.is_error
    assert left["dollars_per_day"] == pytest.approx(50.0 - 0.2)
    assert left["tokens_per_minute"] == pytest.approx(100_000 - 200)


async def test_what_tools_and_other_requests_use_is_one_budget(mode: str) -> None:
    model = FakeModel("Paris.", usage=Usage(input=100, output=100))
    service = metered(model, dollars_per_day=0.3)
    headers = {"authorization": f"Bearer {ALICE}"}
    with trio.fail_after(PATIENCE):
        async with (
            serving(service, make_mcp_app(service)) as url,
            client_at(url + PATH, mode, ALICE) as client,
        ):
            first = await client.call_tool("ask", {"prompt": "One?", "ensemble": "gpt"})
            chats = [await ask(service, chat("gpt", str(n)), CHAT, headers=headers) for n in range(2)]
            last = await client.call_tool("ask", {"prompt": "Four?", "ensemble": "gpt"})

    assert (first.is_error, [answer.status for answer in chats], last.is_error) == (False, [200, 429], True)
    assert "the budget of this key is used up" in text(last)
    assert len(model.calls) == 2


async def test_a_call_that_is_cancelled_pays_for_the_answer_that_was_under_way(mode: str) -> None:
    model = FakeModel(gated=True)
    service = metered(model, dollars_per_day=50.0)
    with trio.fail_after(PATIENCE):
        async with serving(service, make_mcp_app(service)) as url:
            async with client_at(url + PATH, mode, ALICE) as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.call_tool, "ask", {"prompt": "Which?", "ensemble": "gpt"})
                await until(lambda: model.running == 1)
                nursery.cancel_scope.cancel()
            await until(lambda: model.cancelled == 1)
            await until(lambda: service.running_requests == 0)
            left = await left_of(service)

    # The prompt, and an answer of the tokens that are assumed: nobody knows how far it was written.
    assert 2.048 < 50.0 - left["dollars_per_day"] < 2.1


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": [' + b"{}," * 1_000_001 + b"{}]}}",
         "the body has too many objects and lists", -32600),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deeply", -32600),
        (b"[1]", "must be a JSON object", -32600),
        (b"{", "not JSON", -32700),
        (b'"\xff"', "not JSON in UTF-8", -32700),
    ],
)  # fmt: skip
async def test_a_body_that_costs_much_to_decode_is_refused_before_it_is_decoded(
    content: bytes, words: str, code: int
) -> None:
    async with serving_mcp({"gpt": FakeModel()}) as url, httpx.AsyncClient(trust_env=False) as http:
        headers = {**ACCEPT, "content-type": "application/json"}
        refused = await http.post(url, content=content, headers=headers, timeout=PATIENCE)
        assert refused.status_code == 400
        assert words in refused.json()["error"]["message"]
        assert refused.json()["error"]["code"] == code
        assert (await http.post(url, json=HELLO, headers=ACCEPT)).status_code == 200


@pytest.mark.parametrize("origin", ["chat.example", "https://", "https://chat.example/page", "file:///tmp"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(BadCall, match=r"is none; give one such as https://chat\.example"):
        make_mcp_app(service_of({"gpt": FakeModel()}), origins=[origin])
