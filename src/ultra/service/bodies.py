"""Reading the JSON of a request: every mistake is a `Problem` that names the place."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ultra.messages.bounded_json import MOST_VALUES, has_too_many_values
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.http import Request

__all__ = ["NOT_JSON", "decode_object", "read_json"]

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `\$([^`]*)`$")
NOT_JSON: Final = "the body is not JSON in UTF-8"
_EMPTY: Final = "the body is empty; it must be a JSON object"
_TOO_DEEP: Final = "the body is nested too deeply; at most {} levels are allowed"


def read_json(request: Request, kind: type[T], *, max_nesting: int) -> T:
    """Return the body as a `kind`.

    Raises:
        Problem: it is no JSON, nested too deeply, or a field is not as it must be.
    """
    given = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if not (given == "application/json" or given.endswith("+json") or given == ""):
        text = f"the content-type is {given[:80]!r}; it must be application/json"
        raise Problem(415, "invalid_request_error", "unsupported_media_type", text)
    decoded = decode_object(request.body, max_nesting=max_nesting)
    try:
        return msgspec.convert(decoded, kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except RecursionError:
        raise Problem.bad_request(_TOO_DEEP.format(max_nesting), code="invalid_json") from None


def decode_object(body: bytes, *, max_nesting: int) -> dict[str, Any]:
    """Return the JSON object that a body is, once it is known that it costs no more memory than it may.

    Raises:
        Problem: it is no object of JSON, has too many values, or is nested too deeply.
    """
    if has_too_many_values(body):
        text = f"the body has too many objects and lists; at most {MOST_VALUES} are allowed"
        raise Problem.bad_request(text, code="invalid_json")
    if not body or body.isspace():
        raise Problem.bad_request(_EMPTY, code="invalid_json")
    try:
        decoded: object = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))  # Windows writes it
        if not isinstance(decoded, dict):
            raise Problem.bad_request("the body must be a JSON object", code="invalid_json")
        _check_nesting(decoded, max_nesting)
    except RecursionError:
        raise Problem.bad_request(_TOO_DEEP.format(max_nesting), code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem.bad_request(NOT_JSON, code="invalid_json") from None
    return decoded


def _check_nesting(decoded: object, most: int) -> None:
    level: list[Any] = [decoded]
    for _ in range(most + 1):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise Problem.bad_request(_TOO_DEEP.format(most), code="invalid_json")


def _misfit(text: str) -> Problem:
    """Return msgspec's words with the field apart: ``messages[0].role`` is the `param`."""
    match = _PATH.search(text)
    if match is not None:
        param = match[1].lstrip(".")
        return Problem.bad_request(f"{param}: {text[: match.start()]}", code="invalid_type", param=param)
    missing = re.search(r"missing required field `(\w+)`", text)
    param = missing[1] if missing else None
    return Problem.bad_request(text, code="missing_required_parameter" if missing else None, param=param)
