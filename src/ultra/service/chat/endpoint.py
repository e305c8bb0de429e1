"""`POST /v1/chat/completions`: from the request to the bytes of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ultra.service.bodies import read_json
from ultra.service.chat.reply import Chunks, comment, completion, error_event
from ultra.service.chat.request import ChatRequest, read_chat
from ultra.service.http import EVENT_STREAM, JSON, Reply
from ultra.service.problems import Problem
from ultra.service.shared_run import SharedRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.chat.request import ChatRun
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.runs import Follower

__all__ = ["answer_chat"]


async def answer_chat(service: Service, request: Request, caller: Caller, held: AsyncExitStack) -> Reply:
    """Answer a request for a chat completion; the run is left when `held` is closed.

    Raises:
        Problem: the request is wrong, or the run failed before anything was sent.
    """
    settings = service.settings
    body = read_json(request, ChatRequest, max_nesting=settings.max_nesting)
    chat = read_chat(body, service.targets_for(caller))

    def make() -> SharedRun:
        arguments = {**chat.target.arguments, **chat.run}
        stream = service.stream_of(chat.messages, arguments, caller)
        return SharedRun(stream, is_single=chat.is_single, holds_text=chat.is_checked_whole)

    follower = held.enter_context(service.runs.joined(caller.name, request, make))
    run = follower.run
    if chat.streams:
        await run.beginning(settings.commit_after)
    else:
        await run.end()
    if chat.streams and run.problem is None:
        follower.linger = 0.0  # no client asks again by itself once a stream has begun
        headers = {**EVENT_STREAM, "x-ultra-run-id": run.run_id}
        return Reply(headers=headers, body=_stream(service, chat, follower))
    result, answer = _settled(run)
    failed = dict.fromkeys(failure.model_name for failure in result.failures)
    headers = {
        "content-type": JSON,
        "x-ultra-run-id": run.run_id,
        "x-ultra-status": result.status,
        "x-ultra-source": result.synthesis_source or "none",
        "x-ultra-failed": str(len(failed)),
    }
    return Reply(headers=headers, body=completion(chat, run, result, answer))


def _settled(run: SharedRun) -> tuple[OrchestrationResult, ModelResponse]:
    """Return the result of a run that has ended, and its answer; raise its `Problem` if it failed."""
    if run.problem is not None:
        raise run.problem
    result = run.result
    if result is None or result.final_synthesis is None:
        text = "the stages of this ensemble give no answer; let one of them be 'synthesis'"
        raise Problem(500, "server_error", "no_answer", text, paid=run.paid)
    return result, result.final_synthesis


async def _stream(service: Service, chat: ChatRun, follower: Follower) -> AsyncIterator[bytes]:
    """Yield the events of the stream. It follows the text as the writer writes it."""
    run, place = follower.run, follower.place
    chunks, settings = Chunks(chat, run), service.settings
    yield chunks.role()
    silent_since = anyio.current_time()
    while not run.has_ended:
        text = run.read(place)
        if text:
            yield chunks.text(text)
            silent_since = anyio.current_time()
            continue
        left = silent_since + settings.keepalive_interval - anyio.current_time()
        if left > 0 or settings.keepalive == "off":
            await run.change(left if settings.keepalive != "off" else float("inf"))
            continue
        progress = comment(f"ultra {run.answered}/{run.asked}")
        yield progress if settings.keepalive == "comment" else chunks.empty()
        silent_since = anyio.current_time()
    try:
        result, answer = _settled(run)
        rest = run.rest(place, answer.content)
        if rest is None:
            text = "the model that wrote the answer failed in the middle of it, and another one was written"
            raise Problem(502, "server_error", "answer_replaced", text, paid=True)  # noqa: TRY301
    except Problem as problem:
        yield error_event(problem)
        return
    if rest:
        yield chunks.text(rest)
    for event in chunks.end(result, answer):
        yield event
