"""Makes every registered client, of whatever shape, callable in one way."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AsyncExitStack
from contextvars import copy_context
from inspect import getattr_static, isasyncgenfunction, isawaitable, isclass, isgeneratorfunction
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio
from msgspec.structs import replace

from ultra.bridge.caller import Call, Caller, OnText, Runner, trio_runner
from ultra.clients.classify import classify
from ultra.clients.http.rate_limits import RateLimits
from ultra.clients.signature import Callee, UnusableSignatureError, may_block
from ultra.errors import BadCall, LoopUnavailable, ModelError
from ultra.messages.results import Completion, Usage
from ultra.messages.tokens import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from ultra.messages.request import ModelRequest

__all__ = ["ClientAdapter", "EmptyAnswer", "OnText"]

T = TypeVar("T")

# Why a model may answer nothing, and would again: it will not, it may not write any longer (all of
# `max_tokens` went into reasoning), or it waits for a tool.
_LASTING: Final = frozenset({"content_filter", "refusal", "length", "tool_calls"})
_END: Final = object()


class EmptyAnswer(ModelError):
    """The model answered without a text, perhaps by a refusal. `usage` has to be paid all the same.

    None where the client reported none: of nothing, there is nothing to estimate.
    """

    def __init__(self, completion: Completion) -> None:
        said = f": {completion.refusal}" if completion.refusal else ""
        super().__init__(
            f"the answer is empty (finish reason: {completion.finish_reason or 'not reported'}){said}",
            kind="content",
            retryable=completion.finish_reason not in _LASTING,
            request_id=completion.request_id,
        )
        self.usage = completion.usage


class ClientAdapter:
    """One registered client, ready to be asked.

    A client is an object with ``generate(prompt)``, or a callable itself, async or not, that gives a
    `str` or a `Completion`. Besides the prompt it gets only what it declares (``**kwargs`` declares
    everything), as found by `inspect.signature` once, here; a system prompt for a client without a
    ``system`` parameter goes ahead of the prompt.

    A synchronous client runs in a worker thread with the caller's context variables. Cancelling the
    call abandons the thread: it cannot be interrupted, and a run must not outlast its deadline because
    of it. The thread ends when the client returns, and what it gives is dropped. Until then it counts
    against `max_threads`, so a client that hangs costs at most that many, and further calls wait.

    A client streams if it also has ``stream(prompt)``, giving an async iterator of text that may end
    in a `Completion`. A ``stream`` that is something else (not callable, a plain generator, or in need
    of more arguments) is not taken for one, nor is one that only ``__getattr__`` makes up.

    Args:
        client: the object or callable to adapt.
        owned: whether `aclose` closes the client: whoever made a client closes it, unless it can be
            used again afterwards.
        runner: where coroutines of the client run; None: where the caller is. A client that has
            outlived the loop of its runner moves to that of the caller.
        max_threads: bound on the threads of a synchronous client.

    Raises:
        BadCall: the client has no usable ``generate``; the message says what was given.
    """

    def __init__(
        self, client: object, *, owned: bool = False, runner: Runner | None = None, max_threads: int = 64
    ) -> None:
        self._client = client
        self._generate = _find_generate(client)
        self._stream = _find_stream(client)
        self._owned = owned
        self._runner = runner
        self._max_threads = max_threads
        self._threads: tuple[trio.lowlevel.TrioToken, trio.CapacityLimiter] | None = None

    def __repr__(self) -> str:
        return f"<ClientAdapter of {_describe(self._client)}>"

    @property
    def takes_system(self) -> bool:
        """Whether the client's ``generate`` takes the system prompt apart from the prompt."""
        return self._generate.takes("system")

    @property
    def streams(self) -> bool:
        """Whether the client can hand out its answer piece by piece."""
        return self._stream is not None

    @property
    def context_window(self) -> int | None:
        """The client's ``context_window`` [tokens], prompt and answer together; None if it names none."""
        value = getattr(self._client, "context_window", None)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the provider said last about its rates, where the client keeps that."""
        value = getattr(self._client, "rate_limits", None)
        return value if isinstance(value, RateLimits) else None

    async def call(
        self,
        request: ModelRequest,
        *,
        on_text: OnText | None = None,
        caller: Caller | None = None,
    ) -> Completion:
        """Ask the client once and wait for its whole answer.

        With `on_text`, a client that streams is streamed: `on_text` gets each piece as it arrives, and
        the stream is closed in every case. The `Completion` that ends a stream is what counts, except
        that one without text takes the text that was streamed. Where the client reports no usage, the
        answer carries an estimate, marked as one. The client sees the context variables of `caller`,
        by default those of this task.

        Cancellation reaches an async client as that of its loop, and its end is waited for; a
        synchronous one is abandoned.

        Raises:
            ModelError: whatever exception the client raised, classified, the original as its
                ``__cause__``; an empty answer (kind ``content``, worth a retry unless the model
                refused); an answer that is no text (kind ``protocol``, permanent).
        """
        caller = caller or Caller(copy_context())
        prompt, system, options = request.prompt, request.system, request.options.given()
        if on_text is not None and self._stream is not None:
            start = self._stream.bind(prompt, system, options)
            answer = await self._await(lambda emit: _read(start, emit), on_text, caller)
        else:
            ask = self._generate.bind(prompt, system, options)
            answer = await self._run(ask, caller, blocks=self._generate.blocks)
        return _checked(answer, prompt, system)

    async def aclose(self) -> None:
        """Close the client with its ``aclose`` or ``close``, if this adapter owns it.

        Raises `ModelError` when the client fails to close.
        """
        close = _closer(self._client) if self._owned else None
        if close is not None:
            await self._run(close, Caller(copy_context()), blocks=may_block(close))

    def _run(self, call: Callable[[], object], caller: Caller, *, blocks: bool) -> Awaitable[object]:
        """What `call` gives: awaited if it is awaitable, and had from a thread if it may block."""
        if blocks:
            return self._run_in_thread(call, caller)
        return self._await(lambda _: _outcome(call), None, caller)

    async def _run_in_thread(self, call: Callable[[], object], caller: Caller) -> object:
        context = caller.context.copy()
        with _CLASSIFIED:
            # In a tuple, since trio refuses a coroutine that comes out of a thread.
            (given,) = await trio.to_thread.run_sync(
                lambda: (context.run(call),), abandon_on_cancel=True, limiter=self._thread_limiter()
            )
        if isawaitable(given):  # a plain function around a coroutine function, such as a decorator makes
            return await self._await(lambda _: _outcome(lambda: given), None, caller)
        return given

    def _await(self, call: Call[object], on_text: OnText | None, caller: Caller) -> Awaitable[object]:
        """Await the client's coroutine where the client belongs."""
        runner = self._runner or caller.runner or trio_runner
        if runner is trio_runner:
            return trio_runner(call, on_text, caller.context)
        return self._await_elsewhere(runner, call, on_text, caller)

    async def _await_elsewhere(
        self, runner: Runner, call: Call[object], on_text: OnText | None, caller: Caller
    ) -> object:
        if caller.runner is not None and not runner.is_running:
            runner = caller.runner
        try:
            return await runner(call, on_text, caller.context)
        except LoopUnavailable as error:
            raise ModelError(str(error), kind="connection", retryable=False) from error

    def _thread_limiter(self) -> trio.CapacityLimiter:
        """The limiter of this trio run.

        An abandoned thread that outlives its run never gives its place back, so the next run needs
        a limiter of its own.
        """
        token = trio.lowlevel.current_trio_token()
        if self._threads is None or self._threads[0] is not token:
            self._threads = (token, trio.CapacityLimiter(self._max_threads))
        return self._threads[1]


# --- what may be adapted -------------------------------------------------------------------------


def _find_generate(client: object) -> Callee:
    if isclass(client):
        raise BadCall(
            f"a client must be an object, not a class: register an instance of {client.__qualname__}"
        )
    function = getattr(client, "generate", None)
    if not callable(function):
        function = client
    if not callable(function):
        raise BadCall(
            "a client must have `generate(prompt)`, async or not, or be callable itself, which "
            f"{_describe(client)} is not; `ultra.clients.connect('provider:model')` makes a client"
        )
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise BadCall(
            f"`generate` of {_describe(client)} yields pieces, but must give the whole answer; "
            "a client that streams has `stream(prompt)` beside it"
        )
    try:
        return Callee(function)
    except UnusableSignatureError as error:
        raise BadCall(
            f"`generate` of {_describe(client)} {error}; allowed is `generate(prompt)`, "
            "with parameters beyond it that have defaults"
        ) from None


def _find_stream(client: object) -> Callee | None:
    # Looked up without `__getattr__`: mocks and proxies have every attribute that they are asked for.
    if getattr_static(client, "stream", None) is None:
        return None
    function = getattr(client, "stream", None)
    if not callable(function) or isgeneratorfunction(function):
        return None
    try:
        return Callee(function)
    except UnusableSignatureError:
        return None


def _describe(client: object) -> str:
    """The client by its type or name: a repr might hold a key."""
    name = getattr(client, "__qualname__", None)
    return f"function {name!r}" if isinstance(name, str) else f"an object of type {type(client).__qualname__}"


def _closer(resource: object) -> Callable[[], object] | None:
    for name in ("aclose", "close"):
        close = getattr(resource, name, None)
        if callable(close):
            return cast("Callable[[], object]", close)
    return None


# --- running the client's code -------------------------------------------------------------------


class _Classified:
    """Turns exceptions of the client's code, and of nothing else, into `ModelError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, ModelError):
            raise classify(error) from error


_CLASSIFIED: Final = _Classified()


async def _outcome(call: Callable[[], object]) -> object:
    with _CLASSIFIED:
        given = call()
        return await given if isawaitable(given) else given


async def _read(start: Callable[[], object], on_text: OnText | None) -> object:
    """Read the stream that `start` gives to its end and close it; gives the text or a Completion."""
    stream = await _outcome(start)
    if not isinstance(stream, AsyncIterable):
        raise _wrong_type("stream", stream, "an async iterator")
    with _CLASSIFIED:
        pieces: AsyncIterator[object] = aiter(stream)
    async with AsyncExitStack() as closing:
        # The iterable may hold a connection that the iterator made from it knows nothing of.
        closing.push_async_callback(_close, stream)
        closing.push_async_callback(_close, pieces)
        return await _collect(pieces, on_text)


async def _close(resource: object) -> None:
    close = _closer(resource)
    if close is not None:
        await _outcome(close)


async def _collect(pieces: AsyncIterator[object], on_text: OnText | None) -> object:
    text: list[str] = []
    completion: Completion | None = None
    while True:
        with _CLASSIFIED:
            piece = await anext(pieces, _END)
        if piece is _END:
            break
        if completion is not None:
            raise ModelError("the stream went on after its Completion", kind="protocol", retryable=False)
        if isinstance(piece, Completion):
            completion = piece
        elif not isinstance(piece, str):
            raise _wrong_type("stream", piece, "str or Completion")
        elif piece:
            text.append(piece)
            if on_text is not None:
                on_text(piece)
    if completion is None:
        return "".join(text)
    return completion if completion.content else replace(completion, content="".join(text))


# --- checking the answer -------------------------------------------------------------------------


def _checked(answer: object, prompt: str, system: str | None) -> Completion:
    if isinstance(answer, str) and answer.strip():
        return Completion(content=answer, usage=_estimate(answer, prompt, system))
    completion = Completion(content=answer) if isinstance(answer, str) else answer
    if not isinstance(completion, Completion):
        raise _wrong_type("generate", answer, "str or Completion")
    if not isinstance(completion.content, str):
        raise _wrong_type("generate", completion.content, "str as the content of a Completion")
    if not completion.content.strip():
        raise EmptyAnswer(completion)
    usage = completion.usage
    if usage is not None and (usage.input is not None or usage.output is not None):
        return completion
    return replace(completion, usage=_estimate(completion.content, prompt, system))


def _estimate(content: str, prompt: str, system: str | None) -> Usage:
    return Usage(
        input=estimate_tokens(prompt) + (estimate_tokens(system) if system else 0),
        output=estimate_tokens(content),
        estimated=True,
    )


def _wrong_type(function: str, given: object, allowed: str) -> ModelError:
    return ModelError(
        f"the client's `{function}` gave {type(given).__qualname__}; allowed is {allowed}",
        kind="protocol",
        retryable=False,
    )
