"""The report as text: for a terminal, or as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.evals.tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.evals.findings import Findings
    from ultra.evals.tables import Table

__all__ = ["as_markdown", "as_text", "headline", "left_out", "notes"]


def headline(findings: Findings) -> list[str]:
    """Return what was measured, and on what, in a few lines."""
    questions = f"{findings.questions} question{'s' * (findings.questions != 1)}"
    lines = [
        f"{findings.source}: {questions}, {len(findings.members)} models, graded by {findings.grader}",
        f"models: {', '.join(findings.members)}",
    ]
    lines += findings.notices
    if not findings.exact:
        lines.append(
            "intervals are approximations by formulas; the extra 'eval' has the bootstrap: "
            'pip install "ultra-llm[eval]"'
        )
    return lines


def notes(findings: Findings) -> list[str]:
    """Return what a reader must know of single arms."""
    return [f"{arm.name}: {arm.note}" for arm in findings.arms if arm.note]


def left_out(findings: Findings) -> list[str]:
    """Return what could not be measured, and why."""
    return [f"{name}: {why}" for name, why in findings.left_out.items()]


def as_text(findings: Findings) -> list[str]:
    """Return the lines of the report for a terminal."""
    lines = headline(findings)
    for table in tables_of(findings):
        lines += ["", table.title.upper(), *_aligned(table)]
        lines += _wrapped(table.remark)
    for title, told in (("NOTES", notes(findings)), ("NOT MEASURED", left_out(findings))):
        if told:
            lines += ["", title, *(line for each in told for line in _wrapped(each))]
    return lines


def as_markdown(findings: Findings, *, level: int = 2) -> str:
    """Return the report as Markdown, its tables under headings of this level."""
    lines = [f"- {line}" for line in headline(findings)]
    for table in tables_of(findings):
        lines += ["", f"{'#' * level} {table.title}", "", *markdown_table(table)]
        if table.remark:
            lines += ["", table.remark]
    for title, told in (("Notes", notes(findings)), ("Not measured", left_out(findings))):
        if told:
            lines += ["", f"{'#' * level} {title}", "", *(f"- {each}" for each in told)]
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [_markdown_row(table.columns), _markdown_row(("---", *("---:" for _ in table.columns[1:])))]
    return lines + [_markdown_row(row) for row in table.rows]


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _aligned(table: Table) -> Iterator[str]:
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in (table.columns, *table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  " + "  ".join(cells).rstrip()


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap  # noqa: PLC0415 - only reports need it

    return wrap(text, 100, initial_indent="  ", subsequent_indent="  ")
