"""`ultra config trust`: let a configuration be used where it lies, without naming it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultra.cli.output import write
from ultra.cli.printable_text import one_line
from ultra.cli.sources import CONFIGURATION

__all__ = ["trust"]


def trust(
    path: Annotated[
        Path | None, typer.Argument(help="The file to trust.  [default: ultra.toml]", show_default=False)
    ] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no more.")] = False,
) -> None:
    """Trust a configuration as it is now, so that it is used in its directory without being named.

    A file that is found and not named may be somebody else's. Until it is trusted, it can choose models,
    weights and limits, and nothing else: no environment variables, endpoints, stores, prompts, headers or
    code. Trust is remembered for its path and its content; once it has changed, it needs trust again. Look
    into it first.
    """
    from ultra.config.file import ConfigurationFile  # noqa: PLC0415 - not for the help alone
    from ultra.config.trust import described_wishes, forget, remember  # noqa: PLC0415 - as above

    path = path or Path(CONFIGURATION)
    if remove:
        was_trusted = forget(path)
        write(one_line(f"{path}: {'trusted no more' if was_trusted else 'it was not trusted'}"))
        return
    file = ConfigurationFile.read(path)
    wanted = described_wishes(file)
    remember(file)
    write(
        one_line(
            f"{path}: trusted as it is now; it may use {', '.join(wanted) or 'nothing that needs trust'}"
        )
    )
