"""What stands in for Ray: each actor is a thread with an asyncio loop, and dies when the test says so."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ray.exceptions import ActorDiedError

from ultra.bridge.futures import result_of
from ultra.cluster.ray.host import ModelHost

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class FakeRay:
    """Makes actors; `options` are those of the last one. It `refuses` to, if it is given an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actors: list[FakeActor] = []
        self.given: dict[str, Any] = {}
        self.refuses: Exception | None = None
        self.slow_from: int | None = None
        """From which actor on, counted from 0, making one waits until the test sets `go_on`."""
        self.is_slow = threading.Event()
        self.go_on = threading.Event()
        self.connected = True
        monkeypatch.setattr("ultra.cluster.ray.process._host_class", lambda: self)
        monkeypatch.setattr("ray.is_initialized", lambda: self.connected)
        monkeypatch.setattr("ray.kill", lambda actor, *, no_restart: actor.die())

    def options(self, **options: Any) -> Self:
        self.given = options
        return self

    def remote(self, made: bytes) -> FakeActor:
        if self.slow_from is not None and len(self.actors) >= self.slow_from:
            self.is_slow.set()
            self.go_on.wait()
        if self.refuses is not None:
            raise self.refuses
        actor = FakeActor(made)
        self.actors.append(actor)
        return actor


class FakeActor:
    """A `ModelHost` in a thread. `calls` has the names of the methods that were called."""

    def __init__(self, made: bytes) -> None:
        self.calls: list[str] = []
        self.holds: set[str] = set()
        """Methods that are called and do not begin before the test calls `release`."""
        self.held = threading.Event()
        """Set when such a method was called."""
        self._held: list[Callable[[], None]] = []
        self._loop = asyncio.new_event_loop()
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._is_dead = False
        self.died = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.host = ModelHost(made)

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def call(self, name: str, *arguments: object) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self.calls.append(name)
            if self._is_dead:
                future.set_exception(ActorDiedError())
                return future
            self._pending.add(future)
            begin = partial(self._begin, name, arguments, future)
            if name in self.holds:
                self._held.append(begin)
                self.held.set()
            else:
                begin()
        return future

    def _begin(self, name: str, arguments: tuple[object, ...], future: Future[Any]) -> None:
        asyncio.run_coroutine_threadsafe(self._run(name, arguments, future), self._loop)

    async def until_done(self, task: asyncio.Task[None] | None) -> None:
        """Wait, on trio, for the end of a task of the actor's loop."""
        assert task is not None

        async def wait() -> None:
            await asyncio.wait([task])

        await result_of(asyncio.run_coroutine_threadsafe(wait(), self._loop))

    def release(self) -> None:
        held, self._held = self._held, []
        for begin in held:
            begin()

    async def _run(self, name: str, arguments: tuple[object, ...], future: Future[Any]) -> None:
        try:
            result = await getattr(self.host, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where somebody waits
            self._settle(future, partial(future.set_exception, error))
        else:
            self._settle(future, partial(future.set_result, result))

    def _settle(self, future: Future[Any], settle: Callable[[], None]) -> None:
        with self._lock:
            if future not in self._pending:
                return
            self._pending.discard(future)
        settle()

    def die(self) -> None:
        """Die as a process does: all that waits for it fails, and what runs in it has nobody to tell."""
        with self._lock:
            was_dead, self._is_dead = self._is_dead, True
            pending, self._pending = self._pending, set()
        for future in pending:
            future.set_exception(ActorDiedError())
        self.died.set()
        if not was_dead:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()  # when it was stopped, the runner cancels what is left


class _Method:
    def __init__(self, actor: FakeActor, name: str) -> None:
        self._actor = actor
        self._name = name
        self._future: Future[Any]

    def remote(self, *arguments: object) -> Self:
        self._future = self._actor.call(self._name, *arguments)
        return self

    def future(self) -> Future[Any]:
        return self._future
