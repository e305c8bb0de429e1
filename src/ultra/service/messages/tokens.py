"""`POST /v1/messages/count_tokens`: about how many tokens a request has. No model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.service.bodies import read_json
from ultra.service.http import json_reply
from ultra.service.messages.request import CountRequest, read_message

if TYPE_CHECKING:
    from ultra.service.http import Reply, Request
    from ultra.service.targets import Targets

__all__ = ["count_tokens"]


def count_tokens(request: Request, targets: Targets, *, max_nesting: int) -> Reply:
    """Return the estimate of one reading of the request; an ensemble reads it several times.

    Raises:
        Problem: the request is wrong.
    """
    body = read_json(request, CountRequest, max_nesting=max_nesting)
    return json_reply({"input_tokens": read_message(body, targets).tokens})
