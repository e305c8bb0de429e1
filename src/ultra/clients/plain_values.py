"""What a client gave, as plain values: a client may be anybody's code, so none of its types is trusted."""

from __future__ import annotations

import math
import operator
from typing import Final, TypeVar

from msgspec import Struct, json, structs

from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.clients.wire.rate_limits import RateLimits
from ultra.clients.wire.text_repair import repaired
from ultra.messages.chat import ReasoningPart, ToolCall
from ultra.messages.results import Completion, Usage

__all__ = [
    "MOST_TOKENS",
    "plain_completion",
    "plain_rate_limits",
    "plain_reasoning",
    "plain_text",
    "plain_usage",
]

MOST_TOKENS: Final = 10**8
"""More tokens than any call has. A count above this is a provider's error, such as an unsigned -1."""

S = TypeVar("S", bound=Struct)


def plain_text(text: str) -> str:
    """Return `text` as a `str` itself, not of a subclass, and fit to be encoded (see `repaired`).

    No method of a subclass is called.
    """
    return repaired(str.__str__(text))


def plain_completion(given: Completion) -> Completion:
    """Return `given` with only plain values; what is of a wrong type or out of range is left out.

    Raises:
        TypeError: its content is no text, so there is no answer; or a call of a tool has no id, no name, or
            arguments that cannot be written as JSON.
    """
    if not isinstance(given.content, str):
        raise TypeError(type(given.content).__qualname__)
    return _unless_equal(
        given,
        Completion(
            content=plain_text(given.content),
            usage=plain_usage(given.usage),
            finish_reason=read_finish_reason(_text_or_none(given.finish_reason)),
            request_id=_text_or_none(given.request_id),
            model=_text_or_none(given.model),
            reasoning=_text_or_none(given.reasoning),
            refusal=_text_or_none(given.refusal),
            tool_calls=_plain_parts(given.tool_calls, ToolCall),
            reasoning_parts=_plain_parts(given.reasoning_parts, ReasoningPart),
            stop_sequence=_text_or_none(given.stop_sequence),
        ),
    )


def plain_reasoning(given: ReasoningPart) -> ReasoningPart:
    """Return a part of reasoning with only plain values."""
    return _plain_part(given, ReasoningPart)


def plain_rate_limits(given: object) -> RateLimits | None:
    """Return the limits that a client keeps, without numbers that cannot be true; None if it has none.

    A limit is above 0, and what is left of it is 0 or more. Both are finite.
    """
    if not isinstance(given, RateLimits):
        return None
    return RateLimits(
        requests_per_minute=_number(given.requests_per_minute, positive=True),
        requests_remaining=_number(given.requests_remaining),
        tokens_per_minute=_number(given.tokens_per_minute, positive=True),
        tokens_remaining=_number(given.tokens_remaining),
    )


def _text_or_none(value: object) -> str | None:
    return plain_text(value) if isinstance(value, str) else None


def _plain_parts(value: object, kind: type[S]) -> tuple[S, ...]:
    """Return the parts of a `kind` in `value`, whose fields are all text; others are left out.

    Raises:
        TypeError: a field that a part needs is no text.
    """
    if not isinstance(value, list | tuple):
        return ()
    plain = tuple(_plain_part(part, kind) for part in value if isinstance(part, kind))
    if type(value) is tuple and len(plain) == len(value) and all(map(operator.is_, value, plain)):
        return value
    return plain


def _plain_part(part: S, kind: type[S]) -> S:
    fields = {field.name: field for field in structs.fields(kind)}
    values = {name: _text_or_none(_as_json(getattr(part, name))) for name in fields}
    return _unless_equal(part, kind(**{name: value for name, value in values.items() if value is not None}))


def _as_json(value: object) -> object:
    """Return a dict, as some APIs give the arguments of a call, as JSON; all else as it is."""
    if type(value) is not dict:
        return value
    try:
        return json.encode(value).decode()
    except (ValueError, OverflowError, RecursionError) as error:
        raise TypeError(str(error)) from None


def plain_usage(value: object) -> Usage | None:
    """Return the counts that a client, or an error of one, gives; None if it gives none."""
    if not isinstance(value, Usage):
        return None
    return _unless_equal(
        value,
        Usage(
            input=_count(value.input),
            output=_count(value.output),
            cached=_count(value.cached),
            written=_count(value.written),
            reasoning=_count(value.reasoning),
            estimated=value.estimated is True,
        ),
    )


def _unless_equal(given: S, plain: S) -> S:
    """Return `given` where it has the very values of `plain`, so that most answers are not copied."""
    same = type(given) is type(plain) and all(
        map(operator.is_, structs.astuple(given), structs.astuple(plain))
    )
    return given if same else plain


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    count = int.__int__(value)
    return count if 0 <= count <= MOST_TOKENS else None


def _number(value: object, *, positive: bool = False) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError, TypeError):
        return None
    return number if math.isfinite(number) and number >= 0 and (number or not positive) else None
