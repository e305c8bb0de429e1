"""Keys in the system's keyring, with a keyring of the tests' own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from helpers.chat_server import chat_server
from helpers.command_line import PATIENCE, run_ultra, ultra_on_terminal, ultra_running

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("keyring", reason="the extra keyring is not installed")

BACKEND = """\
import json, os, pathlib
from keyring.backend import KeyringBackend

FILE = pathlib.Path(os.environ["TEST_KEYRING"])

class Backend(KeyringBackend):
    priority = 1
    def _all(self):
        return json.loads(FILE.read_text()) if FILE.exists() else {}
    def get_password(self, service, user):
        if FILE.suffix == ".locked":
            raise RuntimeError("locked, and here is sk-secret")
        return self._all().get(f"{service}/{user}")
    def set_password(self, service, user, password):
        FILE.write_text(json.dumps({**self._all(), f"{service}/{user}": password}))
    def delete_password(self, service, user):
        FILE.write_text(json.dumps({k: v for k, v in self._all().items() if k != f"{service}/{user}"}))
"""

KEY = "not-a-real-key-0001"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "own_keyring.py").write_text(BACKEND)
    return {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PYTHON_KEYRING_BACKEND": "own_keyring.Backend",
        "TEST_KEYRING": str(tmp_path / "keys"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


async def test_a_key_is_kept_listed_used_and_deleted_and_never_shown(env: dict[str, str]) -> None:
    async with chat_server() as server:
        there = {**env, "OPENAI_BASE_URL": server.environment["OPENAI_BASE_URL"]}
        kept = await run_ultra("keys", "set", "openai", env=there, stdin=f"{KEY}\n".encode())
        listed = await run_ultra("keys", "list", env=there)
        as_json = await run_ultra("keys", "list", "--json", env={**there, "OPENAI_API_KEY": "of-the-shell"})
        asked = await run_ultra("ask", "?", "-m", "openai:first", env=there)
        models = await run_ultra("models", "--json", env=there)
        async with ultra_running("serve", "--port", "0", env=there) as process:
            assert process.stdout is not None
            with trio.fail_after(PATIENCE):
                url = (await process.stdout.receive_some()).decode().strip()
            served = await trio.to_thread.run_sync(lambda: httpx.get(f"{url}/v1/models", trust_env=False))
        deleted = await run_ultra("keys", "delete", "openai", env=there)
        after = await run_ultra("ask", "?", "-m", "openai:first", env=there)

    assert kept.stdout == b"the key of openai is kept in the keyring\n", kept.stderr
    assert b"openai       keyring\n" in listed.stdout
    row = {"provider": "openai", "source": "environment", "variable": "OPENAI_API_KEY"}
    assert row in json.loads(as_json.stdout)
    assert (asked.returncode, deleted.returncode, after.returncode) == (0, 0, 2), asked.stderr
    assert b"no key for openai" in after.stderr
    ready = {each["name"]: each["detail"] for each in json.loads(models.stdout) if each["available"]}
    assert ready["openai"] == "key in the keyring"
    assert any(model["id"].startswith("openai/") for model in served.json()["data"])
    for done in (kept, listed, as_json, asked, deleted):
        assert KEY.encode() not in done.stdout + done.stderr


async def test_a_key_that_is_typed_is_not_shown(env: dict[str, str]) -> None:
    async with ultra_on_terminal("keys", "set", "openai", env=env) as terminal:
        await terminal.wait_for("Key of openai (it is not shown): ")
        await terminal.type(f"{KEY}\n")
        assert await terminal.wait() == 0

    assert KEY not in terminal.output


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        (("set", "openia"), KEY, "there is no provider 'openia'"),
        (("set", "local"), KEY, "local takes no key"),
        (("set", "openai"), "", "the key of openai is empty"),
        (("set", "openai"), "two words", "has characters that no key has"),
        (("delete", "openai"), "", "no key of 'openai' is kept; there are: none"),
    ],
)
async def test_what_is_no_key_is_refused(
    arguments: tuple[str, ...], key: str, message: str, env: dict[str, str]
) -> None:
    done = await run_ultra("keys", *arguments, env=env, stdin=f"{key}\n".encode())

    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not key or key not in done.stderr.decode()


async def test_without_a_keyring_of_the_system_the_environment_is_named(env: dict[str, str]) -> None:
    headless = {**env, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    done = await run_ultra("keys", "set", "openai", env=headless, stdin=KEY.encode())

    assert done.returncode == 2
    assert b"this system has no keyring that can be used" in done.stderr
    assert b"OPENAI_API_KEY" in done.stderr


async def test_a_keyring_that_cannot_be_read_is_told_of_without_its_words(env: dict[str, str]) -> None:
    await run_ultra("keys", "set", "mistral", env=env, stdin=KEY.encode())
    locked = {**env, "TEST_KEYRING": f"{env['TEST_KEYRING']}.locked"}
    async with chat_server() as server:
        done = await run_ultra("ask", "?", "-m", "openai:first", env={**locked, **server.environment})

    assert (done.returncode, done.stderr) == (
        0,
        b"ultra: the key of mistral cannot be read from the keyring: RuntimeError\n",
    )
