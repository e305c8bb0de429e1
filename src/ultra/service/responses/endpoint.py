"""`POST /v1/responses`: OpenAI's responses as an exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra.service.bodies import read_json
from ultra.service.exchange import Exchange
from ultra.service.responses.events import ResponseEvents
from ultra.service.responses.items import (
    call_item,
    ended,
    message_item,
    message_parts,
    panel_item,
    reasoning_item,
    status_of,
)
from ultra.service.responses.request import ResponseRequest, ResponseRun, read_response

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.http import Request
    from ultra.service.shared_run import SharedRun
    from ultra.service.targets import Targets

__all__ = ["RESPONSES", "whole_response"]


def whole_response(
    asked: ResponseRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
) -> dict[str, Any]:
    """Return the response of a run that has given an answer."""
    output = [reasoning_item(asked, run, *each) for each in enumerate(answer.reasoning_parts)]
    if answer.content or not answer.tool_calls:
        output.append(message_item(run, status_of(answer, run), *message_parts(answer, run)))
    output += [call_item(run, *each) for each in enumerate(answer.tool_calls)]
    panel = panel_item(asked, run, result)
    if panel is not None:
        output.append(panel)
    return ended(asked, run, result, answer, output)


class _Responses(Exchange[ResponseRun]):
    def read(self, request: Request, targets: Targets, *, max_nesting: int) -> ResponseRun:
        return read_response(read_json(request, ResponseRequest, max_nesting=max_nesting), targets)

    def whole(
        self, asked: ResponseRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse
    ) -> bytes:
        return msgspec.json.encode(whole_response(asked, run, result, answer))

    def writer(self, asked: ResponseRun, run: SharedRun) -> ResponseEvents:
        return ResponseEvents(asked, run)


RESPONSES: Final = _Responses()
