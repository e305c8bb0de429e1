"""`POST /v1/chat/completions`: OpenAI's chat completions as an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.service.bodies import read_json
from ultra.service.chat.reply import Chunks, completion
from ultra.service.chat.request import ChatRequest, ChatRun, read_chat
from ultra.service.exchange import Exchange

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.http import Request
    from ultra.service.shared_run import SharedRun
    from ultra.service.targets import Targets

__all__ = ["CHAT"]


class _Chat(Exchange[ChatRun]):
    def read(self, request: Request, targets: Targets, *, max_nesting: int) -> ChatRun:
        return read_chat(read_json(request, ChatRequest, max_nesting=max_nesting), targets)

    def whole(
        self, asked: ChatRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
    ) -> bytes:
        return completion(asked, run, result, answer)

    def writer(self, asked: ChatRun, run: SharedRun) -> Chunks:
        return Chunks(asked, run)


CHAT: Final = _Chat()
