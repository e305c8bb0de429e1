"""The provider behind all its protocols: what it answers, how fast, and what it was asked."""

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
from ultra.faults.provider.allowance import Allowance
from ultra.faults.provider.composition import compose, count_tokens, fit
from ultra.faults.provider.exchange import Answer, Failure, Outcome, Question, Reply, Respond
from ultra.faults.rules import Seconds, check_seconds, draw_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.faults.http_faults import HttpFaults

__all__ = ["EXAMPLE_MODELS", "Pace", "ReceivedRequest", "SimulatedProvider"]

log = get_logger("ultra.faults.provider")

EXAMPLE_MODELS: Final = ("simulated-large", "simulated-small")
"""What is listed where any model can be asked."""

_PATHS: Final[Mapping[str, str]] = {"openai": "/v1", "anthropic": "", "gemini": "", "ollama": ""}

_URL_VARIABLES: Final[Mapping[str, str]] = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
    "ollama": "OLLAMA_HOST",
}

_KEY_VARIABLES: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")


class ReceivedRequest(Struct, kw_only=True, eq=False):
    """A request as it came, without its key.

    `headers` have names in lower case. `body` is its JSON, or None if it had none. `question` is None
    where it could not be read or asked for something else than an answer. `has_key` tells whether it
    carried a key. `status` is that of the response, None before it began.
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
        """Wait until the response is over, and return how it ended."""
        await self._ended.wait()
        return self.outcome

    def end(self, outcome: Outcome) -> None:
        """The response is over; only the first outcome counts."""
        if not self._ended.is_set():
            self.outcome = outcome
            self._ended.set()


class Pace:
    """How fast one answer is given: after `latency`, then one token every 1 / `rate` seconds."""

    def __init__(self, latency: float, rate: float) -> None:
        self._latency = latency
        self._rate = rate
        self._start = 0.0

    async def start(self) -> None:
        """Wait until the answer begins."""
        await trio.sleep(self._latency)
        self._start = trio.current_time()

    async def reach(self, tokens: int) -> None:
        """Wait until the model has written so many tokens."""
        await trio.sleep_until(self._start + tokens / self._rate)


class SimulatedProvider:
    """A provider of models that do not exist; `simulated_provider` starts one.

    `url` is its address. `requests` are the last that it received, oldest first, and `request_count`
    is how many there were in all. `latency` [s, or a range of it] and `tokens_per_second` may be
    changed at any time, and count for the requests that come then.
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
        self.allowance = Allowance(requests_per_minute, tokens_per_minute, ContinuousClock())
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
        """The base URL as the official client of `protocol` takes it: openai, anthropic, gemini, ollama.

        Raises:
            BadCall: there is no such protocol.
        """
        if protocol not in _PATHS:
            raise BadCall(f"there is no protocol {protocol!r}; there are: {', '.join(_PATHS)}")
        return self.url + _PATHS[protocol]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead official clients, and Ultra's, here instead of to the real providers."""
        urls = {variable: self.base_url(protocol) for protocol, variable in _URL_VARIABLES.items()}
        return urls | dict.fromkeys(_KEY_VARIABLES, self.api_key or "simulated")

    def script(self, *replies: Reply | Failure | str, model: str | None = None) -> None:
        """Say what the next valid requests get, in this order; of `model`, or of any if it is None.

        What is scripted for a model goes before what is scripted for any. Once all are used up, answers
        are made up again.
        """
        queue = self._scripts.setdefault(model, deque())
        queue.extend(Reply(each) if isinstance(each, str) else each for each in replies)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests were received in all."""
        while self.request_count < count:
            await self._arrivals.park()

    # --- for the protocols ---------------------------------------------------------------------------

    def record(self, request: ReceivedRequest) -> None:
        """Take note of a request."""
        self.requests.append(request)
        self.request_count += 1
        self._arrivals.unpark_all()

    def new_identifier(self) -> str:
        """An id for a request or an answer: 24 digits, in the same order for the same seed."""
        return f"{self._identifiers.getrandbits(96):024x}"

    def new_pace(self) -> Pace:
        """The pace of the next answer."""
        return Pace(draw_seconds(self.latency, self._latencies), self.tokens_per_second)

    def find_model(self, name: str) -> Failure | None:
        """Say so if there is no such model."""
        if self.models is None or name in self.models:
            return None
        return Failure(
            "not_found", message=f"The model '{name}' does not exist or you do not have access to it."
        )

    def answer(self, question: Question) -> Answer | Failure:
        """Decide what `question` gets, within what is allowed a minute."""
        refusal = self.find_model(question.model) or self.allowance.take(count_tokens(question))
        if refusal is not None:
            return refusal
        reply = self._next_reply(question)
        if isinstance(reply, Failure):
            return reply
        answer = fit(reply, question, self.new_identifier())
        self.allowance.charge(answer.output)
        return answer

    def _next_reply(self, question: Question) -> Reply | Failure:
        for name in (question.model, None):
            if self._scripts.get(name):
                return self._scripts[name].popleft()
        if self._respond is None:
            return compose(question, self._seed)
        try:
            reply = self._respond(question)
        except Exception as error:  # whatever it is, who asked must get an answer
            log.exception("respond raised")
            return Failure("server", message=f"respond raised {error!r}")
        return Reply(reply) if isinstance(reply, str) else reply
