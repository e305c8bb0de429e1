"""`ultra serve` as a program: its first line, its end, what it refuses, several processes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from helpers.command_line import PATIENCE, ended, run_ultra, ultra_running
from ultra.config.keys import hash_of
from ultra.config.loading import load_configuration
from ultra.faults.provider import simulated_provider

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.warm_python import ForkedProcess

CONFIGURATION = """
[models.gpt]
model = "openai:any"
base_url = "{base_url}"
api_key = "any-key-will-do"

[ensembles.council]
strategy = "best_of"
"""

QUESTION = {"model": "council", "messages": [{"role": "user", "content": "Which city?"}]}


async def first_line(process: ForkedProcess) -> str:
    assert process.stdout is not None
    data = b""
    with trio.fail_after(PATIENCE):
        while b"\n" not in data:
            piece = await process.stdout.receive_some()
            assert piece, f"it ended: {await ended(process)}"
            data += piece
    line, _, rest = data.partition(b"\n")
    assert rest == b""
    return line.decode()


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGTERM), ("2", signal.SIGINT)])
async def test_it_says_its_address_answers_and_ends_by_a_signal(
    tmp_path: Path, workers: str, number: signal.Signals
) -> None:
    async with simulated_provider() as provider:
        file = tmp_path / "ultra.toml"
        file.write_text(CONFIGURATION.format(base_url=provider.base_url("openai")), "utf-8")
        command = ("serve", "--config", str(file), "--port", "0", "--workers", workers)
        async with ultra_running(*command) as process:
            url = await first_line(process)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                answer = await client.post("/v1/chat/completions", json=QUESTION)
                models = await client.get("/v1/models")
            process.send_signal(number)
            code, errors = await ended(process)

    assert url.startswith("http://127.0.0.1:")
    assert answer.status_code == 200
    assert [model["id"] for model in models.json()["data"]] == ["council", "ultra", "gpt"]
    assert code == 0
    assert ("are of each process by itself" in errors) == (workers == "2")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_reads_its_configuration_again_at_sighup_and_keeps_the_old_one_if_it_is_wrong(
    tmp_path: Path, workers: str
) -> None:
    file = tmp_path / "ultra.toml"
    base = CONFIGURATION.format(base_url="http://127.0.0.1:9/v1")
    budgets = f'[serve]\nbudgets = "sqlite:///{tmp_path / "limits.db"}"\n'

    def with_key(key: str) -> str:
        limits = "requests_per_minute = 9999"
        return f'{base}{budgets}[[serve.keys]]\nname = "x"\nhash = "{hash_of(key)}"\n{limits}\n'

    async def status(client: httpx.AsyncClient, key: str) -> int:
        # A connection of its own each time, so that any of the processes may answer.
        headers = {"authorization": f"Bearer {key}", "connection": "close"}
        return (await client.get("/v1/models", headers=headers)).status_code

    file.write_text(with_key("first"), "utf-8")
    command = ("serve", "--config", str(file), "--host", "0.0.0.0", "--port", "0", "--workers", workers)
    async with ultra_running(*command) as process:
        url = (await first_line(process)).replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
            assert await status(client, "first") == 200
            assert process.stderr is not None
            errors = b""
            for text, words in ((with_key("second"), b"was reloaded"), ("wrong", b"is as it was")):
                file.write_text(text, "utf-8")
                process.send_signal(signal.SIGHUP)
                with trio.fail_after(PATIENCE):
                    while errors.count(words) < int(workers):
                        errors += await process.stderr.receive_some()
            statuses = {key: {await status(client, key) for _ in range(6)} for key in ("first", "second")}
        process.send_signal(signal.SIGTERM)
        code, _ = await ended(process)

    assert statuses == {"first": {401}, "second": {200}}
    assert code == 0
    if workers == "2":
        assert b"they share the rates and budgets of keys" in errors


async def test_a_key_is_made_and_its_hash_goes_into_the_configuration(tmp_path: Path) -> None:
    done = await run_ultra("serve", "key", "new", "--name", "alice")
    wrong = await run_ultra("serve", "key", "new", "--name", "a b")

    _, key, _, *block = done.stdout.decode().splitlines()
    file = tmp_path / "ultra.toml"
    text = CONFIGURATION.format(base_url="http://127.0.0.1:9/v1") + "\n".join(block)
    file.write_text(text, "utf-8")
    (config,) = load_configuration(file).serve.keys
    assert done.returncode == 0
    assert (config.name, config.hash) == ("alice", hash_of(key))
    assert key not in text
    assert wrong.returncode == 2


async def test_it_refuses_other_addresses_without_keys(tmp_path: Path) -> None:
    file = tmp_path / "ultra.toml"
    file.write_text(CONFIGURATION.format(base_url="http://127.0.0.1:9/v1"), "utf-8")

    done = await run_ultra("serve", "--config", str(file), "--host", "0.0.0.0")

    assert done.returncode == 2
    assert b"there are no keys" in done.stderr
    assert done.stdout == b""


async def test_a_wrong_configuration_is_told_before_anything_is_served(tmp_path: Path) -> None:
    file = tmp_path / "ultra.toml"
    text = CONFIGURATION.format(base_url="http://127.0.0.1:9/v1").replace("best_of", "no_such")
    file.write_text(text, "utf-8")

    done = await run_ultra("serve", "--config", str(file))

    assert done.returncode == 2
    assert b"ultra.toml:7: ensembles.council: unknown strategy 'no_such'" in done.stderr


async def test_an_ensemble_can_be_asked_by_the_command(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        provider.script("Paris.")
        file = tmp_path / "ultra.toml"
        file.write_text(CONFIGURATION.format(base_url=provider.base_url("openai")), "utf-8")
        ask = ("ask", "Which city?", "--config", str(file), "--plain")
        done = await run_ultra(*ask, "--ensemble", "council")
        unknown = await run_ultra(*ask, "--ensemble", "counsil")
    without = await run_ultra("ask", "Which city?", "-m", "local:careful", "--ensemble", "council")

    assert done.returncode == 0, done.stderr
    assert b"Paris." in done.stdout
    assert unknown.returncode == 2
    assert b"did you mean 'council'" in unknown.stderr
    assert without.returncode == 2
    assert b"ensembles stand in a configuration" in without.stderr
