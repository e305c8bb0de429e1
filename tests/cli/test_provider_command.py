"""`ultra provider` as a real process, asked by `ultra ask` and by clients over its socket."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from helpers.command_line import PATIENCE, ended, environment, programs, run_ultra, ultra_running
from ultra.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.warm_python import ForkedProcess

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

ASKED = {"model": "any", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 20}


async def variables(process: ForkedProcess) -> tuple[str, dict[str, str]]:
    """The address that a provider prints, and the variables."""
    assert process.stdout is not None
    printed = b""
    with trio.fail_after(PATIENCE):
        async for data in process.stdout:  # it closes the pipe when all is said
            printed += data
    assert printed, "the provider ended"
    first, *lines = printed.decode().splitlines()
    url = first.removeprefix("# simulated models at ")
    return url, dict(re.fullmatch("export ([A-Z_]+)=(.+)", line).groups() for line in lines)  # type: ignore[union-attr,misc]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_it_serves_until_it_is_told_to_end(number: int, code: int) -> None:
    async with ultra_running("provider") as process:
        url, _ = await variables(process)
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{url}/api/version")
        process.send_signal(number)
        ending = await ended(process)

    assert response.status_code == 200
    assert ending == (code, "")


async def test_ask_finds_it_by_the_variables_that_it_prints() -> None:
    async with ultra_running("provider", "--seed", "3") as process:
        _, found = await variables(process)
        models = [f"--model={name}:any" for name in ("openai", "anthropic", "gemini", "ollama")]
        done = await run_ultra("ask", "Why?", "--plain", *models, env=found)

    assert done.returncode == 0, done.stderr
    assert done.stderr == b""


@needs_bash
@pytest.mark.parametrize("command", ["ultra provider --background --seed 3", "ultra provider --seed 3 &"])
async def test_a_shell_evaluates_what_it_prints_while_it_goes_on(command: str) -> None:
    script = f"""
        PATH={shlex.quote(str(programs()))}:$PATH
        eval "$({command})" || exit 1
        ultra ask Why? --model openai:any --json
        kill $ULTRA_PROVIDER_PID
    """
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["bash", "-c", script], env=environment(), capture_stdout=True, capture_stderr=True, check=False
        )

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["status"] == "success"


async def test_one_that_cannot_serve_in_the_background_says_so() -> None:
    done = await run_ultra("provider", "--background", "--host", "192.0.2.1")

    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(rb"ultra: the operating system reports: .*\n", done.stderr)


async def test_a_fault_plan_is_applied_and_reported(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "seed = 1\n[[rules]]\nfault = 'http_status'\nurl = '*/v1/messages'\nstatus = 529\ntimes = 1\n"
    )
    async with ultra_running("provider", "--faults", str(plan)) as process:
        url, _ = await variables(process)
        async with httpx.AsyncClient(headers={"x-api-key": "k"}) as client:
            statuses = [(await client.post(f"{url}/v1/messages", json=ASKED)).status_code for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = await ended(process)

    assert statuses == [529, 200]
    assert "FaultPlan(seed=1): 1 fault injected" in errors


async def test_its_settings_hold() -> None:
    settings = ("--latency", "0.0-0.001", "--tokens-per-second", "100000", "--requests-per-minute", "1", "-v")
    async with ultra_running("provider", *settings) as process:
        url, _ = await variables(process)
        async with httpx.AsyncClient(headers={"x-api-key": "k"}) as client:
            responses = [await client.post(f"{url}/v1/messages", json=ASKED) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = await ended(process)

    assert [response.status_code for response in responses] == [200, 429]
    assert re.search("protocol=anthropic path=/v1/messages model=any .*status=429", errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "soon"], "--latency is 'soon'; give seconds, as in 0.2, or a range, as in 0.1-0.5"),
        (["--faults", "absent.toml"], "absent.toml: the fault plan cannot be read: .*"),
        (["--port", "70000"], "Invalid value for '--port': .*"),
    ],
)
def test_what_it_is_told_wrongly_is_one_line_and_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["provider", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(f"ultra: {message}\n", output.err)


async def test_an_address_that_it_cannot_have_is_one_line_and_1() -> None:
    done = await run_ultra("provider", "--host", "192.0.2.1")

    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(rb"ultra: the operating system reports: .*\n", done.stderr)
