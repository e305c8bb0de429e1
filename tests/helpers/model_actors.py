"""Model actors for tests: one registered model in an actor system of its own."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import trio
from msgspec.structs import replace

from ultra._support.reminders import Reminders
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.breaker import BreakerPolicy, CircuitBreaker
from ultra.actors.model.cache_access import CacheWriter
from ultra.actors.model.deployments import Deployments
from ultra.actors.model.limits import Limiter, Limits
from ultra.actors.model.messages import Generate, LocalRequest, LocalRequests
from ultra.actors.model.metrics import MetricsRecorder
from ultra.actors.model.registered import RegisteredModel
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.adapter import ClientAdapter
from ultra.messages.reasoning import JoinedReasoning
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import ModelResponse
from ultra.stores.memory import MemoryCache
from ultra.supervisor import ActorSystem, Backoff

if TYPE_CHECKING:
    from ultra.actors.model.messages import ResponseListener
    from ultra.actors.runtime.actor import ActorRef
    from ultra.bridge.caller import Caller
    from ultra.errors import ModelError
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.results import ModelMetrics

AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)


def register(
    client: object,
    name: str = "one",
    weight: float = 1.0,
    *,
    retry: RetryPolicy = AT_ONCE,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    breaker: BreakerPolicy | None = None,
    cache: bool = True,
) -> RegisteredModel:
    metrics = MetricsRecorder()
    return RegisteredModel(
        name,
        weight,
        client=Deployments((ClientAdapter(client),), None, metrics),
        price=None,
        policy=retry,
        timeouts=timeouts or Timeouts(),
        shard=MemoryCache().shard(name) if cache else None,
        limiter=Limiter(name, limits),
        breaker=CircuitBreaker(name, breaker),
        metrics=metrics,
    )


REQUESTS = LocalRequests()
"""What the askers of all tests keep beside their messages."""

_numbers = count()


def start(system: ActorSystem, model: RegisteredModel, factory: Any = ModelActor) -> ActorRef:
    """Start the actor of `model`; when it crashes, it is restarted at once."""
    reminders = Reminders()
    trio.lowlevel.spawn_system_task(reminders.work)
    parts = model, Random(1), REQUESTS, CacheWriter(system.start_soon), reminders
    return system.spawn(factory, *parts, name=model.name, backoff=Backoff(initial=0, jitter=0))


def ask_for(
    prompt: str = "Q",
    *,
    system: str | None = None,
    options: dict[str, Any] | SamplingOptions | None = None,
    sample: int = 0,
    listener: ResponseListener | None = None,
    caller: Caller | None = None,
    **fields: Any,
) -> Generate:
    """A request; its listener and caller are kept beside it."""
    request = replace(ModelRequest.of(prompt, system, SamplingOptions.of(options)), sample=sample)
    message = Generate(id=f"request-{next(_numbers)}", stage="initial", request=request, **fields)
    REQUESTS.add(message.id, LocalRequest(listener, caller))
    return message


class Transcript:
    """Listens to an answer.

    `text` is what a reader would have now, and `thoughts` the reasoning; `beginnings` how often the text
    began. `retries` has attempt, error and wait of each that another one followed. `told` is all of it.
    """

    def __init__(self) -> None:
        self.text = ""
        self.pieces: list[str] = []
        self.beginnings = 0
        self.retries: list[tuple[int, ModelError, float]] = []
        self.thoughts = JoinedReasoning()
        self.told: list[tuple[str, str, bool]] = []

    def chunk(self, text: str, *, begins: bool) -> None:
        if begins:
            self.beginnings += 1
            self.text = ""
        self.text += text
        self.pieces.append(text)
        self.told.append(("text", text, begins))

    def reasoning(self, part: ReasoningPart, *, begins: bool) -> None:
        if begins:
            self.thoughts = JoinedReasoning()
        self.thoughts.add(part)
        self.told.append(("reasoning", part.text, begins))

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        self.retries.append((attempt, error, wait))


async def answer(model: RegisteredModel, request: Generate | None = None) -> ModelResponse:
    async with ActorSystem() as system:
        return await start(system, model).ask(request or ask_for())


class Asker:
    """Asks in the background; `scope` makes it go away, `outcome` has what it got."""

    def __init__(self, nursery: trio.Nursery, ref: ActorRef, request: Generate) -> None:
        self.scope = trio.CancelScope()
        self.outcome: ModelResponse | Exception | None = None
        nursery.start_soon(self._ask, ref, request)

    async def _ask(self, ref: ActorRef, request: Generate) -> None:
        with self.scope:
            try:
                self.outcome = await ref.ask(request)
            except Exception as error:  # noqa: BLE001 - whatever it got, the test looks at it
                self.outcome = error

    @property
    def text(self) -> str:
        assert isinstance(self.outcome, ModelResponse)
        return self.outcome.content


def assert_all_accounted(metrics: ModelMetrics) -> None:
    assert metrics.requests == metrics.successes + metrics.failures + metrics.cancelled
