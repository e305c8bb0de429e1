"""What streams, and where clients run: the adapter in front of every client."""

from __future__ import annotations

import threading
from contextvars import Context, ContextVar, copy_context
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from helpers.adapted_clients import (
    QUESTION,
    USAGE,
    CallableObject,
    Client,
    Streaming,
    Synchronous,
    decorated,
    failure_of,
    generate,
)
from ultra.bridge.caller import Call, Caller, OnText
from ultra.clients.adapter import ClientAdapter
from ultra.errors import LoopUnavailable, ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

T = TypeVar("T")


# --- streaming -----------------------------------------------------------------------------------


async def test_pieces_arrive_one_by_one_and_make_up_the_answer() -> None:
    client, pieces = Streaming("one ", "", "two"), list[str]()

    completion = await ClientAdapter(client).call(QUESTION, on_text=pieces.append)

    assert pieces == ["one ", "", "two"], "the empty piece is a sign of life"
    assert completion.content == "one two"
    assert completion.usage is not None
    assert completion.usage.estimated
    assert client.closed


async def test_without_a_listener_the_whole_answer_is_asked_for() -> None:
    adapter = ClientAdapter(Streaming("piece"))

    assert adapter.streams
    assert (await adapter.call(QUESTION)).content == "whole answer to Q"


async def test_a_client_that_does_not_stream_gives_its_whole_answer_to_a_listener_too() -> None:
    pieces: list[str] = []

    assert (await ClientAdapter(Client("x")).call(QUESTION, on_text=pieces.append)).content == "x"
    assert pieces == []


@pytest.mark.parametrize(
    ("last", "content"),
    [
        (Completion(content="one two", usage=USAGE), "one two"),
        (Completion(content="something else", usage=USAGE), "something else"),
        (Completion(content="", usage=USAGE), "one two"),
    ],
)
async def test_the_completion_that_ends_a_stream_counts_unless_it_has_no_text(
    last: Completion, content: str
) -> None:
    completion = await ClientAdapter(Streaming("one ", "two", last)).call(QUESTION, on_text=lambda _: None)

    assert (completion.content, completion.usage) == (content, USAGE)


RETRYABLE, PERMANENT = True, False


@pytest.mark.parametrize(
    ("pieces", "verdict"),
    [
        ((), ("content", RETRYABLE)),
        ((" ", "\n"), ("content", RETRYABLE)),
        ((Completion(content="", finish_reason="refusal"),), ("content", PERMANENT)),
        (("x", b"bytes"), ("protocol", PERMANENT)),
        ((Completion(content="x"), "more"), ("protocol", PERMANENT)),
        (("x", ConnectionResetError()), ("connection", RETRYABLE)),
    ],
)
async def test_a_stream_that_fails_is_closed_and_says_how(
    pieces: tuple[object, ...], verdict: tuple[str, bool]
) -> None:
    client = Streaming(*pieces)

    failure = await failure_of(client, on_text=lambda _: None)

    assert (failure.kind, failure.retryable) == verdict
    assert client.closed


async def test_a_listener_that_raises_is_not_blamed_on_the_client() -> None:
    client = Streaming("x")

    def listener(text: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ClientAdapter(client).call(QUESTION, on_text=listener)
    assert client.closed


async def test_a_cancelled_stream_is_closed() -> None:
    client = Streaming("x", "y")

    with trio.CancelScope() as scope:
        await ClientAdapter(client).call(QUESTION, on_text=lambda _: scope.cancel())

    assert scope.cancelled_caught
    assert client.closed


class Pieces:
    """An async iterator that is no generator, as HTTP libraries have them."""

    def __init__(self, *, close_fails: bool = False) -> None:
        self.left = ["one ", "two"]
        self.closed = 0
        self.close_fails = close_fails

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    async def aclose(self) -> None:
        self.closed += 1
        if self.close_fails:
            raise ConnectionResetError


class Response:
    """An async iterable that has to be closed besides the iterator made from it."""

    def __init__(self) -> None:
        self.pieces = Pieces()
        self.closed = 0

    def __aiter__(self) -> Pieces:
        return self.pieces

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("awaited", ["awaited", "at once"])
async def test_a_stream_may_be_any_async_iterable_that_a_function_gives(awaited: str) -> None:
    response = Response()

    async def later(prompt: str) -> Response:
        return response

    stream: Callable[[str], object] = later if awaited == "awaited" else lambda prompt: response
    adapter = ClientAdapter(SimpleNamespace(generate=generate, stream=stream))

    assert (await adapter.call(QUESTION, on_text=lambda _: None)).content == "one two"
    assert (response.closed, response.pieces.closed) == (1, 1)


async def test_a_stream_that_fails_to_close_is_a_failure_of_the_client() -> None:
    client = SimpleNamespace(generate=generate, stream=lambda prompt: Pieces(close_fails=True))

    assert (await failure_of(client, on_text=lambda _: None)).kind == "connection"


async def test_a_stream_that_is_no_stream_is_a_permanent_failure_that_names_its_type() -> None:
    client = SimpleNamespace(generate=generate, stream=lambda prompt: ["x"])

    failure = await failure_of(client, on_text=lambda _: None)

    assert (failure.kind, failure.retryable) == ("protocol", False)
    assert "list" in failure.message


@pytest.mark.parametrize(
    "stream",
    [
        True,
        None,
        pytest.param(lambda: None, id="no prompt"),
        pytest.param(lambda method, url: None, id="more than a prompt"),
        pytest.param(lambda prompt: (yield prompt), id="plain generator"),
    ],
)
def test_an_attribute_called_stream_that_streams_no_answers_is_left_alone(stream: object) -> None:
    assert not ClientAdapter(SimpleNamespace(generate=generate, stream=stream)).streams


async def test_a_stream_gets_what_it_declares_itself() -> None:
    class Systematic(Streaming):
        async def stream(self, prompt: str, *, system: str = "") -> AsyncIterator[str]:
            yield f"{system}|{prompt}"

    completion = await ClientAdapter(Systematic()).call(ModelRequest.of("Q", "S"), on_text=lambda _: None)

    assert completion.content == "S|Q"


# --- where it runs, and its end ------------------------------------------------------------------


class CountingRunner:
    """A runner that counts its calls and marks the text that it brings home."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_running = True

    async def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> T:
        self.calls += 1
        return await call(None if on_text is None else lambda text: on_text(f"<{text}>"))


@pytest.mark.parametrize(("client", "calls"), [(CallableObject(), 1), (decorated, 1), (Synchronous(), 0)])
async def test_each_call_of_an_async_client_is_one_call_of_its_runner(client: object, calls: int) -> None:
    runner = CountingRunner()

    assert (await ClientAdapter(client, runner=runner).call(QUESTION)).content == "answer to Q"
    assert runner.calls == calls


async def test_a_whole_stream_is_one_call_of_the_runner_which_brings_its_text_home() -> None:
    runner, pieces = CountingRunner(), list[str]()

    await ClientAdapter(Streaming("one", "two"), runner=runner).call(QUESTION, on_text=pieces.append)

    assert runner.calls == 1
    assert pieces == ["<one>", "<two>"]


async def test_a_client_without_a_runner_of_its_own_is_run_where_its_caller_is() -> None:
    callers, own = CountingRunner(), CountingRunner()
    caller = Caller(copy_context(), callers)

    await ClientAdapter(generate).call(QUESTION, caller=caller)
    await ClientAdapter(generate, runner=own).call(QUESTION, caller=caller)

    assert (callers.calls, own.calls) == (1, 1)


async def test_a_client_that_has_outlived_its_loop_is_run_where_its_caller_is() -> None:
    callers, own = CountingRunner(), CountingRunner()
    own.is_running = False

    await ClientAdapter(generate, runner=own).call(QUESTION, caller=Caller(copy_context(), callers))

    assert (callers.calls, own.calls) == (1, 0)


class FailingRunner:
    """A runner that is itself at fault."""

    is_running = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> T:
        raise self.error


async def test_a_loop_that_ends_is_a_lost_connection() -> None:
    lost = LoopUnavailable("the loop was closed")

    with pytest.raises(ModelError, match="the loop was closed") as caught:
        await ClientAdapter(generate, runner=FailingRunner(lost)).call(QUESTION)

    assert (caught.value.kind, caught.value.__cause__) == ("connection", lost)


async def test_a_failure_of_the_runner_is_not_blamed_on_the_client() -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await ClientAdapter(generate, runner=FailingRunner(ZeroDivisionError("a bug"))).call(QUESTION)


colour: ContextVar[str] = ContextVar("colour", default="none")


async def tell_colour(prompt: str) -> str:
    seen = colour.get()
    colour.set("changed by the client")
    async with trio.open_nursery() as nursery:
        child = await nursery.start(tell_colour_in_a_child)
    return f"{seen}, {child}"


async def tell_colour_in_a_child(*, task_status: trio.TaskStatus[str]) -> None:
    task_status.started(colour.get())


@pytest.mark.parametrize(
    ("client", "answer"),
    [(tell_colour, "blue, changed by the client"), (lambda prompt: colour.get(), "blue")],
)
async def test_a_client_sees_the_context_variables_of_its_caller_and_changes_only_its_own(
    client: Callable[[str], object], answer: str
) -> None:
    context = copy_context()
    context.run(colour.set, "blue")

    completion = await ClientAdapter(client).call(QUESTION, caller=Caller(context))

    assert completion.content == answer
    assert (context[colour], colour.get()) == ("blue", "none")


async def test_cancellation_reaches_a_client_in_the_context_of_its_caller(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def hang(prompt: str) -> str:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(colour.get())

    context = copy_context()
    context.run(colour.set, "blue")
    with trio.move_on_after(1):
        await ClientAdapter(hang).call(QUESTION, caller=Caller(context))

    assert seen == ["blue"]


class Closable(Client):
    def __init__(self) -> None:
        super().__init__("x")
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_client_is_closed_only_by_its_owner_and_again_after_it_was_used_again() -> None:
    owned, borrowed = Closable(), Closable()
    adapters = ClientAdapter(owned, owned=True), ClientAdapter(borrowed)

    for adapter in (*adapters, *adapters):
        await adapter.call(QUESTION)
        await adapter.aclose()

    assert (owned.closed, borrowed.closed) == (2, 0)


async def test_a_client_with_a_synchronous_close_is_closed_in_a_thread() -> None:
    threads: list[threading.Thread] = []
    client = SimpleNamespace(generate=generate, close=lambda: threads.append(threading.current_thread()))

    await ClientAdapter(client, owned=True).aclose()

    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_client_without_a_close_needs_none() -> None:
    await ClientAdapter(generate, owned=True).aclose()
