"""What one process has to tell the others, until it is passed on; and who listens to what they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages import Completion
    from ultra.stores.shared_contract import FlightKey, Listener, ModelNews, ModelRates

__all__ = ["Correction", "Listeners", "Outbox"]

_MOST: Final = 1024
"""Things of one kind that wait to be passed on; older ones are lost, as while the store is away for long."""


class Correction(NamedTuple):
    """What `SharedModels.settle` was given."""

    model: str
    rates: ModelRates
    at: float
    requests: float
    tokens: float


class Outbox:
    """Keeps what was told, in bounded memory, until a task takes it."""

    def __init__(self) -> None:
        self.news: list[ModelNews] = []
        self.corrections: list[Correction] = []
        self.finished: dict[FlightKey, Completion | None] = {}
        self._changed = trio.Event()

    def put(self, thing: ModelNews | Correction) -> None:
        """Keep one thing."""
        kept: list[ModelNews] | list[Correction] = (
            self.corrections if isinstance(thing, Correction) else self.news
        )
        kept.append(thing)  # type: ignore[arg-type] # it is of the kind of this list
        del kept[:-_MOST]
        self._changed.set()

    def finish(self, key: FlightKey, answer: Completion | None) -> None:
        """Keep how a call has ended."""
        self.finished[key] = answer
        if len(self.finished) > _MOST:
            del self.finished[next(iter(self.finished))]
        self._changed.set()

    async def wait(self) -> None:
        """Wait until there is something."""
        if not (self.news or self.corrections or self.finished):
            self._changed = trio.Event()
            await self._changed.wait()


class Listeners:
    """Who listens to what is told of which model."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[object, Listener]] = {}

    def add(self, model: str, listener: Listener) -> Callable[[], None]:
        """Add a listener; return what removes it."""
        mark = object()
        self._listeners.setdefault(model, {})[mark] = listener

        def remove() -> None:
            known = self._listeners.get(model, {})
            known.pop(mark, None)
            if not known:
                self._listeners.pop(model, None)

        return remove

    def tell(self, news: ModelNews) -> None:
        """Call those who listen to this model."""
        for listener in tuple(self._listeners.get(news.model, {}).values()):
            listener(news)
