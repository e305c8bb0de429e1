"""Items of the input that are only named: they are found in the stored responses that had them.

Clients that take each response for stored, such as the AI SDK, send back the names of its items alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import json, structs

from ultra.messages.events import RunCompleted
from ultra.service.kept_runs import last_event
from ultra.service.problems import Problem
from ultra.service.responses.conversation import RESPONSE, find_response
from ultra.service.responses.items import whole_output
from ultra.service.responses.projection import KeptResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.service.access import Caller
    from ultra.service.core import Service

__all__ = ["with_referred_items"]

_ID: Final = re.compile(r"(msg|rs|fc)_([^_]+)(?:_\d+)?")


async def with_referred_items(
    service: Service, caller: Caller, given: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the items of an input, with those in place that it only names.

    Reasoning that its provider does not want back is left out: no model takes it. A name is short, and what
    it stands for may be long, so all of that together may be as long as a body.

    Raises:
        Problem: the caller has no stored response with such an item, or they are too long together.
        JournalUnavailable: the journal cannot be read.
    """
    outputs: dict[str, Mapping[str, dict[str, Any]]] = {}
    lengths: dict[str, int] = {}
    room = service.settings.max_body
    items: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        if item.get("type") != "item_reference":
            items.append(item)
            continue
        name = item.get("id")
        match = _ID.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise _unknown(index, name)
        kind, run_id = match.groups()
        if run_id not in outputs:
            outputs[run_id] = await _output_of(service, caller, run_id, index)
        # There is one message, however often it was begun.
        found = outputs[run_id].get(kind if kind == "msg" else match[0])
        if found is not None:
            if match[0] not in lengths:
                lengths[match[0]] = len(json.encode(found))
            room -= lengths[match[0]]
            if room < 0:
                raise _too_large(index, service.settings.max_body)
            items.append(found)
        elif kind != "rs":
            raise _unknown(index, name)
    return items


async def _output_of(
    service: Service, caller: Caller, run_id: str, index: int
) -> Mapping[str, dict[str, Any]]:
    try:
        run, shape = await find_response(service, caller, f"{RESPONSE}{run_id}")
    except Problem:
        raise _unknown(index, run_id) from None
    last = await last_event(service, run)
    answer = last.result.final_synthesis if isinstance(last, RunCompleted) else None
    if answer is None or not isinstance(last, RunCompleted):
        return {}
    whole = structs.replace(shape, includes_encrypted=True, fields=None)
    output = whole_output(whole, KeptResponse.of(run), last.result, answer)
    return {"msg" if item["type"] == "message" else item["id"]: item for item in output}


def _unknown(index: int, name: object) -> Problem:
    text = f"input[{index}].id: there is no item {name!r:.100} in a stored response; give the item itself"
    return Problem.bad_request(text, code="item_not_found", param=f"input[{index}].id")


def _too_large(index: int, most: int) -> Problem:
    text = f"input[{index}]: the items that the input names may have {most:,} bytes together"
    return Problem(413, "invalid_request_error", "request_too_large", text, param=f"input[{index}]")
