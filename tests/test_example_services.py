"""The examples on asyncio, and the web services among them, started as programs of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from helpers.command_line import environment, programs
from helpers.paths import EXAMPLES
from ultra.messages.events import Chunk, Event, RunCompleted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVICES = ("fastapi_service.py", "trio_service.py")

TIMEOUT = 60.0
"""Seconds after which a program that hangs is given up."""

# A server that ends by a signal either returns or, as uvicorn does, ends by that very signal.
ENDED_BY_SIGTERM = {0, -signal.SIGTERM}


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The examples that end by themselves, all started at once: they wait for models most of the time."""
    commands = {"asyncio_basic.py": ("Why?",)} | dict.fromkeys(SERVICES, ("--port", "0", "--demo"))
    with ExitStack() as processes:
        yield {
            name: processes.enter_context(started(name, *arguments, python=(sys.executable, "-W", "error")))
            for name, arguments in commands.items()
        }


@contextmanager
def started(name: str, *arguments: str, python: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """An example as a process, which is killed at the end; of a Python that is forked, if none is given."""
    process = subprocess.Popen(
        [*(python or (programs() / "python",)), EXAMPLES / name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONUNBUFFERED": "1"}),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def printed_by(process: subprocess.Popen[str]) -> str:
    """What an example printed that ended by itself and had nothing to complain about."""
    printed, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")
    return printed


@contextmanager
def service(name: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service and its address."""
    with started(name, "--port", "0") as process:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        assert first_line.startswith("listening on http://127.0.0.1:")
        yield process, first_line.split()[-1]


def end(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a service that was told to end; it complains about nothing."""
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode in ENDED_BY_SIGTERM
    assert errors == ""


def get(address: str, path: str, **parameters: str) -> httpx.Response:
    return httpx.get(address + path, params=parameters, timeout=TIMEOUT, trust_env=False)


@contextmanager
def stream(address: str, question: str) -> Iterator[Iterator[Event]]:
    """The events that a service sends."""
    url = f"{address}/stream"
    with httpx.stream(
        "GET", url, params={"question": question}, timeout=TIMEOUT, trust_env=False
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        yield (msgspec.json.decode(line.removeprefix("data: "), type=Event) for line in lines)


def test_the_asyncio_example_prints_what_three_kinds_of_clients_say(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    assert printed_by(running["asyncio_basic.py"]).splitlines() == [
        "first  (first) You asked: Why?",
        "second (second) You asked: Why?",
        "slow   (slow) You asked: Why?",
        "together (success): (first) I read the answers to: Why?",
        "(first) You asked: One?",
        "(first) You asked: Two?",
        "(first) You asked: Three?",
        "{'first': 'up', 'second': 'up', 'slow': 'up'}",
    ]


@pytest.fixture(scope="module", params=SERVICES)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A service that several tests use."""
    with service(request.param) as (process, address):
        yield address
        process.send_signal(signal.SIGTERM)
        end(process)


def test_a_service_sends_what_each_model_says_as_it_says_it(address: str) -> None:
    with stream(address, "Why is the sky blue?") as events:
        got = list(events)

    assert [event.seq for event in got] == list(range(len(got)))
    last = got[-1]
    assert isinstance(last, RunCompleted)
    chunks = [event for event in got if isinstance(event, Chunk) and event.stage == "initial"]
    assert len(chunks) > 3  # three models, and not each in one piece
    for model, response in last.result.initial_responses.items():
        assert "".join(chunk.text for chunk in chunks if chunk.model_name == model) == response.content


def test_a_service_tells_how_its_models_are_and_refuses_what_is_no_question(address: str) -> None:
    health: dict[str, Any] = get(address, "/health").json()
    refused = get(address, "/stream", question=" ")

    assert {model: state["status"] for model, state in health.items()} == {
        "careful": "up",
        "concise": "up",
        "creative": "up",
    }
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "the prompt is empty" in refused.json()["error"]


def test_a_service_goes_on_when_somebody_hangs_up(address: str) -> None:
    with stream(address, "Is there anybody?") as events:
        next(event for event in events if isinstance(event, Chunk))

    assert get(address, "/health").status_code == httpx.codes.OK


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_is_told_to_end_finishes_what_it_has_begun(name: str) -> None:
    with service(name) as (process, address):
        with stream(address, "Why is the sky blue, and red in the evening?") as events:
            next(event for event in events if isinstance(event, Chunk))
            process.send_signal(signal.SIGTERM)
            rest = list(events)

        assert isinstance(rest[-1], RunCompleted)
        assert rest[-1].result.status == "success"
        end(process)
        with pytest.raises(httpx.ConnectError):
            get(address, "/health")


def test_the_fastapi_service_answers_in_one_piece_too_and_ends_at_ctrl_c() -> None:
    with service("fastapi_service.py") as (process, address):
        answer = get(address, "/ask", question="Why?").json()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)

    assert answer["status"] == "success"
    assert answer["answers"]["careful"] == "You asked: Why? "
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_the_demonstration_of_a_service_ends_by_itself(
    name: str, running: dict[str, subprocess.Popen[str]]
) -> None:
    printed = printed_by(running[name])

    assert '"type":"chunk"' in printed
    assert '"type":"run_completed"' in printed


def test_ctrl_c_ends_the_trio_service_without_a_traceback() -> None:
    with service("trio_service.py") as (process, address):
        get(address, "/health")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)

        assert (process.returncode, errors) == (0, "")


@pytest.mark.long
def test_clients_of_other_frameworks_ask_the_service_that_is_started_for_them() -> None:
    names = ("running_service.py", "pydantic_ai_agent.py", "langchain_chain.py")
    with ExitStack() as processes:
        running = [processes.enter_context(started(name)) for name in names]
        listed, agent, chain = (printed_by(process) for process in running)

    assert listed.splitlines()[0] == "council: first, second"
    assert "population(" in agent
    assert agent.splitlines()[-1] == "2 requests to the ensemble for the second answer"
    assert "as a structure: City(name=" in chain
