"""`ultra log`: the history of the command, which is in the user's journal."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.arguments import parse_shown
from ultra.cli.commands import new_app
from ultra.cli.completion import complete_runs
from ultra.cli.journal import JournalOption, JsonOption  # noqa: TC001 - typer reads them
from ultra.cli.output import tell

if TYPE_CHECKING:
    from ultra.cli.log_table import LogRow
    from ultra.stores.journal_contract import RunJournal

__all__ = ["app"]

app = new_app()

Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", help="At most so many, the newest.", min=1)]


@app.callback(
    invoke_without_command=True, epilog="Exit code: 0 done, 1 the journal cannot be read, 2 bad usage."
)
def log(
    context: typer.Context, *, limit: Limit = 20, journal: JournalOption = None, as_json: JsonOption = False
) -> int:
    """List what was asked, the newest first; show one run, or search for words.

    Every ultra ask, and every question of ultra chat, is kept in the user's journal with its answers, unless
    it was asked with --no-log, or the user's configuration says [history] enabled = false. ultra ask -c goes
    on with the last conversation; ultra runs has the other commands of the journal: follow, delete, replay.
    """
    if context.invoked_subcommand is not None:
        return 0
    _list(None, limit, journal, as_json=as_json)
    return 0


@app.command()
def show(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The id of the run, or its beginning.  [default: the newest]",
            autocompletion=complete_runs,
            show_default=False,
        ),
    ] = None,
    *,
    journal: JournalOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the answer there.")
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="Print the answer alone, as on a pipe.")] = False,
    shown: Annotated[
        list[str] | None,
        typer.Option(
            "--show",
            metavar="analysis|reasoning",
            help="Show the analysis, or what the models thought; repeat it for both.",
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print all of it as plain text, on a pipe, too.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show a run as it was: the question, the answers of the models, and the one that stands.

    A pipe gets the answer alone; with --json, the run with its request and its result.
    """
    from ultra.cli.json_output import reporting_errors  # noqa: PLC0415 - not for the help alone
    from ultra.cli.log_show import show_run  # noqa: PLC0415 - as above
    from ultra.cli.session import Output  # noqa: PLC0415 - as above

    with reporting_errors(enabled=as_json):
        return show_run(
            run,
            journal,
            Output(as_json=as_json, plain=plain, final=final, file=output, shown=parse_shown(shown)),
        )


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All of them must occur.")],
    *,
    limit: Limit = 20,
    journal: JournalOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the runs whose question and answer have all of these words, or parts of words, in any case."""
    _list(words, limit, journal, as_json=as_json)
    return 0


def _list(words: list[str] | None, limit: int, journal: str | None, *, as_json: bool) -> None:
    from ultra.cli.journal import default_journal, with_journal  # noqa: PLC0415 - not for the help alone
    from ultra.cli.json_output import reporting_errors, write_document  # noqa: PLC0415 - as above
    from ultra.cli.log_table import read_rows, write_rows  # noqa: PLC0415 - as above

    async def find(store: RunJournal) -> list[LogRow]:
        return await read_rows(store, words or (), limit)

    with reporting_errors(enabled=as_json):
        is_empty = journal is None and not default_journal().is_file()
        rows = [] if is_empty else with_journal(journal, find)
        if as_json:
            write_document(rows)
        elif rows:
            write_rows(rows)
        else:
            tell("nothing is in the history that has these words" if words else "the history is empty")
