"""The tools of the MCP server, called by the official client in this process, in both eras of MCP."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import trio
from mcp import Client, MCPError
from mcp.types import TextContent

from helpers.services import PATIENCE, service_of, until
from ultra import ModelError
from ultra.config.serving import ServeConfig
from ultra.mcp.server import make_server
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mcp.types import CallToolResult


@pytest.fixture(params=["legacy", "2026-07-28"])
def mode(request: pytest.FixtureRequest) -> str:
    """How the client greets: by the handshake, or by an envelope in each request."""
    found: str = request.param
    return found


@asynccontextmanager
async def client_of(models: Mapping[str, object], mode: str, **more: Any) -> AsyncIterator[Client]:
    with trio.fail_after(PATIENCE):
        async with Client(make_server(service_of(models, **more)), mode=mode) as client:
            yield client


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


class Progress:
    """What was told of a call."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self.messages: list[str] = []

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        self.numbers.append(progress)
        self.messages.append(message or "")


async def test_it_lists_three_tools_with_schemas_and_the_names_that_can_be_given(mode: str) -> None:
    async with client_of({"gpt": FakeModel("Paris."), "claude": FakeModel("Paris.")}, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert list(tools) == ["ask", "compare", "models"]
    for tool in tools.values():
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is not None
        jsonschema_rs.Draft202012Validator(tool.input_schema)
        jsonschema_rs.Draft202012Validator(tool.output_schema)
    properties = tools["ask"].input_schema["properties"]
    assert properties["ensemble"]["enum"] == ["council", "gpt", "claude"]
    assert properties["models"]["items"]["enum"] == ["gpt", "claude"]
    assert "synthesize" in properties["strategy"]["enum"]
    assert tools["ask"].input_schema["required"] == ["prompt"]


async def test_an_answer_is_text_and_structured_content_and_each_answer_is_told_as_it_comes(
    mode: str,
) -> None:
    progress = Progress()
    models = {"gpt": FakeModel(["Paris.", "It is Paris."]), "claude": FakeModel("Lyon.")}
    async with client_of(models, mode) as client:
        await client.list_tools()  # the client checks structured content by the schemas from here
        result = await client.call_tool("ask", {"prompt": "Which city?"}, progress_callback=progress)

    assert not result.is_error
    assert text(result) == "It is Paris."
    structured = result.structured_content
    assert structured["answer"] == "It is Paris."
    assert structured["ensemble"] == "council"
    assert (structured["status"], structured["written_by"]) == ("success", "gpt")
    assert structured["models"] == ["gpt", "claude"]
    assert structured["answers"] == []
    assert progress.numbers == list(range(1, len(progress.numbers) + 1))
    told = "\n".join(progress.messages)
    assert "initial: asking gpt, claude" in told
    assert "initial: gpt answered after" in told
    assert ": Lyon." in told
    assert told.endswith(": It is Paris.")


async def test_progress_comes_while_other_models_still_think() -> None:
    progress = Progress()
    slow = FakeModel("Paris.", gated=True)
    async with (
        client_of({"gpt": FakeModel("Lyon."), "claude": slow}, "2026-07-28") as client,
        trio.open_nursery() as nursery,
    ):
        results: list[CallToolResult] = []

        async def compare() -> None:
            results.append(
                await client.call_tool("compare", {"prompt": "Which?"}, progress_callback=progress)
            )

        nursery.start_soon(compare)
        await until(lambda: any("gpt answered" in message for message in progress.messages))
        assert not results
        slow.gate.set()

    assert [each["content"] for each in results[0].structured_content["answers"]] == ["Lyon.", "Paris."]


async def test_a_silent_run_gives_signs_of_life() -> None:
    progress = Progress()
    slow = FakeModel("Paris.", gated=True)
    settings = ServeConfig(keepalive_interval=0.01)
    async with (
        client_of({"gpt": slow}, "2026-07-28", settings=settings) as client,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            await client.call_tool("ask", {"prompt": "Which?"}, progress_callback=progress)

        nursery.start_soon(ask)
        await until(lambda: progress.messages.count("waiting for gpt") > 2)
        slow.gate.set()


async def test_answers_are_given_back_where_they_are_wanted(mode: str) -> None:
    models = {"gpt": FakeModel(["Paris.", "It is Paris."]), "claude": FakeModel("Lyon.")}
    async with client_of(models, mode) as client:
        arguments = {"prompt": "Which city?", "ensemble": "council", "include_answers": True}
        result = await client.call_tool("ask", arguments)

    answers = result.structured_content["answers"]
    assert [(each["model"], each["content"]) for each in answers] == [("gpt", "Paris."), ("claude", "Lyon.")]


async def test_models_are_compared_without_merging(mode: str) -> None:
    gpt, claude, third = FakeModel("Paris."), FakeModel("Lyon."), FakeModel("Nice.")
    async with client_of({"gpt": gpt, "claude": claude, "third": third}, mode) as client:
        await client.list_tools()
        result = await client.call_tool("compare", {"prompt": "Which city?", "models": ["third", "gpt"]})

    assert text(result) == "## gpt\n\nParis.\n\n## third\n\nNice."
    found = [(each["model"], each["content"]) for each in result.structured_content["answers"]]
    assert found == [("gpt", "Paris."), ("third", "Nice.")]
    assert (len(gpt.calls), len(claude.calls), len(third.calls)) == (1, 0, 1)


async def test_a_model_that_fails_is_named_beside_the_answers_of_the_others(mode: str) -> None:
    broken = FakeModel().fail(ModelError("secret words of the provider", kind="overloaded"))
    async with client_of({"gpt": FakeModel("Paris."), "claude": broken}, mode) as client:
        result = await client.call_tool("compare", {"prompt": "Which city?"})

    assert result.structured_content["failed"] == [{"model": "claude", "error": "overloaded"}]
    assert text(result) == "## gpt\n\nParis.\n\n## claude\n\nfailed (overloaded)"


async def test_the_list_of_models_tells_what_can_be_asked(mode: str) -> None:
    async with client_of({"gpt": FakeModel(context_window=9000), "claude": FakeModel()}, mode) as client:
        await client.list_tools()
        result = await client.call_tool("models", {})

    found = result.structured_content
    assert found == json.loads(text(result))
    assert found["default"] == "council"
    assert found["ensembles"] == [
        {"name": "council", "strategy": "synthesize", "models": ["gpt", "claude"], "description": ""}
    ]
    assert [(each["name"], each["status"]) for each in found["models"]] == [("gpt", "up"), ("claude", "up")]
    assert found["models"][0]["context_window"] == 9000


async def test_a_schema_gives_json_that_satisfies_it(mode: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    async with client_of({"gpt": FakeModel('{"city": "Paris"}')}, mode) as client:
        await client.list_tools()
        result = await client.call_tool("ask", {"prompt": "Which city?", "ensemble": "gpt", "schema": schema})

    assert result.structured_content["output"] == {"city": "Paris"}
    assert json.loads(text(result)) == {"city": "Paris"}


async def test_a_strategy_and_its_options_replace_those_of_the_ensemble(mode: str) -> None:
    models = {"gpt": FakeModel("Lyon."), "claude": FakeModel("Paris."), "third": FakeModel("Paris.")}
    async with client_of(models, mode) as client:
        result = await client.call_tool("ask", {"prompt": "Which city?", "strategy": "vote"})

    assert result.structured_content["strategy"] == "vote"
    assert len(models["gpt"].calls) >= 1


async def test_models_can_be_named_in_place_of_those_of_the_ensemble(mode: str) -> None:
    gpt, claude = FakeModel("Lyon."), FakeModel("Paris.")
    async with client_of({"gpt": gpt, "claude": claude}, mode) as client:
        result = await client.call_tool("ask", {"prompt": "Which city?", "models": ["claude"]})

    assert text(result) == "Paris."
    assert not gpt.calls


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        (
            "ask",
            {"prompt": "?", "ensemble": "counsil"},
            "the model 'counsil' does not exist; did you mean 'council'?",
        ),
        ("ask", {"prompt": "?", "strategy": "votes"}, "unknown strategy 'votes'"),
        ("ask", {"prompt": "?", "strategy": "vote", "strategy_options": {"no": 1}}, "has no option 'no'"),
        ("ask", {"prompt": "?", "strategy_options": {"no": 1}}, "strategy_options are those of a strategy"),
        ("ask", {"prompt": ""}, "`$.prompt`"),
        ("ask", {"prompt": " "}, "the prompt is empty"),
        ("ask", {}, "missing required field `prompt`"),
        ("ask", {"prompt": "?", "promt": "?"}, "unknown field `promt`"),
        ("ask", {"prompt": "?", "timeout": 1e6}, "may take 600 s at most"),
        ("ask", {"prompt": "?", "schema": {"type": "nothing"}}, "nothing"),
        ("compare", {"prompt": "?", "models": ["nobody"]}, "'nobody'"),
        ("models", {"what": 1}, "unknown field `what`"),
    ],
)
async def test_what_is_wrong_with_a_call_is_an_error_of_the_tool(
    tool: str, arguments: dict[str, Any], told: str, mode: str
) -> None:
    async with client_of({"gpt": FakeModel()}, mode) as client:
        result = await client.call_tool(tool, arguments)

    assert result.is_error
    assert told in text(result)
    assert result.structured_content is None


async def test_a_tool_that_is_unknown_is_an_error_of_the_protocol(mode: str) -> None:
    async with client_of({"gpt": FakeModel()}, mode) as client:
        with pytest.raises(MCPError, match=r"there is no tool 'aks'; there are: ask, compare, models"):
            await client.call_tool("aks", {"prompt": "?"})


async def test_a_run_that_fails_tells_which_models_failed_and_nothing_of_a_providers_words(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(kind: Any) -> FakeModel:
        return FakeModel(lambda _: ModelError("key sk-secret was refused", kind=kind))

    progress = Progress()
    async with client_of({"gpt": broken("auth"), "claude": broken("bad_request")}, mode) as client:
        result = await client.call_tool("ask", {"prompt": "Which?"}, progress_callback=progress)

    assert result.is_error
    assert "gpt: auth" in text(result)
    assert "claude: bad_request" in text(result)
    told = text(result) + "".join(progress.messages)
    assert "secret" not in told
    assert "refused" not in told.replace("upstream_refused", "")


async def test_cancelling_a_call_cancels_the_calls_of_the_models(mode: str) -> None:
    gpt, claude = FakeModel(gated=True), FakeModel(gated=True)
    async with client_of({"gpt": gpt, "claude": claude}, mode) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "ask", {"prompt": "Which?"})
            await until(lambda: gpt.running + claude.running == 2)
            nursery.cancel_scope.cancel()
        await until(lambda: gpt.cancelled + claude.cancelled == 2)
        gpt.gate.set()
        result = await client.call_tool("ask", {"prompt": "And now?", "ensemble": "gpt"})

    assert text(result) == "fake: And now?"


async def test_more_calls_than_the_service_may_answer_at_once_are_refused(mode: str) -> None:
    gpt = FakeModel(gated=True)
    async with (
        client_of({"gpt": gpt}, mode, settings=ServeConfig(max_running=1)) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call_tool, "ask", {"prompt": "One?"})
        await until(lambda: gpt.running == 1)
        refused = await client.call_tool("ask", {"prompt": "Two?"})
        gpt.gate.set()

    assert refused.is_error
    assert "as many requests as it may at once" in text(refused)
    assert "try again in 1 s" in text(refused)
