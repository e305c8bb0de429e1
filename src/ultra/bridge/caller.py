"""Where the coroutines of async clients run, and with whose context variables."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from msgspec import Struct
from trio.lowlevel import in_trio_run

__all__ = ["Call", "Caller", "OnText", "Runner", "as_caller", "run_here", "runner_here"]

P = ParamSpec("P")
T = TypeVar("T")

OnText = Callable[[str], None]
"""Takes the next piece of an answer, in trio's thread. It must not block."""

Call = Callable[[OnText | None], Coroutine[Any, Any, T]]
"""Makes the coroutine of one call, given where its text goes."""


class Runner(Protocol):
    """Where the coroutines of an async client run.

    A runner awaits ``call(on_text)`` on the loop that the client belongs to, with a copy of `context`
    as its context variables, and hands back what it returns or raises; being cancelled, it cancels the
    call and waits for its end. A call is one coroutine, a whole stream included, so that timeouts and
    context managers of the client stay within one task of its loop. A runner that uses another thread
    passes a stand-in for `on_text` that brings the text home in order, all of it before the result.
    """

    @property
    def is_running(self) -> bool:
        """Whether that loop runs, so that calls can be made there."""
        ...

    def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> Awaitable[T]:
        """Await ``call(on_text)`` there; raises `LoopUnavailable` when the loop ends."""
        ...


class _RunHere:
    """The runner of clients that belong to the current trio run."""

    @property
    def is_running(self) -> bool:
        return True

    def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> Awaitable[T]:
        return _in_context(context.copy(), call(on_text))


run_here: Final = _RunHere()


def runner_here() -> Runner | None:
    """The runner of clients that are made here: trio's, or the running asyncio loop; None: neither."""
    if in_trio_run():
        return run_here
    asyncio = sys.modules.get("asyncio")  # not imported for this: whoever is on asyncio has imported it
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented for such use
        return None
    from ultra.bridge.asyncio_loop import AsyncioLoop  # noqa: PLC0415 - imports asyncio

    return AsyncioLoop.running()


class Caller(Struct, frozen=True):
    """Who wants an answer: `runner` is the asyncio loop that he is on, if it is one.

    A client that belongs to no loop in particular runs on his, and sees his context variables.
    """

    context: Context
    runner: Runner | None = None

    @classmethod
    def current(cls) -> Caller:
        """Whoever calls this."""
        runner = runner_here()
        return cls(copy_context(), None if runner is run_here else runner)


def as_caller(caller: Caller | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of the caller's own, in this thread, with a copy of his context variables."""
    return (
        function(*args, **kwargs) if caller is None else caller.context.copy().run(function, *args, **kwargs)
    )


@coroutine
def _in_context(context: Context, awaited: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await the coroutine with `context` as its context variables; the awaiting task keeps its own.

    The coroutine runs in the same task, so no nursery is needed, and cancellation reaches it as ever.
    Tasks that it starts inherit `context`. Nobody else may use `context` meanwhile.
    """
    step: Callable[[Any], Any] = awaited.send
    given: Any = None
    try:
        while True:
            try:
                trap = context.run(step, given)
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                given = yield trap
                step = awaited.send
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is for the coroutine
                given = error
                step = awaited.throw
    finally:
        del given  # it may hold the exception that leaves, whose traceback holds this frame
