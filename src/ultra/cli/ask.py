"""`ultra ask`: several models answer, and the answers are merged."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from ultra.cli.arguments import (
    Question,
    find_configuration,
    parse_ensemble,
    parse_models,
    parse_names,
    parse_on_cut,
    parse_quorum,
    read_parts,
    read_prompt,
    read_schema,
)
from ultra.cli.commands import new_app

__all__ = ["app"]

app = new_app()


@app.command(epilog="Exit code: 0 answered (a degraded answer says so), 1 failed, 2 bad usage, 130 Ctrl-C.")
def ask(
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", show_default=False, help="The question; - reads it from stdin."),
    ],
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PROVIDER:MODEL[@WEIGHT]",
            help="A model to ask; repeat it for more. The one of highest weight that answered writes the "
            "synthesis. Without it: those of ultra.toml, if that is here; or else a model of each provider "
            "whose key is set; or else the three voices of the local model. 'ultra models' lists providers.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with the models and settings.  [default: ultra.toml, if it is here; more "
            "than models and limits it may use once it is trusted: ultra config trust]",
            show_default=False,
        ),
    ] = None,
    chosen: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="NAME,...", help="Ask only these of the models, by name."),
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask this ensemble of the configuration: its models, in its way."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How the models are asked and their answers merged: synthesize, vote, best_of, fields, "
            "one of an installed package, or a class of your own, as module:Class.  [default: synthesize; "
            "best_of for voices of the local model alone]",
        ),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE,...", help="The stages to run.  [default: initial,synthesis]"),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="FILE|URL",
            help="An image that belongs to the question (PNG, JPEG, GIF, WebP); repeat it for more.",
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="FILE|URL",
            help="A document that belongs to the question (PDF, or text); repeat it for more.",
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="The JSON schema of the answer, which is then JSON that satisfies it; --strategy fields "
            "merges the models' answers field by field.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system prompt for the models' answers.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long all of it may take; the stages share it."),
    ] = None,
    quorum: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="How many models must answer for the run to go on.  [default: 1]"),
    ] = None,
    on_cut: Annotated[
        str | None,
        typer.Option(
            metavar="tell|continue|next",
            help="What becomes of a synthesis that is cut off: tell it, let its model continue it, or ask "
            "the next model.  [default: tell]",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result, or the error, as one JSON document.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print plain text, as for pipes and logs, on a terminal too.")
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log to stderr in lines of JSON; -vv logs more.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            help="Log to stderr; -vv logs more.",
            show_default=False,
        ),
    ] = 0,
) -> int:
    """Ask several models the same question and merge their answers.

    The models answer side by side. Where all come to the same short answer, it stands; otherwise one of
    them merges the answers. Another strategy, or stages, can be chosen. Then a line for each model tells
    its time, tokens, calls, and how far it agreed with the others.
    """
    # The models' side takes longer to import than a misspelt option to be found.
    from ultra.cli.default_models import choose_models  # noqa: PLC0415
    from ultra.cli.json_output import reporting_errors  # noqa: PLC0415
    from ultra.cli.session import open_view, run  # noqa: PLC0415

    with reporting_errors(enabled=as_json):
        configuration = find_configuration(config, models)
        question = Question(
            prompt=read_prompt(prompt),
            parts=read_parts(images, files),
            models=parse_models(models or choose_models()) if configuration is None else (),
            configuration=configuration,
            found=config is None,
            chosen=parse_names(chosen),
            strategy=strategy,
            stages=parse_names(stages),
            system=system,
            timeout=timeout,
            quorum=parse_quorum(quorum),
            on_cut=parse_on_cut(on_cut),
            schema=read_schema(schema),
            ensemble=parse_ensemble(ensemble, configuration),
        )
        return run(question, open_view(as_json=as_json, plain=plain), verbose=verbose, log_json=log_json)
