"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from ultra.cli.completion import complete_options, complete_runs

__all__ = [
    "ConversationOption",
    "LogJson",
    "MaxTokens",
    "ModelOptions",
    "NoLog",
    "Resume",
    "Temperature",
    "Verbose",
]

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
        autocompletion=complete_options,
        help="Another option of how models write; MODEL.NAME=VALUE: of one model alone.",
    ),
]

Resume = Annotated[
    bool,
    typer.Option("--continue", "-c", help="Go on with the last conversation, and with whom it was."),
]

ConversationOption = Annotated[
    str | None,
    typer.Option(
        "--conversation",
        metavar="RUN",
        autocompletion=complete_runs,
        help="Go on from this run of the history; its id, or the beginning of it (ultra log).",
    ),
]

NoLog = Annotated[
    bool,
    typer.Option("--no-log", help="Keep nothing of it in the history; [history] enabled = false: never."),
]
