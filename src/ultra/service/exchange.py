"""From a request to the bytes of its answer, for every protocol that speaks as a provider does.

What they share is here: the run, joining it, when a stream begins, signs of life, errors in its middle. A
protocol is an `Exchange`, which reads requests and writes answers, and a `Writer` for each stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from ultra.service.asked import Asked
from ultra.service.http import EVENT_STREAM, JSON, Reply
from ultra.service.problems import Problem, no_answer
from ultra.service.shared_run import SharedRun
from ultra.strategies.catalog import spec_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from contextlib import AsyncExitStack

    from ultra.config.serving import KeepAlive
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.runs import Follower

__all__ = ["Exchange", "Writer", "answered", "carried_out"]

A = TypeVar("A", bound=Asked)


class Writer(ABC):
    """Writes the events of one stream."""

    @abstractmethod
    def begin(self) -> bytes:
        """Return what is sent before anything is known."""

    @abstractmethod
    def alive(self, progress: str, keepalive: KeepAlive) -> bytes:
        """Return what says nothing, by which a client knows that the stream is alive."""

    @abstractmethod
    def text(self, text: str) -> bytes:
        """Return the next piece of the answer."""

    @abstractmethod
    def reasoning(self, pieces: Sequence[ReasoningPart], *, begins: bool) -> bytes:
        """Return the next pieces of what is thought; with `begins`, the reasoning before them is void."""

    @abstractmethod
    def untold_reasoning(self, answer: ModelResponse) -> bytes:
        """Return the reasoning of an answer that has not been told yet: some is known once that is whole."""

    @abstractmethod
    def end(self, result: OrchestrationResult, answer: ModelResponse) -> Iterable[bytes]:
        """Yield what comes behind the text; all of that has been sent."""

    @abstractmethod
    def failure(self, problem: Problem) -> bytes:
        """Return what tells of a failure, and ends the stream."""


class Exchange(ABC, Generic[A]):
    """One protocol: how its requests are read, and its answers written."""

    @abstractmethod
    async def read(self, service: Service, request: Request, caller: Caller) -> A:
        """Return what a request asks for. Raises `Problem`."""

    @abstractmethod
    def whole(self, asked: A, run: SharedRun, result: OrchestrationResult, answer: ModelResponse) -> bytes:
        """Return the body of a whole answer."""

    @abstractmethod
    def writer(self, asked: A, run: SharedRun) -> Writer:
        """Return what writes the stream of an answer."""


async def answered(
    exchange: Exchange[A], service: Service, request: Request, caller: Caller, held: AsyncExitStack
) -> Reply:
    """Answer a request; its run is left when `held` is closed.

    Raises:
        Problem: the request is wrong, or the run failed before anything was sent.
    """
    asked = await exchange.read(service, request, caller)
    return await carried_out(exchange, asked, service, request, caller=caller, held=held)


async def carried_out(
    exchange: Exchange[A],
    asked: A,
    service: Service,
    request: Request,
    *,
    caller: Caller,
    held: AsyncExitStack,
) -> Reply:
    """Answer a request that was read. Raises as `answered` does."""
    settings = service.settings

    def make() -> SharedRun:
        stream = service.stream_of(
            asked.messages, asked.arguments, caller, asked.keeping, chunks=asked.streams
        )
        return SharedRun(
            stream,
            service.runs.reminders,
            is_single=asked.is_single,
            holds_text=asked.is_checked_whole,
            tells_reasoning=asked.tells_reasoning and asked.streams,
        )

    follower = held.enter_context(service.runs.joined(caller.name, request, make))
    run = follower.run
    if asked.streams:
        await run.beginning(settings.commit_after)
    else:
        await run.end()
    if asked.streams and (run.problem is None or run.refused is not None):
        follower.linger = 0.0  # no client asks again by itself once a stream has begun
        headers = {**EVENT_STREAM, "x-ultra-run-id": run.run_id}
        return Reply(headers=headers, body=_stream(service, exchange.writer(asked, run), follower, asked))
    result, answer = _settled(run, asked)
    failed = dict.fromkeys(failure.model_name for failure in result.failures)
    headers = {
        "content-type": JSON,
        "x-ultra-run-id": run.run_id,
        "x-ultra-status": result.status,
        "x-ultra-source": result.synthesis_source or "none",
        "x-ultra-failed": str(len(failed)),
    }
    return Reply(headers=headers, body=exchange.whole(asked, run, result, answer))


def _settled(run: SharedRun, asked: Asked) -> tuple[OrchestrationResult, ModelResponse]:
    """Return the result of a run that has ended, and its answer; raise its `Problem` if it failed.

    If all have refused, it is the refusal, with the finish reason that tells it.
    """
    if run.refused is not None:
        return run.refused.settled(run.run_id, run.ledger, spec_of(asked.target.strategy).name)
    if run.problem is not None:
        raise run.problem
    result = run.result
    if result is None or result.final_synthesis is None:
        raise no_answer(paid=run.paid)
    return result, result.final_synthesis


async def _stream(service: Service, writer: Writer, follower: Follower, asked: Asked) -> AsyncIterator[bytes]:
    """Yield the events of the stream. It follows the text as the writer of the run writes it."""
    run, place, settings = follower.run, follower.place, service.settings
    interval = inf if settings.keepalive == "off" else settings.keepalive_interval
    yield writer.begin()
    due = run.now() + interval
    while not run.has_ended:
        said = _read(writer, follower)
        if not said:
            await run.change(due, place)
            said = _read(writer, follower)
            if not said and run.now() >= due and not run.has_ended:
                said = writer.alive(f"ultra {run.answered}/{run.asked}", settings.keepalive)
        if said:
            yield said
            due = run.now() + interval
    for said in _ending(writer, follower, asked):
        yield said


def _ending(writer: Writer, follower: Follower, asked: Asked) -> Iterator[bytes]:
    """Yield what is still to be sent once the run has ended."""
    run, place = follower.run, follower.place
    try:
        result, answer = _settled(run, asked)
        # A refusal is no whole answer, so what the reader has need not be its beginning.
        refused_later = run.refused is not None and place.has_read
        rest = iter(()) if refused_later else run.rest(place, answer.content)
        if rest is None:
            text = "the model that wrote the answer failed in the middle of it, and another one was written"
            raise Problem(502, "server_error", "answer_replaced", text, paid=True)  # noqa: TRY301
    except Problem as problem:
        yield writer.failure(problem)
        return
    for said in _reasoning(writer, follower):
        yield said
    if not place.has_read and (said := writer.untold_reasoning(answer)):
        yield said
    for portion in rest:
        yield writer.text(portion)
    yield from writer.end(result, answer)


def _read(writer: Writer, follower: Follower) -> bytes:
    """Return what has come since the reader was here: reasoning, else text."""
    run, place = follower.run, follower.place
    if run.has_reasoning_for(place) and (said := next(_reasoning(writer, follower), b"")):
        return said
    text = run.read(place)
    return writer.text(text) if text else b""


def _reasoning(writer: Writer, follower: Follower) -> Iterator[bytes]:
    """Yield what has come of the reasoning since the reader was here."""
    run, place = follower.run, follower.place
    while run.has_reasoning_for(place):
        pieces, void = run.read_reasoning(place)
        if said := writer.reasoning(pieces, begins=void):
            yield said
