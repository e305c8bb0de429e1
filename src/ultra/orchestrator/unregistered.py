"""Clients that are asked without having been registered: a bounded number of them is remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.actors.model.actor import RegisteredModel

__all__ = ["MOST_REMEMBERED", "Stranger", "Strangers"]

MOST_REMEMBERED: Final = 32
"""How many clients that nobody is asking are remembered, with their caches, limits and counters."""


class Stranger:
    """A client that was never registered, and the model that is kept for it.

    `asked` is the number of calls that ask it now.
    """

    __slots__ = ("asked", "client", "model")

    def __init__(self, client: object, model: RegisteredModel) -> None:
        self.client = client
        self.model = model
        self.asked = 0


class Strangers:
    """The unregistered clients that were used last. `make` makes a model of a name and a client.

    Any thread may use it.
    """

    def __init__(self, make: Callable[[str, object], RegisteredModel]) -> None:
        self._lock = threading.Lock()
        self._make = make
        self._made = 0
        self._known: OrderedDict[int, Stranger] = OrderedDict()  # by id(client), used last at the end

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, client: object) -> Stranger:
        """The record of `client`, which counts as asked until `dismiss`. Raises what `make` raises."""
        with self._lock:
            stranger = self._known.get(id(client))
            if stranger is None:
                self._made += 1
                stranger = Stranger(client, self._make(f"unregistered-{self._made}", client))
                self._known[id(client)] = stranger  # it keeps the client, so that the id stays its own
            self._known.move_to_end(id(client))
            stranger.asked += 1
            return stranger

    def dismiss(self, stranger: Stranger) -> list[RegisteredModel]:
        """One call less asks this client; returns the models that are forgotten for it."""
        with self._lock:
            stranger.asked -= 1
            idle = [known for known in self._known.values() if not known.asked]
            forgotten = idle[: max(0, len(idle) - MOST_REMEMBERED)]
            for known in forgotten:
                del self._known[id(known.client)]
            return [known.model for known in forgotten]
