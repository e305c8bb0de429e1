"""The words in which one request is sent: others, once the server has refused the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ultra._support.log import get_logger
from ultra.clients.http.connections import Hidden, HTTPRequest
from ultra.clients.quirks import reworded
from ultra.clients.structured import answer_of_tool
from ultra.clients.wire.addresses import shown_url
from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ultra.clients.dialects.base import Dialect
    from ultra.clients.options import CallOptions
    from ultra.clients.quirks import Quirks
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion

__all__ = ["Learned", "Wording", "with_address"]

log = get_logger("ultra.clients")

_MOST_LESSONS: Final = 4
"""How often one request is reworded: once for each thing that a server refuses, and these come in a row."""


def with_address(failure: ModelError, url: str) -> ModelError:
    """Return `failure`, or where nothing was found at `url`, one that says so."""
    if failure.status not in {404, 405}:
        return failure
    return ModelError(
        f"{failure.message} (asked at {shown_url(url)}; is base_url that of the API?)",
        provider=failure.provider,
        kind=failure.kind,
        status=failure.status,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
        request_id=failure.request_id,
        usage=failure.usage,
    )


class Learned:
    """What one client knows of its endpoint: what was known before, and what it has learned since.

    Attributes:
        quirks: all of it.
        dialect: the client's dialect in the form that the endpoint takes.
    """

    def __init__(self, dialect: Dialect, known: Quirks) -> None:
        self.plain_dialect = dialect
        self.learn(known)

    def learn(self, quirks: Quirks) -> None:
        """Know `quirks` from now on."""
        self.quirks = quirks
        self.dialect = self.plain_dialect.adapted(quirks)


class Wording:
    """One request as it is sent to one endpoint.

    Args:
        learned: of the client; what this request learns is kept there once the server has taken it.
        request: what is asked.
        options: of this call.
        payload: what the dialect in `learned` encodes of the two.
        headers: of every call; they hide the key.
        stream: whether a stream is wanted.

    Attributes:
        dialect: decodes the answer.
        streams: whether the answer is asked for as a stream.

    Raises:
        BadCall: the request cannot be written as JSON.
    """

    def __init__(
        self,
        learned: Learned,
        request: ModelRequest,
        options: CallOptions,
        payload: Mapping[str, Any],
        headers: Hidden,
        *,
        stream: bool,
    ) -> None:
        self._learned = learned
        self._request = request
        self._options = options
        self._headers = headers
        self._stream = stream
        self._lessons = 0
        self._quirks = learned.quirks
        self.dialect = learned.dialect
        self.streams = stream and not self._quirks.no_stream
        self._payload = self._quirks.payload(payload)
        self._written: HTTPRequest | None = self._write()

    def to_send(self) -> HTTPRequest:
        """Return what to send. It is not kept: a stream that goes on for long needs no copy of the prompt."""
        written, self._written = self._written, None
        return written or self._write()

    def refused(self, failure: ModelError) -> bool:
        """Return whether to send the request again, in other words, after the server refused it so."""
        if self._lessons >= _MOST_LESSONS:
            return False
        quirks = reworded(self._quirks, failure, self._payload)
        if quirks is None:
            return False
        before = (self._url, self._payload)
        self._quirks = quirks
        self.dialect = self._learned.plain_dialect.adapted(quirks)
        self.streams = self._stream and not quirks.no_stream
        request, options = quirks.conversation(self._request, self._options)
        self._payload = quirks.payload(self.dialect.encode(request, options, stream=self.streams))
        if (self._url, self._payload) == before:
            return False
        self._written = self._write()
        self._lessons += 1
        return True

    def accepted(self) -> None:
        """Keep what this request has learned for the next ones of the client."""
        if self._lessons:
            self._learned.learn(self._learned.quirks.joined(self._quirks))
            self._lessons = 0
            log.info(
                "the endpoint takes such requests in other words",
                provider=self.dialect.provider,
                model=self.dialect.model,
                quirks=str(self._quirks),
            )

    def checked(self, completion: Completion) -> Completion:
        """Return the answer, of a tool that was to be called with it, too.

        Raises `ModelError` if the server answered something else than what was asked.
        """
        self.dialect.check(completion, self._request)
        return self.answer(completion)

    def answer(self, completion: Completion) -> Completion:
        """Return what `checked` does, without the check."""
        return answer_of_tool(completion, self._request)

    def explained(self, failure: ModelError) -> ModelError:
        """Return `failure`, or one that speaks of the address where that is wrong by all appearance."""
        return failure if "model" in failure.message.lower() else with_address(failure, self._url)

    @property
    def _url(self) -> str:
        return self.dialect.url(stream=self.streams)

    def _write(self) -> HTTPRequest:
        options = self._options
        try:
            content = msgspec.json.encode(self._payload | (options.extra_body or {}))
        except (TypeError, ValueError) as error:  # ValueError: half of a surrogate pair
            raise BadCall(f"the request cannot be written as JSON: {error}") from None
        extra = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
        return HTTPRequest(self._url, Hidden(self._headers.value | extra), content)
