"""One call of a model, from its turn to the answer: limits, attempts and their timers, retries, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra._support.log import get_logger
from ultra.actors.model.retry import retried_after
from ultra.actors.model.timeouts import AttemptTimer
from ultra.clients.adapter import EmptyAnswer
from ultra.errors import CircuitOpen, ModelError
from ultra.messages.tokens import estimate_tokens

if TYPE_CHECKING:
    from random import Random

    from ultra.actors.model.actor import Generate, RegisteredModel
    from ultra.actors.model.limits import Permit
    from ultra.actors.model.single_flight import Flight
    from ultra.messages.results import Completion, Usage

__all__ = ["ModelCall"]

log = get_logger("ultra.model")


class ModelCall:
    """The call that `flight` stands for; one object, where closures would cost each request many."""

    __slots__ = ("_flight", "_model", "_permit", "_random", "_request", "_timer")

    _permit: Permit  # of the current attempt, as is the timer
    _timer: AttemptTimer

    def __init__(self, model: RegisteredModel, request: Generate, flight: Flight, random: Random) -> None:
        self._model = model
        self._request = request
        self._flight = flight
        self._random = random

    async def make(self) -> None:
        """Call the model, with retries; the flight gets the completion or the failure.

        Raises:
            Deserted: nobody wants the answer any more.
        """
        model, flight = self._model, self._flight
        try:
            # A request counts once for the breaker, whatever its attempts: a circuit that opened in the
            # middle of one would break the promise of `max_retries`.
            with model.breaker.guard():
                completion = await self._try()
        except ModelError as error:
            flight.failure = error
            if not isinstance(error, CircuitOpen):
                model.metrics.called(error)
            log.critical(
                "all attempts failed",
                model=model.name,
                stage=self._request.stage,
                attempts=flight.attempts,
                error=str(error),
            )
        else:
            model.metrics.called(None)
            flight.land(completion)

    async def _try(self) -> Completion:
        try:
            return await self._attempt()
        except ModelError as error:
            first = error
        return await retried_after(
            first,
            self._attempt,
            self._model.policy,
            self._random,
            deadline=self._deadline,
            sleep=self._flight.sleep,
            before_sleep=self._before_retry,
        )

    def _deadline(self) -> float:
        return self._flight.deadline

    # --- one attempt -----------------------------------------------------------------------------------

    async def _attempt(self) -> Completion:
        """Wait for the turn of a call and make it, once."""
        model, flight = self._model, self._flight
        flight.check()
        tokens = self._tokens()
        try:
            permit = model.limiter.acquire_nowait(tokens)
        except trio.WouldBlock:
            permit = await self._wait_for_turn(tokens)
        with permit:
            heard = flight.is_heard
            self._permit = permit
            self._timer = timer = AttemptTimer(model.timeouts, streams=heard and model.client.streams)
            with flight.scope(timer.deadline) as timer.scope:
                return await self._ask_client(heard=heard)
        flight.check()
        error = timer.error()
        self._failed(error)
        raise error

    async def _wait_for_turn(self, tokens: int) -> Permit:
        """Raises `Deserted` if all passengers leave."""
        with self._flight.scope():
            return await self._model.limiter.acquire(tokens)
        raise self._flight.desertion()

    def _spare_turn(self) -> Permit | None:
        """Take a turn that can be had without waiting: a hedge takes nobody's."""
        try:
            return self._model.limiter.acquire_nowait(self._tokens())
        except (trio.WouldBlock, ModelError):  # the limits may have been lowered meanwhile
            return None

    def _tokens(self) -> int:
        if not self._model.limiter.counts_tokens:
            return 0
        return estimate_tokens(self._request.prompt) + estimate_tokens(self._request.system or "")

    async def _ask_client(self, *, heard: bool) -> Completion:
        model, request, flight = self._model, self._request, self._flight
        flight.begin_attempt()
        metrics = model.metrics
        metrics.attempts += 1
        metrics.retries += flight.attempts > 1
        try:
            completion = await model.client.call(
                request.prompt,
                system=request.system,
                options=request.options,
                on_text=self._hear if heard else None,
                on_begin=self._begin_anew,
                on_usage=self._used,
                spare=self._spare_turn,
                caller=request.caller,
            )
        except ModelError as error:
            if isinstance(error, EmptyAnswer) and error.usage is not None:
                self._permit.settle(error.usage.total)
            self._failed(error)
            raise
        finally:
            if model.limiter.limits.learn and (told := model.client.rate_limits) is not None:
                model.limiter.learn(told)
        if completion.usage is not None:
            flight.cost = None if model.price is None else model.price.of(completion.usage)
            self._permit.settle(completion.usage.total)
        return completion

    # --- what comes of it --------------------------------------------------------------------------------

    def _hear(self, text: str) -> None:
        self._timer.heard()
        self._flight.hear(text)

    def _begin_anew(self, streams: bool) -> None:  # noqa: FBT001 - a callback
        """Another deployment is asked."""
        self._timer.begin_anew(streams=self._flight.is_heard and streams)
        self._flight.restart_text()

    def _used(self, usage: Usage) -> None:
        price = self._model.price
        self._model.metrics.used(usage, None if price is None else price.of(usage))

    def _failed(self, error: ModelError) -> None:
        """Take note that an attempt failed."""
        model = self._model
        log.error(
            "attempt failed",
            model=model.name,
            stage=self._request.stage,
            attempt=self._flight.attempts,
            error=str(error),
        )
        # What the provider asks of one call holds for all. A pause longer than anyone may wait would only
        # turn errors into hanging.
        if error.retry_after is not None and error.retry_after <= model.policy.retry_after_cap:
            model.limiter.pause(error.retry_after)

    def _before_retry(self, attempt: int, error: ModelError, wait: float) -> None:
        log.warning(
            "retrying",
            model=self._model.name,
            attempt=attempt,
            wait=round(wait, 3),
            kind=error.kind,
        )
        self._flight.retrying(attempt, error, wait)
