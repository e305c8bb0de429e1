"""Calls as tasks, by the extension of MCP, and the official client: in this process, and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import pytest
import trio
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Request, RequestParams, Result, TextContent
from pydantic import ConfigDict, Field
from trio.testing import MockClock

from helpers.services import PATIENCE, TwoKeys, service_of, serving, until
from ultra import ModelError
from ultra.mcp import tasks
from ultra.mcp.http import PATH, make_mcp_app
from ultra.mcp.server import make_server
from ultra.mcp.tasks import EXTENSION
from ultra.testing import FakeModel

QUESTION = {"prompt": "Which city?"}


class Begun(Result):
    """The task that a call has begun."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    result_type: Literal["task"] = Field("task", alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str


class State(Result):
    """What is told of a task."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    result_type: str | None = Field(None, alias="resultType")
    status: str | None = None
    result: CallToolResult | None = None

    @property
    def more(self) -> dict[str, Any]:
        """The other fields."""
        return self.model_extra or {}


class Named(RequestParams):
    """The task that a request is about."""

    task_id: str = Field(alias="taskId")


class About(Request[Named, str]):
    """A request about a task."""

    name_param = "taskId"


async def about(session: Any, method: str, task_id: str) -> State:
    state: State = await session.send_request(About(method=method, params=Named(taskId=task_id)), State)
    return state


class Following(ClientExtension):
    """Asks for a task until it has ended, as an agent does."""

    identifier = EXTENSION

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Begun, resolve=self.resolve)]

    async def resolve(self, begun: Begun, context: ClaimContext) -> CallToolResult:
        while (state := await about(context.session, "tasks/get", begun.task_id)).status == "working":  # noqa: ASYNC110 - so it is polled
            await trio.sleep(0.01)
        assert state.result is not None
        return state.result


async def ended(client: Client, begun: Begun) -> CallToolResult:
    context = ClaimContext(session=client.session, tool_name="ask", read_timeout_seconds=None)
    return await Following().resolve(begun, context)


@asynccontextmanager
async def client_of(models: dict[str, object]) -> AsyncIterator[Client]:
    with trio.fail_after(PATIENCE):
        server = make_server(service_of(models))
        async with Client(server, mode="auto", extensions=(Following(),)) as client:
            yield client


async def begin(client: Client, tool: str = "ask", **more: Any) -> Any:
    return await client.session.call_tool(tool, {**QUESTION, **more}, allow_claimed=True)


def text(result: Any) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_a_call_is_a_task_at_once_and_its_result_is_that_of_the_call() -> None:
    model = FakeModel("Paris.", gated=True)
    async with client_of({"gpt": model}) as client:
        assert client.server_capabilities.extensions == {EXTENSION: {}}
        begun = await begin(client)
        await until(lambda: model.running == 1)
        working = await about(client.session, "tasks/get", begun.task_id)
        model.gate.set()
        result = await ended(client, begun)
        state = await about(client.session, "tasks/get", begun.task_id)

    assert begun.status == working.status == "working"
    assert working.result_type == state.result_type == "complete"
    assert working.more["statusMessage"].startswith("initial: asking gpt")
    assert (working.more["ttlMs"], working.more["pollIntervalMs"]) == (None, 1000)
    assert text(result) == "Paris."
    assert result.structured_content["answer"] == "Paris."
    assert state.status == "completed"
    assert state.more["ttlMs"] >= 600_000
    assert state.more["createdAt"].endswith("Z")


@pytest.mark.parametrize(("tool", "answer"), [("ask", "Paris."), ("compare", "gpt")])
async def test_a_client_that_follows_tasks_gets_the_answer_of_a_call(tool: str, answer: str) -> None:
    async with client_of({"gpt": FakeModel("Paris.")}) as client:
        result = await client.call_tool(tool, QUESTION)

    assert answer in text(result)


async def test_clients_that_do_not_declare_tasks_get_answers_and_nothing_about_tasks() -> None:
    with trio.fail_after(PATIENCE):
        async with Client(make_server(service_of({"gpt": FakeModel("Paris.")})), mode="2026-07-28") as client:
            result = await client.call_tool("ask", QUESTION)
            for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                with pytest.raises(MCPError, match="does not declare") as refused:
                    await about(client.session, method, "x")
                assert refused.value.code == -32021
                assert refused.value.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}

    assert text(result) == "Paris."


async def test_on_sessions_of_older_versions_there_are_no_tasks() -> None:
    server = make_server(service_of({"gpt": FakeModel("Paris.")}))
    with trio.fail_after(PATIENCE):
        async with Client(server, mode="legacy", extensions=(advertise(EXTENSION),)) as client:
            result = await client.call_tool("ask", QUESTION)
            with pytest.raises(MCPError) as refused:
                await about(client.session, "tasks/get", "x")

    assert text(result) == "Paris."
    assert refused.value.code == -32601


async def test_cancelling_a_task_cancels_the_calls_of_its_models_and_stays() -> None:
    model = FakeModel("Paris.", gated=True)
    async with client_of({"gpt": model}) as client:
        begun = await begin(client)
        await until(lambda: model.running == 1)
        acknowledged = await about(client.session, "tasks/cancel", begun.task_id)
        await until(lambda: model.running == 0)
        again = await about(client.session, "tasks/cancel", begun.task_id)
        state = await about(client.session, "tasks/get", begun.task_id)

    assert acknowledged.result_type == again.result_type == "complete"
    assert (state.status, state.result) == ("cancelled", None)


async def test_a_call_that_goes_wrong_is_a_completed_task_with_the_error_of_the_tool() -> None:
    model = FakeModel(failures=[ModelError("busy", kind="overloaded")] * 9)
    async with client_of({"gpt": model}) as client:
        failed = await client.call_tool("ask", QUESTION)
        wrong = await client.call_tool("ask", {**QUESTION, "strategy": "nope"})
        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("nope", {})
        names = await client.call_tool("models", {})

    assert failed.is_error
    assert "gpt: overloaded" in text(failed)
    assert wrong.is_error
    assert "nope" in text(wrong)
    assert not names.is_error


async def test_what_nobody_knows_is_an_error_of_the_parameters() -> None:
    async with client_of({"gpt": FakeModel("Paris.")}) as client:
        begun = await begin(client)
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            with pytest.raises(MCPError, match="there is no task 'x'") as refused:
                await about(client.session, method, "x")
            assert refused.value.code == -32602
        assert (await about(client.session, "tasks/update", begun.task_id)).result_type == "complete"


async def test_past_the_most_the_oldest_that_has_ended_goes_and_without_one_there_is_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "_MOST", 2)
    model = FakeModel("Paris.")
    async with client_of({"gpt": model}) as client:
        first = await begin(client)
        await ended(client, first)
        model.gate.clear()
        others = [await begin(client, prompt=each) for each in ("A?", "B?")]
        with pytest.raises(MCPError, match="there is no task"):
            await about(client.session, "tasks/get", first.task_id)
        await until(lambda: model.running == 2)
        async with trio.open_nursery() as nursery:
            answered: list[Any] = []

            async def call() -> None:
                answered.append(await begin(client, prompt="C?"))

            nursery.start_soon(call)
            await until(lambda: model.running == 3)
            model.gate.set()
        assert [each.status for each in others] == ["working", "working"]
        assert text(answered[0]) == "Paris."


async def test_a_task_is_there_for_ten_minutes_after_its_end(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=30)
    server = make_server(service_of({"gpt": model}))
    async with Client(server, mode="2026-07-28", extensions=(Following(),)) as client:
        begun = await begin(client)
        await trio.sleep(100)
        before = await about(client.session, "tasks/get", begun.task_id)
        await trio.sleep(601)
        with pytest.raises(MCPError, match="or no longer"):
            await about(client.session, "tasks/get", begun.task_id)

    assert before.status == "completed"
    assert before.more["ttlMs"] >= 630_000


async def test_tasks_end_with_the_server() -> None:
    model = FakeModel("Paris.", gated=True)
    async with client_of({"gpt": model}) as client:
        await begin(client)
        await until(lambda: model.running == 1)
    assert model.running == 0


@pytest.mark.filterwarnings("ignore:Async generator 'http.*2:ResourceWarning")  # the SDK's, on trio
async def test_over_http_a_task_outlives_its_connection_and_is_that_of_its_key_alone() -> None:
    model = FakeModel("Paris.", gated=True)
    service = service_of({"gpt": model}, access=TwoKeys())

    @asynccontextmanager
    async def client_with(key: str) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=PATIENCE) as http,
            Client(
                streamable_http_client(url + PATH, http_client=http), mode="auto", extensions=(Following(),)
            ) as client,
        ):
            yield client

    with trio.fail_after(PATIENCE):
        async with serving(service, make_mcp_app(service)) as url:
            async with client_with("one") as client:
                begun = await begin(client)
                await until(lambda: model.running == 1)
            model.gate.set()
            async with client_with("two") as client:
                for method in ("tasks/get", "tasks/cancel"):
                    with pytest.raises(MCPError, match="there is no task"):
                        await about(client.session, method, begun.task_id)
            async with client_with("one") as client:
                result = await ended(client, begun)

    assert text(result) == "Paris."
