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

from helpers.services import PATIENCE, service_of, serving, until
from ultra import BadCall
from ultra.mcp.http import PATH, make_mcp_app
from ultra.service.access import Authenticator, Caller
from ultra.service.problems import Problem
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from mcp.types import CallToolResult

    from ultra.service.http import Request

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


class Keys:
    """Lets in who has one of two keys."""

    needs_loopback = False

    async def authenticate(self, request: Request) -> Caller:
        name = {"Bearer one": "ann", "Bearer two": "bob"}.get(request.headers.get("authorization", ""))
        if name is None:
            raise Problem(401, "authentication_error", "invalid_api_key", "the key is not known")
        return Caller(name)


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
        serving_mcp({"gpt": FakeModel()}, access=Keys(), origins=allowed) as url,
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
    async with serving_mcp({"gpt": gpt}, access=Keys(), cache=True) as url:
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


@pytest.mark.parametrize("origin", ["chat.example", "https://", "https://chat.example/page", "file:///tmp"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(BadCall, match=r"is none; give one such as https://chat\.example"):
        make_mcp_app(service_of({"gpt": FakeModel()}), origins=[origin])
