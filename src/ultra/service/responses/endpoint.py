"""`POST /v1/responses`: OpenAI's responses as an exchange, and in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ultra.service.bodies import read_json
from ultra.service.exchange import Exchange, carried_out
from ultra.service.kept_run import Keeping
from ultra.service.kept_runs import check_keeps
from ultra.service.responses.conversation import RESPONSE, find_response, messages_before
from ultra.service.responses.events import ResponseEvents
from ultra.service.responses.items import ended, whole_output
from ultra.service.responses.kept import response_reply, stream_of_response
from ultra.service.responses.references import with_referred_items
from ultra.service.responses.request import ResponseRequest, ResponseRun, read_response
from ultra.service.responses.shape import tags_of
from ultra.service.runs import key_of
from ultra.service.webhooks.asking import webhook_of

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from ultra.messages.chat import ChatMessage
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Reply, Request
    from ultra.service.shared_run import SharedRun

__all__ = ["answer_response"]


class _Responses(Exchange[ResponseRun]):
    async def read(self, service: Service, request: Request, caller: Caller) -> ResponseRun:
        body = read_json(request, ResponseRequest, max_nesting=service.settings.max_nesting)
        if body.background:
            check_keeps(service, "background")
        before: tuple[ChatMessage, ...] = ()
        if body.previous_response_id is not None:
            before = await messages_before(service, caller, body.previous_response_id)
        if not isinstance(body.input, str) and service.orchestrator.has_journal:
            body.input = await with_referred_items(service, caller, body.input)
        return read_response(body, service.targets_for(caller), before)

    def whole(
        self, asked: ResponseRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
    ) -> bytes:
        output = whole_output(asked.shape, run, result, answer)
        return msgspec.json.encode(ended(asked.shape, run, result, answer, output))

    def writer(self, asked: ResponseRun, run: SharedRun) -> ResponseEvents:
        return ResponseEvents(asked.shape, run)


_RESPONSES: Final = _Responses()


async def answer_response(service: Service, request: Request, caller: Caller, held: AsyncExitStack) -> Reply:
    """Answer a request for a response; in the background, with what it is at that moment.

    Raises:
        Problem: the request is wrong, or the run failed before anything was sent.
        JournalUnavailable: the response cannot be stored; nothing was asked.
    """
    asked = await _RESPONSES.read(service, request, caller)
    if not asked.shape.background:
        return await carried_out(_RESPONSES, asked, service, request, caller=caller, held=held)
    keeping = Keeping(
        tags=tags_of(asked.shape),
        must=True,
        goes_on=True,
        idempotency_key=key_of(request),
        notify=webhook_of(service),
    )
    stream = service.stream_of(asked.messages, asked.arguments, caller, keeping)
    run_id = await service.begin(stream, request.place)
    run, shape = await find_response(service, caller, f"{RESPONSE}{run_id}")
    if asked.streams:
        return stream_of_response(service, run, shape)
    return await response_reply(service, run, shape)
