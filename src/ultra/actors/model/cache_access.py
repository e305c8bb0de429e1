"""The way of a model actor to its cache shard, which may be slow, may hang, and may be anybody's code.

A lookup is bounded in time, and an answer is kept by a task of its own, beside the replies. What goes wrong
is a miss, or an answer that is not kept, and the log says so once. Then the shard is not used for a while.
"""

from __future__ import annotations

from contextvars import Context
from math import inf
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import trio

from ultra._support.log import current_scope, log_scope
from ultra.clients.cleaning import shows_nothing
from ultra.clients.plain_values import plain_completion
from ultra.messages.results import Completion
from ultra.stores.contracts import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.model.single_flight import SharedCall
    from ultra.stores.contracts import CacheKey, CacheShard
    from ultra.stores.outage import Outage

StartSoon: TypeAlias = "Callable[..., object]"

__all__ = ["LOOKUP_TIMEOUT", "WRITE_TIMEOUT", "CacheWriter", "look_up"]

LOOKUP_TIMEOUT: Final = 1.5
"""Seconds that a request waits for its cache shard at most; a quarter of its time, where that is shorter."""

WRITE_TIMEOUT: Final = 2.0
"""Seconds that keeping one answer may take, and keeping all that wait when the actors have stopped."""

HEAD_START: Final = 0.05
"""Seconds that a reply waits for its answer to be kept, while the shard is quick enough for that.

So an answer of a store that works is in the store when its asker gets it.
"""

MOST_WAITING: Final = 1024
"""How many answers of one model may wait until they are kept."""

MOST_WAITING_CHARACTERS: Final = 16 * 2**20
"""How much text these answers may have together."""

_PASSED_ON: Final = (trio.Cancelled, KeyboardInterrupt)


async def look_up(
    model: RegisteredModel, shard: CacheShard, key: CacheKey, shared: SharedCall
) -> Completion | None:
    """Return the answer that `shard` keeps under `key`; None if there is none, or the shard does not work.

    The lookup is a part of the shared call: it is cancelled when the last waiter leaves.

    Raises:
        Abandoned: no request waits for the answer any more.
    """
    outage = model.cache_outage
    if outage.is_on:
        return None
    found: object = None
    if getattr(shard, "instant", False) is True:
        with _Fenced(outage, "a lookup"):
            found = await shard.get(key)
    else:
        started, before = trio.current_time(), model.cache_lookups
        bound = min(LOOKUP_TIMEOUT, (shared.deadline - started) / 4)
        with shared.scope(started + bound) as scope, _Fenced(outage, "a lookup"):
            found = await shard.get(key)
            model.cache_lookups += 1
        shared.check()
        # Where others got an answer meanwhile, the shard has only much to do.
        if scope.cancelled_caught and bound >= LOOKUP_TIMEOUT and model.cache_lookups == before:
            outage.begin(TimeoutError(f"a lookup took longer than {LOOKUP_TIMEOUT:g} s"))
    return _checked(found, outage)


class CacheWriter:
    """Keeps answers beside the replies: each shard has a task while answers wait for it.

    A context manager whose block is the nursery of these tasks. After the block they have 2 seconds in
    which to keep what waits; if the block raises, or is cancelled, what waits is dropped. ::

        async with CacheWriter() as writer:
            await writer.put(model, shard, key, completion)
            writer.waiting(shard, key)  # the completion, until it is kept

    Args:
        start_soon: starts the tasks elsewhere, if there is no such block.
    """

    def __init__(self, start_soon: StartSoon | None = None) -> None:
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None
        self._start_soon = start_soon
        self._queues: dict[int, _Queue] = {}  # by id(shard), which its task keeps alive

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        self._start_soon = self._nursery.start_soon
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        nursery, self._nursery, self._start_soon = self._nursery, None, None
        if nursery is not None:
            # Shielded, so that an end by cancellation, too, is over when this returns; it takes no time then.
            nursery.cancel_scope.shield = True
            within = WRITE_TIMEOUT if kind is None else -inf
            nursery.cancel_scope.deadline = trio.current_time() + within
            await self._manager.__aexit__(None, None, None)

    def waiting(self, shard: CacheShard, key: CacheKey) -> Completion | None:
        """Return the answer that waits to be kept under `key`; None if there is none."""
        queue = self._queues.get(id(shard))
        entry = None if queue is None else queue.entries.get(key)
        return None if entry is None else entry.completion

    async def put(
        self, model: RegisteredModel, shard: CacheShard, key: CacheKey, completion: Completion
    ) -> None:
        """Keep an answer. This waits 50 ms for that at most, and not at all if the shard was slower before.

        It raises nothing. An answer for which there is no room among those that wait is dropped.
        """
        if not is_whole(completion) or model.cache_outage.is_on:
            return
        if getattr(shard, "instant", False) is True:
            with _Fenced(model.cache_outage, "keeping an answer"):
                await shard.put(key, completion)
            return
        entry = self._queued(model, shard, key, completion)
        if entry is not None and not model.cache_is_slow:
            with trio.move_on_after(HEAD_START) as scope:
                await entry.kept.wait()
            model.cache_is_slow = scope.cancelled_caught

    def _queued(
        self, model: RegisteredModel, shard: CacheShard, key: CacheKey, completion: Completion
    ) -> _Entry | None:
        """Let an answer wait for its shard; return None if it is dropped."""
        if self._start_soon is None:
            return None
        queue = self._queues.get(id(shard))
        if queue is None:
            queue = self._queues[id(shard)] = _Queue()
            # In an empty context: the task is not a part of the request that happens to be the first.
            Context().run(self._start_soon, self._keep_all, model, shard, queue)
        entry = queue.add(key, completion)
        if entry is None and not queue.was_full:
            queue.was_full = True
            model.cache_outage.warn(BufferError("too many answers wait to be kept; some are dropped"))
        return entry

    async def _keep_all(self, model: RegisteredModel, shard: CacheShard, queue: _Queue) -> None:
        try:
            while queue.entries:
                key, entry = next(iter(queue.entries.items()))
                # A model that was unregistered meanwhile has no shard: it may be that of the next one.
                if model.shard is shard and not model.cache_outage.is_on:
                    with log_scope(entry.scope):
                        await self._keep(model, shard, key, entry)
                queue.remove(key, entry)
        finally:
            del self._queues[id(shard)]
            for entry in queue.entries.values():
                entry.kept.set()

    async def _keep(self, model: RegisteredModel, shard: CacheShard, key: CacheKey, entry: _Entry) -> None:
        started = trio.current_time()
        with trio.move_on_after(WRITE_TIMEOUT) as scope, _Fenced(model.cache_outage, "keeping an answer"):
            await shard.put(key, entry.completion)
            if trio.current_time() - started <= HEAD_START:
                model.cache_is_slow = False
        if scope.cancelled_caught:
            error = TimeoutError(f"keeping an answer took longer than {WRITE_TIMEOUT:g} s")
            model.cache_outage.begin(error)


class _Entry:
    """An answer that waits to be kept."""

    __slots__ = ("characters", "completion", "kept", "scope")

    def __init__(self, completion: Completion) -> None:
        self.completion = completion
        self.scope = current_scope()  # of the request, to which the log lines of its store belong
        self.characters = len(completion.content) + len(completion.reasoning or "")
        self.kept = trio.Event()


class _Queue:
    """The answers that wait for one shard, oldest first."""

    __slots__ = ("_characters", "entries", "was_full")

    def __init__(self) -> None:
        self.entries: dict[CacheKey, _Entry] = {}
        self.was_full = False
        self._characters = 0

    def add(self, key: CacheKey, completion: Completion) -> _Entry | None:
        """Add an answer in place of an older one; return None if there is no room."""
        entry = _Entry(completion)
        old = self.entries.get(key)
        if old is not None:
            self.remove(key, old)
        if len(self.entries) >= MOST_WAITING or self._characters + entry.characters > MOST_WAITING_CHARACTERS:
            return None
        self.entries[key] = entry
        self._characters += entry.characters
        return entry

    def remove(self, key: CacheKey, entry: _Entry) -> None:
        """Remove an answer for which nobody waits any more, unless a newer one has taken its place."""
        entry.kept.set()
        if self.entries.get(key) is entry:
            del self.entries[key]
            self._characters -= entry.characters


class _Fenced:
    """Begins the outage of a shard in place of whatever it raises, except cancellation and an interrupt."""

    __slots__ = ("_outage", "_what")

    def __init__(self, outage: Outage, what: str) -> None:
        self._outage = outage
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            self._outage.end()
            return True
        if isinstance(error, _PASSED_ON):
            return False
        if isinstance(error, BaseExceptionGroup) and error.subgroup(_PASSED_ON) is not None:
            return False
        self._outage.begin(error, what=self._what)
        return True


def _checked(found: object, outage: Outage) -> Completion | None:
    """Return what a shard gave, if it is a whole answer."""
    if found is None:
        return None
    if isinstance(found, Completion):
        with _Fenced(outage, "a lookup"):
            answer = plain_completion(found)
            empty = shows_nothing(answer.content) and not answer.tool_calls
            return answer if is_whole(answer) and not empty else None
    else:
        outage.warn(TypeError(f"the shard gave {type(found).__qualname__}, which is no Completion"))
    return None
