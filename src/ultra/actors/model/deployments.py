"""The deployments of one model, called as one client: in order, and hedged where that is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger
from ultra.actors.model.hedging import Hedge, HedgedCall
from ultra.clients.adapter import EmptyAnswer
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from ultra.actors.model.metrics import MetricsRecorder
    from ultra.bridge.caller import Caller
    from ultra.clients.adapter import ClientAdapter, OnText
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion, Usage

__all__ = ["Deployments"]

_REFUSED: Final = frozenset({None, 400, 413, 422})
"""Statuses of bad requests that no other deployment would answer differently, unlike a 404 or a redirect."""

log = get_logger("ultra.model")


SpareTurn: TypeAlias = "Callable[[], AbstractContextManager[object] | None]"
"""Gives the right to make one more call of the model now, or None."""

Ask: TypeAlias = "Callable[[OnText | None], Awaitable[Completion]]"

OnUsage: TypeAlias = "Callable[[Usage], None]"


class OnStart(Protocol):
    """Is told that another deployment is asked."""

    def __call__(self, *, streams: bool) -> None:
        """Take note of it, and whether it hands out its answer piece by piece."""


class Deployments:
    """What one registration calls: at least one client, asked first to last until one answers.

    With a `hedge`, a call that takes long gets a second one beside it, to the next deployment or, where
    there is but one, to the same. A deployment that asked for a pause is left out until it is over, as
    long as there are others.
    """

    def __init__(
        self, name: str, adapters: tuple[ClientAdapter, ...], hedge: Hedge | None, metrics: MetricsRecorder
    ) -> None:
        self._name = name
        self._adapters = adapters
        self._hedge = hedge
        self._metrics = metrics
        self._now = ContinuousClock()
        self._resting_until: dict[ClientAdapter, float] = {}

    @property
    def streams(self) -> bool:
        """Whether the first deployment hands out its answers piece by piece."""
        return self._adapters[0].streams

    @property
    def context_window(self) -> int | None:
        """The smallest context window of the deployments that name theirs [tokens]."""
        return min((a.context_window for a in self._adapters if a.context_window is not None), default=None)

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the provider of the first deployment said last about its rates."""
        return self._adapters[0].rate_limits

    async def call(
        self,
        request: ModelRequest,
        *,
        on_text: OnText | None,
        on_start: OnStart,
        on_usage: OnUsage,
        spare_turn: SpareTurn = nullcontext,
        caller: Caller | None = None,
    ) -> Completion:
        """Ask until a deployment answers.

        `on_start` is told of each deployment that is asked after another, before, whether it streams; text
        that was heard until then counts no more. `on_usage` gets what every call used whose usage is known:
        that of the answer, of answers that were refused as empty, and of a hedge that lost but had ended.
        A hedge is made only where `spare_turn` gives it a turn.

        Raises:
            ModelError: no deployment answered: of the errors that are worth a retry, the one that asks for
                the shortest wait, else the last.
        """
        adapters = self._rested()
        errors: list[ModelError] = []
        for number, adapter in enumerate(adapters):
            if number:
                on_start(streams=adapter.streams)
            try:
                delay = self._hedge_after()
                if delay < inf:
                    pair = (adapter, *adapters[number + 1 : number + 2])
                    asks = tuple(partial(_ask, each, request, on_usage, caller) for each in pair)
                    return await self._hedged(asks, delay, on_text, spare_turn)
                return await _ask(adapter, request, on_usage, caller, on_text)
            except ModelError as error:
                errors.append(error)
                if error.retry_after is not None:
                    self._resting_until[adapter] = self._now() + error.retry_after
                if error.kind == "bad_request" and error.status in _REFUSED:
                    break
                if number + 1 < len(adapters):
                    log.warning(
                        "deployment failed",
                        model=self._name,
                        number=self._adapters.index(adapter) + 1,
                        error=str(error),
                    )
        raise min(
            (error for error in errors if error.retryable),
            key=lambda error: error.retry_after or 0.0,
            default=errors[-1],
        )

    def _rested(self) -> tuple[ClientAdapter, ...]:
        """The deployments that asked for no pause, or all where there are no others."""
        if not self._resting_until:
            return self._adapters
        now = self._now()
        self._resting_until = {a: until for a, until in self._resting_until.items() if until > now}
        return tuple(a for a in self._adapters if a not in self._resting_until) or self._adapters

    def _hedge_after(self) -> float:
        return inf if self._hedge is None else self._hedge.delay(self._metrics.newest_response_times)

    async def _hedged(
        self, asks: tuple[Ask, ...], delay: float, on_text: OnText | None, spare_turn: SpareTurn
    ) -> Completion:
        """Make the first of these calls, and one more beside it if it takes long."""

        def admit() -> AbstractContextManager[object] | None:
            turn = spare_turn()
            if turn is not None:
                self._metrics.hedged()
            return turn

        call = HedgedCall(asks, delay, on_hedge=admit, on_text=on_text)
        completion = await call.run()
        self._metrics.hedges_won += call.hedge_won
        return completion

    async def aclose(self) -> None:
        """Close the clients that are ours to close. Raises the last `ModelError` of those that fail to."""
        failure: ModelError | None = None
        for adapter in self._adapters:
            try:
                await adapter.aclose()
            except ModelError as error:
                failure = error
        if failure is not None:
            raise failure


async def _ask(
    adapter: ClientAdapter,
    request: ModelRequest,
    on_usage: OnUsage,
    caller: Caller | None,
    on_text: OnText | None,
) -> Completion:
    try:
        completion = await adapter.call(request, on_text=on_text if adapter.streams else None, caller=caller)
    except EmptyAnswer as error:
        if error.usage is not None:
            on_usage(error.usage)
        raise
    if completion.usage is not None:
        on_usage(completion.usage)
    return completion
