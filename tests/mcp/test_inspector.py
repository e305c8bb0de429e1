"""The official MCP Inspector, by its command line, calls the tools: on stdio, and over HTTP."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from helpers.chat_server import chat_server
from helpers.command_line import PATIENCE, environment
from helpers.javascript import FOLDER, node_with
from helpers.services import TwoKeys, service_of, serving
from ultra.mcp.http import PATH, make_mcp_app
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

INSPECTOR = "@modelcontextprotocol/inspector"
COMMAND = FOLDER / "node_modules" / INSPECTOR / "clients" / "launcher" / "build" / "index.js"


class Inspected(NamedTuple):
    """How the Inspector ended: its exit code, the result that it printed, and what it said beside it."""

    code: int
    result: dict[str, Any]
    said: str


class Inspector:
    """Runs the Inspector, with a home of its own, at one server."""

    def __init__(self, home: Path, target: list[str]) -> None:
        self._node = node_with(INSPECTOR)
        self._home, self._target = home, target

    async def __call__(self, method: str, *more: str) -> Inspected:
        command = [self._node, str(COMMAND), "--cli", *self._target, "--method", method, *more]
        env = {"PATH": os.environ["PATH"], "HOME": str(self._home)}
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                command, env=env, capture_stdout=True, capture_stderr=True, check=False
            )
        assert done.stdout, done.stderr.decode()
        return Inspected(done.returncode, json.loads(done.stdout), done.stderr.decode())

    async def call(self, tool: str, **arguments: str) -> dict[str, Any]:
        """Return the result of a tool."""
        given = [f"{name}={value}" for name, value in arguments.items()]
        called = await self("tools/call", "--tool-name", tool, *(["--tool-arg", *given] if given else []))
        assert called.code == 0, called.said
        return called.result


async def look_at_list(inspector: Inspector) -> None:
    """List the tools; the Inspector finds nothing in their schemas that a client could stumble over."""
    listed = await inspector("tools/list", "--strict")
    assert (listed.code, listed.said) == (0, "")
    assert [tool["name"] for tool in listed.result["tools"]] == ["ask", "compare", "models"]


async def call_each(inspector: Inspector) -> None:
    """Call each tool. The models are first and second, and each says that the capital is Paris."""
    known = (await inspector.call("models"))["structuredContent"]
    assert [model["name"] for model in known["models"]] == ["first", "second"]

    asked = await inspector.call("ask", prompt="Which city?")
    assert "Paris" in asked["content"][0]["text"]
    assert asked["structuredContent"]["status"] == "success"

    compared = (await inspector.call("compare", prompt="Which city?"))["structuredContent"]
    assert [answer["model"] for answer in compared["answers"]] == ["first", "second"]


async def test_it_calls_the_tools_on_stdio(tmp_path: Path) -> None:
    config = tmp_path / "ultra.toml"
    config.write_text('[models.first]\nmodel = "openai:first"\n[models.second]\nmodel = "openai:second"\n')
    async with chat_server() as server:
        env = {**environment(server.environment), "HOME": str(tmp_path)}
        start = tmp_path / "start"
        start.write_text(
            f"#!{sys.executable}\n"
            f"import os\nos.execve({sys.executable!r}, [{sys.executable!r}, '-m', 'ultra', 'mcp', "
            f"'--config', {str(config)!r}], {env!r})\n"
        )
        start.chmod(0o755)
        inspector = Inspector(tmp_path, [str(start)])
        await look_at_list(inspector)
        assert "Paris" in (await inspector.call("ask", prompt="Which city?"))["content"][0]["text"]


async def test_it_calls_the_tools_over_http(tmp_path: Path) -> None:
    service = service_of({"first": FakeModel("Paris."), "second": FakeModel("Paris.")})
    async with serving(service, make_mcp_app(service)) as url:
        inspector = Inspector(tmp_path, [url + PATH])
        await look_at_list(inspector)
        await call_each(inspector)


async def test_it_is_let_in_by_its_key_and_told_what_is_wrong(tmp_path: Path) -> None:
    service = service_of({"first": FakeModel("Paris.")}, access=TwoKeys())
    async with serving(service, make_mcp_app(service)) as url:
        inspector = Inspector(tmp_path, [url + PATH, "--header", "Authorization: Bearer one"])
        wrong = await inspector("tools/call", "--tool-name", "ask", "--tool-arg", "promt=Which?")

    assert wrong.code != 0
    assert "unknown field `promt`" in wrong.result["content"][0]["text"]
