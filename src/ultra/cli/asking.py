"""The orchestrator of a command, and the runs that a question makes of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ultra.cli.kept_text import known_secrets
from ultra.cli.output import tell
from ultra.cli.sources import load_sources
from ultra.clients import connect
from ultra.errors import BadCall
from ultra.messages.model_options import ModelOptions
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.strategies.best_of import BestOf
from ultra.strategies.catalog import load_strategy, names_a_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.cli.arguments import Question
    from ultra.messages.conversation import Conversation
    from ultra.orchestrator.streams import RunStream
    from ultra.strategies.base import Strategy

__all__ = ["Asker"]


@dataclass(frozen=True)
class Asker:
    """An orchestrator with the models of a question, or of its configurations.

    `asked` are the models of runs that name none (None: all), `ensemble` is the default one. `has_own_way`:
    the configuration says by which strategy or stages it answers. `secrets` are the keys that it has.
    """

    orchestrator: MultiLLMOrchestrator
    where: str = ""
    has_own_way: bool = False
    asked: tuple[str, ...] | None = None
    ensemble: str | None = None
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, question: Question) -> Asker:
        """Return the one of this question; models of a configuration are named on stderr.

        Raises what `MultiLLMOrchestrator.from_config` and `connect` raise.
        """
        if not question.sources:
            return cls(_orchestrator_of_models(question))
        configuration, asked = load_sources(question.sources)
        if question.judge is not None:
            configuration = replace(configuration, run=replace(configuration.run, judge=question.judge))
        run = configuration.run
        _look_here_for(run.strategy_name)
        orchestrator = MultiLLMOrchestrator.from_config(configuration)
        where = " and ".join(str(source.path) for source in reversed(question.sources))
        named = question.chosen is not None or question.strategy is not None or question.stages is not None
        asker = cls(
            orchestrator,
            where,
            has_own_way=run.strategy is not None or run.stages is not None,
            asked=asked,
            ensemble=None if named else run.ensemble,
            secrets=known_secrets(configuration),
        )
        tell(f"{where}: {asker.described(question)}")
        return asker

    def described(self, question: Question) -> str:
        """Return whom a question is put to, in words."""
        name = question.ensemble or self.ensemble
        if name is not None:
            return f"ensemble {name}: {', '.join(self.orchestrator.ensemble(name).models)}"
        return ", ".join(self.orchestrator.get_prioritized_models(self._models(question)))

    def stream(self, question: Question, conversation: Conversation | None = None) -> RunStream:
        """Return a stream of the events of a run; a `conversation` stands in place of the question's own."""
        name = question.ensemble or self.ensemble
        ensemble = None if name is None else self.orchestrator.ensemble(name)
        has_own_way = self.has_own_way
        if ensemble is not None:
            has_own_way = has_own_way or not {"strategy", "stages"}.isdisjoint(ensemble.arguments)
        models = question.chosen_names() if ensemble is not None else self._models(question)
        panel = models if models is not None or ensemble is None else ensemble.models
        alone = len(self.orchestrator.get_prioritized_models(panel)) == 1 and question.samples in {None, 1}
        ask = self.orchestrator.stream_responses if ensemble is None else ensemble.stream_responses
        return ask(
            question.conversation if conversation is None else conversation,
            stages=question.stages,
            models=models,
            strategy=_strategy(question, self.where, has_own_way=has_own_way, alone=alone),
            system=question.system,
            timeout=question.timeout,
            quorum=question.quorum,
            samples=question.samples,
            output=question.schema,
            **_given(question, {} if ensemble is None else ensemble.arguments.get("per_model") or {}),
        )

    def _models(self, question: Question) -> list[str] | None:
        chosen = question.chosen_names()
        return list(self.asked) if chosen is None and self.asked is not None else chosen


def _given(question: Question, per_model: Mapping[str, ModelOptions]) -> dict[str, Any]:
    """Return the options of a run; those of single models go before those of its ensemble, one by one."""
    given: dict[str, Any] = {"options": dict(question.sampling)} if question.sampling else {}
    if question.per_model:
        own = {question.named(name): options for name, options in question.per_model.items()}
        changed = {
            name: per_model.get(name, ModelOptions()).with_options(name, options)
            for name, options in own.items()
        }
        given["per_model"] = {**per_model, **changed}
    return given if question.use_cache else {**given, "use_cache": False}


def _orchestrator_of_models(question: Question) -> MultiLLMOrchestrator:
    judge = None if question.judge is None else question.named(question.judge)
    names = question.names()
    if judge is not None and judge not in names:
        raise BadCall(f"--judge {judge!r} is not one of the models: {', '.join(names)}")
    orchestrator = MultiLLMOrchestrator(judge=judge)
    for name, model in names.items():
        orchestrator.register_model(name, connect(model.identifier), model.weight)
    return orchestrator


def _strategy(question: Question, where: str, *, has_own_way: bool, alone: bool) -> Strategy | None:
    """Return how models are asked; None: as the configuration says. `alone`: one model is asked, once."""
    options = dict(question.strategy_options)
    if question.strategy is None:
        if options and has_own_way:
            name = next(iter(options))
            raise BadCall(
                f"--{name.replace('_', '-')}: {where} says by itself how models are asked; "
                f"set {name} there, in a section [run.strategy], or give --strategy, too"
            )
        if has_own_way or (question.stages is not None and not options):
            return None
        if not options and (alone or question.is_to_embedded):
            # One answer has nothing to be merged with. A model this small merges answers into worse ones.
            return BestOf()
        if question.stages is None:
            # No benefit of a separate analysis was measured, and it doubles the cost and the wait.
            options = {"keep_unanimous": True, "analysts": "none", **options}
        return load_strategy("synthesize", options)
    _look_here_for(question.strategy)
    return load_strategy(question.strategy, options)


def _look_here_for(strategy: str | None) -> None:
    """Let the class of a strategy be imported from the working directory, too, after all other places."""
    here = str(Path.cwd())
    if strategy is not None and names_a_class(strategy) and here not in sys.path:
        sys.path.append(here)
