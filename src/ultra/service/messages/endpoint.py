"""`POST /v1/messages`: Anthropic's messages as an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.service.bodies import read_json
from ultra.service.exchange import Exchange
from ultra.service.messages.reply import MessageEvents, message
from ultra.service.messages.request import MessageRequest, MessageRun, read_message

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.shared_run import SharedRun

__all__ = ["MESSAGES"]


class _Messages(Exchange[MessageRun]):
    async def read(self, service: Service, request: Request, caller: Caller) -> MessageRun:
        body = read_json(request, MessageRequest, max_nesting=service.settings.max_nesting)
        return read_message(body, service.targets_for(caller))

    def whole(
        self, asked: MessageRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
    ) -> bytes:
        return message(asked, run, result, answer)

    def writer(self, asked: MessageRun, run: SharedRun) -> MessageEvents:
        return MessageEvents(asked, run)


MESSAGES: Final = _Messages()
