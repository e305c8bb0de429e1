"""What a client must offer to be registered as a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ultra.errors import ClientCrashed
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion

__all__ = ["ModelClient", "RequestClient", "StartedClient", "StreamingClient"]


@runtime_checkable
class ModelClient(Protocol):
    """Any object with ``async generate(prompt)``.

    It may declare more parameters (``*, system=None, temperature=None, ...``); only what it declares
    is passed. A synchronous ``generate`` runs in a worker thread.

    It may say of itself, in attributes that need not be there:

    - ``cache_identity``: a text that tells its answers from those of other clients under the same name, made
      of all that can change an answer beside the request, such as its address and defaults. Without it,
      ``provider`` and ``model`` are used, where these are texts.
    - ``reads_context``: whether its answers depend on context variables of the caller, such as a tenant.
      A tuple of `ContextVar`: only callers with the same values share answers and calls under way. True: only
      calls and runs with the same ``scope=`` do. False: none matters. Without it, the variables count to
      which the client's own Python code refers.
    - ``context_window`` [tokens], ``rate_limits`` (a `RateLimits`), and ``info`` (a `ModelInfo`): what the
      model can do, and what it costs.
    """

    def generate(self, prompt: str) -> Awaitable[str | Completion] | str | Completion:
        """Answer `prompt`. Raises `ModelError`, or any exception of its own, when it cannot."""
        ...


@runtime_checkable
class StreamingClient(ModelClient, Protocol):
    """A client that can also hand out its answer piece by piece."""

    def stream(self, prompt: str) -> AsyncIterator[str | Completion]:
        """Yield pieces of text as they arrive and, last, optionally, the whole `Completion`.

        An empty piece is a sign of life: it moves the timeouts of a stream, such as while the model thinks.
        A `ReasoningDelta` is one that tells what it thinks.
        """
        ...


@runtime_checkable
class RequestClient(Protocol):
    """A client that takes the whole request: every message of the conversation and all options.

    Ultra's own clients are of this kind. A client is one if it has both names; it then needs no
    ``generate``. Of the options beyond those of `SamplingOptions` it gets the ones that its attribute
    ``option_names`` has, a set of names; all of them where it has no such attribute. A schema that the answer
    must satisfy is in the request as `output`; where its ``info`` does not say how it takes one, the schema
    is told in words, too, behind the question. One that passes the request on to a client which takes no
    conversations or no tools says ``takes_conversations = False``, or ``takes_tools = False``::

        class Echo:
            option_names = frozenset({"style"})

            async def respond(self, request):
                return Completion(content=request.prompt)

            stream_response = None
    """

    async def respond(self, request: ModelRequest) -> str | Completion:
        """Return the answer to `request`.

        Raises:
            ModelError: the call failed. Any other exception is turned into one.
        """
        ...

    @property
    def stream_response(self) -> Callable[[ModelRequest], AsyncIterator[str | Completion]] | None:
        """A method that returns an iterator over the answer; None: the client does not stream.

        The iterator gives pieces of text and, last, optionally, the whole `Completion`. What the model thinks
        comes as `ReasoningDelta`, which is an empty text. Nothing is to be sent before the first piece is
        asked for.
        """
        ...


@runtime_checkable
class StartedClient(Protocol):
    """A client that starts and ends with its model's actor, such as one with a process of its own.

    Its code runs on trio. When it breaks down, its calls raise `ClientCrashed`: a crash of the actor.
    """

    async def start_with_actor(
        self, on_crash: Callable[[ClientCrashed], None]
    ) -> Callable[[], Awaitable[None]]:
        """Begin to get ready, without waiting for it: other actors start after this one.

        `on_crash` is to be called, on trio, if the client breaks down while no call of it is under way. What
        this returns ends it again. It may be started for several actors; it ends with the last of them.
        """
        ...

    async def until_ready(self) -> None:
        """Wait until calls can be made. The timeouts of a call begin afterwards.

        Raises:
            ClientCrashed: it cannot get ready.
        """
        ...
