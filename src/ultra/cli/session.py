"""One run of a command: from the question to the exit code, with everything closed at its end."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from ultra.cli.answer_file import AnswerFile
from ultra.cli.asking import Asker
from ultra.cli.final_view import FinalView
from ultra.cli.history import History
from ultra.cli.json_output import JsonView, document
from ultra.cli.logs import configure_logs
from ultra.cli.output import write
from ultra.cli.plain_view import PlainView
from ultra.cli.printable_text import block
from ultra.cli.report import answer_text
from ultra.cli.signals import run_until_signalled
from ultra.messages.events import RunCompleted, RunFailed

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.cli.arguments import Question
    from ultra.cli.view import View
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.streams import RunStream

__all__ = ["Output", "follow", "open_view", "run"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a run is shown; `shown` are the steps that are otherwise folded."""

    as_json: bool = False
    plain: bool = False
    final: bool = False
    file: Path | None = None
    shown: tuple[str, ...] = ()
    verbose: int = 0
    log_json: bool = False


def open_view(output: Output) -> View:
    """Return the view of a run.

    On a terminal that can draw it, a live one; on a pipe, and with ``--final``, the answer alone; with
    ``--plain``, all of it as plain text.
    """
    if output.as_json:
        return JsonView(silent=output.file is not None)
    on_terminal = sys.stdout.isatty()
    if output.plain and not output.final:
        return PlainView(shown=output.shown)
    if on_terminal and not output.final:
        from ultra.cli.live_view import LiveView  # noqa: PLC0415 - rich takes long to import
        from ultra.cli.terminal import open_console  # noqa: PLC0415 - as above

        console = open_console()
        return (
            PlainView(shown=output.shown)
            if console.is_dumb_terminal
            else LiveView(console, shown=output.shown)
        )
    rest = PlainView(to_stderr=True) if output.verbose else None
    return FinalView(rest=rest, rendered=on_terminal and not output.plain, silent=output.file is not None)


def run(question: Question, output: Output) -> int:
    """Ask, show the run, and return the exit code once everything is closed.

    Raises what the orchestrator and `connect` raise.
    """
    configure_logs(output.verbose, as_json=output.log_json)
    if output.file is None:
        return _run(question, output, None)
    with AnswerFile(output.file) as file:
        return _run(question, output, file)


def _run(question: Question, output: Output, file: AnswerFile | None) -> int:
    ended_by = run_until_signalled(partial(_ask, question, output, file))
    return 0 if ended_by is None else 128 + ended_by


async def _ask(question: Question, output: Output, file: AnswerFile | None) -> None:
    asker = Asker.of(question)
    history = History.of(asker, question, by="ask")
    try:
        async with asker.orchestrator:
            asked = asker.stream(question)
            view = open_view(output)
            result = await follow(asked, view, history)
        view.conclude(result)
        if file is not None:
            _keep(file, document(result) if output.as_json else _text_of(result))
    finally:
        await history.write()  # when the answer is there


def _keep(file: AnswerFile, text: str) -> None:
    """Write the text to its file, or else to stdout, since the answer was paid for; then raise `OSError`."""
    try:
        file.write(text)
    except OSError:
        write(*text.splitlines())
        raise


async def follow(asked: RunStream, view: View, history: History) -> OrchestrationResult:
    """Show a run to its end, and return its result. Raises what the run raises."""
    with view:
        async with asked as stream:
            await _show(stream, view, history)
            return await stream.result()


def _text_of(result: OrchestrationResult) -> str:
    answer = result.final_synthesis
    return "" if answer is None else f"{block(answer_text(answer))}\n"


async def _show(stream: RunStream, view: View, history: History) -> None:
    """Show all events as they come, and refresh the view at its interval."""
    next_refresh = trio.current_time()
    ended = False
    while not ended:
        with trio.move_on_at(next_refresh):
            event = await anext(stream)
            history.take(event)
            view.show(event)
            ended = isinstance(event, (RunCompleted, RunFailed))
        if trio.current_time() >= next_refresh:
            view.refresh()
            next_refresh = trio.current_time() + view.interval
