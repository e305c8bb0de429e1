"""When the actors of an orchestrator run: while it is entered, or for the time of a single call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from trio.lowlevel import ParkingLot

from ultra._support.forking import Forkable
from ultra.bridge.trio_run import TrioRun
from ultra.errors import ActorDown, ActorStopped, OrchestratorClosed, OrchestratorInUse
from ultra.orchestrator.connections import KeptConnections

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ultra.durable.runs import DurableRuns
    from ultra.orchestrator.tree import ModelTree
    from ultra.stores.contracts import CacheStore

__all__ = ["Lifespan"]

T = TypeVar("T")

SUBMITTED_GRACE: Final = 5.0
"""Seconds for which submitted runs go on when the block of the orchestrator ends without an error."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a cache may take to close."""


class Lifespan(Forkable):
    """Starts the actors, gives calls the use of them, and stops them.

    Args:
        make_tree: makes the tree of actors, not yet entered.
        cache: closed when the orchestrator is.
        submitted: the submitted runs, if there is a journal: they go on while the orchestrator is entered.
        stores: all that may keep connections meanwhile, beside the journal.

    Attributes:
        trio_run: where the actors run.
        tree: the actors, while the orchestrator is entered.
        closed: whether it is closed, so that new calls are refused.
        calls: how many calls are using actors.
    """

    def __init__(
        self,
        make_tree: Callable[[], ModelTree],
        cache: CacheStore | None,
        submitted: DurableRuns | None = None,
        stores: Sequence[object] = (),
    ) -> None:
        super().__init__()
        self.trio_run = TrioRun()
        self.tree: ModelTree | None = None
        self.closed = False
        self.calls = 0
        self._block: AbstractAsyncContextManager[ModelTree, bool | None] | None = None
        self._make_tree = make_tree
        self._cache = cache
        self._stores = tuple(stores)
        self.submitted = submitted
        self._running: dict[ModelTree, None] = {}
        self._call_ended = ParkingLot()
        self._stopped = trio.Event()

    def forked(self) -> None:
        """Have no actors: those of the parent process do not run here, where each call starts its own."""
        self.tree = self._block = None
        self.calls = 0
        self._running = {}
        self._call_ended = ParkingLot()

    def check_open(self) -> None:
        """Raise `OrchestratorClosed` if the orchestrator is closed."""
        if self.closed:
            raise OrchestratorClosed("this orchestrator was closed, or is being closed; make a new one")

    def explain(self, error: Exception) -> Exception:
        """Return the error of a call for its caller: `OrchestratorClosed`, if `stop` ended the call."""
        broken_off = isinstance(error, ActorStopped) and not isinstance(error, ActorDown)
        if not (self.closed and broken_off):
            return error
        explained = OrchestratorClosed("the orchestrator was closed before this call had ended")
        explained.__cause__ = error
        return explained

    async def enter(self) -> None:
        """Start the actors, which then run until `leave`; on any loop.

        Raises:
            OrchestratorInUse: the orchestrator is entered already.
            OrchestratorClosed: the orchestrator was closed.
        """
        self.check_open()
        if self._block is not None:
            raise OrchestratorInUse("this orchestrator is running already; enter it once, or make another")
        self._block = self.trio_run.wrap_context_manager(_EnteredBlock(self))
        try:
            await self._block.__aenter__()
        except BaseException:
            self._block = None
            raise

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the orchestrator and stop its actors, on the loop of `enter`.

        If the block ended without an error, handlers may finish within the grace periods of their actors.
        After an error they are cancelled.
        """
        return await self._block.__aexit__(kind, error, trace) if self._block is not None else None

    def use(self) -> AbstractAsyncContextManager[ModelTree]:
        """Return a context manager that gives one call the use of the actors; on trio.

        If the orchestrator is not entered, actors are started for the call, and stopped at its end.

        Raises:
            OrchestratorClosed: the orchestrator is closed; or, when the block is left, `stop` ended the call.
        """
        return _CallBlock(self)

    async def stop(self, grace: float) -> None:
        """Close the orchestrator: wait `grace` seconds for calls that are under way, then stop the actors.

        On any loop. Cancelling this stops the actors at once. May be called again.
        """

        async def stop() -> None:
            self.trio_run.claim()
            try:
                self.closed = True
                if self.submitted is not None:
                    self.submitted.close()
                with trio.move_on_after(grace):
                    while self.calls:
                        await self._call_ended.park()
            finally:
                try:
                    await self._end()
                finally:
                    self.trio_run.release()

        await self.trio_run.run(stop)

    def call_with_tree(self, function: Callable[[ModelTree], T]) -> T:
        """Call `function` with the actors, where they run, and return its result; from any loop.

        Raises:
            OrchestratorClosed: the orchestrator is not entered, or was closed within its block.
        """
        tree = self.tree
        if tree is None or self._stopped.is_set():
            self.check_open()
            raise OrchestratorClosed("the orchestrator has no actors now; enter it with 'async with' first")
        return self.trio_run.run_sync(lambda: function(tree))

    async def stopped(self) -> None:
        """Wait until `stop` has stopped the actors; on any loop."""
        await self.trio_run.run(self._stopped.wait)

    async def _end(self) -> None:
        try:
            await self.end_submitted(0.0)
        finally:  # even if this is cancelled while submitted runs are broken off
            with trio.CancelScope(shield=True):
                for tree in tuple(self._running):
                    await tree.system.stop(grace=0)
            self._stopped.set()
            await self.close()

    # --- for the two blocks, on trio -------------------------------------------------------------------

    def connections(self) -> KeptConnections:
        """Return what keeps the connections of all stores that are used."""
        journal = None if self.submitted is None else self.submitted.journal
        return KeptConnections((*self._stores, journal))

    async def start_tree(self) -> ModelTree:
        """Start actors; they claim the trio run."""
        self.trio_run.claim()
        try:
            tree = await self._make_tree().__aenter__()
        except BaseException:
            self.trio_run.release()
            raise
        self._running[tree] = None
        return tree

    async def end_tree(
        self,
        tree: ModelTree,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Stop actors; as in `leave`, handlers may finish if there was no error."""
        try:
            return await tree.__aexit__(kind, error, trace)
        finally:
            del self._running[tree]
            self.trio_run.release()

    async def start_submitted(self, tree: ModelTree) -> None:
        """Take up the runs of the journal that have not ended."""
        if self.submitted is not None:
            await self.submitted.start(tree.system.start_soon)

    async def end_submitted(self, grace: float) -> None:
        """Wait `grace` seconds for submitted runs to end; those that have not are taken up at the next start.

        Cancelled, it waits no longer for them.
        """
        if self.submitted is not None:
            await self.submitted.end(grace)

    async def close(self) -> None:
        """Close cache and journal. This is not cancelled, and ends after 5 seconds at the latest."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            try:
                if self._cache is not None:
                    await self._cache.aclose()
            finally:
                if self.submitted is not None:
                    await self.submitted.aclose()

    def call_ended(self) -> None:
        """Note that a call has ended."""
        self.calls -= 1
        if self._call_ended:  # a task waits in `stop`
            self._call_ended.unpark_all()


class _EnteredBlock:
    """The block of ``async with orchestrator``, entered where the actors run."""

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan = lifespan

    async def __aenter__(self) -> ModelTree:
        lifespan = self._lifespan
        self._connections = await lifespan.connections().__aenter__()
        try:
            tree = self._tree = lifespan.tree = await lifespan.start_tree()
            try:
                await lifespan.start_submitted(tree)
            except BaseException:
                lifespan.tree = None
                await lifespan.end_tree(tree, *sys.exc_info())
                raise
        except BaseException:
            await self._connections.__aexit__()
            raise
        return tree

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._end(kind, error, trace)
        finally:
            await self._connections.__aexit__()

    async def _end(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._lifespan.closed = True
        try:
            try:
                await self._lifespan.end_submitted(0.0 if kind is not None else SUBMITTED_GRACE)
            except BaseException:
                self._lifespan.tree = None
                await self._lifespan.end_tree(self._tree, *sys.exc_info())
                raise
            finally:
                self._lifespan.tree = None
            return await self._lifespan.end_tree(self._tree, kind, error, trace)
        finally:
            await self._lifespan.close()


class _CallBlock:
    """The block of one call; `_own` are the actors that were started for it, if any were."""

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan = lifespan
        self._own: ModelTree | None = None

    async def __aenter__(self) -> ModelTree:
        lifespan = self._lifespan
        lifespan.check_open()
        tree = lifespan.tree
        if tree is None:
            tree = self._own = await lifespan.start_tree()
        else:
            lifespan.trio_run.claim()
        lifespan.calls += 1
        return tree

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        lifespan = self._lifespan
        lifespan.call_ended()
        if self._own is None:
            lifespan.trio_run.release()
        elif await lifespan.end_tree(self._own, kind, error, trace):
            return True
        if isinstance(error, Exception) and (explained := lifespan.explain(error)) is not error:
            raise explained
        return None
