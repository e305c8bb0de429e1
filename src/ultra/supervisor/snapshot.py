"""What a supervision tree looks like at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.actors.runtime.status import ActorSnapshot, ActorState
from ultra.supervisor.spec import RestartStrategy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SupervisorSnapshot"]


class SupervisorSnapshot(Struct, frozen=True, kw_only=True, tag="supervisor"):
    """One supervisor and all below it at one moment; ``print`` draws it as a tree."""

    name: str
    path: str
    state: ActorState
    strategy: RestartStrategy
    restarts: int
    children: tuple[ActorSnapshot | SupervisorSnapshot, ...]

    def find(self, path: str) -> ActorSnapshot | SupervisorSnapshot:
        """Return the snapshot of the child at `path`; raises KeyError if there is none."""
        for child in self.children:
            if child.path == path:
                return child
            if isinstance(child, SupervisorSnapshot) and path.startswith(child.path + "/"):
                return child.find(path)
        raise KeyError(path)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(supervisor: SupervisorSnapshot) -> Iterator[str]:
    state = "" if supervisor.state is ActorState.RUNNING else f" {supervisor.state.value}"
    yield f"{supervisor.name}{state} ({supervisor.strategy})"
    for child in supervisor.children:
        last = child is supervisor.children[-1]
        first, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(child, SupervisorSnapshot):
            head, *tail = _lines(child)
            yield first + head
            yield from (rest + line for line in tail)
        else:
            yield first + _describe(child)


def _describe(actor: ActorSnapshot) -> str:
    parts = [f"{actor.name} {actor.state.value}", f"{actor.handled} handled"]
    parts += [f"{actor.queued} queued"] if actor.queued else []
    parts += [f"{actor.in_flight} in flight"] if actor.in_flight else []
    parts += [f"{actor.restarts} restart{'s' * (actor.restarts != 1)}"] if actor.restarts else []
    parts += [f"last error {actor.last_error}"] if actor.last_error else []
    return ", ".join(parts)
