"""The head of an HTTP response, and the `ModelError` that a response means.

Every dialect's error body is read here, because gateways mix them: an OpenAI-compatible endpoint may
answer in the words of Google, of FastAPI or of a proxy that speaks HTML.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from ultra._support.memory import ensure_memory
from ultra.clients.wire.addresses import shown_url
from ultra.clients.wire.error_kinds import codes_in, kind_of_error, quotas_in
from ultra.clients.wire.event_streams import BYTE_ORDER_MARK
from ultra.clients.wire.headers import REQUEST_ID_HEADERS, first_header, retry_after, retry_info
from ultra.clients.wire.json_repair import HalfCharacters, has_nul
from ultra.clients.wire.redaction import clipped, redact_secrets
from ultra.errors import ModelError
from ultra.messages.bounded_json import MOST_VALUES, has_too_many_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.errors import ErrorKind

__all__ = ["ResponseHead"]

T = TypeVar("T")

_LONGEST_QUOTED_BODY: Final = 300
_LONGEST_MESSAGE: Final = 2_000  # characters
_LONGEST_REQUEST_ID: Final = 200

# A body longer than this [bytes] is no error message, and is not decoded as one: JSON of many small values
# takes thirty times its size in memory.
_LONGEST_ERROR_BODY: Final = 64 * 1024


class _Body(Struct):
    """The top level of an error body; what does not fit is read as absent."""

    error: Any = None
    errors: Any = None
    message: Any = None
    detail: Any = None
    msg: Any = None
    error_msg: Any = None  # Baidu
    base_resp: Any = None  # MiniMax
    type: Any = None
    code: Any = None
    status: Any = None
    success: Any = None
    request_id: Any = None

    @property
    def reports_failure(self) -> bool:
        """Whether this says that something went wrong. A mere message or status need not."""
        refused = isinstance(self.base_resp, dict) and self.base_resp.get("status_code")
        said = self.message or self.msg
        named = self.type == "error" or self.success is False or _is_failure_code(self.code, self.status)
        return bool(self.error or self.errors or self.detail or self.error_msg or refused or (said and named))


class ResponseHead:
    """Status and headers of one response; makes the errors for all that is wrong with it.

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
        self.request_id = first_header(headers, *REQUEST_ID_HEADERS)
        self._secrets = secrets
        self._halves = HalfCharacters()

    def error(
        self,
        message: str,
        kind: ErrorKind,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> ModelError:
        """Make the error that says `message` about this response."""
        return ModelError(
            self._clip(message, _LONGEST_MESSAGE),
            provider=self.provider,
            kind=kind,
            status=self.status,
            retryable=retryable,
            retry_after=retry_after,
            request_id=self.request_id or (request_id and request_id[:_LONGEST_REQUEST_ID]),
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
        """Make the error that a response with an error status means; `content` is its body."""
        if 300 <= self.status < 400:  # noqa: PLR2004 - the redirections of HTTP
            return self._redirected()
        return self._read(
            self._parse(content) or f"HTTP status {self.status} with an empty body", self.status
        )

    def failure_inside(self, content: bytes | dict[str, Any]) -> ModelError:
        """Make the error that `content`, found in a response of success in place of an answer, means."""
        found = self._parse(content) if isinstance(content, bytes) else content
        return self._read(found or "the answer is empty", None)

    def expect_documents(self) -> None:
        """Expect an answer in many documents, of which one may end in the middle of a character."""
        self._halves.wait = True

    def reports_failure(self, content: bytes) -> bool:
        """Return whether `content`, which is no answer, is JSON that reports an error."""
        found = self._parse(content)
        return isinstance(found, dict) and _as_body(found).reports_failure

    def read(self, decode: Callable[[bytes], T], content: bytes) -> T:
        """Return `content` decoded. Raises `ModelError` if it is not what the protocol says.

        Where there is no memory for it, this raises `MemoryError`.

        Text in it that cannot be encoded is repaired.
        """
        if not content.strip():
            raise self.malformed("its body is empty")
        content = content.removeprefix(BYTE_ORDER_MARK)
        if has_too_many_values(content):
            raise self.malformed(f"it has more than {MOST_VALUES} objects and lists")
        ensure_memory(len(content))
        try:
            return decode(self._halves.repair(content) if has_nul(content) else content)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            detail = f"{error} in {self._quote(content)!r}"
        repaired = self._halves.repair(content)
        if repaired != content:
            with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                return decode(repaired)
        raise self.malformed(detail)

    def _parse(self, content: bytes) -> Any:  # noqa: ANN401 - any JSON
        """Return `content` as JSON, or as the words in it if it is something else."""
        content = content.removeprefix(BYTE_ORDER_MARK)
        if len(content) <= _LONGEST_ERROR_BODY:
            try:
                return msgspec.json.decode(content)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                pass
        return self._quote(content)

    def _redirected(self) -> ModelError:
        target = shown_url(self.headers.get("location", ""))
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
        message = _message(body, details) or self._quote(_encoded(found))
        message = self._clip(message, _LONGEST_MESSAGE)
        code = status if status is not None else _status_in(body, details)
        codes = [*codes_in(details), *codes_in({"type": body.type, "code": body.code})]
        daily = any("PerDay" in name for name in quotas_in(details))
        kind = "quota" if daily else kind_of_error(code, codes, message)
        failure = self.error(
            message,
            kind,
            retryable=self._retryable(kind, code),
            # The wait for the next day is not what Google names beside an allowance of the day.
            retry_after=None if daily else retry_after(self.headers) or retry_info(details),
            request_id=_text(body.request_id),
        )
        if (param := _text(details.get("param"))) and param not in message:
            failure.add_note(redact_secrets(f"parameter: {param}", self._secrets))
        metadata = details.get("metadata")
        if isinstance(metadata, dict) and (raw := _text(metadata.get("raw"))):
            # OpenRouter's own message says no more than that a provider failed.
            failure.add_note(self._clip(raw, _LONGEST_MESSAGE))
        return failure

    def _retryable(self, kind: ErrorKind, status: int | None) -> bool | None:
        if kind in {"quota", "content"}:
            return False
        advice = self.headers.get("x-should-retry", "").lower()
        if status == self.status and advice in {"true", "false"}:
            return advice == "true"
        return True if status == 409 else None  # noqa: PLR2004 - Conflict: another request held a lock

    def _clip(self, text: str, limit: int) -> str:
        return clipped(text, limit, partial(redact_secrets, secrets=self._secrets))

    def _quote(self, content: bytes) -> str:
        """Return the readable words of a body that is not an error in any known form.

        They are cut before they are searched, and once more, for a page's head may be long.
        """
        text = clipped(
            content[: 2 * _LONGEST_ERROR_BODY].decode("utf-8", "replace"),
            _LONGEST_ERROR_BODY,
            partial(redact_secrets, secrets=self._secrets),
        )
        # No pattern may look for an end that is not there from each of many beginnings.
        if (begin := _TITLE.search(text)) and (end := text.find("</", begin.end())) >= 0:
            text = text[begin.end() : end]
        text = " ".join(_TAG.sub(" ", text).split())
        return text if len(text) <= _LONGEST_QUOTED_BODY else f"{text[:_LONGEST_QUOTED_BODY]}…"


_TITLE: Final = re.compile(r"<title>", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>")


def _as_body(found: object) -> _Body:
    if isinstance(found, dict):
        return msgspec.convert(found, _Body)
    return _Body(error=found)


def _details(body: _Body) -> dict[str, Any]:
    """Return the object that describes the error; Ollama sends it as JSON inside a string."""
    found = body.error
    if found is None and isinstance(body.errors, list) and body.errors:  # Cloudflare
        found = body.errors[0]
    if isinstance(found, str) and found.startswith("{"):
        try:
            nested = msgspec.json.decode(found)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
        found = nested.get("error") if isinstance(nested, dict) else None
    return found if isinstance(found, dict) else {}


def _message(body: _Body, details: Mapping[str, Any]) -> str | None:
    """Return the provider's words: the body's own string before anything found inside it."""
    inner = body.message if isinstance(body.message, dict) else {}
    refused = body.base_resp if isinstance(body.base_resp, dict) else {}
    detail = body.detail or inner.get("detail")  # FastAPI, and Mistral that wraps it
    return (
        _text(body.error)
        or _text(details.get("message"))
        or _text(body.message)
        or _text(detail)
        or _text(body.msg)
        or _text(body.error_msg)
        or _text(refused.get("status_msg"))
        or _text(details.get("msg"))
        or _text(details.get("detail"))
        or (_encoded(detail).decode() if detail else None)
    )


def _encoded(found: object) -> bytes:
    try:
        return msgspec.json.encode(found)
    except (UnicodeError, RecursionError):
        return b"an error that cannot be shown"


def _is_failure_code(*codes: object) -> bool:
    """Return whether one of `codes` is that of a failure: neither none, 0 nor a status of success."""
    words = {str(code).lower()[:20] for code in codes if isinstance(code, int | str) and code}
    return any(not re.fullmatch(r"0|2\d\d|ok|success|true|false", word) for word in words)


def _status_in(body: _Body, details: Mapping[str, Any]) -> int | None:
    for value in (details.get("status_code"), details.get("code"), details.get("status"), body.code):
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{3}", value) else value
        if isinstance(number, int) and 400 <= number < 600:  # noqa: PLR2004 - the error statuses of HTTP
            return number
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
