"""Turning what a provider says about a failure into a `ModelError`.

Every dialect's error body is read here, because gateways mix them: an OpenAI-compatible endpoint may
answer in the words of Google, of FastAPI or of a proxy that speaks HTML.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from ultra.clients.classify import kind_of_status
from ultra.clients.headers import first_header, retry_after
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.errors import ErrorKind

__all__ = ["Reply"]

T = TypeVar("T")

_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "mistral-correlation-id", "apim-request-id")

_FLEX_CAPACITY_EXCEEDED: Final = 498  # Groq

# What providers write in `type`, `code`, `status` or `reason`. First match wins, so the narrow ones
# stand first: an exhausted quota is a 429 that waiting does not cure.
_KIND_OF_WORD: Final[Mapping[str, ErrorKind]] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_error": "quota",
    "content_filter": "content",
    "content_policy_violation": "content",
    "ResponsibleAIPolicyViolation": "content",
    "API_KEY_INVALID": "auth",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "auth",
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "rate_limited": "rate_limit",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "overloaded_error": "overloaded",
    "unavailable_error": "overloaded",
    "provider_unavailable": "overloaded",
    "UNAVAILABLE": "overloaded",
    "timeout_error": "timeout",
    "DEADLINE_EXCEEDED": "timeout",
    "exceed_context_size_error": "bad_request",
    "context_length_exceeded": "bad_request",
    "not_found_error": "bad_request",
    "request_too_large": "bad_request",
    "invalid_request_error": "bad_request",
    "INVALID_ARGUMENT": "bad_request",
    "FAILED_PRECONDITION": "bad_request",
    "NOT_FOUND": "bad_request",
}

# A wrong key or an empty account that comes as a 400 with nothing but words to tell it by.
_KIND_OF_WORDING: Final[tuple[tuple[re.Pattern[str], ErrorKind], ...]] = (
    (re.compile(r"(incorrect|invalid) api key|api key not valid", re.IGNORECASE), "auth"),
    (re.compile(r"credit balance is too low", re.IGNORECASE), "quota"),
)

_LONGEST_QUOTED_BODY: Final = 300


class _Body(Struct):
    """The top level of an error body; what does not fit is read as absent."""

    error: Any = None
    message: Any = None
    detail: Any = None
    type: Any = None
    code: Any = None
    request_id: Any = None


class Reply:
    """The head of one answer, and how to report failures that happen in it.

    Args:
        provider: named in every error.
        status: of HTTP.
        headers: with names in lower case.
        secrets: texts that must not appear in any error, though the provider repeats them.
    """

    def __init__(
        self, provider: str, status: int, headers: Mapping[str, str], secrets: tuple[str, ...] = ()
    ) -> None:
        self.provider = provider
        self.status = status
        self.headers = headers
        self.request_id = first_header(headers, *_REQUEST_ID_HEADERS)
        self._secrets = secrets

    def error(
        self,
        message: str,
        kind: ErrorKind,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> ModelError:
        """Make the error that says `message` of this reply."""
        return ModelError(
            redact(message, self._secrets),
            provider=self.provider,
            kind=kind,
            status=self.status,
            retryable=retryable,
            retry_after=retry_after,
            request_id=self.request_id or request_id,
        )

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters, in lower case; may be empty."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def malformed(self, detail: str) -> ModelError:
        """Make the error for an answer that does not keep to the protocol."""
        return self.error(f"the answer breaks the protocol: {detail}", "protocol")

    def cut_off(self) -> ModelError:
        """Make the error for a stream that ended before the answer did."""
        return self.error("the stream ended before the answer was complete", "connection")

    def failure(self, content: bytes) -> ModelError:
        """Make the error that a reply with an error status means; `content` is its body."""
        if 300 <= self.status < 400:  # noqa: PLR2004 - the redirections of HTTP
            return self._redirected()
        return self._read(_parse(content) or f"HTTP status {self.status} with an empty body", self.status)

    def failure_inside(self, content: bytes | dict[str, Any]) -> ModelError:
        """Make the error that `content`, found in a reply of success where an answer should be, means."""
        found = _parse(content) if isinstance(content, bytes) else content
        return self._read(found or "the answer is empty", None)

    def read(self, decode: Callable[[bytes], T], content: bytes) -> T:
        """Return `content` decoded. Raises `ModelError` if it is not what the protocol says."""
        try:
            return decode(content)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            detail = f"{error} in {_quote(content)!r}"
        raise self.malformed(detail)

    def _redirected(self) -> ModelError:
        target = self.headers.get("location", "").partition("?")[0]
        return self.error(
            f"the endpoint redirects to {target!r}, which is not followed since the request carries a key; "
            "set base_url to the endpoint itself",
            "bad_request",
        )

    def _read(self, found: object, status: int | None) -> ModelError:
        if isinstance(found, list) and found:  # Gemini without alt=sse
            found = found[0]
        body = _as_body(found)
        details = _details(body)
        message = _message(body, details) or _quote(msgspec.json.encode(found))
        code = status if status is not None else _status_in(body, details)
        kind = _kind(code, message, [*_words(details), *_words({"type": body.type, "code": body.code})])
        failure = self.error(
            message,
            kind,
            retryable=self._retryable(kind, code),
            retry_after=retry_after(self.headers) or _retry_info(details.get("details")),
            request_id=_text(body.request_id),
        )
        metadata = details.get("metadata")
        if isinstance(metadata, dict) and (raw := _text(metadata.get("raw"))):
            # OpenRouter's own message says no more than that a provider failed.
            failure.add_note(redact(raw, self._secrets))
        return failure

    def _retryable(self, kind: ErrorKind, status: int | None) -> bool | None:
        if kind in {"quota", "content"}:
            return False
        advice = self.headers.get("x-should-retry", "").lower()
        if status == self.status and advice in {"true", "false"}:
            return advice == "true"
        return True if status == 409 else None  # noqa: PLR2004 - Conflict: another request held a lock


def _parse(content: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return `content` as JSON, or as the words in it if it is something else."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _quote(content)


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """Replace every secret in `text`."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _retry_info(details: object) -> float | None:
    """Return the wait [s] that Google asks for in the body, as ``"retryDelay": "48s"``."""
    for entry in details if isinstance(details, list) else ():
        delay = _text(entry.get("retryDelay")) if isinstance(entry, dict) else None
        if delay:
            return retry_after({"retry-after": delay.removesuffix("s")})
    return None


def _as_body(found: object) -> _Body:
    if isinstance(found, dict):
        return msgspec.convert(found, _Body)
    return _Body(error=found)


def _details(body: _Body) -> dict[str, Any]:
    """Return the object that describes the error; Ollama sends it as JSON inside a string."""
    found = body.error
    if isinstance(found, str) and found.startswith("{"):
        try:
            nested = msgspec.json.decode(found)
        except (msgspec.DecodeError, RecursionError):
            return {}
        found = nested.get("error") if isinstance(nested, dict) else None
    return found if isinstance(found, dict) else {}


def _message(body: _Body, details: Mapping[str, Any]) -> str | None:
    """Return the provider's words: the body's own string before anything found inside it."""
    inner = body.message if isinstance(body.message, dict) else {}
    return (
        _text(body.error)
        or _text(details.get("message"))
        or _text(body.message)
        or _text(body.detail)
        or _text(inner.get("detail"))
        or (msgspec.json.encode(body.detail).decode() if body.detail else None)
    )


def _words(details: Mapping[str, Any]) -> list[str]:
    """Return every word that may name the kind of the error."""
    found = [details.get(key) for key in ("code", "type", "status")]
    inner = details.get("innererror")
    metadata = details.get("metadata")
    entries = details.get("details")
    found += [inner.get("code")] if isinstance(inner, dict) else []
    found += [metadata.get("error_type")] if isinstance(metadata, dict) else []
    found += (
        [entry.get("reason") for entry in entries if isinstance(entry, dict)]
        if isinstance(entries, list)
        else []
    )
    return [word for word in found if isinstance(word, str)]


def _status_in(body: _Body, details: Mapping[str, Any]) -> int | None:
    for value in (details.get("status_code"), details.get("code"), details.get("status"), body.code):
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if isinstance(number, int) and 400 <= number < 600:  # noqa: PLR2004 - the error statuses of HTTP
            return number
    return None


def _kind(status: int | None, message: str, words: list[str]) -> ErrorKind:
    """Return the kind that the words name, held against the status where there is one."""
    told = _told(message, words)
    if status is None:
        return told or "server"
    if status == _FLEX_CAPACITY_EXCEEDED:
        return "overloaded"
    if told in {"auth", "quota", "content"} and status < 500:  # noqa: PLR2004 - the caller's errors
        return told
    return kind_of_status(status)


def _told(message: str, words: list[str]) -> ErrorKind | None:
    for word, kind in _KIND_OF_WORD.items():
        if word in words:
            return kind
    for pattern, kind in _KIND_OF_WORDING:
        if pattern.search(message):
            return kind
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _quote(content: bytes) -> str:
    """Return the readable words of a body that is not an error in any known form."""
    text = content.decode("utf-8", "replace")
    if title := re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL):
        text = title[1]
    text = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return text if len(text) <= _LONGEST_QUOTED_BODY else f"{text[:_LONGEST_QUOTED_BODY]}…"
