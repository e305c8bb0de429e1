"""The provider behind the protocols: it decides what is answered and how fast, and keeps requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio
from msgspec import Struct, field

from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger
from ultra.errors import BadCall
from ultra.faults.provider.generation import compose, count_tokens, fit
from ultra.faults.provider.neutral import Answer, Failure, Outcome, Question, Reply, Respond
from ultra.faults.provider.rate_limits import RateLimits
from ultra.faults.rules import Seconds, check_seconds, draw_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.faults.http_faults import HttpFaults

__all__ = ["EXAMPLE_MODELS", "Pace", "ReceivedRequest", "SimulatedProvider"]

log = get_logger("ultra.faults.provider")

EXAMPLE_MODELS: Final = ("simulated-large", "simulated-small")
"""The models that are listed when every name is a model."""

_PATHS: Final[Mapping[str, str]] = {
    "openai": "/v1",
    "openai_responses": "/v1",
    "openrouter": "/api/v1",
    "anthropic": "",
    "gemini": "",
    "ollama": "",
}

_URL_VARIABLES: Final[Mapping[str, str]] = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
    "ollama": "OLLAMA_HOST",
}

_KEY_VARIABLES: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")


class ReceivedRequest(Struct, kw_only=True, eq=False):
    """A request as it was received, without its key.

    Attributes:
        protocol: openai, openai_responses, openrouter, anthropic, gemini or ollama.
        method: the HTTP method.
        path: of the URL.
        query: of the URL.
        headers: with names in lower case.
        body: the JSON, None if the request had none.
        has_key: whether it carried a key.
        question: what it asks, None if it could not be read or asks for something else than an answer.
        status: of the response, None before that begins.
        outcome: how the request ended, or "open".
    """

    protocol: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Any
    has_key: bool
    question: Question | None = None
    status: int | None = None
    outcome: Outcome = "open"
    _ended: trio.Event = field(default_factory=trio.Event)

    async def wait_ended(self) -> Outcome:
        """Wait for the end of the response, and return the outcome."""
        await self._ended.wait()
        return self.outcome

    @property
    def has_ended(self) -> bool:
        """Whether the response has ended."""
        return self._ended.is_set()

    def end(self, outcome: Outcome) -> None:
        """Note the end of the response. Only the first outcome counts."""
        if not self._ended.is_set():
            self.outcome = outcome
            self._ended.set()


class Pace:
    """The pace of one answer: it begins after `latency` seconds, then comes one token every 1 / `rate` s."""

    def __init__(self, latency: float, rate: float) -> None:
        self._latency = latency
        self._rate = rate
        self._start = 0.0

    async def start(self) -> None:
        """Wait until the answer begins."""
        await trio.sleep(self._latency)
        self._start = trio.current_time()

    async def reach(self, tokens: int) -> None:
        """Wait until the model has generated so many tokens."""
        await trio.sleep_until(self._start + tokens / self._rate)


class SimulatedProvider:
    """A provider of models that do not exist. `simulated_provider` starts one.

    Attributes:
        url: its address.
        requests: the last ones that it received, oldest first.
        request_count: how many it received in all.
        latency: seconds until an answer begins, or a range of them. May be changed at any time; requests
            that come later use the new value.
        tokens_per_second: the speed of answers. May be changed, too.
    """

    def __init__(
        self,
        *,
        seed: int,
        latency: Seconds,
        tokens_per_second: float,
        faults: HttpFaults | None,
        respond: Respond | None,
        models: Sequence[str] | None,
        api_key: str | None,
        requests_per_minute: int,
        tokens_per_minute: int,
        keep_requests: int,
    ) -> None:
        check_seconds("latency", latency)
        if not tokens_per_second > 0:
            raise BadCall(f"tokens_per_second={tokens_per_second!r} is not allowed; give more than 0")
        self.url = ""
        self.faults = faults
        self.models = tuple(models) if models is not None else None
        self.api_key = api_key
        self.latency = latency
        self.tokens_per_second = tokens_per_second
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep_requests)
        self.request_count = 0
        self.rate_limits = RateLimits(requests_per_minute, tokens_per_minute, ContinuousClock())
        self._seed = seed
        self._respond = respond
        self._scripts: dict[str | None, deque[Reply | Failure]] = {}
        self._latencies = Random(f"{seed}/latencies")
        self._identifiers = Random(f"{seed}/identifiers")
        self._arrivals = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<SimulatedProvider at {self.url or 'no address'}, {self.request_count} requests>"

    # --- for tests -----------------------------------------------------------------------------------

    def base_url(self, protocol: str) -> str:
        """Return the base URL for a client of `protocol`, as `ReceivedRequest` has it.

        Raises:
            BadCall: there is no such protocol.
        """
        if protocol not in _PATHS:
            raise BadCall(f"there is no protocol {protocol!r}; there are: {', '.join(_PATHS)}")
        return self.url + _PATHS[protocol]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead official clients, and Ultra's, to this provider."""
        urls = {variable: self.base_url(protocol) for protocol, variable in _URL_VARIABLES.items()}
        return urls | dict.fromkeys(_KEY_VARIABLES, self.api_key or "simulated")

    def script(self, *replies: Reply | Failure | str, model: str | None = None) -> None:
        """Set the replies to the next valid requests, in this order: for `model`, or (None) for any model.

            provider.script(Reply(calls=(Call("weather", {"city": "Rome"}),)), "It is warm.")

        Replies for a model go before those for any model. When all are used up, answers are generated
        again.
        """
        queue = self._scripts.setdefault(model, deque())
        queue.extend(Reply(each) if isinstance(each, str) else each for each in replies)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests have been received in all."""
        while self.request_count < count:
            await self._arrivals.park()

    # --- for the protocols ---------------------------------------------------------------------------

    def record(self, request: ReceivedRequest) -> None:
        """Keep a request, and wake those who wait for it."""
        self.requests.append(request)
        self.request_count += 1
        self._arrivals.unpark_all()

    def new_identifier(self) -> str:
        """Return a new id for a request or an answer: 24 hexadecimal digits, decided by the seed."""
        return f"{self._identifiers.getrandbits(96):024x}"

    def new_pace(self) -> Pace:
        """Return the pace of the next answer."""
        return Pace(draw_seconds(self.latency, self._latencies), self.tokens_per_second)

    def find_model(self, name: str) -> Failure | None:
        """Return a failure if there is no such model, else None."""
        if self.models is None or name in self.models:
            return None
        return Failure(
            "not_found", message=f"The model '{name}' does not exist or you do not have access to it."
        )

    def answer(self, question: Question) -> Answer | Failure:
        """Decide the answer to `question`, within the rate limits."""
        refusal = self.find_model(question.model) or self.rate_limits.take(count_tokens(question))
        if refusal is not None:
            return refusal
        reply = self._next_reply(question)
        if isinstance(reply, Failure):
            return reply
        answer = fit(reply, question, self.new_identifier())
        self.rate_limits.charge(answer.output)
        return answer

    def _next_reply(self, question: Question) -> Reply | Failure:
        for name in (question.model, None):
            if self._scripts.get(name):
                return self._scripts[name].popleft()
        if self._respond is None:
            return compose(question, self._seed)
        try:
            reply = self._respond(question)
        except Exception as error:  # whatever it is, the request must get a response
            log.exception("respond raised")
            return Failure("server", message=f"respond raised {error!r}")
        return Reply(reply) if isinstance(reply, str) else reply
