"""One run of `ultra ask`: from the question to the exit code, with everything closed at its end."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from ultra.cli.document import DocumentView
from ultra.cli.logs import configure_logs
from ultra.cli.plain import PlainView
from ultra.cli.signals import run_until_signalled
from ultra.cli.text import one_line
from ultra.cli.trust import check_found
from ultra.clients import connect
from ultra.config.loading import load_configuration
from ultra.messages.events import RunCompleted, RunFailed
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

if TYPE_CHECKING:
    from ultra.cli.arguments import Question
    from ultra.cli.view import View
    from ultra.orchestrator.streams import RunStream

__all__ = ["open_view", "run"]


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
    ended_by = run_until_signalled(partial(_ask, question, view))
    return 0 if ended_by is None else 128 + ended_by


async def _ask(question: Question, view: View) -> None:
    async with _orchestrator(question) as orchestrator:
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


def _orchestrator(question: Question) -> MultiLLMOrchestrator:
    """The models that were asked for, or those of a configuration, which stderr then tells of."""
    if question.configuration is not None:
        if question.found:
            check_found(load_configuration(question.configuration), f"pass --config {question.configuration}")
        orchestrator = MultiLLMOrchestrator.from_config(question.configuration)
        names = ", ".join(orchestrator.get_prioritized_models())
        sys.stderr.write(one_line(f"ultra: {question.configuration}: {names}") + "\n")
        return orchestrator
    orchestrator = MultiLLMOrchestrator()
    for name, model in question.names().items():
        orchestrator.register_model(name, connect(model.identifier), model.weight)
    return orchestrator


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
