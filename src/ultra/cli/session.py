"""One run of `ultra ask`: from the question to the exit code, with everything closed at its end."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from ultra.cli.document import DocumentView
from ultra.cli.logs import configure_logs
from ultra.cli.plain import PlainView
from ultra.clients import connect
from ultra.events import RunCompleted, RunFailed
from ultra.orchestrator import MultiLLMOrchestrator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ultra.cli.arguments import Question
    from ultra.cli.view import View
    from ultra.streaming import RunStream

__all__ = ["open_view", "run"]

T = TypeVar("T")


def open_view(*, as_json: bool, plain: bool) -> View:
    """Choose how a run is shown: a live display only where there is a terminal that can draw it."""
    if as_json:
        return DocumentView()
    if not plain and sys.stdout.isatty():
        from ultra.cli.live import LiveView  # noqa: PLC0415 - rich takes long to import
        from ultra.cli.terminal import open_console  # noqa: PLC0415 - as above

        console = open_console()
        if not console.is_dumb_terminal:
            return LiveView(console)
    return PlainView()


def run(question: Question, view: View, *, verbose: int = 0) -> int:
    """Ask, show what comes, and return the exit code once everything is closed.

    Raises what the orchestrator and `connect` raise.
    """
    configure_logs(verbose)
    interrupted_by = trio.run(until_signalled, partial(_ask, question, view))
    return 0 if interrupted_by is None else 128 + interrupted_by


async def until_signalled(work: Callable[[], Awaitable[None]]) -> int | None:
    """Await ``work()``; SIGINT or SIGTERM cancels it. Returns the signal, once `work` has ended, or None.

    Signals that come while the cancelled work cleans up change nothing.
    """
    caught: list[int] = []
    failure: Exception | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            # Not below the nursery's own scope: the signals are to be taken until the work has ended.
            working = trio.CancelScope()
            nursery.start_soon(_cancel_on_signal, signals, working, caught)
            with working:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - raised below, without the nursery's group around it
                    failure = error
            nursery.cancel_scope.cancel()
    if caught:
        return caught[0]
    if failure is not None:
        raise failure
    return None


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, caught: list[int]) -> None:
    async for number in signals:
        caught.append(number)
        scope.cancel()


async def _ask(question: Question, view: View) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        for name, model in question.names().items():
            orchestrator.register_model(name, connect(model.identifier), model.weight)
        asked = orchestrator.stream_responses(
            question.prompt,
            question.stages,
            question.chosen_names(),
            system=question.system,
            timeout=question.timeout,
            quorum=question.quorum,
        )
        with view:
            async with asked as stream:
                await _follow(stream, view)
                result = await stream.result()
    view.conclude(result)


async def _follow(stream: RunStream, view: View) -> None:
    """Show the events as they come, and what time changes at the view's own pace, until the last."""
    next_refresh = trio.current_time()
    ended = False
    while not ended:
        with trio.move_on_at(next_refresh):
            event = await anext(stream)
            view.show(event)
            ended = isinstance(event, (RunCompleted, RunFailed))
        if trio.current_time() >= next_refresh:
            view.refresh()
            next_refresh = trio.current_time() + view.interval
