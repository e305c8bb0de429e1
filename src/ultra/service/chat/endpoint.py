"""`POST /v1/chat/completions`: OpenAI's chat completions as an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.service.bodies import read_json
from ultra.service.chat.reply import Chunks, completion
from ultra.service.chat.request import ChatRequest, ChatRun, read_chat
from ultra.service.exchange import Exchange

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.shared_run import SharedRun

__all__ = ["CHAT"]


class _Chat(Exchange[ChatRun]):
    async def read(self, service: Service, request: Request, caller: Caller) -> ChatRun:
        body = read_json(request, ChatRequest, max_nesting=service.settings.max_nesting)
        return read_chat(body, service.targets_for(caller))

    def whole(
        self, asked: ChatRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
    ) -> bytes:
        return completion(asked, run, result, answer)

    def writer(self, asked: ChatRun, run: SharedRun) -> Chunks:
        return Chunks(asked, run)


CHAT: Final = _Chat()
