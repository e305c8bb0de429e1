"""One endpoint: read a request, keep it for assertions, and send the response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request

from ultra._support.log import get_logger
from ultra.faults.http_faults import HugeBody, ReadTimesOut, Status
from ultra.faults.provider.neutral import Answer, Failure
from ultra.faults.provider.protocol import Refused, json
from ultra.faults.provider.provider import ReceivedRequest
from ultra.faults.provider.response_faults import FaultyResponse, ResponseCut, ResponseFaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from ultra.faults.provider.neutral import Outcome, Question
    from ultra.faults.provider.protocol import Protocol
    from ultra.faults.provider.provider import SimulatedProvider

__all__ = ["Endpoint", "Exchange"]

log = get_logger("ultra.faults.provider")

_LARGEST_REQUEST: Final = 32 * 2**20  # [bytes], as at Anthropic

_SECRET_HEADERS: Final = (
    *("authorization", "proxy-authorization", "cookie"),
    *("api-key", "x-api-key", "x-goog-api-key"),
)

_BLANKS: Final = b" " * 65_536


class Exchange:
    """One request that was read, and the response to it."""

    def __init__(
        self, provider: SimulatedProvider, protocol: Protocol, request: Request, body: bytes, send: Send
    ) -> None:
        self.provider = provider
        self.protocol = protocol
        self.request = request
        self.body = body
        self.id = provider.new_identifier()
        self.received = _describe(protocol, request, body)
        self.response = FaultyResponse(send, ResponseFaults())

    def draw_faults(self, *, stream: bool) -> Status | HugeBody | ReadTimesOut | None:
        """Ask the fault plan about this request. Return what takes the place of the answer, if anything."""
        url = str(self.request.url.remove_query_params("key"))
        self.response.faults = ResponseFaults.draw(self.provider.faults, url, stream=stream)
        return self.response.faults.replacement

    async def send_json(self, payload: object) -> None:
        """Send `payload` as JSON, with status 200."""
        body = json(payload)
        await self._start(200, {"content-type": self.protocol.json_type}, len(body))
        await self._finish(body, "answered")

    async def send_failure(self, failure: Failure) -> None:
        """Send an error, in the words of the protocol."""
        body = json(self.protocol.failure(failure, self.id))
        headers = {"content-type": self.protocol.json_type, **self.protocol.failure_headers(failure)}
        await self._start(self.protocol.wording(failure).status, headers, len(body))
        await self._finish(body, "failed")

    async def send_answer(self, answer: Answer | Failure, *, stream: bool) -> None:
        """Send `answer` at the provider's pace."""
        pace = self.provider.new_pace()
        await pace.start()
        if isinstance(answer, Failure):
            await self.send_failure(answer)
            return
        if stream:
            await self._stream(answer, pace.reach)
            return
        await pace.reach(answer.output)
        if answer.hold is not None:
            await answer.hold.wait()
        if answer.failure is not None:
            await self.send_failure(answer.failure)
        else:
            await self.send_json(self.protocol.whole(answer))

    async def send_fault(self, fault: Status | HugeBody | ReadTimesOut) -> None:
        """Send what the fault plan puts in place of the answer."""
        match fault:
            case ReadTimesOut():
                await trio.sleep_forever()  # until the client goes away
            case HugeBody(size):
                await self._start(200, {"content-type": self.protocol.json_type})
                for start in range(0, size, len(_BLANKS)):
                    await self.response.send(_BLANKS[: size - start])
                await self._finish(b"", "broken")
            case Status(status, retry_after, body):
                failure = Failure(status=status, retry_after=retry_after) if status >= 400 else None  # noqa: PLR2004 - HTTP's errors
                headers = {"content-type": self.protocol.json_type}
                if failure is not None:
                    headers |= self.protocol.failure_headers(failure)
                    body = body or json(self.protocol.failure(failure, self.id))
                if retry_after is not None:
                    headers["retry-after"] = f"{retry_after:g}"
                await self._start(status, headers, len(body))
                await self._finish(body, "failed")

    async def _stream(self, answer: Answer, reach: Callable[[int], Awaitable[None]]) -> None:
        await self._start(200, {"content-type": self.protocol.stream_type, "cache-control": "no-cache"})
        faults = self.response.faults
        failure = answer.failure
        written = sent = 0
        for data, tokens in self.protocol.events(answer):
            if sent == faults.fails_after:
                failure = faults.failure
                break
            sent += 1
            written += tokens
            if tokens:
                await reach(written)
            await self.response.send_event(data)
            if answer.hold is not None and tokens:
                await answer.hold.wait()
        if failure is not None:
            await self.response.send_event(self.protocol.failure_event(failure, self.id, sent))
        await self._finish(b"", "answered" if failure is None else "failed")

    async def _start(self, status: int, headers: dict[str, str], length: int | None = None) -> None:
        self.received.status = status
        usual = self.protocol.headers(self.id, self.provider.rate_limits.states())
        await self.response.start(status, usual | headers, length)

    async def _finish(self, body: bytes, outcome: Outcome) -> None:
        await self.response.send(body)
        # Before the end is sent: after it the client may go away at once, which is another outcome.
        self.received.end(outcome)
        await self.response.end()


class Endpoint:
    """An ASGI application for one path.

    Args:
        provider: the provider that answers.
        choose: returns the protocol of a request.
        serve: answers requests for something else than an answer of a model; None if they ask for one.
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        choose: Callable[[Request], Protocol],
        serve: Callable[[Exchange], Awaitable[None]] | None = None,
    ) -> None:
        self._provider = provider
        self._choose = choose
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, until it is answered or broken off, or the client goes away."""
        request = Request(scope, receive)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return
        exchange = Exchange(self._provider, self._choose(request), request, body or b"", send)
        question, failure = (None, None) if self._serve is not None else _understand(exchange)
        exchange.received.question = question
        key = exchange.protocol.key(request)
        failure = exchange.protocol.check_key(key, self._provider.api_key) or failure
        if body is None:
            failure = Failure("too_large")
        self._provider.record(exchange.received)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope, exchange.received)
                await self._answer(exchange, question, failure)
                nursery.cancel_scope.cancel()
        finally:
            exchange.received.end("abandoned")
            _log(exchange.received)

    async def _answer(self, exchange: Exchange, question: Question | None, failure: Failure | None) -> None:
        stream = question is not None and question.stream
        fault = exchange.draw_faults(stream=stream)
        try:
            if fault is not None:
                await exchange.send_fault(fault)
            elif failure is not None:
                await exchange.send_failure(failure)
            elif question is not None:
                await exchange.send_answer(self._provider.answer(question), stream=stream)
            elif self._serve is not None:
                await self._serve(exchange)
        except ResponseCut as cut:
            # Before the end is sent, as in `Exchange._finish`.
            exchange.received.end("broken")
            if cut.looks_whole:
                await exchange.response.end()


def _understand(exchange: Exchange) -> tuple[Question | None, Failure | None]:
    try:
        return exchange.protocol.read(exchange.request, exchange.body), None
    except Refused as refused:
        return None, refused.failure


async def _read(request: Request) -> bytes | None:
    """Return the body of a request, None if it is too large."""
    body = bytearray()
    async for data in request.stream():
        if len(body) <= _LARGEST_REQUEST:
            body += data
    return bytes(body) if len(body) <= _LARGEST_REQUEST else None


def _describe(protocol: Protocol, request: Request, body: bytes) -> ReceivedRequest:
    try:
        decoded = msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        decoded = None
    headers = {name: value for name, value in request.headers.items() if name not in _SECRET_HEADERS}
    return ReceivedRequest(
        protocol=protocol.name,
        method=request.method,
        path=request.url.path,
        query=request.url.remove_query_params("key").query,
        headers=headers,
        body=decoded,
        has_key=bool(protocol.key(request)),
    )


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope, received: ReceivedRequest) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not received.has_ended:  # else the server is ending the exchange, and must not be cancelled in that
        scope.cancel()


def _log(received: ReceivedRequest) -> None:
    question = received.question
    log.info(
        "a simulated provider was asked",
        protocol=received.protocol,
        path=received.path,
        model=question.model if question is not None else None,
        messages=len(question.messages) if question is not None else None,
        tools=len(question.tools) if question is not None else None,
        images=len(question.images) if question is not None else None,
        documents=len(question.documents) if question is not None else None,
        status=received.status,
        outcome=received.outcome,
    )
