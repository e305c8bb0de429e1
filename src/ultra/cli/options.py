"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["LogJson", "MaxTokens", "ModelOptions", "Temperature", "Verbose"]

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, metavar="", help="Log to stderr; -vv logs more.", show_default=False
    ),
]

LogJson = Annotated[bool, typer.Option("--log-json", help="Log to stderr in lines of JSON; -vv logs more.")]

Temperature = Annotated[
    float | None, typer.Option(metavar="NUMBER", help="How freely the models write, from 0.")
]

MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", help="How long an answer of a model may be, in tokens.")
]

ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Another option of how models write; MODEL.NAME=VALUE: of one model alone.",
    ),
]
