"""Simulated models, called directly or over HTTP in memory.

They take virtual seconds, fail now and then, and remember what they were asked and what they said.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import trio

from ultra.clients import HTTPLimits, OpenAIClient
from ultra.errors import ErrorKind, ModelError
from ultra.faults.transport import FaultyTransport
from ultra.messages.results import Usage
from ultra.simulation.record import TIME_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from typing import Self

    from ultra.faults.plan import FaultPlan
    from ultra.simulation.record import Record

__all__ = ["CALLS_AT_ONCE", "NOT_CACHED", "SimulatedModel", "over_http"]

CALLS_AT_ONCE: Final = 2
"""How many calls each model is registered to take at once."""

NOT_CACHED: Final = "fresh"
"""The first word of prompts that are asked without the cache, so that equal requests share nothing."""

WORDS: Final = ("north", "south", "east", "west", "up", "down", "left", "right")
MADE_UP: Final = "made up"
"""What a call that fails says; over HTTP, nothing of it arrives."""

LOST: Final = Usage(input=2, output=1)
"""What such a call has used."""

FAILURES: Final[tuple[ErrorKind, ...]] = ("server", "overloaded", "rate_limit", "connection", "auth")


class SimulatedModel:
    """A client with `generate` and `stream`.

    Attributes:
        name: what it is registered as.
        said: every answer that it began to give, and the prompt that it answered.
        asked: how many calls each prompt has led to.
        open_calls: the calls that have not ended, by number: the prompt and the system prompt of each.
    """

    def __init__(self, name: str, registration: int, seed: int, record: Record) -> None:
        self.name = name
        self.said: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self.open_calls: dict[int, tuple[str, str | None]] = {}
        self._registration = registration  # which one under this name, counted from 1
        self._record = record
        self._random = Random(f"{seed}/{name}/{registration}")
        self._calls = 0
        # Calls that began while an equal one was open: the number of that one, and the time.
        self._equal_calls: dict[int, tuple[int, float]] = {}
        self._failing = self._random.choice((0.0, 0.1, 0.3))
        self._pace = self._random.choice((0.0, 0.25, 0.5, 1.0))

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer after some time, or fail."""
        with _Call(self, prompt, system) as number:
            await trio.sleep(self._pace * (1 + number % 3))
            self._may_fail()
            return self._say(number, prompt)

    async def stream(self, prompt: str, *, system: str | None = None) -> AsyncGenerator[str]:
        """Answer word by word. A stream may break off in the middle."""
        with _Call(self, prompt, system) as number:
            await trio.sleep(self._pace)
            words = self._say(number, prompt).split(" ")
            for word in words[:-1]:
                yield f"{word} "
                if number % 4 == 0:
                    await trio.sleep(0.25)
                self._may_fail(share=1 / len(words))
            yield words[-1]

    def call_began(self, prompt: str, system: str | None) -> int:
        """Note the beginning of a call, and return its number."""
        self._calls += 1
        number = self._calls
        if NOT_CACHED not in prompt:
            for other, asked in self.open_calls.items():
                if asked == (prompt, system):
                    self._equal_calls[number] = (other, trio.current_time())
        self.open_calls[number] = (prompt, system)
        self.asked[prompt] = self.asked.get(prompt, 0) + 1
        self._record.add("call", self.name, self._registration, number)
        self._record.check(
            3,
            len(self.open_calls) <= CALLS_AT_ONCE,
            f"{self.name} has {len(self.open_calls)} calls at once; allowed are {CALLS_AT_ONCE}",
            self.name,
        )
        return number

    def call_ended(self, number: int, how: str) -> None:
        """Note the end of a call.

        Of two equal calls, the older one may have been given up by all who wanted it: then it ends at the
        moment when the younger one begins.
        """
        del self.open_calls[number]
        self._record.add("called", self.name, self._registration, number, how)
        now = trio.current_time()
        for younger, (older, since) in tuple(self._equal_calls.items()):
            if number in {younger, older}:
                del self._equal_calls[younger]
                self._record.check(
                    3,
                    now - since <= TIME_TOLERANCE,
                    f"{self.name} had two calls for one question for {now - since:.3f} s",
                    self.name,
                )

    def _say(self, number: int, prompt: str) -> str:
        # Mostly the same words, so that models agree in part.
        answer = " ".join((f"{self.name}.{self._registration}.{number}:", *self._random.choices(WORDS, k=6)))
        self.said[answer] = prompt
        return answer

    def _may_fail(self, share: float = 1.0) -> None:
        if self._random.random() < self._failing * share:
            kind = self._random.choice(FAILURES)
            raise ModelError(MADE_UP, provider=self.name, kind=kind, usage=LOST)


class _Call:
    """One call, from its beginning to its end."""

    __slots__ = ("_model", "_number")

    def __init__(self, model: SimulatedModel, prompt: str, system: str | None) -> None:
        self._model = model
        self._number = model.call_began(prompt, system)

    def __enter__(self) -> int:
        return self._number

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._model.call_ended(self._number, kind.__name__ if kind is not None else "")


# --- over HTTP -----------------------------------------------------------------------------------------

MAX_RESPONSE_BYTES: Final = 20_000
READ_TIMEOUT: Final = 2.0
"""Virtual seconds that a server may be silent."""

STATUS: Final[Mapping[ErrorKind, int]] = {"auth": 401, "rate_limit": 429, "server": 500, "overloaded": 503}


def over_http(model: SimulatedModel, plan: FaultPlan) -> OpenAIClient:
    """Return a client that asks `model` in OpenAI's dialect, with the HTTP faults of `plan` on the way."""
    return OpenAIClient(
        "virtual",
        provider="openai",
        base_url=f"http://{model.name}.example/v1",
        limits=HTTPLimits(read_timeout=READ_TIMEOUT, max_response_bytes=MAX_RESPONSE_BYTES),
        trust_env=False,
        transport=FaultyTransport(plan, _Server(model)),
    )


class _Server(httpx.AsyncBaseTransport):
    """Answers ``/chat/completions`` by a model."""

    def __init__(self, model: SimulatedModel) -> None:
        self._model = model

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = msgspec.json.decode(await request.aread())
        said = {message["role"]: message["content"] for message in asked["messages"]}
        prompt, system = said["user"], said.get("system")
        if asked.get("stream"):
            events = _Events(self._model.stream(prompt, system=system))
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=events)
        try:
            answer = await self._model.generate(prompt, system=system)
        except ModelError as error:
            if error.kind not in STATUS:
                raise httpx.ReadError("the server hung up", request=request) from error
            return httpx.Response(STATUS[error.kind])
        return httpx.Response(
            200,
            headers={"content-type": "application/json"},
            content=_json({"message": {"content": answer}, "finish_reason": "stop"}),
        )


class _Events(httpx.AsyncByteStream):
    """The pieces of an answer, each as an event."""

    def __init__(self, pieces: AsyncGenerator[str]) -> None:
        self._pieces = pieces
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        try:
            piece = await anext(self._pieces, None)
        except ModelError as error:
            raise httpx.ReadError("the server hung up") from error
        if piece is not None:
            return b"data: %s\n\n" % _json({"delta": {"content": piece}})
        self._over = True
        return b"data: %s\n\ndata: [DONE]\n\n" % _json({"delta": {}, "finish_reason": "stop"})

    async def aclose(self) -> None:
        await self._pieces.aclose()


def _json(choice: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, **choice}]})
