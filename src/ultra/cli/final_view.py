"""The view of a run that shows the answer and nothing else; the rest goes to stderr, if it is asked for."""

from __future__ import annotations

import shutil
import sys
import time
from math import inf
from typing import TYPE_CHECKING, Self

from ultra.cli.output import replace_what_stdout_lacks, tell, write
from ultra.cli.printable_text import block, one_line
from ultra.cli.report import CUT_OFF, answer_text, degradations, summary
from ultra.cli.waiting_line import WaitingLine
from ultra.cli.wrapping import lines_taken

if TYPE_CHECKING:
    from types import TracebackType

    from ultra.cli.plain_view import PlainView
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult

__all__ = ["FinalView"]


class FinalView:
    """Writes the answer to stdout. On stderr it tells what is not as it should be.

    Where stderr is a terminal, a line there says what the run waits for, and the last one what it cost.

    Args:
        rest: shows all else on stderr.
        rendered: whether the answer's Markdown is drawn.
        silent: whether stdout gets nothing, since the answer goes to a file.
    """

    def __init__(
        self, *, rest: PlainView | None = None, rendered: bool = False, silent: bool = False
    ) -> None:
        self._rest = rest
        self._rendered = rendered
        self._silent = silent
        self._waiting = WaitingLine()
        self._moving = sys.stderr.isatty() and rest is None
        self._drawn = 0  # columns of the line that stands there
        self._began = time.monotonic()
        self.interval = 0.1 if self._moving else inf

    def __enter__(self) -> Self:
        replace_what_stdout_lacks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._erase()

    def show(self, event: Event) -> None:
        """Take one event."""
        self._waiting.apply(event)
        if self._rest is not None:
            self._rest.show(event)

    def refresh(self) -> None:
        """Draw the line again."""
        if self._moving:
            width = shutil.get_terminal_size().columns - 1
            line = self._waiting.text(time.monotonic() - self._began, width)
            self._erase()
            sys.stderr.write(line)
            sys.stderr.flush()
            self._drawn = len(line)

    def conclude(self, result: OrchestrationResult) -> None:
        """Write the answer, and on stderr what is not as it should be."""
        answer = result.final_synthesis
        if answer is not None and not self._silent:
            self._write(answer_text(answer))
        if self._rest is not None:
            self._rest.conclude(result)
            return
        if answer is not None and not answer.is_whole:
            tell(f"the answer is {CUT_OFF}")
        if result.status == "degraded":
            tell(f"degraded answer: {'; '.join(map(one_line, degradations(result)))}")
        if self._moving:
            tell(summary(result))

    def _write(self, text: str) -> None:
        if not self._rendered:
            write(block(text))
            return
        from ultra.cli.markdown import drawn_markdown  # noqa: PLC0415 - rich takes long to import
        from ultra.cli.terminal import open_console  # noqa: PLC0415 - as above

        console = open_console()
        console.print(drawn_markdown(text, console))

    def _erase(self) -> None:
        if self._moving:
            # The line has more than one where the terminal was made narrower meanwhile.
            up = lines_taken([self._drawn], max(1, shutil.get_terminal_size().columns)) - 1
            sys.stderr.write("\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J")
            sys.stderr.flush()
            self._drawn = 0
