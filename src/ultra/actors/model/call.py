"""One call of a model: permits, attempts with their timeouts, retries, metrics."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

import trio

from ultra._support.log import current_scope, get_logger, log_scope
from ultra.actors.model.retry import with_retries
from ultra.actors.model.spending import Spending
from ultra.actors.model.timeouts import AttemptTimer
from ultra.bridge.caller import Caller
from ultra.clients.plain_values import plain_usage
from ultra.errors import CircuitOpen, ModelError, text_of
from ultra.messages.observers import CallOutcome, CallStart
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.tokens import estimate_request

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from random import Random

    from ultra._support.reminders import Reminders
    from ultra.actors.model.limits import Permit
    from ultra.actors.model.messages import Generate
    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.model.single_flight import SharedCall
    from ultra.messages import Completion
    from ultra.messages.observers import CallEnded, ObserverGroup

__all__ = ["ModelCall"]

log = get_logger("ultra.model")


class ModelCall:
    """Makes the call of `shared`, with its retries."""

    __slots__ = (
        "_caller",
        "_guard",
        "_is_attempting",
        "_message",
        "_model",
        "_permit",
        "_random",
        "_reminders",
        "_scope",
        "_shared",
        "_shown",
        "_spending",
        "_started",
        "_timer",
    )

    _permit: Permit  # of the current attempt, as is the timer
    _timer: AttemptTimer
    _started: float  # for observers, if there are any

    def __init__(  # noqa: PLR0917 - all that its actor has
        self,
        model: RegisteredModel,
        message: Generate,
        shared: SharedCall,
        random: Random,
        reminders: Reminders,
        caller: Caller | None,
    ) -> None:
        self._model = model
        self._message = message
        self._shared = shared
        self._random = random
        self._reminders = reminders
        self._caller = caller
        self._spending = Spending(model.price, model.metrics, shared)
        self._is_attempting = False
        self._guard = model.breaker.guard()
        self._scope = current_scope()
        self._shown: tuple[object, ...] = ()  # of which exceptions the log has the traceback

    async def make(self) -> None:
        """Call the model, and write the completion or the failure into the shared call.

        Raises:
            Abandoned: no request waits for the answer any more.
            ClientCrashed: a client has broken down; for the actor, this is a crash.
        """
        model, shared = self._model, self._shared
        ended = None if model.observers is None else self._tell_observers(model.observers)
        shared.maker = self
        try:
            # The breaker counts a request once, with all its attempts: if the circuit opened in the middle,
            # the request would not get the attempts that `max_retries` promises.
            with self._guard:
                completion = await with_retries(self, model.policy, self._random)
        except ModelError as error:
            shared.failure = error
            if not isinstance(error, CircuitOpen):
                model.metrics.called(error)
            log.critical("all attempts failed", attempts=shared.attempts, error=text_of(error))
        else:
            model.metrics.called(None)
            shared.lost_usage = self._spending.lost(completion)
            shared.complete(completion)
        finally:
            shared.maker = None
            if ended is not None:
                ended(self._outcome())

    def _tell_observers(self, observers: ObserverGroup) -> CallEnded:
        """Tell that the call begins; what they set in its context is what the client sees."""
        message = self._message
        self._started = trio.current_time()
        provider, model = self._model.client.origin
        start = CallStart(
            id=message.id,
            run_id=message.run_id,
            stage=message.stage,
            model_name=self._model.name,
            provider=provider,
            model=model,
            request=message.request,
        )
        caller = self._caller
        context = copy_context() if caller is None else caller.context.copy()
        ended = observers.call_started(start, context)
        self._caller = Caller(context, None if caller is None else caller.runner)
        return ended

    def _outcome(self) -> CallOutcome:
        shared, started = self._shared, self._started
        failure, first = shared.failure, shared.first_text_at
        error = failure.kind if isinstance(failure, ModelError) else None
        if shared.completion is None and failure is None and shared.given_up_late:
            error = "timeout"
        return CallOutcome(
            status="success" if shared.completion is not None else "failed" if error else "cancelled",
            seconds=trio.current_time() - started,
            attempts=shared.attempts,
            completion=shared.completion,
            error=error,
            usage=shared.spent.usage,
            cost=shared.spent.cost,
            first_text=None if first is None else first - started,
        )

    def given_up_late(self) -> None:
        """Take note that nobody waits any more, since the answer is late: the model has failed."""
        error = self._shared.waits_after
        with log_scope(self._scope):
            if error is None and self._is_attempting:
                error = ModelError("the answer did not come in time", kind="timeout", retryable=False)
                self._log_failure(error)
            if error is not None:  # else it waits for a permit, which is no failure of the provider
                self._guard.failed(error)
                self._model.metrics.called(error)

    # --- for the retries ---------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The latest deadline of the waiters (`trio.current_time`)."""
        return self._shared.deadline

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Log that another attempt follows, and tell the waiters."""
        log.warning("retrying", attempt=attempt, wait=round(wait, 3), kind=error.kind)
        self._shared.retrying(attempt, error, wait)

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait before the next attempt; raise `Abandoned` if all waiters leave."""
        return self._shared.sleep(seconds)

    async def attempt(self) -> Completion:
        """Wait for a permit, and call the client once."""
        model, shared = self._model, self._shared
        shared.check()
        if model.started is not None:
            with shared.scope():
                await model.started.until_ready()
            shared.check()
        tokens = self._tokens()
        try:
            permit = model.limiter.acquire_nowait(tokens)
        except trio.WouldBlock:
            permit = await self._wait_for_permit(tokens)
        with permit:
            heard = shared.is_heard
            self._permit = permit
            streams = heard and model.client.streams
            self._timer = timer = AttemptTimer(model.timeouts, self._reminders, streams=streams)
            with shared.scope() as scope, timer.bounding(scope):
                shared.start_attempt()
                self._is_attempting = True
                model.metrics.attempts += 1
                model.metrics.retries += shared.attempts > 1
                try:
                    completion = await model.client.call(
                        self._message.request,
                        on_text=self._hear if heard else None,
                        asker=self,
                        spending=self._spending,
                        caller=self._caller,
                    )
                except ModelError as error:
                    if (usage := plain_usage(error.usage)) is not None:
                        permit.settle(usage.total)
                    self._failed(error)
                    raise
                finally:
                    self._is_attempting = False
                    if model.limiter.limits.learn and (announced := model.client.rate_limits) is not None:
                        model.limiter.learn(announced)
                if completion.usage is not None:
                    permit.settle(completion.usage.total)
                return completion
        shared.check()
        late = timer.error()
        self._failed(late)
        raise late

    async def _wait_for_permit(self, tokens: int) -> Permit:
        """Wait until the limits allow a call. Raise `Abandoned` if all waiters leave."""
        with self._shared.scope():
            try:
                return await self._model.limiter.acquire(tokens, patience=self._model.timeouts.attempt)
            except ModelError as error:
                if error.retryable:  # threads of attempts that were given up have all slots
                    self._shared.start_attempt()
                    self._failed(error)
                raise
        self._shared.check()
        raise AssertionError("this wait is cancelled only when all waiters have left")

    # --- for the deployments -----------------------------------------------------------------------------

    async def permit_hedge(self) -> Permit | None:
        """Return a permit if there is one at once: no other call is to wait longer because of a hedge."""
        try:
            return await self._model.limiter.try_acquire(self._tokens())
        except ModelError:  # the limits may have been lowered meanwhile
            return None

    def reasoning_is_void(self) -> None:
        """Let reasoning and text start from the beginning."""
        self._shared.restart_text()

    def deployment_starts(self, *, streams: bool) -> None:
        """Expect the first text of another deployment; what there is so far is void."""
        self._timer.restart(streams=self._shared.is_heard and streams)
        self._shared.restart_text()

    def deployment_failed(self, number: int, error: ModelError) -> None:
        """Log that another deployment is asked."""
        log.warning("deployment failed", number=number, error=text_of(error), **self._traceback(error))

    # --- what happens meanwhile --------------------------------------------------------------------------

    def _tokens(self) -> int:
        return estimate_request(self._message.request) if self._model.limiter.counts_tokens else 0

    def _hear(self, text: str) -> None:
        self._timer.heard()
        if text:
            self._shared.hear(text)
        elif isinstance(text, ReasoningDelta):  # any other empty piece is a sign of life, and no more
            self._shared.hear_reasoning(text.part)

    def _failed(self, error: ModelError) -> None:
        """Log that an attempt failed, and pause all calls for as long as the provider asks."""
        model = self._model
        self._log_failure(error)
        # After a longer one, requests are to fail at once, not to wait for the end of a pause.
        if error.retry_after is not None and error.retry_after <= model.policy.retry_after_cap:
            model.pause(error.retry_after)

    def _log_failure(self, error: ModelError) -> None:
        log.error(
            "attempt failed", attempt=self._shared.attempts, error=text_of(error), **self._traceback(error)
        )

    def _traceback(self, error: ModelError) -> dict[str, object]:
        """Return the field by which the log shows what a client of the user raised, once in a request."""
        cause = error.__cause__
        lost_connection = self._model.client.is_own and error.kind in {"timeout", "connection"}
        if not error.unexpected or cause is None or lost_connection:
            return {}
        origin = cause.__traceback__
        while origin is not None and origin.tb_next is not None:
            origin = origin.tb_next
        where = None if origin is None else (origin.tb_frame.f_code, origin.tb_lineno)
        if (type(cause), where) in self._shown:
            return {}
        self._shown += ((type(cause), where),)
        return {"exc_info": cause}
