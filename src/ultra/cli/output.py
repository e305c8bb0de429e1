"""The one way by which commands write text, beside JSON and what rich draws: printable, whoever wrote it."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from textwrap import wrap
from typing import TYPE_CHECKING

from ultra.cli.printable_text import one_line, printable

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["replace_what_stdout_lacks", "tell", "write", "write_wrapped"]


def replace_what_stdout_lacks() -> None:
    """Let stdout write a question mark for what its encoding does not have, in place of an error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def write(*lines: str, to_stderr: bool = False) -> None:
    """Write these lines to stdout; text of others that must not break one goes through `one_line` first."""
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    stream.flush()


def write_wrapped(*lines: str, indent: int = 0, to_stderr: bool = False) -> None:
    """Write lines as `write` does; on a terminal that is narrower they go on in the next, at this indent."""
    stream = sys.stderr if to_stderr else sys.stdout
    each = (line for text in lines for line in printable(text).split("\n"))
    write(*(part for line in each for part in _wrapped(line, stream, indent)), to_stderr=to_stderr)


def tell(message: object) -> None:
    """Write one line to stderr, which says that the command says it; a narrow terminal gets whole words."""
    lines = _wrapped(f"ultra: {one_line(str(message))}", sys.stderr)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _wrapped(line: str, stream: TextIO, indent: int = 0) -> list[str]:
    """Return the lines that a text of one line is on the terminal of the stream; elsewhere it stays whole."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # it is no terminal, or no file at all
        return [line]
    if len(line) <= width or width < 1:
        return [line]
    behind = " " * (indent if indent < width // 2 else min(indent, 2))
    lines = wrap(
        line,
        width,
        subsequent_indent=behind,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return lines or [""]  # of blanks alone
