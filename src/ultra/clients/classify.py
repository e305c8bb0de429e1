"""Turning any exception of any client into a `ModelError`, without importing the client's library.

Errors are recognised by what they carry (a status code, headers, an error body) and by their base
classes, by name where the class belongs to a library that may not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any, Final, cast

from ultra.clients.wire.error_kinds import codes_in, kind_of_error, quotas_in
from ultra.clients.wire.headers import (
    REQUEST_ID_HEADERS,
    first_header,
    forbids_retry,
    retry_after,
    retry_info,
)
from ultra.clients.wire.redaction import clipped, redact_keys
from ultra.errors import ERROR_KINDS, ErrorKind, ModelError, UsageError

__all__ = ["classify"]

_MAX_MESSAGE: Final = 2_000
"""Characters kept of an error's text; some are a proxy's whole HTML page."""

_MAX_PREFIX: Final = 500
"""Characters that the text of a `ModelError` has besides: provider, kind, finish reason."""

_LONGEST_WAIT: Final = 1e9
"""Seconds; no server means centuries."""

# Class names anywhere in an exception's ancestry: httpx, requests, urllib3, aiohttp, the providers'
# own libraries, trio.
_TIMEOUTS: Final = frozenset(
    {"APITimeoutError", "ServerTimeoutError", "Timeout", "TimeoutError", "TimeoutException", "TooSlowError"}
)
_CONNECTIONS: Final = frozenset(
    {
        "APIConnectionError",
        "BrokenResourceError",
        "ChunkedEncodingError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "IncompleteRead",
        "NetworkError",
        "ProxyError",
        "RemoteProtocolError",
        "ServerDisconnectedError",
    }
)
_BAD_REQUESTS: Final = frozenset({"InvalidSchema", "InvalidURL", "LocalProtocolError", "UnsupportedProtocol"})
_UNDECODABLE: Final = frozenset({"DecodeError", "DecodingError", "JSONDecodeError", "ValidationError"})

_NEVER_CAUSED_BY_AN_ANSWER: Final = (
    AssertionError,
    ImportError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    UsageError,
)
_OFTEN_CAUSED_BY_AN_ANSWER: Final = (AttributeError, LookupError, TypeError, UnicodeError)


def classify(error: BaseException) -> ModelError:
    """Say what went wrong with a call, and whether another attempt may help.

    A `ModelError` passes unchanged if all it says is of the types and in the ranges that `ModelError` allows;
    anything else becomes one with the original as its ``__cause__``, its message free of keys and of
    bounded length. What is decided here:

    - With an HTTP status: 408, 409, 429 and all of 5xx are worth a retry, other statuses are not, nor
      is a 429 that means an exhausted quota, nor anything that comes with ``x-should-retry: false``.
    - Timeouts and lost connections are retried; a certificate that does not verify, a malformed URL
      and a missing local file are not.
    - An answer that cannot be decoded is retried. So are ``TypeError``, ``AttributeError`` and
      ``LookupError``: a hand-written client raises them when a provider answers with an error body in
      place of an answer (``answer.choices[0]`` where ``choices`` is None), and a bug that looks the
      same costs no more than the attempts.
    - Errors that no answer can cause (``NotImplementedError``, ``NameError``, ``ImportError``, a failed
      assertion, a `UsageError`, ...) are not retried.
    - An exception group is as permanent as the most permanent of its members.
    - Everything else is retried.
    """
    if isinstance(error, ModelError):
        if _is_sound(error):
            return error
        found = _sound(error)
    elif isinstance(error, BaseExceptionGroup):
        members = [classify(member) for member in error.exceptions]
        found = _copy(next((member for member in members if not member.retryable), members[0]))
    else:
        found = _by_status(error) or _by_type(error)
    found.__cause__ = error
    found.unexpected = True
    return found


# --- a ModelError of a client's own, whose attributes and whose class may be anything ------------------


def _is_sound(error: ModelError) -> bool:
    """Return whether an error can be used as it is: it has all attributes, each of its type and in range."""
    said = vars(error)  # attributes themselves, since properties may say something else each time
    wait = said.get("retry_after", "")
    return (
        all(isinstance(said.get(name), str) for name in ("message", "provider"))
        and _kind(said.get("kind")) is not None
        and type(said.get("status")) in {int, type(None)}
        and type(said.get("retryable")) is bool
        and (wait is None or (type(wait) in {int, float} and _wait(wait) == wait))
        and isinstance(said.get("request_id", 0), str | None)
        and "usage" in said
        and type(said.get("unexpected", False)) is bool
        and 0 < len(_words(error)) <= _MAX_MESSAGE + _MAX_PREFIX
    )


def _sound(error: ModelError) -> ModelError:
    """Return what can be understood of an error that is not sound."""
    kind = _kind(_attribute(error, "kind")) or "server"
    retryable = _attribute(error, "retryable")
    status = _attribute(error, "status")
    request_id = _attribute(error, "request_id")
    provider = _attribute(error, "provider")
    message = _attribute(error, "message")
    return ModelError(
        clipped(str.__str__(message), _MAX_MESSAGE, redact_keys)
        if isinstance(message, str)
        else _text(error),
        provider=str.__str__(provider)[:_MAX_PREFIX] if isinstance(provider, str) else "",
        kind=kind,
        status=status if type(status) is int and 100 <= status <= 599 else None,  # noqa: PLR2004
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after=_wait(_attribute(error, "retry_after")),
        request_id=str.__str__(request_id) if isinstance(request_id, str) else None,
        usage=_attribute(error, "usage"),
    )


def _kind(value: object) -> ErrorKind | None:
    return cast("ErrorKind", value) if type(value) is str and value in ERROR_KINDS else None


def _wait(value: object) -> float | None:
    """Return the seconds of a pause; more than any pause is one of endless time."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(value) if value <= _LONGEST_WAIT else inf


def _copy(error: ModelError) -> ModelError:
    return ModelError(
        error.message,
        provider=error.provider,
        kind=error.kind,
        status=error.status,
        retryable=error.retryable,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


# --- errors that carry an HTTP status ------------------------------------------------------------


def _by_status(error: BaseException) -> ModelError | None:
    status = _status(error)
    if status is None:
        return None
    headers = _headers(error)
    daily = any("PerDay" in name for level in _bodies(error) for name in quotas_in(level))
    kind = "quota" if daily else kind_of_error(status, _codes(error), _words(error))
    cured_by_waiting = status in {408, 409, 429} or status >= 500  # noqa: PLR2004
    retryable = kind in {"protocol", "overloaded"} or (
        cured_by_waiting and kind not in {"auth", "quota", "content", "bad_request"}
    )
    return ModelError(
        _text(error),
        kind=kind,
        status=status,
        retryable=retryable and not forbids_retry(headers),
        retry_after=_advice(error) or retry_after(headers) or _advice_in_body(error),
        request_id=_request_id(error, headers),
    )


def _status(error: BaseException) -> int | None:
    response = _attribute(error, "response")
    for holder, name in (
        (error, "status_code"),
        (response, "status_code"),
        (error, "status"),
        (response, "status"),
        (error, "code"),
    ):
        value = _attribute(holder, name)
        if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599:  # noqa: PLR2004
            return int(value)
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    for holder in (error, _attribute(error, "response")):
        headers = _attribute(holder, "headers")
        if isinstance(headers, Mapping):
            return cast("Mapping[str, str]", headers)
        with _fenced():  # http.client's message object is no Mapping, but has its items
            return dict(headers.items())  # type: ignore[attr-defined] # tried: anything may come
    return {}


def _request_id(error: BaseException, headers: Mapping[str, str]) -> str | None:
    own = _attribute(error, "request_id")
    if isinstance(own, str) and own:
        return own
    return first_header(headers, *REQUEST_ID_HEADERS)


def _advice(error: BaseException) -> float | None:
    value = _attribute(error, "retry_after")
    # The bound also keeps numbers out that no float can hold.
    return float(value) if isinstance(value, int | float) and 0 < value < _LONGEST_WAIT else None


def _codes(error: BaseException) -> list[str]:
    """Return the words by which a provider names its error, from the error and from the body it carries."""
    found = codes_in({name: _attribute(error, name) for name in ("code", "type")})
    return found + [word for level in _bodies(error) for word in codes_in(level)]


def _advice_in_body(error: BaseException) -> float | None:
    return next(filter(None, map(retry_info, _bodies(error))), None)


def _bodies(error: BaseException) -> list[Mapping[str, Any]]:
    """Return the error body that an error carries, and the object inside it that describes the error."""
    bodies = [_attribute(error, name) for name in ("body", "details")]
    levels = [level for body in bodies if isinstance(body, Mapping) for level in (body, body.get("error"))]
    return [level for level in levels if isinstance(level, Mapping)]


# --- errors known by their class alone -----------------------------------------------------------


def _by_type(error: BaseException) -> ModelError:
    kind, retryable = _judge(error)
    return ModelError(
        _text(error),
        kind=kind,
        retryable=retryable,
        retry_after=_advice(error),
        request_id=_request_id(error, {}),
    )


def _judge(error: BaseException) -> tuple[ErrorKind, bool]:
    ancestry = frozenset(ancestor.__name__ for ancestor in type(error).__mro__)
    if not ancestry.isdisjoint(_BAD_REQUESTS) or isinstance(error, _NEVER_CAUSED_BY_AN_ANSWER):
        return "bad_request", False
    if not ancestry.isdisjoint(_TIMEOUTS):
        return "timeout", True
    if not ancestry.isdisjoint(_UNDECODABLE) or isinstance(error, _OFTEN_CAUSED_BY_AN_ANSWER):
        return "protocol", True
    if not ancestry.isdisjoint(_CONNECTIONS) or isinstance(error, OSError):
        return _judge_connection(error)
    return "server", True


def _judge_connection(error: BaseException) -> tuple[ErrorKind, bool]:
    if "CERTIFICATE_VERIFY_FAILED" in _words(error):
        return "connection", False
    # An OSError that names a file is about the client's own disk, not about the network.
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.filename is not None:
        return "bad_request", False
    return "connection", True


# --- reading errors of foreign libraries -----------------------------------------------------


@contextmanager
def _fenced() -> Iterator[None]:
    """Let nothing out of the code of a foreign error but what interrupts the program."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - such as the panic of a client that is written in Rust
        pass


def _attribute(holder: object, name: str) -> object:
    """Return the attribute, or None: properties of foreign errors may raise anything."""
    with _fenced():
        return getattr(holder, name, None)
    return None


def _words(error: BaseException) -> str:
    with _fenced():
        return str(error)
    return ""


def _text(error: BaseException) -> str:
    name = type(error).__name__
    text = clipped(_words(error), _MAX_MESSAGE, redact_keys).strip()
    return f"{name}: {text}" if text else name
