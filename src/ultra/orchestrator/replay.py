"""Replaying a submitted run: its recorded answers, through the same strategy or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from ultra._support.randomness import new_id
from ultra.bridge.caller import Caller
from ultra.durable.memo import PaidAnswers
from ultra.errors import BadCall, ModelError, StrategyGone, UnknownRun
from ultra.orchestrator.event_buffer import NoReader
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.orchestrator.streams import LiveRun
from ultra.prompts.fencing import Fencing
from ultra.strategies.catalog import make_strategy, spec_of

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.messages.runs import StrategySpec
    from ultra.stores.journal_contract import AnswerKey, RunJournal
    from ultra.strategies.base import Strategy

__all__ = ["replay_run"]


class _Unrecorded:
    """Stands for a model of which there is no answer beside the recorded ones."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def respond(self, request: ModelRequest) -> NoReturn:
        """Fail."""
        await self.generate(request.prompt)

    async def generate(self, _prompt: str) -> NoReturn:
        """Fail."""
        raise ModelError(
            f"the run has no recorded answer of {self._name!r} to this request", kind="bad_request"
        )


async def replay_run(
    journal: RunJournal, run_id: str, *, strategy: str | StrategySpec | Strategy | None = None
) -> OrchestrationResult:
    """Return what a run would have come to, by its recorded answers alone: no model is asked. On trio.

    A model that is asked something that the run did not ask it has failed; so a strategy in which models read
    answers finds no answer of its own for that, and says so in the result.

    Args:
        journal: has the run; it may have ended, or not.
        run_id: names the run.
        strategy: how the answers are merged; None: as they were.

    Raises:
        UnknownRun: there is no such run.
        BadCall: there is no such strategy, or the run's own was no value.
        UltraError: the run fails as replayed.
    """
    record = await journal.get(run_id)
    if record is None:
        raise UnknownRun(run_id)
    spec = record.spec
    if strategy is not None:
        spec = replace(spec, strategy=spec_of(make_strategy(strategy)), own_strategy=False)
    elif spec.own_strategy:
        raise BadCall(f"strategy {spec.strategy.name!r} of run {run_id!r} was no value; name another one")
    orchestrator = MultiLLMOrchestrator(cache_enabled=False, max_retries=0)
    for name, weight in zip(spec.models, spec.weights or (1.0,) * len(spec.models), strict=True):
        orchestrator.register_model(name, _Unrecorded(name), weight)
    planner, lifespan = orchestrator._planner, orchestrator._lifespan  # noqa: SLF001 - of this room
    watch = orchestrator._watch  # noqa: SLF001 - of this room
    try:
        planned = planner.again(spec)
    except StrategyGone as error:
        raise BadCall(str(error)) from error
    if strategy is not None:
        planned = planned._replace(strategy=planner.resolved(strategy), spec=spec.strategy)
    make_run = planner.maker(
        planned,
        Caller.current(),
        fencing=Fencing(spec.secret),
        memo=PaidAnswers(
            await journal.answer_keys(run_id), lambda key: journal.answer(run_id, key), _keep_nothing
        ),
    )
    replayed = new_id()
    return await LiveRun(replayed, lifespan, make_run, NoReader, watch).outcome()


async def _keep_nothing(_key: AnswerKey, _response: ModelResponse) -> None:
    """Do nothing: there are no new answers."""
