"""The user's journal, which has the history of the command and the runs that programs submit to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import typer

from ultra.cli.completion import complete_runs
from ultra.cli.user_paths import data_folder
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ultra.messages.results import OrchestrationResult
    from ultra.stores.journal_contract import RunJournal, RunRecord, RunState

__all__ = [
    "JournalOption",
    "JsonOption",
    "RunArgument",
    "default_journal",
    "described",
    "each_run",
    "find_run",
    "find_run_id",
    "result_of",
    "store_of",
    "with_journal",
]

T = TypeVar("T")

_PAGE: Final = 200
"""Runs that are read at once."""

_SHORTEST_BEGINNING: Final = 4
"""Characters of an id that name a run."""

JournalOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="sqlite:///PATH",
        help="The journal.  [default: runs.db in the user's data directory]",
        show_default=False,
    ),
]
RunArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="RUN", help="The id of the run, or its beginning.", autocompletion=complete_runs),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def default_journal() -> Path:
    """Return the file of the journal that commands use where none is named."""
    return data_folder() / "runs.db"


def store_of(given: str | None) -> str:
    """Return the setting of the journal; raise `BadCall` for a file that is not there."""
    if given is not None and "://" in given and not given.startswith("sqlite:///"):
        return given
    path = default_journal() if given is None else Path(given.removeprefix("sqlite:///"))
    if not path.is_file():
        hint = "name one: --journal sqlite:///runs.db" if given is None else "no run was submitted there"
        raise BadCall(f"there is no journal at {path}; {hint}")
    return f"sqlite:///{path}"


def with_journal(given: str | None, work: Callable[[RunJournal], Awaitable[T]]) -> T:
    """Open the journal, do `work` on it, and return what it returns. Raises `BadCall`, and what it raises."""
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.cli.logs import configure_logs  # noqa: PLC0415 - as above
    from ultra.stores.journal_opening import open_journal  # noqa: PLC0415 - as above

    async def use() -> T:
        journal = open_journal(store_of(given))
        try:
            return await work(journal)
        finally:
            await journal.aclose()

    configure_logs(0)
    return trio.run(use)


async def each_run(
    journal: RunJournal, *, owner: str | None = None, states: tuple[RunState, ...] = ()
) -> AsyncGenerator[RunRecord]:
    """Yield all runs, the last accepted first."""
    before: str | None = None
    while page := await journal.list_runs(owner=owner, states=states, before=before, limit=_PAGE):
        for record in page:
            yield record
        before = page[-1].run_id


async def find_run(journal: RunJournal, name: str) -> RunRecord:
    """Return the run of this id, or the one whose id begins so.

    Raises:
        UnknownRun: there is none.
        BadCall: there are several.
        JournalDamaged: it is damaged.
    """
    from ultra.errors import UnknownRun  # noqa: PLC0415 - not for the help alone

    found = await journal.get(name)
    if found is not None:
        return found
    names = len(name) >= _SHORTEST_BEGINNING
    fitting = [each async for each in each_run(journal) if each.run_id.startswith(name)] if names else []
    if not fitting:
        least = f"give at least {_SHORTEST_BEGINNING} characters of its id; "
        raise UnknownRun(name, f"{'' if names else least}'ultra log' lists those that there are")
    if len(fitting) > 1:
        raise BadCall(f"{len(fitting)} runs have an id that begins with {name!r}; give more of it")
    return await journal.get(fitting[0].run_id) or fitting[0]


async def find_run_id(journal: RunJournal, name: str) -> str:
    """Return the id of the run that `find_run` finds, of a damaged one, too."""
    from ultra.errors import JournalDamaged  # noqa: PLC0415 - not for the help alone

    try:
        return (await find_run(journal, name)).run_id
    except JournalDamaged as error:
        return error.run_id


async def result_of(journal: RunJournal, record: RunRecord) -> OrchestrationResult | None:
    """Return the result of a run; None: it has none, or none yet. Raises `JournalDamaged`."""
    from ultra.messages.events import RunCompleted  # noqa: PLC0415 - not for the help alone

    if record.state != "completed":
        return None
    last = await journal.read(record.run_id, record.events - 2)
    return last[-1].result if last and isinstance(last[-1], RunCompleted) else None


def described(record: RunRecord) -> dict[str, Any]:
    """Return a run as it is written in JSON: without the secret of its prompts."""
    from msgspec import structs, to_builtins  # noqa: PLC0415 - not for the help alone

    found: dict[str, Any] = to_builtins(
        structs.replace(record, spec=structs.replace(record.spec, secret=b""))
    )
    del found["spec"]["secret"]
    return found
