"""The runs of the history as lines of a table: when, what was asked, of whom, at what cost."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from ultra.cli.journal import each_run, result_of
from ultra.cli.output import write
from ultra.cli.printable_text import one_line
from ultra.cli.report import answer_text, dollars
from ultra.errors import JournalDamaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import OrchestrationResult
    from ultra.stores.journal_contract import RunJournal, RunRecord

__all__ = ["LogRow", "read_rows", "row_of", "write_rows"]

_ID: Final = 8
"""Characters of an id that are shown; they name the run where no other id begins so."""

_WHEN: Final = "2026-01-31 12:00"

_ASKED: Final = 24
"""Columns for whom was asked."""

_NARROW: Final = 90
"""Columns below which a table has no place for whom was asked and what it cost."""


class LogRow(Struct, frozen=True, kw_only=True):
    """One run of the history, as `ultra log --json` has it. `asked` is the ensemble, or the models."""

    run_id: str
    conversation_id: str | None
    state: str
    created: datetime
    asked: str
    strategy: str
    question: str
    answer: str | None
    error: str | None
    cost: float | None


def row_of(record: RunRecord, result: OrchestrationResult | None) -> LogRow:
    """Return the row of a run."""
    spec = record.spec
    answer = None if result is None else result.final_synthesis
    conversation = record.tags.get("conversation")
    return LogRow(
        run_id=record.run_id,
        conversation_id=conversation if isinstance(conversation, str) else None,
        state=record.state,
        created=datetime.fromtimestamp(record.created, UTC),
        asked=spec.options.name or ", ".join(spec.models),
        strategy=spec.strategy.name,
        question=spec.request.prompt,
        answer=None if answer is None else answer_text(answer),
        error=None if record.code is None else f"{record.code}: {record.message}",
        cost=None if result is None else result.cost,
    )


async def read_rows(journal: RunJournal, words: Sequence[str], limit: int) -> list[LogRow]:
    """Return the newest rows, at most so many, whose question and answer have all of these words."""
    wanted = [word.casefold() for each in words for word in each.split()]
    rows: list[LogRow] = []
    async for record in each_run(journal):
        try:
            row = row_of(record, await result_of(journal, record))
        except JournalDamaged as error:  # which keeps no other run from being found
            row = replace(row_of(record, None), error=f"{type(error).__name__}: {error}")
        text = f"{row.question}\n{row.answer or ''}".casefold()
        if all(word in text for word in wanted):
            rows.append(row)
        if len(rows) == limit:
            break
    return rows


def write_rows(rows: Sequence[LogRow]) -> None:
    """Write a table in the width of the terminal; on a pipe, whole texts with tabs between them."""
    if sys.stdout.isatty():
        _draw(rows)
        return
    for row in rows:
        when = row.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        cells = (row.run_id, when, row.state, row.asked, row.question)
        write("\t".join(map(one_line, cells)))


def _draw(rows: Sequence[LogRow]) -> None:
    from rich.table import Table  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - as above

    from ultra.cli.terminal import open_console  # noqa: PLC0415 - as above

    console = open_console()
    is_wide = console.width >= _NARROW
    has_costs = is_wide and any(row.cost is not None for row in rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("run", no_wrap=True, width=_ID)
    table.add_column("when", no_wrap=True, width=len(_WHEN))
    if is_wide:
        table.add_column("asked", no_wrap=True, max_width=_ASKED)
    if has_costs:
        table.add_column("cost", no_wrap=True, justify="right")
    table.add_column("question", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        mark = "" if row.state == "completed" else f"[{row.state}] "
        cells = [row.run_id[:_ID], row.created.astimezone().strftime("%Y-%m-%d %H:%M")]
        cells += [row.asked] * is_wide
        cells += ["" if row.cost is None else dollars(row.cost)] * has_costs
        cells.append(mark + row.question)
        table.add_row(
            *(Text(one_line(cell)) for cell in cells), style="yellow" if row.state == "failed" else None
        )
    console.print(table)
