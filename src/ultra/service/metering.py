"""A run whose cost is reserved before it begins, and counted at its end, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import anyio

from ultra.service.costs import Cost, CostAccount

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.streams import RunStream
    from ultra.service.access import Caller
    from ultra.service.costs import Prices
    from ultra.service.quotas import Quotas

__all__ = ["MeteredStream"]


class MeteredStream:
    """A `RunStream` of the service; entering it raises `Problem` if the caller's limits do not allow it.

    Args:
        stream: the run.
        caller: whose limits it counts for.
        quotas: where they are.
        prices: of the models.
        prompt: about the tokens of the request.
        estimate: what the run may cost.
        on_end: is called when it is left, or cannot be entered.
    """

    def __init__(
        self,
        stream: RunStream,
        caller: Caller,
        quotas: Quotas,
        prices: Prices,
        *,
        prompt: int,
        estimate: Cost,
        on_end: Callable[[], None],
    ) -> None:
        self.run_id = stream.run_id
        self._stream = stream
        self._caller = caller
        self._quotas = quotas
        self._estimate = estimate
        self._account = CostAccount(prices, prompt)
        self._on_end = on_end
        self._grant: str | None = None

    async def __aenter__(self) -> Self:
        try:
            self._grant = await self._quotas.reserve(self._caller, self._estimate)
            await self._stream.__aenter__()
        except BaseException:
            await self._end(Cost())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # What nobody has read is not known. Who asks, reads nothing and hangs up must not ask for free.
        unread = self._stream.has_unread and not self._account.is_complete
        try:
            return await self._stream.__aexit__(kind, error, trace)
        finally:
            cost = self._account.so_far()
            if unread:
                cost = Cost(*map(max, cost, self._estimate))
            await self._end(cost)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._stream.__anext__()
        self._account.take(event)
        return event

    async def result(self) -> OrchestrationResult:
        """Wait until the run has ended, and return its result; see `RunStream.result`."""
        return await self._stream.result()

    async def _end(self, cost: Cost) -> None:
        grant, self._grant = self._grant, None
        try:
            if grant is not None:
                with anyio.CancelScope(shield=True):
                    await self._quotas.settle(self._caller, grant, cost)
        finally:
            self._on_end()
