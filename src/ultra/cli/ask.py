"""`ultra ask`: several models answer, and the answers are merged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.arguments import (
    Question,
    asking_to_show,
    check_ensemble,
    check_sampling,
    parse_models,
    parse_names,
    parse_on_cut,
    parse_pairs,
    parse_quorum,
    parse_shown,
    read_parts,
    read_schema,
    split_by_model,
)
from ultra.cli.commands import new_app
from ultra.cli.completion import (
    complete_ensembles,
    complete_ensembles_and_strategies,
    complete_identifiers,
    complete_models,
    complete_options,
    complete_strategies,
    complete_templates,
)
from ultra.cli.options import (  # noqa: TC001 - typer reads them
    ConversationOption,
    LogJson,
    MaxTokens,
    NoLog,
    Resume,
    Temperature,
)
from ultra.cli.piped_text import read_prompt
from ultra.cli.sources import find_sources
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.cli.past import Past
    from ultra.cli.templates import Template

__all__ = ["app"]

app = new_app()


@app.command(epilog="Exit code: 0 answered (a degraded answer says so), 1 failed, 2 bad usage, 130 Ctrl-C.")
def ask(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            show_default=False,
            help="The question. What is piped in goes ahead of it; with -, or alone, it is it.",
        ),
    ] = None,
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PROVIDER:MODEL[@WEIGHT]",
            autocompletion=complete_identifiers,
            help="A model to ask; repeat it for more. The one of highest weight that answered writes the "
            "synthesis. Without it: those of ultra.toml, here or your own; or else a model of each "
            "provider whose key is set; or else the three voices of the local model. 'ultra models' lists "
            "providers.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A configuration with the models and settings.  [default: ultra.toml, if it is here, "
            "on top of your own (ultra config path); the one here may use more than models and limits once "
            "it is trusted: ultra config trust]",
            show_default=False,
        ),
    ] = None,
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="NAME,...",
            autocompletion=complete_models,
            help="Ask only these of the models, by name.",
        ),
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(
            "--ensemble",
            "-e",
            metavar="NAME",
            autocompletion=complete_ensembles,
            help="Ask this ensemble of the configuration, in its way.  [default: ensemble in [run]]",
            show_default=False,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_strategies,
            help="How the models are asked and their answers merged, such as vote; 'ultra strategies' "
            "explains all. Or one of an installed package, or a class of your own, as module:Class.  "
            "[default: synthesize; best_of for one model, and for voices of the local model alone]",
        ),
    ] = None,
    strategy_options: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy-option", metavar="NAME=VALUE", help="An option of the strategy; repeat it for more."
        ),
    ] = None,
    analysts: Annotated[
        str | None,
        typer.Option(metavar="all|one|none", help="Who analyses the answers before they are merged."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", autocompletion=complete_models, help="The model that grades the answers."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How often each model is asked.  [default: 1]")
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
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            "-t",
            metavar="NAME|FILE",
            autocompletion=complete_templates,
            help="A prompt that is kept in a file: ultra templates --help.",
        ),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=TEXT", help="The value of a placeholder of the template."
        ),
    ] = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            autocompletion=complete_options,
            help="Another option of how models write: top_p, seed, stop, reasoning_effort, show_reasoning, "
            "or one that your client declares; MODEL.NAME=VALUE: of one model alone, also its role. Repeat "
            "it for more.",
        ),
    ] = None,
    resume: Resume = False,
    conversation: ConversationOption = None,
    again: Annotated[
        str | None,
        typer.Option(
            "--again",
            metavar="ENSEMBLE|STRATEGY",
            autocompletion=complete_ensembles_and_strategies,
            help="Ask the last question again, or that of --conversation, by this ensemble or strategy.",
        ),
    ] = None,
    no_log: NoLog = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask again, even what was asked before.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the answer there, whole or not at all."),
    ] = None,
    final: Annotated[
        bool,
        typer.Option("--final", help="Print the answer alone, as on a pipe; -v prints the rest to stderr."),
    ] = False,
    shown: Annotated[
        list[str] | None,
        typer.Option(
            "--show",
            metavar="analysis|reasoning",
            help="Show the analysis, which is else folded into one line, or what "
            "the models think, which their providers are then asked for; repeat it for both.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result, or the error, as one JSON document.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print all answers as plain text, on a pipe, too.")
    ] = False,
    log_json: LogJson = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            help="Log to stderr, and print there what a pipe does not get; -vv logs more.",
            show_default=False,
        ),
    ] = 0,
) -> int:
    """Ask several models the same question and merge their answers.

    The models answer side by side. Where all come to the same short answer, it stands; otherwise one of
    them merges the answers. Another strategy, or stages, can be chosen. Then a line for each model tells
    its time, tokens, calls, and how far it agreed with the others. A pipe gets the answer alone:

    git diff | ultra ask "Review this" > review.md

    What was asked and answered is kept in the history (ultra log): -c goes on with the last conversation,
    and --again asks its question again.
    """
    # The models' side takes longer to import than a misspelt option to be found.
    from ultra.cli.default_models import choose_models  # noqa: PLC0415
    from ultra.cli.json_output import reporting_errors  # noqa: PLC0415
    from ultra.cli.session import Output, run  # noqa: PLC0415
    from ultra.cli.stored_keys import use_stored_keys  # noqa: PLC0415

    with reporting_errors(enabled=as_json):
        shows = Output(
            as_json=as_json,
            plain=plain,
            final=final,
            file=output,
            shown=parse_shown(shown),
            verbose=verbose,
            log_json=log_json,
        )
        past, other = _past(resume=resume, which=conversation, again=again, config=config)
        if again is not None:
            _check_again(prompt=prompt, template=template, ensemble=ensemble, strategy=strategy)
        names_nobody = not (models or config or chosen or ensemble or strategy or stages)
        as_then = past is not None and names_nobody and "ensemble" not in other
        if as_then and past is not None:
            models = list(past.asked.models)
        sources = find_sources(config, models)
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        sampling = {name: value for name, value in sampling.items() if value is not None}
        further = {"on_cut": parse_on_cut(on_cut), "analysts": analysts}
        further = {name: value for name, value in further.items() if value is not None}
        kept = _Kept.of(template, params)
        for_all, per_model = split_by_model(parse_pairs("--option", options))
        question = Question(
            prompt="" if again else read_prompt(prompt, optional=template is not None),
            parts=read_parts(images, files),
            chosen=parse_names(chosen),
            strategy=strategy or other.get("strategy") or kept.strategy,
            strategy_options={**parse_pairs("--strategy-option", strategy_options), **further},
            stages=parse_names(stages),
            system=system,
            timeout=timeout,
            quorum=parse_quorum(quorum),
            samples=samples,
            judge=judge,
            schema=read_schema(schema),
            ensemble=check_ensemble(
                ensemble or other.get("ensemble") or (None if strategy or chosen else kept.ensemble),
                sources,
            ),
            sampling=asking_to_show(
                check_sampling({**kept.sampling, **for_all, **sampling}), parse_shown(shown)
            ),
            per_model=per_model,
            use_cache=not no_cache,
            is_kept=not no_log,
            sources=sources,
        )
        question = kept.fill(question)
        if past is not None:
            question = past.like_then(question) if as_then else question
            question = past.again(question) if again else past.continued(question)
        use_stored_keys()
        if not sources:
            question = replace(question, models=parse_models(models or choose_models()))
        return run(question, shows)


def _past(
    *, resume: bool, which: str | None, again: str | None, config: Path | None
) -> tuple[Past | None, dict[str, str]]:
    """Return the run to go on from, if there is to be one, and what ``--again`` names."""
    if not (resume or which or again):
        return None, {}
    from ultra.cli.past import ensemble_or_strategy, find_past  # noqa: PLC0415 - few questions need it

    other = {} if again is None else ensemble_or_strategy(again, find_sources(config))
    return find_past(which, answered=again is None), other


def _check_again(**given: str | None) -> None:
    """Raise `BadCall` for what does not go with ``--again``."""
    for name, value in given.items():
        if value is not None:
            what = f"a {name}" if name == "prompt" else f"--{name}"
            raise BadCall(f"--again asks a question of the history again; leave {what} out")


@dataclass(frozen=True)
class _Kept:
    """What a template says, if one is used."""

    template: Template | None = None
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str | None, params: list[str] | None) -> _Kept:
        given = {key: str(value) for key, value in parse_pairs("--param", params, as_text=True).items()}
        if name is None:
            if given:
                raise BadCall("--param gives values to a template; name it, too: --template NAME")
            return cls()
        from ultra.cli.templates import load_template  # noqa: PLC0415 - few questions need one

        return cls(load_template(name), given)

    @property
    def strategy(self) -> str | None:
        return None if self.template is None else self.template.strategy

    @property
    def ensemble(self) -> str | None:
        return None if self.template is None else self.template.ensemble

    @property
    def sampling(self) -> dict[str, object]:
        found = {name: getattr(self.template, name, None) for name in ("temperature", "max_tokens")}
        return {name: value for name, value in found.items() if value is not None}

    def fill(self, question: Question) -> Question:
        """Return the question in the words of the template; a system prompt that was given stays."""
        if self.template is None:
            return question
        prompt, system = self.template.filled(self.params, question.prompt)
        return replace(question, prompt=prompt, system=question.system or system)
