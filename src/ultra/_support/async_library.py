"""Which async library runs the code that asks: trio, or another one in the same thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import sniffio
import trio
from trio.lowlevel import in_trio_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

__all__ = ["AsyncEvent", "AsyncLibrary", "AsyncScope", "Tasks", "in_trio", "library", "open_tasks"]


def in_trio() -> bool:
    """Return whether this is called by a task or a callback of a trio run.

    In guest mode, and in the asyncio half of trio-asyncio, a trio run belongs to the same thread and another
    library is calling; sniffio tells them apart.
    """
    return in_trio_run() and sniffio.thread_local.name == "trio"


class AsyncEvent(Protocol):
    """An event of trio or anyio."""

    def set(self) -> object:
        """Wake those who wait."""
        ...

    def wait(self) -> Awaitable[object]:
        """Wait until it is set."""
        ...


class AsyncScope(Protocol):
    """A cancel scope of trio or anyio."""

    @property
    def deadline(self) -> float:
        """When it is cancelled, in the time of its event loop."""
        ...

    @deadline.setter
    def deadline(self, deadline: float, /) -> None: ...

    def cancel(self) -> object:
        """Cancel what is done in it."""
        ...

    @property
    def cancel_called(self) -> bool:
        """Whether it was cancelled."""
        ...

    def __enter__(self) -> object: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class AsyncLibrary(Protocol):
    """What the modules `trio` and `anyio` have under one name."""

    @property
    def Event(self) -> Callable[[], AsyncEvent]:  # noqa: N802 - the name of the class
        """Make an event."""
        ...

    @property
    def CancelScope(self) -> Callable[..., AsyncScope]:  # noqa: N802 - as above
        """Make a cancel scope; takes `deadline` and `shield`."""
        ...

    @property
    def current_time(self) -> Callable[[], float]:
        """Return the time of the event loop."""
        ...


class Tasks(Protocol):
    """A nursery of trio, or a task group of anyio."""

    @property
    def cancel_scope(self) -> AsyncScope:
        """The scope of all its tasks."""
        ...

    @property
    def start_soon(self) -> Callable[..., object]:
        """Start a task; takes an async function and its arguments."""
        ...


def library() -> AsyncLibrary:
    """Return `trio` where it runs the code that asks, and else `anyio`.

    On trio, an event or a scope of anyio's is one of trio's with an object around it, and takes twice as
    long to make.
    """
    if in_trio():
        return trio
    import anyio  # noqa: PLC0415 - not where trio runs all

    return anyio


def open_tasks() -> AbstractAsyncContextManager[Tasks]:
    """Return a nursery of trio, or a task group of anyio where another library runs the code that asks.

    On trio, each task of an anyio group has a scope and an event of its own, with which others could cancel
    it and wait for it.
    """
    if in_trio():
        return trio.open_nursery(strict_exception_groups=True)
    import anyio  # noqa: PLC0415 - not where trio runs all

    return anyio.create_task_group()
