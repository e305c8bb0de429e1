"""The deployments of one model, called as one client: in order, and hedged where that is asked for."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from ultra.actors.hedging import Hedge, HedgedCall
from ultra.errors import ModelError
from ultra.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ultra.clients.adapter import ClientAdapter, OnText
    from ultra.clients.rate_limits import RateLimits
    from ultra.clients.runners import Caller
    from ultra.messages import Completion
    from ultra.metrics import MetricsRecorder

__all__ = ["Deployments"]

_CALLERS_FAULT: Final = frozenset({"bad_request"})
"""Kinds of errors that no other deployment of the same model would answer differently."""

log = get_logger("ultra.model")


Ask: TypeAlias = "Callable[[OnText | None], Awaitable[Completion]]"


class Deployments:
    """What one registration calls: at least one client, asked first to last until one answers.

    With a `hedge`, a call that takes long gets a second one beside it, to the next deployment or, where
    there is but one, to the same.
    """

    def __init__(
        self, name: str, adapters: tuple[ClientAdapter, ...], hedge: Hedge | None, metrics: MetricsRecorder
    ) -> None:
        self._name = name
        self._adapters = adapters
        self._hedge = hedge
        self._metrics = metrics

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
        prompt: str,
        *,
        system: str | None,
        options: Mapping[str, object],
        on_text: OnText | None,
        on_restart: Callable[[], None],
        caller: Caller | None = None,
    ) -> Completion:
        """Ask until a deployment answers; `on_restart` is told when text that was heard counts no more.

        Raises:
            ModelError: no deployment answered: the first error that is worth a retry, else the last.
        """
        if len(self._adapters) == 1 and self._hedge is None:
            adapter = self._adapters[0]
            return await adapter.call(prompt, system=system, options=options, on_text=on_text, caller=caller)
        ask = partial(_ask, prompt=prompt, system=system, options=options, caller=caller)
        asks = [partial(ask, adapter) for adapter in self._adapters]
        errors: list[ModelError] = []
        for number in range(len(asks)):
            if number:
                on_restart()
            try:
                return await self._hedged(asks[number:], on_text)
            except ModelError as error:
                errors.append(error)
                if error.kind in _CALLERS_FAULT:
                    break
                if number + 1 < len(asks):
                    log.write(
                        "warning", "deployment failed", model=self._name, number=number + 1, error=str(error)
                    )
        raise next((error for error in errors if error.retryable), errors[-1])

    async def _hedged(self, asks: Sequence[Ask], on_text: OnText | None) -> Completion:
        """Make the first of these calls, and one more beside it if it takes long."""
        delay = inf if self._hedge is None else self._hedge.delay(self._metrics.newest_response_times)
        if delay == inf:
            return await asks[0](on_text)
        call = HedgedCall(tuple(asks[:2]), delay, on_hedge=self._metrics.hedged, on_text=on_text)
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
    on_text: OnText | None,
    *,
    prompt: str,
    system: str | None,
    options: Mapping[str, object],
    caller: Caller | None,
) -> Completion:
    heard = on_text if adapter.streams else None
    return await adapter.call(prompt, system=system, options=options, on_text=heard, caller=caller)
