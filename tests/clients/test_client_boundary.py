"""Whatever a client raises is a failed attempt, but for what interrupts the call from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from ultra import MultiLLMOrchestrator
from ultra.clients.classify import classify
from ultra.errors import AllAttemptsFailed, ModelError


class PanicError(BaseException):
    """As pyo3's PanicException is."""


async def stray_cancelled() -> BaseException:
    with trio.move_on_after(0):
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            return error
    raise AssertionError


STRAY = trio.run(stray_cancelled)
RAISED = [
    PanicError("index out of bounds"),
    SystemExit(2),
    asyncio.CancelledError(),
    GeneratorExit(),
    STRAY,
    BaseExceptionGroup("several", [PanicError("one"), ValueError("two")]),
]


def client_of(shape: str, error: BaseException) -> Any:
    async def asynchronous(_: str) -> str:
        raise error

    def synchronous(_: str) -> str:
        raise error

    class Streaming:
        async def generate(self, _: str) -> str:
            raise error

        async def stream(self, _: str) -> AsyncIterator[str]:
            yield "a piece"
            raise error

    return {"async": asynchronous, "sync": synchronous, "stream": Streaming()}[shape]


async def good(_: str) -> str:
    return "fine"


@pytest.mark.parametrize("run", [trio.run, lambda function: asyncio.run(function())], ids=["trio", "asyncio"])
@pytest.mark.parametrize("shape", ["async", "sync", "stream"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_it_is_a_failed_attempt(run: Callable[[Any], None], shape: str, error: BaseException) -> None:
    async def main() -> None:
        async with MultiLLMOrchestrator(max_retries=0) as orchestrator:
            orchestrator.register_model("bad", client_of(shape, error))
            orchestrator.register_model("good", good)
            async with orchestrator.stream_responses("q", stages=["initial"]) as stream:
                results = await stream.result()
            assert results.status == "degraded"
            with pytest.raises(AllAttemptsFailed) as caught:
                await orchestrator.get_model_response("bad", "q")
            assert caught.value.__cause__ is not None
            assert caught.value.__cause__.__cause__ is error
            assert (await orchestrator.get_model_response("good", "q")).content == "fine"

    # In a thread, since a test is in a trio run already.
    await trio.to_thread.run_sync(run, main)


@pytest.mark.parametrize("library", ["trio", "asyncio"])
async def test_a_real_cancellation_is_none(library: str) -> None:
    async def hang(_: str) -> str:
        if library == "trio":
            await trio.sleep_forever()
        await asyncio.sleep(1000)
        return "never"

    async def on_trio() -> None:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        with trio.move_on_after(0.05) as scope:
            await orchestrator.get_model_response(hang, "q")
        assert scope.cancelled_caught

    async def on_asyncio() -> None:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(orchestrator.get_model_response(hang, "q"), 0.05)

    if library == "trio":
        await on_trio()
    else:
        await trio.to_thread.run_sync(asyncio.run, on_asyncio())


class Unsound(ModelError):
    """A client's own error, whose text cannot be told."""

    def __str__(self) -> str:
        raise PanicError("no text")


class Incomplete(ModelError):
    """A client's own error that forgets what its base class keeps."""

    def __init__(self) -> None:
        pass


class Panicking(Exception):
    """An error that a client's library cannot describe."""

    @property
    def status_code(self) -> int:
        raise PanicError("no status")

    def __str__(self) -> str:
        raise PanicError("no text")


class Neither:
    """Is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("neither")


def error_with(**attributes: object) -> ModelError:
    error = ModelError("said")
    vars(error).update(attributes)
    return error


UNSOUND: dict[str, Exception] = {
    "no text": Unsound("x"),
    "no attributes": Incomplete(),
    "panics": Panicking(),
    "NaN seconds": error_with(retry_after=float("nan")),
    "seconds below 0": error_with(retry_after=-5.0),
    "seconds as text": error_with(retry_after="5"),
    "endless seconds": error_with(retry_after=10**400),
    "kind of no hash": error_with(kind=[]),
    "unknown kind": error_with(kind="odd"),
    "neither retryable nor not": error_with(retryable=Neither()),
    "status as text": error_with(status="500"),
    "no provider": error_with(provider=None),
    "usage of no type": error_with(usage=Neither()),
    "neither expected nor not": error_with(unexpected=Neither()),
    "group": ExceptionGroup("several", [Panicking(), Incomplete()]),
}


@pytest.mark.parametrize("run", [trio.run, lambda function: asyncio.run(function())], ids=["trio", "asyncio"])
@pytest.mark.parametrize("shape", ["async", "sync", "stream"])
@pytest.mark.parametrize("error", UNSOUND.values(), ids=UNSOUND)
async def test_an_error_of_a_class_that_lies_is_a_failed_attempt(
    run: Callable[[Any], None], shape: str, error: Exception
) -> None:
    async def main() -> None:
        async with MultiLLMOrchestrator(max_retries=0) as orchestrator:
            orchestrator.register_model("bad", client_of(shape, error))
            orchestrator.register_model("good", good)
            async with orchestrator.stream_responses("q", stages=["initial"]) as stream:
                assert (await stream.result()).status == "degraded"
            with pytest.raises(AllAttemptsFailed):
                await orchestrator.get_model_response("bad", "q")
            assert orchestrator.health()["bad"].reasons
            assert str(orchestrator.tree())

    await trio.to_thread.run_sync(run, main)


def test_an_error_of_a_client_is_as_long_as_others_at_most() -> None:
    error = classify(ModelError("x" * 2_000_000, kind="overloaded", retry_after=3.0))
    assert len(str(error)) < 4_000
    assert (error.kind, error.retry_after, error.retryable) == ("overloaded", 3.0, True)


def test_a_sound_error_of_a_client_passes_as_it_is() -> None:
    class Mine(ModelError):
        pass

    error = Mine("busy", kind="overloaded", retry_after=2, status=529, usage=None)
    assert classify(error) is error
