"""The view of a run as plain text, for pipes and logs: each answer as a whole, when it has come."""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Self

from ultra.cli.output import replace_what_stdout_lacks, write_wrapped
from ultra.cli.printable_text import block, one_line
from ultra.cli.report import (
    CUT_OFF,
    HIDDEN,
    REASONING,
    answer_name,
    answer_text,
    degradations,
    headings,
    is_hidden,
    model_lines,
    seconds,
    step_name,
    summary,
    unshown_answer,
)
from ultra.cli.thoughts import Thoughts
from ultra.messages.events import (
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ReasoningChunk,
    call_of,
)
from ultra.messages.results import sample_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType

    from ultra.messages.events import CallKey
    from ultra.messages.results import OrchestrationResult

__all__ = ["PlainView"]


class PlainView:
    """Writes blocks of text with blank lines between them; `shown`: what is not left out."""

    interval = inf

    def __init__(self, *, to_stderr: bool = False, shown: Collection[str] = tuple(HIDDEN)) -> None:
        self._to_stderr = to_stderr
        self._shown = shown
        self._thoughts: defaultdict[CallKey, Thoughts] = defaultdict(Thoughts)

    def __enter__(self) -> Self:
        replace_what_stdout_lacks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Write an answer or a failure."""
        match event:
            case ModelResponded() if is_hidden(event.stage, self._shown):
                pass
            case ModelResponded():
                time = seconds(event.response.response_time)
                cut = "" if event.response.is_whole else f", {CUT_OFF}"
                self._write(f"--- {_heading(event)}, {time}{cut}")
                thought = self._thoughts.pop(call_of(event), Thoughts()).of(event.response)
                if thought and REASONING in self._shown:
                    self._write(*(f"| {line}" for line in block(thought).splitlines()), "")
                self._write(block(answer_text(event.response)), "")
            case ModelFailed():
                self._write(f"--- {_heading(event)}, failed", one_line(event.failure.message), "")
            case ReasoningChunk() | ModelRetrying():
                self._thoughts[call_of(event)].take(event)
            case _:
                pass

    def refresh(self) -> None:
        """Do nothing."""

    def conclude(self, result: OrchestrationResult) -> None:
        """Write the answer, unless the last step has shown it, a line for each model, how the run went."""
        answer = unshown_answer(result)
        if answer is not None:
            name = one_line(answer_name(answer))
            best = result.synthesis_source == "best_candidate"
            heading = f"best answer: {name}, in place of a synthesis" if best else f"answer: {name}"
            heading += "" if answer.is_whole else f", {CUT_OFF}"
            self._write(f"--- {heading}", block(answer_text(answer)), "")
        self._write(*_aligned([headings(result), *(line.cells for line in model_lines(result))]))
        reasons = degradations(result)
        if result.status == "degraded" or reasons:
            self._write("", f"{result.status}:", *(f"- {one_line(reason)}" for reason in reasons))
        self._write("", summary(result))

    def _write(self, *lines: str) -> None:
        write_wrapped(*lines, to_stderr=self._to_stderr)


def _heading(event: ModelResponded | ModelFailed) -> str:
    """Return the step and the answer that an event is about."""
    return f"{step_name(event.stage, event.round)}: {one_line(sample_name(event.model_name, event.sample))}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines, the first column aligned left and the others right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)]
        first, *others = zip(row, gaps, strict=True)
        lines.append("  ".join([f"{first[0]}{first[1]}", *(f"{gap}{cell}" for cell, gap in others)]))
    return lines


def _cells(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for each East Asian character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - it takes long to import

    return cell_len(text)
