"""The actor of a model with clients that start and end with it, such as one in a process of its own."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from ultra.actors.model.actor import ModelActor
from ultra.actors.runtime.message import Failure, SystemMessage
from ultra.errors import ActorStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.errors import ClientCrashed
    from ultra.messages import ModelResponse

__all__ = ["ClientDied", "StartedModelActor"]

_INCARNATIONS: Final = count(1)


class ClientDied(SystemMessage[None], frozen=True):
    """To the actor itself: a client of this incarnation broke down while no call of it was under way.

    Whoever handles it crashes, unless the incarnation has ended already.
    """

    incarnation: int


class StartedModelActor(ModelActor):
    """A model actor that starts its clients, and crashes when one of them does.

    It is ready at once, and requests wait for the clients, not in the inbox: actors that are added later, and
    the coordinator, start without waiting for a model that takes minutes to load.
    """

    _end: Callable[[], Awaitable[None]]

    async def on_start(self) -> None:
        """Start the clients."""
        self._incarnation = next(_INCARNATIONS)
        self._death: ClientCrashed | None = None
        started = self._model.started
        if started is None:
            raise TypeError(f"model {self._model.name!r} has no client that is started")
        self._end = await started.start(self._client_crashed)

    async def on_stop(self) -> None:
        """End the clients."""
        await self._end()

    async def receive(self, message: object) -> ModelResponse | Failure:
        """Answer a `Generate`; crash of a `ClientDied`."""
        if not isinstance(message, ClientDied):
            return await super().receive(message)
        death, self._death = self._death, None
        if death is not None and message.incarnation == self._incarnation:
            raise death
        return Failure(ActorStopped(self.ref.path, "has been restarted meanwhile"))  # nobody asks

    def _client_crashed(self, error: ClientCrashed) -> None:
        if self._death is None:
            self._death = error
            with suppress(ActorStopped):  # it ends anyway
                self.ref.tell(ClientDied(self._incarnation))
