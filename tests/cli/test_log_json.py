"""`--log-json`: lines of JSON on stderr, which say who asked what run, and neither secret nor content."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import httpx
from test_serve_command import CONFIGURATION, first_line

from helpers.command_line import PATIENCE, ended, run_ultra, ultra_running
from ultra.faults.provider import simulated_provider

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "any-key-will-do"
WORDS = "xylophone"


def lines_of(errors: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in errors.splitlines()]
    assert all({"time", "level", "event", "logger"} <= line.keys() for line in lines)
    return lines


async def test_serve_logs_requests_and_runs_in_lines_of_json(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        provider.script("Not-to-be-logged.", "Not-to-be-logged.")
        file = tmp_path / "ultra.toml"
        file.write_text(CONFIGURATION.format(base_url=provider.base_url("openai")), "utf-8")
        async with ultra_running("serve", "--config", str(file), "--port", "0", "--log-json") as process:
            url = await first_line(process)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                question = {"model": "council", "messages": [{"role": "user", "content": WORDS}]}
                answer = await client.post(
                    "/v1/chat/completions", json=question, headers={"x-request-id": "r-1"}
                )
            process.send_signal(signal.SIGTERM)
            code, errors = await ended(process)
    lines = lines_of(errors)
    [run] = [line for line in lines if line["event"] == "run ended"]
    [request] = [line for line in lines if line["event"] == "request ended"]
    assert (code, answer.status_code) == (0, 200)
    assert (run["request_id"], run["level"], run["logger"]) == ("r-1", "info", "ultra.run")
    assert run["run_id"] == answer.headers["x-ultra-run-id"]
    assert (request["request_id"], request["status"]) == ("r-1", 200)
    assert not any(word in errors for word in (SECRET, WORDS, "Not-to-be-logged"))


async def test_ask_logs_its_run_in_lines_of_json(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        file = tmp_path / "ultra.toml"
        file.write_text(CONFIGURATION.format(base_url=provider.base_url("openai")), "utf-8")
        done = await run_ultra("ask", WORDS, "--config", str(file), "--json", "--log-json")
    assert done.returncode == 0, done.stderr
    errors = done.stderr.decode()  # of which the command writes some lines itself
    logged = "\n".join(line for line in errors.splitlines() if line.startswith("{"))
    [run] = [line for line in lines_of(logged) if line["event"] == "run ended"]
    assert run["run_id"] == json.loads(done.stdout)["run_id"]
    assert WORDS not in logged
