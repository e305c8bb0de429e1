"""`ultra models --all`: what a provider offers by its own API, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.cli.json_output import reporting_errors, write_document
from ultra.cli.output import tell, write
from ultra.cli.printable_text import one_line
from ultra.cli.signals import run_until_signalled
from ultra.clients import list_models

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.clients.catalog import ModelInfo
    from ultra.clients.dialects.model_lists import OfferedModel

__all__ = ["show_offered"]

_HEAD: Final = ("model", "window", "answer", "reads", "tools", "json by", "reasons", "$ in/out per 1M")

_LONGEST_NAME: Final = 100
"""Characters of a name that are shown; JSON has all."""

_TIMEOUT: Final = 60.0
"""Seconds for all pages of a list."""


def show_offered(provider: str, *, as_json: bool) -> int:
    """Print the models that `provider` offers, and return the exit code. Raises what `list_models` raises."""
    found: list[OfferedModel] = []

    async def ask() -> None:
        found.extend(await list_models(provider, timeout=_TIMEOUT))

    with reporting_errors(enabled=as_json):
        ended_by = run_until_signalled(ask)
        if ended_by is not None:
            return 128 + ended_by
        if as_json:
            write_document(found)
        elif found:
            _write(found)
        else:
            tell(f"{provider} offers no models")
    return 0


def _write(models: Iterable[OfferedModel]) -> None:
    rows = [_HEAD, *((_shown_name(model.name), *_cells(model.info)) for model in models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(cells).rstrip())


def _shown_name(name: str) -> str:
    name = one_line(name[: _LONGEST_NAME + 1])
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _cells(info: ModelInfo) -> tuple[str, ...]:
    """Return what is known of a model; a question mark is what is not."""
    price = info.price
    return (
        _number(info.context_window),
        _number(info.output_limit),
        _read_by(info),
        _yes(info.tools),
        info.output or "?",
        _yes(info.reasoning),
        "?" if price is None else f"{price.input:g}/{price.output:g}",
    )


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _yes(value: bool | None) -> str:  # noqa: FBT001 - of three values
    return {True: "yes", False: "no", None: "?"}[value]


def _read_by(info: ModelInfo) -> str:
    kinds = [name for name in ("images", "pdf", "audio") if getattr(info, name)]
    unknown = ["?"] if info.images is None else []
    return ", ".join(("text", *kinds, *unknown))
