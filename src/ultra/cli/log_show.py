"""`ultra log show`: a run of the history, drawn as it was drawn when it was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ultra.cli.answer_file import AnswerFile
from ultra.cli.final_view import FinalView
from ultra.cli.journal import default_journal, described, find_run, with_journal
from ultra.cli.json_output import document, write_document
from ultra.cli.log_table import row_of
from ultra.cli.output import tell, write
from ultra.cli.plain_view import PlainView
from ultra.cli.printable_text import block, one_line
from ultra.cli.report import answer_text
from ultra.cli.session import open_view
from ultra.durable.execution import read_all
from ultra.errors import BadCall
from ultra.messages.events import RunCompleted

if TYPE_CHECKING:
    from ultra.cli.session import Output
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.stores.journal_contract import RunJournal, RunRecord

__all__ = ["show_run"]


@dataclass(frozen=True)
class _Run:
    record: RunRecord
    events: list[Event]

    @property
    def result(self) -> OrchestrationResult | None:
        last = self.events[-1] if self.events else None
        return last.result if isinstance(last, RunCompleted) else None


def show_run(name: str | None, journal: str | None, output: Output) -> int:
    """Show the run of this id, or the newest; return the exit code.

    Raises:
        BadCall: the history is empty, or the file cannot be written.
        UnknownRun: there is no such run.
    """
    if name is None and journal is None and not default_journal().is_file():
        raise BadCall("the history is empty; ask something first")
    run = with_journal(journal, lambda store: _read(store, name))
    if output.file is None:
        trio.run(_show, run, output)  # views read the clock of a trio run
        return 0
    with AnswerFile(output.file) as file:
        answer = None if run.result is None else run.result.final_synthesis
        if answer is None and not output.as_json:
            raise BadCall(f"run {run.record.run_id} has no answer")
        file.write(_document(run) if output.as_json or answer is None else f"{block(answer_text(answer))}\n")
    return 0


async def _read(journal: RunJournal, name: str | None) -> _Run:
    if name is not None:
        record = await find_run(journal, name)
    else:
        newest = await journal.list_runs(limit=1)
        if not newest:
            raise BadCall("no run is in the journal; ask something first")
        record = newest[0]
    return _Run(record, await read_all(journal, record.run_id))


def _document(run: _Run) -> str:
    return document({**described(run.record), "result": run.result})


async def _show(run: _Run, output: Output) -> None:
    if output.as_json:
        write_document({**described(run.record), "result": run.result})
        return
    await trio.lowlevel.checkpoint()
    view = open_view(output)
    if not isinstance(view, FinalView):
        _write_head(run.record)
    if isinstance(view, PlainView):
        write("")  # a live view begins with one
    with view:
        for event in run.events:
            view.show(event)
    if run.result is not None:
        view.conclude(run.result)
    elif run.record.code is not None:
        tell(f"{run.record.state}: {run.record.code}: {run.record.message}")
    else:
        tell(f"the run is {run.record.state}; follow it: ultra runs follow {run.record.run_id}")


def _write_head(record: RunRecord) -> None:
    row = row_of(record, None)
    when = row.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    is_plain = (
        len(record.spec.models) == 1 and row.strategy == "best_of"
    )  # that of one model, if none is given
    write(f"{row.run_id}  {when}", one_line(row.asked if is_plain else f"{row.strategy} of {row.asked}"))
    messages = record.spec.request.messages
    earlier = sum(message.role in {"user", "assistant"} for message in messages) - 1
    if earlier > 0:
        write(f"(goes on with a conversation of {earlier} messages)")
    write("", block(row.question))
