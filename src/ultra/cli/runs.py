"""`ultra runs`: runs, as the journal has them."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ultra.cli.commands import new_app
from ultra.cli.journal import (
    JournalOption,
    JsonOption,
    RunArgument,
    described,
    each_run,
    find_run,
    find_run_id,
    result_of,
    store_of,
    with_journal,
)
from ultra.cli.output import tell, write, write_wrapped
from ultra.cli.printable_text import block, one_line
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.stores.journal_contract import RunJournal, RunRecord

__all__ = ["app"]

app = new_app()

_SHOWN: Final = 60
"""Characters of a question in the list."""


@app.callback()
def runs() -> None:
    """List, show, follow, cancel, delete and replay runs, as the journal has them.

    These are the runs of ultra ask and ultra chat, which ultra log shows, too, and those that programs
    submit: MultiLLMOrchestrator(journal="sqlite:///runs.db").submit(...).
    """


@app.command("list")
def list_runs(
    *,
    journal: JournalOption = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this owner.")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="queued, running, completed, failed or cancelled."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, the newest.", min=1)] = 20,
    as_json: JsonOption = False,
) -> int:
    """List runs, the newest first: id, state, when it was accepted, events, strategy, question."""
    from ultra.stores.journal_contract import STATES  # noqa: PLC0415 - as above

    states: list[Any] = list(state or ())
    for given in states:
        if given not in STATES:
            raise BadCall(f"--state {given!r} is none; there are: {', '.join(STATES)}")

    async def find(store: RunJournal) -> list[Any]:
        found: list[Any] = []  # not the runs themselves, whose requests may be large
        async with aclosing(each_run(store, owner=owner, states=tuple(states))) as records:
            async for record in records:
                found.append(described(record) if as_json else _line(record))
                if len(found) == limit:
                    break
        return found

    found = with_journal(journal, find)
    if as_json:
        _write_json(found)
        return 0
    for line in found:
        write_wrapped(str(line), indent=4)
    return 0


@app.command()
def show(run: RunArgument, *, journal: JournalOption = None, as_json: JsonOption = False) -> int:
    """Show one run: its state, and its answer or its error."""

    async def find(store: RunJournal) -> tuple[RunRecord, OrchestrationResult | None]:
        record = await find_run(store, run)
        return record, await result_of(store, record)

    record, result = with_journal(journal, find)
    if as_json:
        _write_json({**described(record), "result": result})
        return 0
    write_wrapped(_line(record), indent=4)
    if record.code is not None:
        write(one_line(f"{record.code}: {record.message}"))
    if result is not None:
        write(block(str(result)))
    return 0


@app.command()
def follow(
    run: RunArgument,
    *,
    journal: JournalOption = None,
    after: Annotated[
        int,
        typer.Option(metavar="SEQ", help="Only events behind this one.", show_default=False),
    ] = -1,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> int:
    """Follow the events of a run to its end; whichever process executes it."""
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - as above
    from ultra.cli.plain_view import PlainView  # noqa: PLC0415 - as above

    run = _whole_id(journal, run)

    async def read(orchestrator: MultiLLMOrchestrator) -> None:
        view = PlainView()
        async with orchestrator.follow(run, after=after) as events:
            with view:
                async for event in events:
                    if as_json:
                        write_document(event)
                    else:
                        view.show(event)
            result = await events.result()
        if not as_json:
            view.conclude(result)

    return _with_orchestrator(journal, read, read_only=True)


@app.command()
def cancel(run: RunArgument, *, journal: JournalOption = None) -> int:
    """Cancel a run. One that is executed elsewhere ends there within seconds."""
    run = _whole_id(journal, run)

    async def end(orchestrator: MultiLLMOrchestrator) -> None:
        record = await orchestrator.cancel_run(run)
        write(f"{run}: {record.state if record.has_ended else 'it is being cancelled'}")

    return _with_orchestrator(journal, end)


@app.command()
def delete(run: RunArgument, *, journal: JournalOption = None) -> int:
    """Delete a run that has ended, or that is damaged, with its events and answers."""
    run = _whole_id(journal, run)

    async def remove(orchestrator: MultiLLMOrchestrator) -> None:
        await orchestrator.delete_run(run)
        write(f"{run}: deleted")

    return _with_orchestrator(journal, remove)


@app.command()
def replay(
    run: RunArgument,
    *,
    journal: JournalOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Another strategy.  [default: that of the run]", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Merge the recorded answers of a run again, by another strategy; no model is asked.

    A model that would be asked something new has no answer to that, and counts as failed.
    """
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - as above
    from ultra.cli.plain_view import PlainView  # noqa: PLC0415 - as above
    from ultra.cli.report import unshown_answer  # noqa: PLC0415 - as above
    from ultra.orchestrator.replay import replay_run  # noqa: PLC0415 - as above

    run = _whole_id(journal, run)
    result = with_journal(journal, lambda store: replay_run(store, run, strategy=strategy))
    if as_json:
        write_document(result)
    else:
        told = str(result) if unshown_answer(result) is None else str(result).splitlines()[0]
        write(block(told), "")
        PlainView().conclude(result)
    return 0


# --- inside ------------------------------------------------------------------------------------------------


def _whole_id(journal: str | None, run: str) -> str:
    return with_journal(journal, lambda store: find_run_id(store, run))


def _with_orchestrator(
    given: str | None, work: Callable[[MultiLLMOrchestrator], Awaitable[None]], *, read_only: bool = False
) -> int:
    from ultra.cli.logs import configure_logs  # noqa: PLC0415 - as above
    from ultra.cli.signals import run_until_signalled  # noqa: PLC0415 - as above
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator  # noqa: PLC0415 - as above
    from ultra.stores.journal_opening import open_journal  # noqa: PLC0415 - as above

    async def use() -> None:
        journal = open_journal(store_of(given), read_only=read_only)
        orchestrator = MultiLLMOrchestrator(journal=journal)
        try:
            await work(orchestrator)
        finally:
            await orchestrator.aclose(grace=0)
            await journal.aclose()

    configure_logs(0)
    ended_by = run_until_signalled(use)
    if ended_by is not None:
        tell("the run itself goes on")
    return 0 if ended_by is None else 128 + ended_by


def _line(record: RunRecord) -> str:
    accepted = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
    question = one_line(record.spec.request.prompt)
    question = question if len(question) <= _SHOWN else f"{question[: _SHOWN - 1]}…"
    state = record.state if record.code is None else f"{record.state} ({record.code})"
    events = f"{record.events} event{'' if record.events == 1 else 's'}"
    return f"{record.run_id}  {state}  {accepted}  {events}  {record.spec.strategy.name}  {question}"


def _write_json(value: object) -> None:
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - as above

    write_document(value)
