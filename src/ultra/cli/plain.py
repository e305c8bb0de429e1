"""A run as plain text for pipes and logs: each answer as a whole, when it is there."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Self

from ultra.cli.report import HEADINGS, cost, degradations, model_lines, seconds
from ultra.cli.text import block, one_line
from ultra.messages.events import Event, ModelFailed, ModelResponded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ultra.messages.results import ModelResponse, OrchestrationResult

__all__ = ["PlainView"]


class PlainView:
    """Writes blocks with a blank line between them; nothing that was written is taken back."""

    interval = inf

    def __enter__(self) -> Self:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Write the answer or the failure that `event` tells of."""
        match event:
            case ModelResponded():
                self._write_response(event.response)
            case ModelFailed():
                heading = f"--- {event.stage}: {one_line(event.model_name)}, failed"
                _write(heading, one_line(event.failure.message), "")
            case _:
                pass

    def refresh(self) -> None:
        """Do nothing: time changes nothing here."""

    def conclude(self, result: OrchestrationResult) -> None:
        """Write a line for each model; say whether the answer is degraded, and its cost if that is known."""
        if result.synthesis_source == "best_candidate" and result.final_synthesis is not None:
            best = result.final_synthesis
            _write(
                f"--- best answer: {one_line(best.model_name)}, in place of a synthesis",
                block(best.content),
                "",
            )
        _write(*_aligned([HEADINGS, *(line.cells for line in model_lines(result))]))
        reasons = degradations(result)
        if result.status == "degraded" or reasons:
            _write("", f"{result.status}:", *(f"- {one_line(reason)}" for reason in reasons))
        if (amount := cost(result)) is not None:
            _write("", f"cost: {one_line(amount)}")

    def _write_response(self, response: ModelResponse) -> None:
        heading = f"--- {response.stage}: {one_line(response.model_name)}, {seconds(response.response_time)}"
        _write(heading, block(response.content), "")


def _write(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, the first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
