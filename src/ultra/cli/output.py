"""The one way by which commands write text, beside JSON and what rich draws: printable, whoever wrote it."""

from __future__ import annotations

import sys

from ultra.cli.printable_text import one_line, printable

__all__ = ["tell", "write"]


def write(*lines: str, to_stderr: bool = False) -> None:
    """Write these lines to stdout; text of others that must not break one goes through `one_line` first."""
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    stream.flush()


def tell(message: object) -> None:
    """Write one line to stderr, which says that the command says it."""
    sys.stderr.write(f"ultra: {one_line(str(message))}\n")
    sys.stderr.flush()
