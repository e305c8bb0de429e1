"""Runs tests on asyncio: on its own loop and on uvloop, in debug mode, leaving nothing behind; or on trio."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

import pytest
import trio
import uvloop
from trio.lowlevel import in_trio_run

from helpers.garbage import collect_garbage

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


# In debug mode and from Python 3.12 on, uvloop may crash the interpreter when an async generator is left to
# the garbage collector, as those of the openai library are: github.com/MagicStack/uvloop, issue 730.
DEBUGGABLE = {"asyncio": True, "uvloop": sys.version_info < (3, 12)}


class _Complaints(logging.Handler):
    """What the loop's debug mode, or anything else of asyncio, complains about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def run_on(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``main()``, in debug mode if possible; afterwards no complaint, task or trio thread is left."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        with asyncio.Runner(debug=DEBUGGABLE[loop], loop_factory=LOOPS[loop]) as runner:
            runner.get_loop().slow_callback_duration = 10.0  # [s]; how fast this machine is is not tested
            runner.run(main())
        collect_garbage()
    finally:
        logger.removeHandler(complaints)
    assert complaints.messages == []
    assert [thread.name for thread in threading.enumerate() if thread.name in {"trio", "ultra"}] == []


def on_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test one that runs on each of `LOOPS`."""
    return _on(list(LOOPS), test)


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test one that runs on trio, and on each of `LOOPS`."""
    return _on(["trio", *LOOPS], test)


async def nap(seconds: float) -> None:
    """Sleep on trio or asyncio."""
    if in_trio_run():
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def _on(loops: list[str], test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*, loop: str, **fixtures: Any) -> None:
        if loop == "trio":
            trio.run(partial(test, **fixtures))
        else:
            run_on(loop, lambda: test(**fixtures))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), loop]
    )
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", loops)(run)
    return parametrized


def interrupt() -> None:
    """What Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)
