"""`ultra strategies`: what each strategy does, what it costs, and when it pays."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ultra.cli.commands import new_app
from ultra.cli.completion import complete_strategies
from ultra.cli.output import write, write_wrapped
from ultra.cli.printable_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.strategies.explained import Explained

__all__ = ["app"]

app = new_app()

_WIDTH: Final = 88


@app.command()
def strategies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            show_default=False,
            help="Explain this strategy in full.",
            autocompletion=complete_strategies,
        ),
    ] = None,
    *,
    models: Annotated[
        int, typer.Option(metavar="N", min=1, help="Count the calls of a run of so many models.")
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as one JSON document.")] = False,
) -> int:
    """Explain the strategies: what each does, how many calls it makes, and when it pays.

    The calls are those of a run without failures, with the default options. Strategies of installed packages
    are listed by name.
    """
    from ultra.strategies.catalog import strategy_options, strategy_packages  # noqa: PLC0415 - not for the help alone
    from ultra.strategies.explained import EXPLAINED, explained  # noqa: PLC0415 - as above

    if as_json:
        from ultra.cli.json_output import write_document  # noqa: PLC0415 - as above

        chosen = EXPLAINED.values() if name is None else [explained(name)]
        write_document([_document(each, models) for each in chosen])
        return 0
    if name is not None:
        write(*_in_full(explained(name), models, strategy_options(name)))
        return 0
    number = "1 model" if models == 1 else f"{models} models"
    rows = [("strategy", f"calls, {number}", "pays for")]
    rows += [(each.name, str(each.calls_for(models)), each.pays) for each in EXPLAINED.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    indent = sum(widths) + 4
    for row in rows:
        write_wrapped(f"{row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}", indent=indent)
    for other, packages in strategy_packages().items():
        if other in EXPLAINED:
            note = "not used: the name is one of Ultra's own"
        elif len(packages) > 1:
            note = "cannot be used: several packages have this name"
        else:
            note = "of an installed package"
        write(f"{one_line(other).ljust(widths[0])}  {note}: {one_line(', '.join(packages))}")
    write("", "'ultra strategies NAME' explains one in full.")
    return 0


def _in_full(each: Explained, models: int, options: tuple[str, ...]) -> Iterator[str]:
    yield from wrap(f"{each.name}: {each.does}", _WIDTH)
    yield ""
    number = "1 model" if models == 1 else f"{models} models"
    yield from _paragraph("calls", f"{each.calls_for(models)} for {number} ({each.calls})")
    yield from _paragraph("pays for", each.pays)
    yield from _paragraph("not for", each.not_for)
    yield from _paragraph("options", ", ".join(options) or "none")
    yield from _paragraph("evidence", each.evidence)
    yield from _paragraph("measured", each.measured)


def _paragraph(title: str, text: str) -> Iterator[str]:
    for number, line in enumerate(wrap(text, _WIDTH - 10)):
        yield f"{title if not number else '':<10}{line}"


def _document(each: Explained, models: int) -> dict[str, object]:
    calls = each.calls_for(models)
    return {
        "name": each.name,
        "does": each.does,
        "models": models,
        "fewest_calls": calls.fewest,
        "most_calls": calls.most,
        "calls": each.calls,
        "pays": each.pays,
        "not_for": each.not_for,
        "evidence": each.evidence,
        "measured": each.measured,
    }
