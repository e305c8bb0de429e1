"""`ultra chat`: a conversation with several models, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from ultra.cli.arguments import (
    Question,
    asking_to_show,
    check_ensemble,
    check_sampling,
    parse_models,
    parse_names,
    parse_pairs,
    parse_shown,
    split_by_model,
)
from ultra.cli.commands import new_app
from ultra.cli.completion import (
    complete_ensembles,
    complete_identifiers,
    complete_models,
    complete_strategies,
)
from ultra.cli.options import (  # noqa: TC001 - typer reads them
    ConversationOption,
    MaxTokens,
    ModelOptions,
    NoLog,
    Resume,
    Temperature,
    Verbose,
)
from ultra.cli.sources import find_sources

__all__ = ["app"]

app = new_app()


@app.command(epilog="Exit code: 0 at its end, 2 bad usage. Ctrl-C stops an answer, and the chat goes on.")
def chat(
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PROVIDER:MODEL[@WEIGHT]",
            autocompletion=complete_identifiers,
            help="A model to talk with; repeat it for more.  [default: as for ultra ask]",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A configuration with the models and settings."),
    ] = None,
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--models", metavar="NAME,...", autocompletion=complete_models, help="Only these of the models."
        ),
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(
            "--ensemble", "-e", metavar="NAME", autocompletion=complete_ensembles, help="This ensemble."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=complete_strategies, help="How answers are merged."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system prompt.")] = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    options: ModelOptions = None,
    resume: Resume = False,
    conversation: ConversationOption = None,
    no_log: NoLog = False,
    all_answers: Annotated[
        bool, typer.Option("--all", help="Show the answers of all models, not only the one that stands.")
    ] = False,
    shown: Annotated[
        list[str] | None,
        typer.Option(
            "--show",
            metavar="analysis|reasoning",
            help="As --all, and show the analysis, or what the models think; repeat it for both.",
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print plain text.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each result, or error, as one line of JSON.")
    ] = False,
    verbose: Verbose = 0,
) -> int:
    """Talk with several models: each question goes to all of them, and their merged answer goes on.

    Enter sends; Alt-Enter, or a backslash at the end of a line, starts a new line. Lines that begin with /
    are commands; /help lists them. Ctrl-C stops an answer, Ctrl-D ends the chat. Where stdin is no terminal,
    each of its lines is a question.
    """
    from ultra.cli.chat_session import Chat  # noqa: PLC0415 - not for the help alone
    from ultra.cli.default_models import choose_models  # noqa: PLC0415 - as above
    from ultra.cli.json_output import reporting_errors  # noqa: PLC0415 - as above
    from ultra.cli.session import Output  # noqa: PLC0415 - as above
    from ultra.cli.stored_keys import use_stored_keys  # noqa: PLC0415 - as above

    with reporting_errors(enabled=as_json):
        past = None
        if resume or conversation:
            from ultra.cli.past import find_past  # noqa: PLC0415 - not all chats go on

            past = find_past(conversation, answered=True)
        as_then = past is not None and not (models or config or chosen or ensemble or strategy)
        if as_then and past is not None:
            models = list(past.asked.models)
        sources = find_sources(config, models)
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        sampling = {name: value for name, value in sampling.items() if value is not None}
        for_all, per_model = split_by_model(parse_pairs("--option", options))
        question = Question(
            chosen=parse_names(chosen),
            strategy=strategy,
            system=system,
            ensemble=check_ensemble(ensemble, sources),
            sampling=asking_to_show(check_sampling({**for_all, **sampling}), parse_shown(shown)),
            per_model=per_model,
            is_kept=not no_log,
            sources=sources,
        )
        if past is not None:
            question = past.continued(past.like_then(question) if as_then else question)
        output = Output(
            as_json=as_json,
            plain=plain,
            final=not (all_answers or shown),
            shown=parse_shown(shown),
            verbose=verbose,
        )
        use_stored_keys()
        if not sources:
            question = replace(question, models=parse_models(models or choose_models()))
        return Chat(question, output).run()
