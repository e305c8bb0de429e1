"""A run whose cost is reserved before it begins, and counted at its end, however it ends."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, Self

import anyio

from ultra._support.log import get_logger
from ultra.errors import text_of
from ultra.service.costs import Cost, CostAccount
from ultra.service.kept_run import KeptRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskStatus

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.service.access import Caller
    from ultra.service.costs import Prices
    from ultra.service.quotas import Place, Quotas

__all__ = ["MeteredStream", "Stream", "carry_on"]

_log = get_logger("ultra.service")


class Stream(Protocol):
    """A run and its events: a `RunStream`, or a `KeptRun`."""

    run_id: str

    @property
    def has_unread(self) -> bool:
        """Whether there are events that were not read yet."""
        ...

    async def __aenter__(self) -> Self:
        """Begin the run."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave the run."""
        ...

    async def __anext__(self) -> Event:
        """Return the next event."""
        ...

    async def for_each(self, take: Callable[[Event], None]) -> None:
        """Call `take` with each event, up to the last one."""

    async def result(self) -> OrchestrationResult:
        """Return the result."""
        ...


class MeteredStream:
    """The stream of a run of the service; entering it raises `Problem` if its caller has reached a limit.

    Args:
        stream: the run.
        caller: whose limits it counts for.
        quotas: where they are.
        prices: of the models.
        prompt: about the tokens of the request.
        estimate: what the run may cost.
        unseen: returns the tokens that an answer of a model is taken to have that is cut off before any of
            its text is told; None: texts are told as they are written.
        on_end: is called when it is left, or cannot be entered.

    Attributes:
        run_id: the name of the run.
        is_kept: whether it is kept in the journal.
        created: when it was made, in seconds of Unix time.
    """

    def __init__(
        self,
        stream: Stream,
        caller: Caller,
        quotas: Quotas,
        prices: Prices,
        *,
        prompt: int,
        estimate: Cost,
        unseen: Callable[[str], int] | None = None,
        on_end: Callable[[], None],
    ) -> None:
        self.run_id = stream.run_id
        self.is_kept = isinstance(stream, KeptRun)
        self.created = stream.created if isinstance(stream, KeptRun) else int(time.time())
        self._stream = stream
        self._caller = caller
        self._quotas = quotas
        self._estimate = estimate
        self._account = CostAccount(prices, prompt, unseen=unseen)
        self._on_end = on_end
        self._grant: str | None = None

    async def __aenter__(self) -> Self:
        try:
            self._grant = await self._quotas.reserve(self._caller, self._estimate)
            await self._stream.__aenter__()
            self.run_id = self._stream.run_id
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
            if not self.is_new:
                cost = Cost()
            await self._end(cost)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._stream.__anext__()
        self._account.take(event)
        return event

    def for_each(self, take: Callable[[Event], None]) -> Awaitable[None]:
        """Return what calls `take` with each event, up to the last one."""

        def counted(event: Event) -> None:
            self._account.take(event)
            take(event)

        return self._stream.for_each(counted)

    @property
    def is_new(self) -> bool:
        """Whether the run is no other request's."""
        return not isinstance(self._stream, KeptRun) or self._stream.is_new

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


async def carry_on(
    stream: MeteredStream, place: Place | None, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Follow a run to its end, so that its cost is counted; tells its id once it was accepted.

    What goes wrong later is logged: the run itself goes on.
    """
    accepted = False
    try:
        async with AsyncExitStack() as held:
            await held.enter_async_context(stream)
            if place is not None and stream.is_new:
                place.move_to(held)
            accepted = True
            task_status.started(stream.run_id)
            if stream.is_new:
                async for _ in stream:
                    pass
    except Exception as error:
        if not accepted:
            raise
        _log.warning("run not followed", run_id=stream.run_id, error=text_of(error))
