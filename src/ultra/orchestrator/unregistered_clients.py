"""Clients that are asked without a registration: the models of those that were used last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.actors.model.registered import RegisteredModel

__all__ = ["MOST_KEPT", "UnregisteredClient", "UnregisteredClients"]

MOST_KEPT: Final = 32
"""How many idle clients are kept, with their caches, limits and counters."""


class UnregisteredClient:
    """A client that was never registered, and the model that is kept for it.

    `asked` is the number of calls that are asking it.
    """

    __slots__ = ("asked", "client", "model")

    def __init__(self, client: object, model: RegisteredModel) -> None:
        self.client = client
        self.model = model
        self.asked = 0


class UnregisteredClients:
    """The unregistered clients that were used last. `make` makes a model of a name and a client.

    For use by any thread. ::

        entry = clients.use(client)  # the same entry for the same client
        ...  # ask entry.model
        dropped = clients.release(entry)
    """

    def __init__(self, make: Callable[[str, object], RegisteredModel]) -> None:
        self._lock = threading.Lock()
        self._make = make
        self._made = 0
        self._known: OrderedDict[int, UnregisteredClient] = (
            OrderedDict()
        )  # by id(client), used last at the end

    def __len__(self) -> int:
        return len(self._known)

    def use(self, client: object) -> UnregisteredClient:
        """Return the entry of `client`, which counts as asked until `release`. Raise what `make` raises."""
        with self._lock:
            entry = self._known.get(id(client))
            if entry is None:
                self._made += 1
                entry = UnregisteredClient(client, self._make(f"unregistered-{self._made}", client))
                self._known[id(client)] = entry  # keeps the client alive, so that no other object has its id
            self._known.move_to_end(id(client))
            entry.asked += 1
            return entry

    def release(self, entry: UnregisteredClient) -> list[RegisteredModel]:
        """Note that one call of this client has ended; return the models of clients that are dropped."""
        with self._lock:
            entry.asked -= 1
            idle = [known for known in self._known.values() if not known.asked]
            dropped = idle[: max(0, len(idle) - MOST_KEPT)]
            for known in dropped:
                del self._known[id(known.client)]
            return [known.model for known in dropped]
