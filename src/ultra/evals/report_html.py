"""The report as one page of HTML that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from ultra.evals.plots import plots_of
from ultra.evals.report_text import headline, left_out, notes
from ultra.evals.tables import tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.evals.findings import Findings
    from ultra.evals.tables import Table

__all__ = ["as_html"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#111827;
background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.3rem .7rem;border-bottom:1px solid #e5e7eb;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
thead th{border-bottom:2px solid #9ca3af}
.helps{color:#166534;font-weight:600}.hurts{color:#991b1b;font-weight:600}
p.remark{color:#374151;font-size:.9rem;max-width:50rem}svg{max-width:100%;height:auto}figure{margin:0}
"""


def as_html(findings: Findings) -> str:
    """Return the page. Raises `MissingExtra` where matplotlib is not installed."""
    title = escape(f"Ultra evaluation: {findings.source}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{title}</h1>",
        *_listed(headline(findings)),
    ]
    first, *others = tables_of(findings)
    parts += _table(first)
    for name, svg in plots_of(findings).items():
        caption = escape(name)
        parts += [
            f"<h2>{caption}</h2>",
            f'<figure role="img" aria-label="{caption}">{svg}</figure>',
        ]
    for table in others:
        parts += _table(table)
    for title, lines in (("Notes", notes(findings)), ("What was not measured", left_out(findings))):
        if lines:
            parts += [f"<h2>{title}</h2>", *_listed(lines)]
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _listed(lines: Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escape(line)}</li>" for line in lines), "</ul>"]


def _table(table: Table) -> list[str]:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    lines = [
        f"<h2>{escape(table.title)}</h2>",
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">',
        f"<table><thead><tr>{head}</tr></thead><tbody>",
    ]
    for name, *cells in table.rows:
        row = "".join(_cell(cell) for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{row}</tr>')
    lines.append("</tbody></table></div>")
    if table.remark:
        lines.append(f'<p class="remark">{escape(table.remark)}</p>')
    return lines


def _cell(text: str) -> str:
    kind = f' class="{text}"' if text in {"helps", "hurts"} else ""
    return f"<td{kind}>{escape(text)}</td>"
