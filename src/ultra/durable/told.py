"""What the readers of a run know of it already, from the events of an earlier execution."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from ultra.messages.events import Chunk, ReasoningChunk, call_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.messages.events import CallKey, Event

__all__ = ["Told"]


class Told:
    """Takes the events one by one, and keeps none of them: the memory depends on the number of answers.

    Attributes:
        events: how many there are.
        time: that of the last one [s].
        texts: of each answer the digest of the text that was told.
        thoughts: the answers of which reasoning was told.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = 0
        self.time = 0.0
        self.texts: dict[CallKey, blake2b] = {}
        self.thoughts: dict[CallKey, None] = {}
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """Take the next event."""
        self.events += 1
        self.time = event.time
        if isinstance(event, Chunk):
            name = call_of(event)
            if event.restart or name not in self.texts:
                self.texts[name] = blake2b(digest_size=16)
            self.texts[name].update(event.text.encode("utf-8", "surrogatepass"))
        elif isinstance(event, ReasoningChunk):
            self.thoughts[call_of(event)] = None

    def has_told(self, name: CallKey, text: str) -> bool:
        """Return whether the text of this answer is the one that was told; it is asked for once."""
        told = self.texts.pop(name, None)
        whole = text.encode("utf-8", "surrogatepass")
        return told is not None and told.digest() == blake2b(whole, digest_size=16).digest()
