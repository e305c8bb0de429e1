"""`POST /v1/runs`: a run with all its settings; its result, or its events as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from ultra.errors import JournalUnavailable
from ultra.messages.events import Chunk, ModelResponded, ReasoningChunk, RunCompleted, RunFailed
from ultra.service.bodies import read_json
from ultra.service.http import EVENT_STREAM, JSON, Reply, json_reply
from ultra.service.kept_run import Keeping
from ultra.service.kept_runs import check_keeps, find_run
from ultra.service.ledger import Ledger
from ultra.service.native.events import LINES, as_lines, as_sse, cleaned_result, without_words
from ultra.service.native.kept import stream_of_events
from ultra.service.native.record import native_tags, run_object
from ultra.service.native.request import NativeRequest, arguments_of
from ultra.service.problems import Problem, problem_of
from ultra.service.runs import key_of
from ultra.service.shared_run import SharedRun
from ultra.service.uninterrupted import NoAnswer, uninterrupted
from ultra.service.webhooks.asking import webhook_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from ultra.messages.events import Event
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.metering import MeteredStream
__all__ = ["answer_run"]

_encode: Final = msgspec.json.Encoder().encode


async def answer_run(service: Service, request: Request, caller: Caller, held: AsyncExitStack) -> Reply:
    """Answer a request for a run; the run is left when `held` is closed.

    Raises:
        Problem: the request is wrong, or the run failed before anything was sent.
    """
    body = read_json(request, NativeRequest, max_nesting=service.settings.max_nesting)
    arguments = arguments_of(body, service.targets_for(caller))
    keeping = _keeping(service, body, request)
    if body.background:
        stream = service.stream_of(body.prompt, arguments, caller, keeping)
        return await _in_background(service, stream, body, request, caller)
    if body.stream:
        stream = service.stream_of(body.prompt, arguments, caller, keeping)
        return await _streamed(service, stream, held, in_lines=_wants_lines(body, request))

    def make() -> SharedRun:
        stream = service.stream_of(body.prompt, arguments, caller, keeping, chunks=False)
        return SharedRun(stream, service.runs.reminders)

    follower = held.enter_context(service.runs.joined(caller.name, request, make))
    await follower.run.end()
    if follower.run.problem is not None:
        raise follower.run.problem
    assert follower.run.result is not None  # noqa: S101 - it has ended, and has no problem
    headers = {"content-type": JSON, "x-ultra-run-id": follower.run.run_id}
    return Reply(headers=headers, body=_encode(cleaned_result(follower.run.result)))


def _keeping(service: Service, body: NativeRequest, request: Request) -> Keeping | None:
    """Return how the run is kept; None: it is not. Raises `Problem` where it cannot be, and must."""
    if body.webhook is not None and not body.background:
        raise Problem.bad_request("webhook: it is for runs in the background", param="webhook")
    if not (body.background or body.store):
        return None
    if body.background and body.store is False:
        text = "background: a run in the background is kept; leave store out, or let it be true"
        raise Problem.bad_request(text, param="store")
    check_keeps(service, "background" if body.background else "store")
    tags = native_tags(body.model if body.ensemble is None else body.ensemble, body.metadata)
    if not body.background:
        return Keeping(tags=tags, must=True)
    return Keeping(
        tags=tags,
        must=True,
        goes_on=True,
        idempotency_key=key_of(request),
        notify=webhook_of(service, body.webhook),
    )


async def _in_background(
    service: Service, stream: MeteredStream, body: NativeRequest, request: Request, caller: Caller
) -> Reply:
    run_id = await service.begin(stream, request.place)
    run = await find_run(service, caller, run_id)
    if body.stream:
        return stream_of_events(service, run, in_lines=_wants_lines(body, request))
    return json_reply(run_object(run), headers={"x-ultra-run-id": run_id})


def _wants_lines(body: NativeRequest, request: Request) -> bool:
    if body.format is not None:
        return body.format == "jsonl"
    accepted = request.headers.get("accept", "")
    return "application/jsonl" in accepted or "application/x-ndjson" in accepted


async def _streamed(
    service: Service, stream: MeteredStream, held: AsyncExitStack, *, in_lines: bool
) -> Reply:
    """Answer with the events of a run, once one of its models has answered, or some time is over."""
    await stream.__aenter__()

    async def leave(*error: Any) -> bool | None:  # noqa: ANN401 - what `__aexit__` gets
        left: bool | None = None
        with anyio.CancelScope(shield=True):  # the run is left whole, also where the client has hung up
            left = await stream.__aexit__(*error)
        return left  # noqa: RET504 - mypy takes it that the scope may swallow the error

    held.push_async_exit(leave)
    events = _Events(stream, in_lines=in_lines)
    with anyio.move_on_after(service.settings.commit_after):
        await events.begin()
    if events.problem is not None:
        raise events.problem
    headers = {**EVENT_STREAM, "x-ultra-run-id": stream.run_id}
    if in_lines:
        headers["content-type"] = LINES
    return Reply(headers=headers, body=events.encoded(service.settings.keepalive_interval))


class _Events:
    """The events of one run as bytes. `problem` is how it failed, once it has."""

    def __init__(self, stream: MeteredStream, *, in_lines: bool) -> None:
        self.problem: Problem | None = None
        self._stream = stream
        self._ledger = Ledger()
        self._waiting: list[bytes] = []
        self._encode = as_lines if in_lines else as_sse
        self._alive = b"\n" if in_lines else b": ultra\n\n"

    async def begin(self) -> None:
        """Take events until a model has said something, or the run has ended; cancelling this loses none."""
        while True:
            event = await anext(self._stream)
            self._waiting.append(await self._encoded(event))
            if isinstance(event, Chunk | ReasoningChunk | ModelResponded | RunCompleted | RunFailed):
                return

    async def encoded(self, interval: float) -> AsyncIterator[bytes]:
        """Yield all events, and a sign of life after each silence of `interval` seconds."""
        for event in self._waiting:
            yield event
        while True:
            found: bytes | None = None
            with anyio.move_on_after(interval):
                try:
                    found = await self._encoded(await anext(self._stream))
                except StopAsyncIteration:
                    return
            yield found or self._alive

    async def _encoded(self, event: Event) -> bytes:
        self._ledger.take(event)
        if isinstance(event, RunFailed):
            self.problem = await self._failure()
        return self._encode(without_words(event, self.problem))

    async def _failure(self) -> Problem:
        try:
            # It has ended, and its last event must not be lost.
            with uninterrupted("reading the end of a run", run_id=self._stream.run_id):
                await self._stream.result()
        except NoAnswer as error:
            return problem_of(JournalUnavailable("of this service", error), self._ledger.failures)
        except Exception as error:  # noqa: BLE001 - it is told in neutral words
            return problem_of(error, self._ledger.failures, paid=self._ledger.paid)
        raise AssertionError("the run has not failed")
