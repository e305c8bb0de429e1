"""`ultra eval`: what each way of asking and merging gains on questions of one's own, and what it costs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.arguments import parse_models, parse_names
from ultra.cli.commands import new_app
from ultra.cli.sources import find_sources
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.evals.replay import Unrecorded

__all__ = ["app"]

app = new_app()


@app.command(
    name="eval",
    epilog="Exit code: 0 measured, 1 failed, 2 bad usage, 130 Ctrl-C: what was recorded is kept, and the "
    "same command goes on from there.",
)
def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA.jsonl]",
            show_default=False,
            help="The questions, one a line: objects with prompt or messages, gold, grader, tag, schema, id.",
        ),
    ] = None,
    *,
    replayed: Annotated[
        Path | None,
        typer.Option(
            "--replay",
            metavar="PANEL",
            help="Measure recorded answers, and ask no model. Arms that need more answers are left out.",
        ),
    ] = None,
    simulated: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measure simulated models, of which theory knows the result."),
    ] = None,
    panel: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Where answers are recorded, and found again.  [default: beside DATA, as DATA.panel.jsonl]",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="PROVIDER:MODEL[@WEIGHT]", help="A model to ask, as in ask."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with the models; its ensembles are measured, too.  [default: ultra.toml, "
            "if it is here]",
            show_default=False,
        ),
    ] = None,
    chosen: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="NAME,...", help="Measure only these of the models, by name."),
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME[={options}]",
            help="A strategy to measure, with its options as JSON; repeat it for more.  [default: all]",
        ),
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who says what is right: exact, number, choice, contains, regex, json, code, judge:MODEL, "
            "or a function of your own as module:function.  [default: that of the panel, or exact]",
        ),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Let the grader code run what models wrote, and graders that DATA or PANEL name as "
            "module:function, as this user.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Measure only the first N questions.")
    ] = None,
    samples: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Ask one model at most so often for a baseline of equal cost."),
    ] = 15,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="DOLLARS", help="Ask nothing more once new answers have cost so much."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many requests are under way at most.")
    ] = 8,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model that grades answers where a strategy asks a judge."),
    ] = None,
    unrecorded: Annotated[
        str | None,
        typer.Option(
            metavar="stop|fail",
            help="With --replay, what becomes of a run that needs an answer which is not recorded: it cannot "
            "be measured, or that model fails and the strategy's fallback answers.  [default: stop]",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where a model is recorded as failed.")
    ] = False,
    fit: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Write ensembles for ultra.toml: votes with the weights, and a cascade with the threshold, "
            "that the answers suggest.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the report as one page with plots.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the report as Markdown.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report, or the error, as one JSON document.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, metavar="", help="Log to stderr.", show_default=False),
    ] = 0,
) -> int:
    """Measure what each strategy gains on questions with known answers, and what it costs.

    Each answer of a model is asked for and recorded once; every arm reads the same answers. The report sets
    each strategy beside the best single model and beside several samples of it at equal cost, with
    intervals, and says what so many questions can show.
    """
    if (data is not None) + (replayed is not None) + (simulated is not None) != 1:
        raise BadCall(
            "give one of: DATA.jsonl, whose questions the models are asked; --replay PANEL; or "
            "--simulated NAME, which needs neither"
        )
    if unrecorded not in {None, "stop", "fail"}:
        raise BadCall(f"--unrecorded is {unrecorded!r}; give stop or fail")
    if data is None:
        given = {
            "--model": models,
            "--config": config,
            "--panel": panel,
            "--max-cost": max_cost,
            "--retry-failed": retry_failed or None,
        }
        for option, value in given.items():
            if value is not None:
                raise BadCall(f"{option} is for questions that are asked; no model is asked here")
    elif unrecorded is not None:
        raise BadCall("--unrecorded is for --replay; here what is not recorded is asked for")
    sources = () if data is None else find_sources(config, models)
    how: Unrecorded = "fail" if unrecorded == "fail" else "stop"

    from ultra.cli.eval_session import Wanted, run  # noqa: PLC0415 - it takes longer to import than a mistake
    from ultra.cli.json_output import reporting_errors  # noqa: PLC0415 - as above

    with reporting_errors(enabled=as_json):
        wanted = Wanted(
            data=data,
            replayed=replayed,
            simulated=simulated,
            panel=panel,
            models=parse_models(models or ()),
            sources=sources,
            chosen=parse_names(chosen),
            strategies=tuple(strategies or ()),
            grader=grader,
            allow_code=allow_code,
            limit=limit,
            samples=samples,
            max_cost=max_cost,
            concurrency=concurrency,
            judge=judge,
            unrecorded=how,
            retry_failed=retry_failed,
            fit=fit,
            html=html,
            markdown=markdown,
            as_json=as_json,
        )
        return run(wanted, verbose=verbose)
