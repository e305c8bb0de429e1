"""The model actor: one registered model, with its own inbox, retry policy and cache shard.

A request goes: cache shard, single-flight, limits and breaker, retry policy, client, metrics, reply.
The actor's cell is wide and its calls are limited inside, so a cache hit or a joined request never
waits for a call slot. A call that fails is an answer (`AllAttemptsFailed`), not a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, ClassVar

import trio
from msgspec import Struct, field

from ultra.actors.actor import Actor, ActorOptions
from ultra.actors.cache import CacheShard, cache_key
from ultra.actors.flight import Flight, OnChunk
from ultra.actors.message import Failure, Message
from ultra.actors.retry import RetryPolicy, retrying
from ultra.errors import AllAttemptsFailed, BadCall, ModelError, UltraError
from ultra.log import get_logger
from ultra.messages import Completion, ModelResponse, Usage
from ultra.tokens import estimate_tokens

if TYPE_CHECKING:
    from random import Random

    from ultra.actors.breaker import CircuitBreaker
    from ultra.actors.limits import Limiter
    from ultra.clients.adapter import ClientAdapter
    from ultra.metrics import MetricsRecorder

__all__ = ["Generate", "ModelActor", "RegisteredModel", "Timeouts"]

log = get_logger("ultra.model")


class Timeouts(Struct, frozen=True, kw_only=True):
    """Bounds on one attempt [s]: all of it, until the first text, and between two pieces of text.

    The last two apply where the answer is streamed.
    """

    attempt: float = 120.0
    first_token: float = 60.0
    idle: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and value > 0):
                raise BadCall(f"timeout {name} is {value!r}; it must be a number of seconds above 0")


class RegisteredModel:
    """What belongs to a registration and outlives every actor: client, shard, counters, limits."""

    __slots__ = ("adapter", "breaker", "limiter", "metrics", "name", "policy", "shard", "timeouts", "weight")

    def __init__(
        self,
        name: str,
        weight: float,
        *,
        adapter: ClientAdapter,
        policy: RetryPolicy,
        timeouts: Timeouts,
        shard: CacheShard | None,
        limiter: Limiter,
        breaker: CircuitBreaker,
        metrics: MetricsRecorder,
    ) -> None:
        self.name = name
        self.weight = weight
        self.adapter = adapter
        self.policy = policy
        self.timeouts = timeouts
        self.shard = shard
        self.limiter = limiter
        self.breaker = breaker
        self.metrics = metrics


class Generate(Message[ModelResponse], frozen=True, kw_only=True):
    """Answer `prompt`. The reply is a `ModelResponse`; a failure raises `AllAttemptsFailed`.

    `deadline` (`trio.current_time`): no retry is begun that could not start before it. `on_chunk` hears
    the text as it arrives. `use_cache`: whether an equal request's answer, kept or under way, will do.
    """

    prompt: str
    stage: str
    system: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    use_cache: bool = True
    deadline: float = inf
    on_chunk: OnChunk | None = None


class ModelActor(Actor):
    """Answers `Generate` requests with the registered model."""

    options: ClassVar[ActorOptions] = ActorOptions(concurrency=1024, capacity=16_384, cancel_abandoned=True)

    def __init__(self, model: RegisteredModel, random: Random) -> None:
        self._model = model
        self._random = random
        self._flights: dict[bytes, Flight] = {}
        self._boarded: dict[int, tuple[Flight, Generate, bool]] = {}

    async def receive(self, message: object) -> ModelResponse | Failure:
        """Answer a `Generate`."""
        if not isinstance(message, Generate):
            raise TypeError(f"a model actor takes Generate messages, not {type(message).__name__}")
        metrics = self._model.metrics
        metrics.requests += 1
        try:
            reply = await self._answer(message, trio.current_time())
        except AllAttemptsFailed as error:
            metrics.failures += 1
            return Failure(error)
        except trio.Cancelled:
            metrics.cancelled += 1
            raise
        if reply is None:
            metrics.cancelled += 1
            return Failure(UltraError("nobody waits for this answer any more"))
        metrics.successes += 1
        return reply

    def on_abandon(self, message: object) -> bool:
        """Leave the flight; a handler that leads one goes on while others want the answer."""
        boarded = self._boarded.pop(id(message), None)
        if boarded is None:
            return True
        flight, request, leads = boarded
        flight.leave(request.on_chunk)
        return not leads

    async def on_stop(self) -> None:
        """Close the client's connections, where the client is ours to close."""
        await self._model.adapter.aclose()

    # --- from request to flight ---------------------------------------------------------------------

    async def _answer(self, request: Generate, started: float) -> ModelResponse | None:
        model = self._model
        if not request.use_cache:
            return await self._lead(request, Flight(), None, started)
        key = cache_key(request.prompt, request.system, request.options)
        if model.shard is not None:
            completion = await model.shard.get(key)
            if completion is not None:
                model.metrics.cache_hits += 1
                if request.on_chunk is not None:
                    request.on_chunk(completion.content, False)  # noqa: FBT003 - the listener's signature
                return self._response(request, completion, started, None)
            model.metrics.cache_misses += 1
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight()
            return await self._lead(request, flight, key, started)
        return await self._join(request, flight, started)

    async def _lead(
        self, request: Generate, flight: Flight, key: bytes | None, started: float
    ) -> ModelResponse | None:
        """Make the call, for this request and all that join; None when all of them went away."""
        self._board(request, flight, leads=True)
        try:
            with flight.scope:
                completion = await self._call(request, flight)
                flight.land(completion)
                if key is not None and self._model.shard is not None:
                    await self._model.shard.put(key, completion)
                return self._response(request, completion, started, flight)
        except Exception as error:
            flight.error = error
            raise
        finally:
            self._boarded.pop(id(request), None)
            if key is not None:
                del self._flights[key]
            flight.landed.set()
        return None

    async def _join(self, request: Generate, flight: Flight, started: float) -> ModelResponse:
        """Wait for the call of an equal request that came before."""
        self._model.metrics.joined += 1
        self._board(request, flight, leads=False)
        try:
            await flight.landed.wait()
        finally:
            if self._boarded.pop(id(request), None) is not None and not flight.landed.is_set():
                flight.leave(request.on_chunk)
        if flight.completion is not None:
            return self._response(request, flight.completion, started, flight)
        if isinstance(flight.error, AllAttemptsFailed):
            cause = flight.error.__cause__ or flight.error
            raise AllAttemptsFailed(self._model.name, flight.attempts, cause)
        raise RuntimeError("the call that this request had joined broke off") from flight.error

    def _board(self, request: Generate, flight: Flight, *, leads: bool) -> None:
        self._boarded[id(request)] = (flight, request, leads)
        flight.board(request.deadline, request.on_chunk)

    def _response(
        self, request: Generate, completion: Completion, started: float, flight: Flight | None
    ) -> ModelResponse:
        first_text_at = flight.first_text_at if flight is not None else None
        response_time = trio.current_time() - started
        first = None if first_text_at is None else max(0.0, first_text_at - started)
        if flight is not None:
            self._model.metrics.answered(response_time, first)
        return ModelResponse(
            model_name=self._model.name,
            stage=request.stage,
            content=completion.content,
            usage=completion.usage or Usage(),
            response_time=response_time,
            time_to_first_token=first,
            attempts=flight.attempts if flight is not None else 0,
            cached=flight is None,
            finish_reason=completion.finish_reason,
            request_id=completion.request_id,
        )

    # --- the call -------------------------------------------------------------------------------------

    async def _call(self, request: Generate, flight: Flight) -> Completion:
        model = self._model
        loop = retrying(model.policy, self._random, lambda: flight.deadline, self._log_retry)
        try:
            # A request counts once for the breaker, whatever its attempts: a circuit that opened in the
            # middle of one would break the promise of `max_retries`.
            with model.breaker.guard():
                completion: Completion = await loop(self._attempt, request, flight)
        except ModelError as error:
            log.write(
                "critical",
                "all attempts failed",
                model=model.name,
                attempts=flight.attempts,
                error=str(error),
            )
            raise AllAttemptsFailed(model.name, flight.attempts, error) from error
        return completion

    async def _attempt(self, request: Generate, flight: Flight) -> Completion:
        model = self._model
        try:
            estimate = estimate_tokens(request.prompt) if model.limiter.limits.tokens_per_minute else 0
            with await model.limiter.acquire(estimate) as permit:
                flight.begin_attempt()
                model.metrics.attempts += 1
                model.metrics.retries += flight.attempts > 1
                completion = await self._timed_call(request, flight)
                usage = completion.usage or Usage()
                permit.settle((usage.input or 0) + (usage.output or 0))
        except ModelError as error:
            log.write(
                "error",
                "attempt failed",
                model=model.name,
                stage=request.stage,
                attempt=flight.attempts,
                error=str(error),
            )
            if error.retry_after is not None and error.retry_after <= model.policy.retry_after_cap:
                model.limiter.pause(error.retry_after)
            raise
        model.metrics.used(completion.usage, None)
        return completion

    async def _timed_call(self, request: Generate, flight: Flight) -> Completion:
        model, timeouts = self._model, self._model.timeouts
        streams = flight.is_heard and model.adapter.streams
        end = trio.current_time() + timeouts.attempt
        scope = trio.CancelScope(deadline=end)
        limit, what = timeouts.attempt, "the whole answer"

        def on_text(text: str) -> None:
            nonlocal limit, what
            set_limit(timeouts.idle, "the next piece of the answer")
            flight.hear(text)

        def set_limit(seconds: float, waits_for: str) -> None:
            nonlocal limit, what
            deadline = trio.current_time() + seconds
            if deadline < end:
                scope.deadline, limit, what = deadline, seconds, waits_for
            else:
                scope.deadline, limit, what = end, timeouts.attempt, "the whole answer"

        if streams:
            set_limit(timeouts.first_token, "the first piece of the answer")
        with scope:
            return await model.adapter.call(
                request.prompt,
                system=request.system,
                options=request.options,
                on_text=on_text if streams else None,
            )
        raise ModelError(f"{what} did not come within {limit:g} s", kind="timeout")

    def _log_retry(self, attempt: int, error: ModelError, wait: float) -> None:
        log.write(
            "warning",
            "retrying",
            model=self._model.name,
            attempt=attempt,
            wait=f"{wait:.3f}",
            kind=error.kind,
        )
