"""The runs under way, and those that have just ended: equal requests share one.

Clients retry by themselves, and each retry of a run would cost all of its calls again. So a request that is
equal to one under way joins it, a failure that cost money is given again for some seconds, and a request with
an `Idempotency-Key` gets what the first one of that key got.
"""

from __future__ import annotations

from hashlib import blake2b
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import anyio

from ultra._support.async_library import library
from ultra._support.reminders import Reminders
from ultra.service.problems import Problem, reused_key
from ultra.service.shared_run import Place, SharedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra._support.async_library import Tasks
    from ultra.config.serving import ServeConfig
    from ultra.service.http import Request

__all__ = ["Follower", "Runs", "key_of"]

_MOST_REMEMBERED: Final = 1000
_LONGEST_KEY: Final = 255


class _Key(NamedTuple):
    who: str
    name: str
    by_client: bool  # whether the client named it, by `Idempotency-Key`


class _Entry(NamedTuple):
    run: SharedRun
    digest: bytes


class Follower:
    """One request that follows a run, up to the end of its block; `leave` is called with it then.

    Attributes:
        run: the run.
        place: how far the request has come in its text.
        linger: seconds that the run goes on if this request leaves it as the last one.
    """

    def __init__(self, run: SharedRun, linger: float, leave: Callable[[Follower], None]) -> None:
        self.run = run
        self.place = Place()
        self.linger = linger
        self._leave = leave

    def __enter__(self) -> Self:
        self.run.readers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.run.readers -= 1
        self.place.leave()
        self._leave(self)


def key_of(request: Request) -> str | None:
    """Return the `Idempotency-Key` of a request; None: it has none. Raises `Problem` for one that is none."""
    named = request.headers.get("idempotency-key")
    if named is not None and not (0 < len(named) <= _LONGEST_KEY and named.isprintable()):
        text = f"an Idempotency-Key has 1 to {_LONGEST_KEY} characters that can be printed"
        raise Problem.bad_request(text, param="Idempotency-Key")
    return named


class Runs:
    """The runs of one service. They live in `tasks`, which waits for them. `settings` may be replaced.

    `reminders` wake the readers of streams; who has the service lets them work.
    """

    def __init__(self, tasks: Tasks, settings: ServeConfig) -> None:
        self._tasks = tasks
        self._library = library()
        self.settings = settings
        self.reminders = Reminders(self._library)
        self._known: dict[_Key, _Entry] = {}
        self._forgotten_at: list[tuple[float, int, _Key, SharedRun]] = []  # a heap, of runs that have ended
        self._count = 0
        self._under_way: dict[SharedRun, None] = {}

    def joined(self, who: str, request: Request, make: Callable[[], SharedRun]) -> Follower:
        """Return what enters the run of this request: one that is known, or ``make()``, which is started.

        `who` sends the request; nobody joins the runs of others. Leaving the block leaves the run; once the
        last request has left it, it is cancelled.

        Raises:
            Problem: the `Idempotency-Key` was used for another request, or cannot be one.
        """
        self._forget_old()
        key, digest = self._key_of(who, request)
        entry = None if key is None else self._known.get(key)
        if entry is not None and entry.digest != digest:
            raise reused_key()
        known = None if entry is None or entry.run.is_cancelled else entry.run
        run = known or self._started(key, digest, make())
        return Follower(run, self.settings.linger, self._left)

    async def close(self) -> None:
        """Cancel the runs under way, and wait for their end."""
        with anyio.CancelScope(shield=True):
            for run in tuple(self._under_way):
                run.cancel()
            for run in tuple(self._under_way):
                await run.end()

    def _key_of(self, who: str, request: Request) -> tuple[_Key | None, bytes]:
        digest = blake2b(request.path.encode() + b"\0" + request.body, digest_size=16).digest()
        named = key_of(request)
        if named is not None:
            return _Key(who, named, by_client=True), digest
        return (_Key(who, digest.hex(), by_client=False) if self.settings.join else None), digest

    def _started(self, key: _Key | None, digest: bytes, run: SharedRun) -> SharedRun:
        if key is not None:
            self._known[key] = _Entry(run, digest)
        self._under_way[run] = None
        self._tasks.start_soon(self._carry_out, key, run)
        return run

    async def _carry_out(self, key: _Key | None, run: SharedRun) -> None:
        try:
            await run.carry_out()
        finally:
            del self._under_way[run]
            if key is not None:
                self._keep(key, run)

    def _keep(self, key: _Key, run: SharedRun) -> None:
        """Keep a run that has ended for as long as it may be asked for again."""
        seconds = 0.0
        if run.problem is not None and not run.is_cancelled:
            seconds = self.settings.remember_failures if run.problem.paid else 0.0
        elif run.result is not None and key.by_client:
            seconds = self.settings.remember_results
        if seconds <= 0:
            self._forget(key, run)
            return
        self._count += 1
        heappush(self._forgotten_at, (self._library.current_time() + seconds, self._count, key, run))
        while len(self._forgotten_at) > _MOST_REMEMBERED:
            self._forget(*heappop(self._forgotten_at)[2:])

    def _forget_old(self) -> None:
        now = self._library.current_time()
        while self._forgotten_at and self._forgotten_at[0][0] <= now:
            self._forget(*heappop(self._forgotten_at)[2:])

    def _forget(self, key: _Key, run: SharedRun) -> None:
        entry = self._known.get(key)
        if entry is not None and entry.run is run:
            del self._known[key]

    def _left(self, follower: Follower) -> None:
        run = follower.run
        if run.readers or run.has_ended:
            return
        if follower.linger <= 0:
            run.cancel()
        else:
            self._tasks.start_soon(self._cancel_later, run, follower.linger)

    async def _cancel_later(self, run: SharedRun, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await run.end()
        if not run.readers:
            run.cancel()
