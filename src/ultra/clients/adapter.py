"""Makes every registered client, of whatever shape, callable in one way."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from functools import partial
from inspect import getattr_static, isasyncgenfunction, isawaitable, isclass, isgeneratorfunction
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

import trio
from msgspec.structs import replace

from ultra._support.log import get_logger
from ultra.bridge.caller import Call, Caller, OnText, Runner, trio_runner
from ultra.clients.catalog.model_info import ModelInfo
from ultra.clients.checked_answers import EmptyAnswer, checked, settled, wrong_type
from ultra.clients.cleaning import AnswerText
from ultra.clients.client_code import CLASSIFIED, closed, closer, outcome, told
from ultra.clients.context_reads import context_reads
from ultra.clients.plain_values import plain_rate_limits, plain_text
from ultra.clients.signature import DeclaredCall, UnusableSignatureError, may_block
from ultra.clients.stream_reading import Counting, collected
from ultra.clients.structured import in_words
from ultra.clients.thread_call import ThreadCall
from ultra.errors import BadCall, LoopUnavailable, ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ultra.clients.context_reads import ContextReads
    from ultra.clients.protocol import RequestClient
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.request import ModelRequest, SamplingOptions
    from ultra.messages.results import Completion, Usage

__all__ = ["ClientAdapter", "EmptyAnswer", "OnText"]

T = TypeVar("T")

OnUsage: TypeAlias = "Callable[[Usage], None]"

log = get_logger("ultra.clients")

_END: Final = object()
_MISSING: Final = object()


class ClientAdapter:
    """One registered client, ready to be asked.

    There are two kinds of clients. A `RequestClient`, such as each of Ultra's own, gets the whole request.
    Any other client is an object with ``generate(prompt)``, or a callable itself, async or not, that
    returns a `str` or a `Completion`. Besides the prompt (the last message of the user) it gets only what
    it declares (``**kwargs`` declares everything), as found by `inspect.signature` once, here; a system
    prompt for a client without a ``system`` parameter goes ahead of the prompt.

    A synchronous client runs in a worker thread with the caller's context variables. Cancelling the
    call abandons the thread: it cannot be interrupted, and a run must not outlast its deadline because
    of it. The thread ends when the client returns, and what it returns is dropped. Until then it counts
    against `max_threads`, so a client that hangs costs at most that many, and further calls wait.

    A client streams if it also has ``stream(prompt)``, which returns an async iterator of text that may
    end in a `Completion`. An empty piece is a sign of life: the model thinks, or writes something that is
    no text; a `ReasoningDelta` is one that tells what it thinks. A ``stream`` that is something else (not
    callable, a plain generator, or in need of more arguments) is ignored, and so is one that only
    ``__getattr__`` makes up.

    Args:
        client: the object or callable to adapt.
        owned: whether `aclose` closes the client: its maker closes it, unless it can be used again
            afterwards.
        runner: where coroutines of the client run; None: where the caller is. A client that has
            outlived the loop of its runner moves to that of the caller.
        max_threads: the most threads that a synchronous client may take.

    Raises:
        BadCall: the client has no usable ``generate``; the message says what was given.
    """

    def __init__(
        self, client: object, *, owned: bool = False, runner: Runner | None = None, max_threads: int = 64
    ) -> None:
        self._client = client
        self._generate: Callable[[ModelRequest], object]
        self._stream: Callable[[ModelRequest], object] | None
        self._takes_requests = _takes_requests(client)
        if self._takes_requests:
            requests = cast("RequestClient", client)
            self._generate, self._stream = requests.respond, requests.stream_response
            self._takes_system = True
            self._takes_conversations = told(client, "takes_conversations") is not False
            self._declares_tools = self._streams_tools = told(client, "takes_tools") is not False
            self._blocks = may_block(requests.respond)
            self._option_names = _option_names(client)
        else:
            function = _find_generate(client)
            self._generate = generate = _declared(client, function)
            self._stream = stream = _find_stream(client)
            self._takes_conversations = generate.takes_messages and (stream is None or stream.takes_messages)
            self._takes_system = generate.takes("system")
            self._declares_tools = generate.takes("tools")
            self._streams_tools = stream is not None and stream.takes("tools")
            self._blocks = may_block(function)
            self._option_names = generate.option_names
        # One of another package may not look at the schema in the request, unless its `info` says so.
        self._tells_schema = self._takes_requests and not self.is_own
        self._reads_context = context_reads(client, told(client, "reads_context"))
        self._owned = owned
        self._runner = runner
        self._max_threads = max_threads
        self.keep_slot = None
        self._threads: tuple[trio.lowlevel.TrioToken, trio.CapacityLimiter] | None = None

    keep_slot: Callable[[], Callable[[], None]] | None
    """Called when the thread of a call is given up; what it returns is called, in any thread, at its end."""

    def __repr__(self) -> str:
        return f"<ClientAdapter of {_describe(self._client)}>"

    @property
    def takes_system(self) -> bool:
        """Whether the client takes the system prompt apart from the prompt."""
        return self._takes_system

    @property
    def takes_conversations(self) -> bool:
        """Whether the client takes all messages of a request, and not its prompt alone."""
        return self._takes_conversations

    @property
    def reads_images(self) -> bool | None:
        """Whether the model is given images: as its ``info`` says; False where it takes a prompt alone."""
        return self.info.images if self._takes_conversations else False

    @property
    def reads_files(self) -> bool | None:
        """Whether the model is given documents (PDF), likewise."""
        return self.info.pdf if self._takes_conversations else False

    @property
    def takes_tools(self) -> bool:
        """Whether tools reach the client, and its model is not known to have no use for them."""
        return self._declares_tools and self.info.tools is not False

    @property
    def tells_finish_reason(self) -> bool:
        """Whether the client says why the model stopped, so that an answer without that may be a part."""
        return told(self._client, "tells_finish_reason") is True

    @property
    def is_own(self) -> bool:
        """Whether the client is one of Ultra's own, whose lost connections are nobody's mistake."""
        return type(self._client).__module__.startswith(("ultra.clients.", "ultra.cluster."))

    @property
    def streams(self) -> bool:
        """Whether the client can hand out its answer piece by piece."""
        return self._stream is not None

    @property
    def option_names(self) -> frozenset[str] | None:
        """The names of the options that reach the client, beside those that every client may have.

        None: it takes any.
        """
        return self._option_names

    @property
    def context_window(self) -> int | None:
        """The client's ``context_window`` [tokens], prompt and answer together; None if it names none."""
        value = told(self._client, "context_window")
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def longest_answer(self, options: SamplingOptions) -> int | None:
        """Return how many tokens an answer may have that is asked for with these options.

        Those of Ultra's own clients say so. None: nothing limits it.
        """
        find = told(self._client, "longest_answer") if self.is_own else None
        found = find(replace(options, extra={})) if callable(find) else None
        return found if isinstance(found, int) else options.max_tokens

    @property
    def info(self) -> ModelInfo:
        """What is known of the model: the client's ``info``, if it is a `ModelInfo`, else nothing."""
        info = told(self._client, "info")
        return info if isinstance(info, ModelInfo) else ModelInfo(context_window=self.context_window)

    @property
    def cache_identity(self) -> str:
        """What tells its answers from those of others: ``cache_identity``, or else provider and model."""
        identity = told(self._client, "cache_identity")
        if isinstance(identity, str):
            return plain_text(identity)
        parts = (told(self._client, name) for name in ("provider", "model"))
        return ":".join(plain_text(part) for part in parts if isinstance(part, str) and part)

    @property
    def origin(self) -> tuple[str | None, str | None]:
        """The names of provider and model, as far as the client tells them."""
        provider, model = (told(self._client, name) for name in ("provider", "model"))
        return _text_or_none(provider), _text_or_none(model)

    @property
    def reads_context(self) -> ContextReads:
        """Which context variables of its caller the client reads."""
        return self._reads_context

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the provider said last about its rates, where the client keeps that."""
        return plain_rate_limits(told(self._client, "rate_limits"))

    def call(
        self,
        request: ModelRequest,
        *,
        on_text: OnText | None = None,
        on_usage: OnUsage | None = None,
        caller: Caller | None = None,
    ) -> Awaitable[Completion]:
        """Ask the client once; await what this returns to get the whole answer.

        With `on_text`, a client that streams is streamed: `on_text` gets each piece as it arrives, an
        empty one for a sign of life without text, a `ReasoningDelta` for one that tells what the model
        thinks, and the stream is closed in every case. The `Completion` that ends a stream is what counts,
        except that what it lacks of text or reasoning is taken from what was streamed. Where the client
        reports no usage, the answer has an estimate, marked as one. With `on_usage`, a stream that has a
        ``usage`` is looked at after each piece, and `on_usage` gets the tokens that it has counted so far.
        The client sees the context variables of `caller`, by default those of this task.

        Cancellation reaches an async client as that of its loop, and its end is waited for; a
        synchronous one is abandoned.

        Raises:
            ModelError: the client raised an exception, which is classified, with the original as its
                ``__cause__``; or the answer is empty (kind ``content``, worth a retry unless the model
                refused); or it is no text (kind ``protocol``, permanent).
        """
        caller = caller or Caller(copy_context())
        if request.options.extra and self._option_names is not None:
            request = _without_others(request, self._option_names)
        if self._tells_schema and request.output is not None and self.info.output is None:
            request = replace(in_words(request), output=request.output)
        # A client may declare tools where it answers as a whole, and nowhere else.
        streams = self._streams_tools or not (request.tools and self._declares_tools)
        if on_text is not None and self._stream is not None and streams:
            on_trio = (self._runner or caller.runner or trio_runner) is trio_runner
            read = partial(self._read, self._stream, request, on_usage if on_trio else None)
            return self._run(read, on_text, caller)
        if self._blocks:
            return self._ask_in_thread(request, caller)
        return self._run(partial(self._ask, request), None, caller)

    async def aclose(self) -> None:
        """Close the client with its ``aclose`` or ``close``, if this adapter owns it.

        Raises `ModelError` when the client fails to close.
        """
        close = closer(self._client) if self._owned else None
        if close is None:
            return
        caller = Caller(copy_context())
        if may_block(close):
            await self._run_in_thread(close, caller)
        else:
            await self._run(lambda _: outcome(close), None, caller)

    # --- where the client's code runs ----------------------------------------------------------------

    def _run(self, call: Call[T], on_text: OnText | None, caller: Caller) -> Awaitable[T]:
        """Await the client's coroutine on the loop that the client belongs to."""
        runner = self._runner or caller.runner or trio_runner
        if runner is trio_runner:
            return trio_runner(call, on_text, caller.context)
        return self._run_elsewhere(runner, call, on_text, caller)

    async def _run_elsewhere(
        self, runner: Runner, call: Call[T], on_text: OnText | None, caller: Caller
    ) -> T:
        if not runner.is_running:
            runner = caller.runner or trio_runner
        try:
            return await runner(call, on_text, caller.context)
        except LoopUnavailable as error:
            raise ModelError(str(error), kind="connection", retryable=False) from error

    async def _run_in_thread(
        self, call: Callable[[], object], caller: Caller, *, keeps_slot: bool = False
    ) -> object:
        thread = ThreadCall(partial(caller.context.copy().run, call))
        try:
            with CLASSIFIED:
                # In a tuple, since trio refuses a coroutine that comes out of a thread.
                (given,) = await trio.to_thread.run_sync(
                    thread.run, abandon_on_cancel=True, limiter=self._thread_limiter()
                )
        except trio.Cancelled:
            thread.give_up(self.keep_slot if keeps_slot else None)
            raise
        if isawaitable(given):  # a plain function around a coroutine function, such as a decorator makes
            return await self._run(lambda _: outcome(lambda: given), None, caller)
        return given

    def _thread_limiter(self) -> trio.CapacityLimiter:
        """Return the limiter of this trio run.

        An abandoned thread that outlives its run never gives its place back, so the next run needs
        a limiter of its own.
        """
        token = trio.lowlevel.current_trio_token()
        if self._threads is None or self._threads[0] is not token:
            self._threads = (token, trio.CapacityLimiter(self._max_threads))
        return self._threads[1]

    # --- one call, where the client's code runs ------------------------------------------------------

    async def _ask(self, request: ModelRequest, _: OnText | None) -> Completion:
        with CLASSIFIED:
            answer = self._generate(request)
            if isawaitable(answer):
                answer = await answer
        return settled(checked(answer, request), request)

    async def _ask_in_thread(self, request: ModelRequest, caller: Caller) -> Completion:
        answer = await self._run_in_thread(partial(self._generate, request), caller, keeps_slot=True)
        return settled(checked(answer, request), request)

    async def _read(
        self,
        start: Callable[[ModelRequest], object],
        request: ModelRequest,
        on_usage: OnUsage | None,
        on_text: OnText | None,
    ) -> Completion:
        """Read the stream that `start` gives to its end, and close it."""
        with CLASSIFIED:
            stream = start(request)
            if isawaitable(stream):
                stream = await stream
        if not isinstance(stream, AsyncIterable):
            raise wrong_type(stream, "an async iterator as a stream")
        with CLASSIFIED:
            pieces: AsyncIterator[object] = aiter(stream)
        try:
            text = None if on_text is None else AnswerText(on_text, request)
            answer = await collected(pieces, text, None if on_usage is None else Counting(stream, on_usage))
            if text is not None:
                text.end()
        finally:
            try:
                await closed(pieces)
            finally:
                # It may hold a connection that the iterator made from it knows nothing of.
                await closed(stream)
        return settled(checked(answer, request), request)


# --- what may be adapted -------------------------------------------------------------------------


def _takes_requests(client: object) -> bool:
    """Return whether `client` is a `RequestClient`.

    It is not where a subclass, or the object itself, overrides ``generate`` or ``stream`` of such a
    client: then the call has to go through what was overridden.
    """
    if isclass(client):
        return False
    # Looked up without `__getattr__`: mocks and proxies have every attribute that they are asked for.
    if _MISSING in (getattr_static(client, name, _MISSING) for name in ("respond", "stream_response")):
        return False
    return min(map(partial(_depth, client), ("respond", "stream_response"))) <= min(
        map(partial(_depth, client), ("generate", "stream"))
    )


def _option_names(client: object) -> frozenset[str] | None:
    # Looked up without `__getattr__` first, as above.
    found = getattr_static(client, "option_names", None) is not None
    names: object = getattr(client, "option_names", None) if found else None
    if names is None:
        return None
    if not isinstance(names, AbstractSet) or not all(isinstance(name, str) for name in names):
        raise BadCall(f"`option_names` of {_describe(client)} must be a set of names of options")
    return frozenset(names)


def _without_others(request: ModelRequest, names: frozenset[str]) -> ModelRequest:
    """Return `request` without the options of other clients, which this one would refuse."""
    options = request.options
    kept = {name: value for name, value in options.extra.items() if name in names}
    if len(kept) == len(options.extra):
        return request
    return replace(request, options=replace(options, extra=kept))


def _depth(client: object, name: str) -> int:
    """Return how far up the classes of `client` the attribute is defined; 0: in the object itself."""
    levels = [getattr(client, "__dict__", {}), *map(vars, type(client).__mro__)]
    return next((depth for depth, attributes in enumerate(levels) if name in attributes), len(levels))


def _find_generate(client: object) -> Callable[..., object]:
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
    return cast("Callable[..., object]", function)


def _declared(client: object, function: Callable[..., object]) -> DeclaredCall:
    try:
        return DeclaredCall(function)
    except UnusableSignatureError as error:
        raise BadCall(
            f"`generate` of {_describe(client)} {error}; allowed is `generate(prompt)`, "
            "with parameters beyond it that have defaults"
        ) from None


def _find_stream(client: object) -> DeclaredCall | None:
    # Looked up without `__getattr__`, as above.
    if getattr_static(client, "stream", None) is None:
        return None
    function = getattr(client, "stream", None)
    if not callable(function) or isgeneratorfunction(function):
        return None
    try:
        return DeclaredCall(function)
    except UnusableSignatureError:
        return None


def _describe(client: object) -> str:
    """Return what to call the client in messages: its type or name, since a repr might hold a key."""
    name = getattr(client, "__qualname__", None)
    return f"function {name!r}" if isinstance(name, str) else f"an object of type {type(client).__qualname__}"


def _text_or_none(value: object) -> str | None:
    return plain_text(value) if isinstance(value, str) and value else None
