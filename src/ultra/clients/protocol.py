"""What a client must offer to be registered as a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from ultra.messages.results import Completion

__all__ = ["ModelClient", "StreamingClient"]


@runtime_checkable
class ModelClient(Protocol):
    """Any object with ``async generate(prompt)``.

    It may declare more parameters (``*, system=None, temperature=None, ...``); only what it declares
    is passed. A synchronous ``generate`` runs in a worker thread.
    """

    def generate(self, prompt: str) -> Awaitable[str | Completion] | str | Completion:
        """Answer `prompt`. Raises `ModelError`, or any exception of its own, when it cannot."""
        ...


@runtime_checkable
class StreamingClient(ModelClient, Protocol):
    """A client that can also hand out its answer piece by piece."""

    def stream(self, prompt: str) -> AsyncIterator[str | Completion]:
        """Yield pieces of text as they arrive and, last, optionally, the whole `Completion`."""
        ...
