"""`ultra models`: which providers can be used here, and why others cannot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict, replace

from ultra.cli.arguments import EMBEDDED_MODELS
from ultra.cli.commands import new_app
from ultra.cli.output import write
from ultra.cli.printable_text import one_line

if TYPE_CHECKING:
    from ultra.cli.configured_models import Configured
    from ultra.clients import ProviderStatus

__all__ = ["app"]

app = new_app()


@app.command()
def models(
    *,
    provider: Annotated[
        str | None,
        typer.Option(
            "--all", metavar="PROVIDER", help="Ask this provider which models it offers.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as one JSON document.")] = False,
) -> int:
    """List the models that can be used here, and why others cannot.

    First those of the configurations that ultra ask uses here, with their ensembles, then the providers. No
    model is called: a key that is set counts as usable, and for a server on this machine a
    connection is tried. Any model of a usable provider can be asked; the list has an example of each.

    With --all, the provider's own list is asked for, and what the catalog knows of each model stands beside
    it: its window and its longest answer in tokens, what it reads, whether it calls tools, how it is made to
    write JSON, whether it reasons, and its price. A question mark is what is not known.
    """
    from ultra.cli.stored_keys import use_stored_keys  # noqa: PLC0415 - not for the help alone

    kept = use_stored_keys()
    if provider is not None:
        from ultra.cli.offered_models import show_offered  # noqa: PLC0415 - not for the help alone

        return show_offered(provider, as_json=as_json)
    from ultra.cli.configured_models import find_configured  # noqa: PLC0415 - not for the help alone
    from ultra.clients import provider_statuses  # noqa: PLC0415 - as above

    configured = find_configured()
    statuses = [
        replace(status, detail="key in the keyring") if status.available and status.name in kept else status
        for status in provider_statuses()
    ]
    if as_json:
        from ultra.cli.json_output import write_document  # noqa: PLC0415 - as above

        write_document([*configured, *({"kind": "provider", **asdict(status)} for status in statuses)])
    elif sys.stdout.isatty():
        _draw(configured, statuses)
    else:
        _write(configured, statuses)
    return 0


def _draw(configured: list[Configured], statuses: list[ProviderStatus]) -> None:
    from rich.console import Group  # noqa: PLC0415 - only for a terminal
    from rich.rule import Rule  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from ultra.cli.terminal import open_console  # noqa: PLC0415

    own = Table.grid(padding=(0, 3, 0, 0))
    ready = Table.grid(padding=(0, 3, 0, 0))
    others = Table.grid(padding=(0, 3, 0, 0))
    for each in configured:
        style = None if each.available else "dim"
        own.add_row(Text(one_line(each.example), "bold"), Text(one_line(each.detail)), style=style)
    for status in statuses:
        if status.available:
            ready.add_row(
                Text("\n".join(map(one_line, _examples(status))), "bold"), Text(one_line(status.detail))
            )
        else:
            others.add_row(Text(one_line(status.name), "bold"), Text(one_line(status.detail)), style="dim")
    console = open_console()
    for title, table in (("Configured", own), ("Ready", ready), ("Not ready", others)):
        if table.row_count:
            console.print(Group(Text(), Rule(Text(title, style="bold"), align="left", style="dim"), table))


def _write(configured: list[Configured], statuses: list[ProviderStatus]) -> None:
    rows = [
        tuple(map(one_line, (each.name, "ready" if each.available else "no", each.example, each.detail)))
        for each in configured
    ]
    rows += [
        tuple(map(one_line, (status.name, "ready" if status.available else "no", example, status.detail)))
        for status in statuses
        for example in _examples(status)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(cells).rstrip())


def _examples(status: ProviderStatus) -> tuple[str, ...]:
    """Return examples of what follows ``--model``; of the embedded model, all of its voices."""
    return EMBEDDED_MODELS if status.name == "local" and status.available else (status.example,)
