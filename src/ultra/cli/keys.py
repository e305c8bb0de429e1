"""`ultra keys`: keep keys of providers in the system's keyring."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.completion import complete_providers
from ultra.cli.output import tell, write
from ultra.cli.printable_text import one_line

__all__ = ["app"]

app = new_app()

Provider = Annotated[
    str,
    typer.Argument(
        metavar="PROVIDER", help="The provider, such as openai.", autocompletion=complete_providers
    ),
]


@app.callback()
def keys() -> None:
    """Keep keys of providers in the system's keyring, for the commands. Extra: keyring.

    A key in the environment, such as OPENAI_API_KEY, goes before the one that is kept. Programs that use
    Ultra as a library do not look into the keyring.
    """


@app.command("set")
def set_key(provider: Provider) -> None:
    """Keep a key: it is asked for without being shown, or read from stdin where that is no terminal."""
    from ultra.cli.stored_keys import store_key  # noqa: PLC0415 - not for the help alone
    from ultra.clients.providers import find_provider  # noqa: PLC0415 - as above

    find_provider(provider)  # a misspelt name is told of before anything is typed
    store_key(provider, _read_key(provider))
    write(one_line(f"the key of {provider} is kept in the keyring"))


@app.command("list")
def list_keys(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the list as one JSON document.")] = False
) -> None:
    """List the providers that have a key, and where it is. Keys are not shown."""
    from ultra.cli.json_output import write_document  # noqa: PLC0415 - not for the help alone
    from ultra.cli.stored_keys import key_names  # noqa: PLC0415 - as above
    from ultra.clients.catalog import PROVIDERS  # noqa: PLC0415 - as above
    from ultra.clients.providers import key_variable  # noqa: PLC0415 - as above

    kept = key_names()
    rows = []
    for name in dict.fromkeys([*PROVIDERS, *kept]):
        if (variable := key_variable(name)) is not None:
            rows.append({"provider": name, "source": "environment", "variable": variable})
        elif name in kept:
            rows.append({"provider": name, "source": "keyring"})
    if as_json:
        write_document(rows)
        return
    for row in rows:
        where = f"environment, {row['variable']}" if "variable" in row else "keyring"
        write(f"{one_line(row['provider']):12} {where}")
    if not rows:
        tell("no provider has a key; keep one by: ultra keys set openai")


@app.command("delete")
def delete(provider: Provider) -> None:
    """Keep a key no more."""
    from ultra.cli.stored_keys import delete_key  # noqa: PLC0415 - not for the help alone

    delete_key(provider)
    write(one_line(f"the key of {provider} is no longer kept"))


def _read_key(provider: str) -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - only on a terminal

        return getpass(f"Key of {provider} (it is not shown): ", stream=sys.stderr)
    return "" if sys.stdin is None else sys.stdin.readline(65_536)
