"""The model actor: one registered model, with its own inbox, retry policy and cache shard.

A request goes: cache shard, single-flight, limits and breaker, retry policy, client, metrics, reply.
The actor's cell is wide and its calls are limited inside, so a cache hit or a joined request never
waits for a call slot. A call that fails is an answer (`AllAttemptsFailed`), not a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

import trio
from msgspec import field
from trio.lowlevel import checkpoint, current_task

from ultra._support.log import get_logger
from ultra.actors.model.call import ModelCall
from ultra.actors.model.single_flight import Deserted, Flight, OnChunk, OnRetry, Passenger
from ultra.actors.model.timeouts import Timeouts
from ultra.actors.runtime.actor import Actor, ActorOptions
from ultra.actors.runtime.message import Failure, Message
from ultra.bridge.caller import Caller
from ultra.errors import (
    ActorDown,
    ActorStopped,
    AllAttemptsFailed,
    BadCall,
    ModelError,
    ModelUnregistered,
)
from ultra.messages.results import ModelResponse, Usage
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from random import Random

    from trio.lowlevel import Task

    from ultra.actors.model.breaker import CircuitBreaker
    from ultra.actors.model.deployments import Deployments
    from ultra.actors.model.limits import Limiter
    from ultra.actors.model.metrics import MetricsRecorder
    from ultra.actors.model.retry import RetryPolicy
    from ultra.clients.pricing import Price
    from ultra.messages.results import Completion
    from ultra.stores.contracts import CacheKey, CacheShard

__all__ = ["Generate", "ModelActor", "RegisteredModel", "Timeouts"]

log = get_logger("ultra.model")

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a client may take to close its connections."""


class RegisteredModel:
    """What belongs to a registration and outlives every actor: client, shard, counters, limits."""

    __slots__ = (
        "breaker",
        "client",
        "limiter",
        "metrics",
        "name",
        "policy",
        "price",
        "registered",
        "shard",
        "timeouts",
        "users",
        "weight",
    )

    def __init__(
        self,
        name: str,
        weight: float,
        *,
        client: Deployments,
        price: Price | None,
        policy: RetryPolicy,
        timeouts: Timeouts,
        shard: CacheShard | None,
        limiter: Limiter,
        breaker: CircuitBreaker,
        metrics: MetricsRecorder,
    ) -> None:
        self.name = name
        self.weight = weight
        self.client = client
        self.price = price
        self.policy = policy
        self.timeouts = timeouts
        self.shard = shard
        self.limiter = limiter
        self.breaker = breaker
        self.metrics = metrics
        self.registered = True
        self.users = 0  # how many trees have an actor for it

    def explain(self, error: Exception) -> Exception:
        """The error of a request in the asker's terms: that of an actor that was stopped names the reason."""
        if self.registered or not isinstance(error, ActorStopped) or isinstance(error, ActorDown):
            return error
        explained = ModelUnregistered(self.name)
        explained.__cause__ = error
        return explained

    async def let_go(self) -> None:
        """One tree less has an actor for this model; with the last one the client's connections are closed.

        That is cut off after some seconds, and not by cancellation. Nothing is raised: what was asked of the
        model has been answered.
        """
        self.users -= 1
        if self.users:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT) as scope:
            try:
                await self.client.aclose()
            except ModelError as error:
                log.write("warning", "client failed to close", model=self.name, error=str(error))
        if scope.cancelled_caught:
            log.write("warning", "client did not close in time", model=self.name, timeout=CLOSE_TIMEOUT)


class Generate(Message[ModelResponse], frozen=True, kw_only=True):
    """Answer `prompt`. The reply is a `ModelResponse`; a failure raises `AllAttemptsFailed`.

    `deadline` (`trio.current_time`): no retry is begun that could not start before it. `on_chunk` hears
    the text as it arrives, `on_retry` of attempts that another one follows. `use_cache`: whether an equal
    request's answer, kept or under way, will do. `caller`: whose loop an async client may run on, and
    whose context variables it sees.
    """

    prompt: str
    stage: str
    system: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    use_cache: bool = True
    deadline: float = inf
    on_chunk: OnChunk | None = None
    on_retry: OnRetry | None = None
    caller: Caller | None = None


class ModelActor(Actor):
    """Answers `Generate` requests with the registered model."""

    # As wide as the coordinator, so that no run waits in an inbox behind the calls of others.
    options: ClassVar[ActorOptions] = ActorOptions(concurrency=4096, capacity=65_536, cancel_abandoned=True)

    def __init__(self, model: RegisteredModel, random: Random) -> None:
        self._model = model
        self._random = random
        self._flights: dict[bytes, Flight] = {}
        self._passengers: dict[Task, Passenger] = {}

    async def receive(self, message: object) -> ModelResponse | Failure:
        """Answer a `Generate`."""
        if not isinstance(message, Generate):
            raise TypeError(f"a model actor takes Generate messages, not {type(message).__name__}")
        metrics = self._model.metrics
        handler = current_task()
        passenger = Passenger(message.deadline, message.on_chunk, message.on_retry)
        self._passengers[handler] = passenger
        try:
            response = await self._answer(message, passenger, trio.current_time())
        except (AllAttemptsFailed, BadCall) as error:
            metrics.failures += 1
            return Failure(error)
        except Deserted as error:
            metrics.cancelled += 1
            return Failure(error)
        except trio.Cancelled:
            metrics.cancelled += 1
            raise
        except Exception:
            metrics.failures += 1
            raise
        finally:
            del self._passengers[handler]
            passenger.leave()
        metrics.successes += 1
        return response

    def on_abandon(self, handler: Task) -> None:
        """Leave the flight; the handler that leads one goes on while others want the answer."""
        passenger = self._passengers.get(handler)
        if passenger is not None:
            passenger.leave()

    # --- from request to flight ---------------------------------------------------------------------

    async def _answer(self, request: Generate, passenger: Passenger, started: float) -> ModelResponse:
        key = cache_key(request.prompt, request.system, request.options) if request.use_cache else None
        while True:
            flight = self._flights.get(key) if key is not None else None
            leads = flight is None or flight.deserted
            if flight is None or flight.deserted:
                flight = Flight()
                flight.board(passenger)
                await self._lead(request, flight, key)
            else:
                self._model.metrics.joined += 1
                flight.board(passenger)
                await flight.wait(passenger)
            if passenger.has_left:
                raise Deserted("the asker did not wait for the answer")
            if flight.completion is not None:
                return self._response(request, flight, flight.completion, started)
            if flight.failure is not None and (leads or not flight.lost_its_loop):
                raise AllAttemptsFailed(self._model.name, flight.attempts, flight.failure)
            # The flight broke off, with the handler that led it, or with an asyncio loop that is not
            # this request's: another one has to lead.
            await checkpoint()

    async def _lead(self, request: Generate, flight: Flight, key: CacheKey | None) -> None:
        """Bring `flight` to its end, for this request and for all that join."""
        if key is not None:
            self._flights[key] = flight
        shard = self._model.shard
        call = ModelCall(self._model, request, flight, self._random)
        try:
            if key is None or shard is None:
                await call.make()
                return
            kept = await shard.get(key)
            if kept is not None:
                self._model.metrics.cache_hits += 1
                flight.land(kept, cached=True)
                return
            self._model.metrics.cache_misses += 1
            await call.make()
            # The model may have been unregistered meanwhile, and the shard be its successor's.
            if flight.completion is not None and self._model.shard is shard:
                await shard.put(key, flight.completion)
        finally:
            if key is not None and self._flights.get(key) is flight:
                del self._flights[key]
            flight.end()

    def _response(
        self, request: Generate, flight: Flight, completion: Completion, started: float
    ) -> ModelResponse:
        response_time = trio.current_time() - started
        first = None if flight.first_text_at is None else max(0.0, flight.first_text_at - started)
        if not flight.cached:
            self._model.metrics.answered(response_time, first)
        return ModelResponse(
            model_name=self._model.name,
            stage=request.stage,
            content=completion.content,
            usage=completion.usage or Usage(),
            response_time=response_time,
            time_to_first_token=first,
            attempts=flight.attempts,
            cached=flight.cached,
            finish_reason=completion.finish_reason,
            request_id=completion.request_id,
            cost=flight.cost,
        )
