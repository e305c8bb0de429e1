"""Who calls: on which loop the coroutines of async clients run, and which context variables they see."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from msgspec import Struct

from ultra._support.async_library import in_trio

__all__ = ["Call", "Caller", "OnText", "Runner", "call_in_context", "current_runner", "trio_runner"]

P = ParamSpec("P")
T = TypeVar("T")

OnText = Callable[[str], None]
"""Takes the next piece of an answer, in trio's thread. It must not block."""

Call = Callable[[OnText | None], Coroutine[Any, Any, T]]
"""Makes the coroutine of one call, given what takes the text of the answer, if anything does."""


class Runner(Protocol):
    """Runs the coroutines of an async client: on trio, or on one asyncio loop.

    One call is one coroutine, a whole stream included, so timeouts and context managers of the client stay
    within one task of its loop.
    """

    @property
    def is_running(self) -> bool:
        """Whether the loop runs, so that calls can be made there."""
        ...

    def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> Awaitable[T]:
        """Await ``call(on_text)`` on the loop, and return its result.

        It sees a copy of `context` as its context variables. A runner with another thread passes a function
        of its own in the place of `on_text`, which brings the text to this thread in order, all of it before
        the result. Cancelled, this cancels the call and waits for its end.

        Raises:
            LoopUnavailable: the loop has ended.
            Exception: what the call raised.
        """
        ...


class _TrioRunner:
    """The runner of clients that belong to the current trio run."""

    @property
    def is_running(self) -> bool:
        return True

    def __call__(self, call: Call[T], on_text: OnText | None, context: Context) -> Awaitable[T]:
        return _in_context(context.copy(), call(on_text))


trio_runner: Final = _TrioRunner()


def current_runner() -> Runner | None:
    """Return the runner of clients that are made here: trio's or the asyncio loop's; None if no loop runs."""
    if in_trio():
        return trio_runner
    asyncio = sys.modules.get("asyncio")  # not imported for this: a program on asyncio has imported it
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented for such use
        return None
    from ultra.bridge.asyncio_loop import AsyncioLoop  # noqa: PLC0415 - imports asyncio

    return AsyncioLoop.running()


class Caller(Struct, frozen=True):
    """Who wants an answer.

    Attributes:
        context: the caller's context variables, which the client sees.
        runner: the asyncio loop that the caller is on, if it is on one. A client that belongs to no loop in
            particular runs there.
    """

    context: Context
    runner: Runner | None = None

    @classmethod
    def current(cls) -> Caller:
        """Return the caller that calls this."""
        runner = current_runner()
        return cls(copy_context(), None if runner is trio_runner else runner)


def call_in_context(caller: Caller | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of the caller's, in this thread, with a copy of the caller's context variables."""
    return (
        function(*args, **kwargs) if caller is None else caller.context.copy().run(function, *args, **kwargs)
    )


@coroutine
def _in_context(context: Context, awaited: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await the coroutine with `context` as its context variables; the task that awaits it keeps its own.

    The coroutine runs in the same task, so it needs no nursery, and cancellation reaches it as usual. Tasks
    that it starts inherit `context`. Nothing else may use `context` at the same time.
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
