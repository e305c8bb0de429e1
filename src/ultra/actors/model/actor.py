"""The model actor: one registered model, with its own inbox, retry policy and cache shard.

The way of a request: cache shard, single-flight, breaker, retry policy, limits, client, metrics, reply. The
cache is beside this way: a lookup is bounded in time, and an answer is kept after the reply.
The actor handles many requests at once, and only calls to the client are limited. So an answer from the
cache, or one that is shared, never waits for a permit. A call that fails is a reply (`AllAttemptsFailed`)
and no crash.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import trio
from msgspec.structs import replace
from trio.lowlevel import checkpoint, current_task

from ultra._support.log import LogScope, get_logger, log_scope, scoped_context
from ultra.actors.model.cache_access import look_up
from ultra.actors.model.call import ModelCall
from ultra.actors.model.messages import Generate
from ultra.actors.model.replicas import Lease
from ultra.actors.model.single_flight import Abandoned, SharedCall, Waiter
from ultra.actors.runtime.actor import Actor, ActorOptions
from ultra.actors.runtime.message import Failure
from ultra.bridge.caller import Caller
from ultra.errors import AllAttemptsFailed, BadCall, JournalUnavailable
from ultra.messages import ModelResponse, Usage
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from contextvars import Context, ContextVar
    from random import Random

    from trio.lowlevel import Task

    from ultra._support.reminders import Reminders
    from ultra.actors.model.cache_access import CacheWriter
    from ultra.actors.model.messages import AnswerSlot, LocalRequests
    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.model.spending import Spent
    from ultra.messages import Completion
    from ultra.stores.contracts import CacheKey, CacheShard

__all__ = ["ModelActor"]

log = get_logger("ultra.model")


class ModelActor(Actor):
    """The actor that answers `Generate` requests by calling the registered model."""

    # As wide as the coordinator, so that no run waits in an inbox behind the calls of others.
    options: ClassVar[ActorOptions] = ActorOptions(concurrency=4096, capacity=65_536, cancel_abandoned=True)

    def __init__(
        self,
        model: RegisteredModel,
        random: Random,
        requests: LocalRequests,
        writer: CacheWriter,
        reminders: Reminders,
    ) -> None:
        self._model = model
        self._writer = writer
        self._reminders = reminders
        self._random = random
        self._requests = requests
        self._calls: dict[CacheKey, SharedCall] = {}
        self._waiters: dict[Task, Waiter] = {}

    async def receive(self, message: object) -> ModelResponse | Failure:
        """Answer a `Generate`; raise `TypeError` for any other message."""
        if not isinstance(message, Generate):
            raise TypeError(f"a model actor takes Generate messages, not {type(message).__name__}")
        local = self._requests.get(message.id)
        fields = {"run_id": message.run_id or message.id, "stage": message.stage, "model": self._model.name}
        metrics = self._model.metrics
        handler = current_task()
        started = trio.current_time()
        deadline = inf if message.time_left is None else started + message.time_left
        scope = LogScope(fields, None if local.caller is None else local.caller.context)
        with log_scope(scope):
            waiter = self._waiters[handler] = Waiter(deadline, local)
            caller = local.caller
            if caller is not None:
                caller = Caller(scoped_context(caller.context, fields), caller.runner)
            try:
                if local.slot is not None and (kept := await _kept(local.slot, waiter)) is not None:
                    if kept.content:
                        waiter.hear(kept.content)
                    return replace(kept, stage=message.stage)
                response = await self._answer(message, waiter, started, caller)
                if local.slot is not None:
                    await local.slot.keep(response)
            except (AllAttemptsFailed, BadCall, JournalUnavailable) as error:
                # The journal is that of one run: its slot cannot be read, which is no fault of the model.
                metrics.failures += not waiter.is_late
                return Failure(error)
            except Abandoned as error:
                metrics.cancelled += not waiter.is_late
                return Failure(error)
            except trio.Cancelled:
                metrics.cancelled += not waiter.is_late
                raise
            except Exception:
                metrics.failures += not waiter.is_late
                raise
            finally:
                del self._waiters[handler]
                waiter.leave()
        metrics.successes += 1
        return response

    def on_abandon(self, handler: Task) -> None:
        """Let the waiter of this handler leave.

        A handler that makes a shared call goes on while other requests wait for the answer. If the asker
        leaves because the answer is late, the request has failed, and counts as such at once: the result of
        a run that does not wait for it tells so.
        """
        waiter = self._waiters.get(handler)
        if waiter is None:
            return
        local = waiter.local
        deadline = waiter.deadline if local.deadline is None else local.deadline
        late = trio.current_time() >= deadline and not waiter.has_left
        waiter.leave(late=late)
        local.attempts = waiter.attempts
        if not late:
            return
        self._model.metrics.failures += 1
        with log_scope(waiter.scope):
            log.critical(
                "all attempts failed", attempts=waiter.attempts, error="the answer did not come in time"
            )

    # --- from request to call ------------------------------------------------------------------------

    async def _answer(
        self, message: Generate, waiter: Waiter, started: float, caller: Caller | None
    ) -> ModelResponse:
        key = self._key(message, caller) if message.use_cache else None
        while True:
            if waiter.has_left:  # while the slot was read, or since a call was broken off
                raise Abandoned("the asker stopped waiting before there was a call")
            shared = self._calls.get(key) if key is not None else None
            leads = shared is None or shared.abandoned
            if shared is None or shared.abandoned:
                shared = SharedCall()
                shared.add(waiter)
                await self._lead(message, shared, key, caller)
            else:
                self._model.metrics.joined += 1
                shared.add(waiter)
                await shared.wait(waiter)
            if waiter.has_left:
                raise Abandoned("the asker stopped waiting for the answer")
            if shared.completion is not None:
                return self._response(message, shared, shared.completion, started, waiter.spent_before)
            spent = waiter.spent_before.plus(shared.spent)
            if shared.failure is not None and (leads or not shared.lost_its_loop):
                raise AllAttemptsFailed(
                    self._model.name, shared.attempts, shared.failure, usage=spent.usage, cost=spent.cost
                )
            # The call was broken off: its handler was cancelled, or the asyncio loop of another caller
            # ended. One of the requests that still wait has to make it again.
            waiter.spent_before = spent
            await checkpoint()

    def _key(self, message: Generate, caller: Caller | None) -> CacheKey | None:
        """Return under which key an answer is shared; None: with nobody."""
        client = self._model.client
        scope: object = message.scope
        reads = client.reads_context
        if reads is True:
            if scope is None:  # nobody knows what the client reads, nor for whom the answer is
                return None
        elif reads:
            values = None if caller is None else [_value(caller.context, variable) for variable in reads]
            if values is not None and all(_is_plain(value) for value in values):
                scope = [scope, *zip((variable.name for variable in reads), values, strict=True)]
            elif scope is None:
                return None
        return cache_key(message.request, client.cache_identity, scope)

    async def _lead(
        self, message: Generate, shared: SharedCall, key: CacheKey | None, caller: Caller | None
    ) -> None:
        """Make the shared call, for this request and for all that join it."""
        if key is not None:
            self._calls[key] = shared
        shard = self._model.shard
        call = ModelCall(self._model, message, shared, self._random, self._reminders, caller)
        lease: Lease | None = None
        try:
            if key is not None:
                if await self._found(shard, key, shared):
                    return
                lease = await self._leased(key, shared)
            if shared.completion is None:
                await call.make()
            # The model may have been unregistered meanwhile; then this shard may belong to another model.
            if key is None or shard is None or self._model.shard is not shard:
                return
            if self._may_be_kept(shared.completion):
                await self._writer.put(self._model, shard, key, shared.completion)
        finally:
            if lease is not None:
                lease.finish(shared.completion if self._may_be_kept(shared.completion) else None)
            if key is not None and self._calls.get(key) is shared:
                del self._calls[key]
            shared.end()

    async def _found(self, shard: CacheShard | None, key: CacheKey, shared: SharedCall) -> bool:
        """Return whether the cache has the answer, which then is that of the call."""
        if shard is None:
            return False
        kept = self._writer.waiting(shard, key) or await look_up(self._model, shard, key, shared)
        if kept is None:
            self._model.metrics.cache_misses += 1
            return False
        self._model.metrics.cache_hits += 1
        shared.complete(kept, cached=True)
        return True

    async def _leased(self, key: CacheKey, shared: SharedCall) -> Lease | None:
        """Return the lease of the call; or wait for another process of this service that makes it.

        The answer of that process, if there is one, is that of the call.
        """
        replicas = self._model.replicas
        found = None if replicas is None else await replicas.lease(key, shared)
        if found is None or isinstance(found, Lease):
            return found
        self._model.metrics.joined += 1
        shared.complete(found, cached=True)
        return None

    def _may_be_kept(self, completion: Completion | None) -> TypeGuard[Completion]:
        """Return whether the answer, if there is one, may be given to others; `is_whole` decides the rest.

        From a client that says why a model stopped, an answer without that may be a part. Others say
        nothing, and give whole texts.
        """
        if completion is None:
            return False
        return completion.finish_reason is not None or not self._model.client.tells_finish_reason

    def _response(
        self,
        message: Generate,
        shared: SharedCall,
        completion: Completion,
        started: float,
        spent_before: Spent,
    ) -> ModelResponse:
        response_time = trio.current_time() - started
        first = None if shared.first_text_at is None else max(0.0, shared.first_text_at - started)
        if not shared.cached:
            self._model.metrics.answered(response_time, first, message.stage)
        before = spent_before.usage
        lost = shared.lost_usage if before is None else before.plus(shared.lost_usage)
        return ModelResponse(
            model_name=self._model.name,
            stage=message.stage,
            sample=message.request.sample,
            content=completion.content,
            usage=Usage() if completion.usage is None else completion.usage,
            lost_usage=lost,
            response_time=response_time,
            time_to_first_token=first,
            attempts=shared.attempts,
            cached=shared.cached,
            finish_reason=completion.finish_reason,
            request_id=completion.request_id,
            cost=spent_before.plus(shared.spent).cost,
            tool_calls=completion.tool_calls,
            reasoning_parts=completion.reasoning_parts,
            stop_sequence=completion.stop_sequence,
        )


async def _kept(slot: AnswerSlot, waiter: Waiter) -> ModelResponse | None:
    """Return the answer that was kept; None: there is none, or the waiter has left."""
    with trio.CancelScope() as waiter.reads:  # an execution reads again and again while its journal is down
        return await slot.kept()
    return None


def _value(context: Context, variable: ContextVar[Any]) -> object:
    """Return what a client reads there; an empty tuple where the variable has no value."""
    if variable in context:
        return context[variable]
    return context.copy().run(variable.get, ())  # of which only a default can be the result


def _is_plain(value: object) -> bool:
    """Return whether a value means the same in every process, so that it can be part of a key."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in {str, bytes, int, float, bool}
