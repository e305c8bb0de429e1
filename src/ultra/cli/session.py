"""One run of `ultra ask`: from the question to the exit code, with everything closed at its end."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ultra.cli.json_output import JsonView
from ultra.cli.logs import configure_logs
from ultra.cli.output import tell
from ultra.cli.plain_view import PlainView
from ultra.cli.signals import run_until_signalled
from ultra.clients import connect
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.trust import check_trust
from ultra.errors import BadCall
from ultra.messages.events import RunCompleted, RunFailed
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.strategies.best_of import BestOf
from ultra.strategies.catalog import load_strategy, names_a_class

if TYPE_CHECKING:
    from ultra.cli.arguments import Question
    from ultra.cli.view import View
    from ultra.orchestrator.streams import RunStream
    from ultra.strategies.base import Strategy

__all__ = ["open_view", "run"]


def open_view(*, as_json: bool, plain: bool) -> View:
    """Return the view of a run: a live one if stdout is a terminal that can draw it."""
    if as_json:
        return JsonView()
    if not plain and sys.stdout.isatty():
        from ultra.cli.live_view import LiveView  # noqa: PLC0415 - rich takes long to import
        from ultra.cli.terminal import open_console  # noqa: PLC0415 - as above

        console = open_console()
        if not console.is_dumb_terminal:
            return LiveView(console)
    return PlainView()


def run(question: Question, view: View, *, verbose: int = 0, log_json: bool = False) -> int:
    """Ask, show the run, and return the exit code once everything is closed.

    Raises what the orchestrator and `connect` raise.
    """
    configure_logs(verbose, as_json=log_json)
    ended_by = run_until_signalled(partial(_ask, question, view))
    return 0 if ended_by is None else 128 + ended_by


async def _ask(question: Question, view: View) -> None:
    orchestrator, has_own_way = _orchestrator(question)
    async with orchestrator:
        ensemble = None if question.ensemble is None else orchestrator.ensemble(question.ensemble)
        if ensemble is not None:
            has_own_way = has_own_way or not {"strategy", "stages"}.isdisjoint(ensemble.arguments)
        ask = orchestrator.stream_responses if ensemble is None else ensemble.stream_responses
        asked = ask(
            question.conversation,
            stages=question.stages,
            models=question.chosen_names(),
            strategy=_strategy(question, has_own_way=has_own_way),
            system=question.system,
            timeout=question.timeout,
            quorum=question.quorum,
            output=question.schema,
        )
        with view:
            async with asked as stream:
                await _follow(stream, view)
                result = await stream.result()
    view.conclude(result)


def _orchestrator(question: Question) -> tuple[MultiLLMOrchestrator, bool]:
    """Return an orchestrator with the models of the question, or of a configuration, named on stderr.

    And return whether the configuration says by which strategy or stages it answers.
    """
    if question.configuration is not None:
        file = ConfigurationFile.read(question.configuration)
        if question.found:
            check_trust(file, f"pass --config {question.configuration}")
        configuration = load_configuration(file)
        _look_here_for(configuration.run.strategy_name)
        orchestrator = MultiLLMOrchestrator.from_config(configuration)
        tell(f"{question.configuration}: {', '.join(orchestrator.get_prioritized_models())}")
        return orchestrator, configuration.run.strategy is not None or configuration.run.stages is not None
    orchestrator = MultiLLMOrchestrator()
    for name, model in question.names().items():
        orchestrator.register_model(name, connect(model.identifier), model.weight)
    return orchestrator, False


def _strategy(question: Question, *, has_own_way: bool) -> Strategy | None:
    options: dict[str, object] = {} if question.on_cut is None else {"on_cut": question.on_cut}
    if question.strategy is None:
        if options and has_own_way:
            raise BadCall(
                f"--on-cut {question.on_cut}: {question.configuration} says by itself how models are asked; "
                "set on_cut there, in a section [run.strategy], or give --strategy, too"
            )
        if has_own_way or (question.stages is not None and not options):
            return None
        if question.is_to_embedded and not options:
            # A model this small merges answers into worse ones.
            return BestOf()
        if question.stages is None:
            # No benefit of a separate analysis was measured, and it doubles the cost and the wait.
            options |= {"keep_unanimous": True, "analysts": "none"}
        return load_strategy("synthesize", options)
    _look_here_for(question.strategy)
    return load_strategy(question.strategy, options)


def _look_here_for(strategy: str | None) -> None:
    """Let the class of a strategy be imported from the working directory, too, after all other places."""
    here = str(Path.cwd())
    if strategy is not None and names_a_class(strategy) and here not in sys.path:
        sys.path.append(here)


async def _follow(stream: RunStream, view: View) -> None:
    """Show all events as they come, and refresh the view at its interval."""
    next_refresh = trio.current_time()
    ended = False
    while not ended:
        with trio.move_on_at(next_refresh):
            event = await anext(stream)
            view.show(event)
            ended = isinstance(event, (RunCompleted, RunFailed))
        if trio.current_time() >= next_refresh:
            view.refresh()
            next_refresh = trio.current_time() + view.interval
