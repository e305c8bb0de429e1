"""Orchestrators that are broken on purpose: the simulation sees each, and names the guarantee.

Each function here breaks one thing by patching. The orchestrator's half of the simulation must find a
violation of the guarantee whose number its docstring begins with, within 200 seeds.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from helpers.orchestrator_runs import orchestrator_run
from ultra.actors.coordinator.messages import LocalRun
from ultra.actors.coordinator.run import Run
from ultra.actors.model import actor as model_module
from ultra.actors.model import call as call_module
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.limits import Limiter, Permit
from ultra.actors.model.retry import RetryPolicy, with_retries
from ultra.actors.model.spending import CountedCall
from ultra.actors.runtime.incarnation import Incarnation
from ultra.actors.runtime.message import Failure
from ultra.messages.events import Chunk, Event, RunCompleted, RunFailed
from ultra.messages.options import RunOptions
from ultra.messages.results import ModelResponse, OrchestrationResult
from ultra.orchestrator.event_buffer import EventBuffer
from ultra.orchestrator.tree import ModelTree
from ultra.supervisor.restart_policy import RestartWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.actors.model.messages import Generate

SEEDS = 200


# --- answers ---------------------------------------------------------------------------------------


def the_cache_mixes_up_questions(patch: pytest.MonkeyPatch) -> None:
    """1: an answer that is kept is given to other questions, too."""
    patch.setattr(model_module, "cache_key", lambda *_: b"one for all")


def errors_become_answers(patch: pytest.MonkeyPatch) -> None:
    """1: a failure is told as if the model had said it."""
    receive = ModelActor.receive

    async def friendly(self: ModelActor, message: Generate) -> ModelResponse | Failure:
        reply = await receive(self, message)
        if isinstance(reply, Failure):
            return ModelResponse(model_name=self._model.name, stage=message.stage, content=str(reply.error))
        return reply

    patch.setattr(ModelActor, "receive", friendly)


def changed(patch: pytest.MonkeyPatch, change: Callable[[OrchestrationResult], None]) -> None:
    """Change the results of runs."""
    execute = Run.execute

    async def changing(self: Run) -> OrchestrationResult:
        result = await execute(self)
        change(result)
        return result

    patch.setattr(Run, "execute", changing)


def everything_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """1: a run in which models failed is called a success."""
    changed(patch, lambda result: setattr(result, "status", "success"))


def the_synthesis_gets_lost(patch: pytest.MonkeyPatch) -> None:
    """1: a run ends well without its synthesis."""
    changed(patch, lambda result: setattr(result, "final_synthesis", None))


def a_run_says_that_it_was_free(patch: pytest.MonkeyPatch) -> None:
    """1: the cost of a run is less than that of its answers."""
    changed(patch, lambda result: setattr(result, "cost", 0.0))


def failed_calls_cost_nothing(patch: pytest.MonkeyPatch) -> None:
    """1: what a failed call has used does not count."""
    patch.setattr(CountedCall, "__exit__", lambda self, *_: self._spending.ended(self, self._usage))


def an_answer_gets_lost(patch: pytest.MonkeyPatch) -> None:
    """1: the result lacks an answer that was streamed."""
    changed(
        patch, lambda result: setattr(result, "steps", [replace(step, responses=()) for step in result.steps])
    )


def the_quorum_is_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """1: a run goes on with too few answers."""
    patch.setattr(RunOptions, "needed", lambda *_: 0)


def deadlines_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """1: a run takes as long as its models do."""
    patch.setattr(Run, "deadline", lambda *_: inf)


def runs_that_hang_are_never_given_up(patch: pytest.MonkeyPatch) -> None:
    """1: whoever waits for a run whose coordinator hangs waits for ever."""
    patch.setattr(LocalRun, "given_up_at", inf)


def calls_go_on_for_nobody(patch: pytest.MonkeyPatch) -> None:
    """1: a call that all who wanted it have left is not cancelled."""
    patch.setattr(ModelActor, "on_abandon", lambda *_: None)


# --- streams ---------------------------------------------------------------------------------------


def emitted(patch: pytest.MonkeyPatch, change: Callable[[Event], Iterable[Event]]) -> None:
    """Let streams have other events than they were told."""
    emit = EventBuffer.emit

    def changing(self: EventBuffer, event: Event) -> None:
        for other in change(event):
            emit(self, other)

    patch.setattr(EventBuffer, "emit", changing)


def chunks_get_lost(patch: pytest.MonkeyPatch) -> None:
    """1: now and then a piece of text is not streamed."""
    pieces = iter(range(10**9))
    emitted(patch, lambda event: [event] if not isinstance(event, Chunk) or next(pieces) % 20 else [])


def restarts_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """1: the text of a second attempt is streamed as if it went on from the first."""
    emitted(patch, lambda event: [replace(event, restart=False) if isinstance(event, Chunk) else event])


def the_last_event_comes_twice(patch: pytest.MonkeyPatch) -> None:
    """1: a stream ends two times."""
    emit = EventBuffer.emit

    def twice(self: EventBuffer, event: Event) -> None:
        emit(self, event)
        if isinstance(event, (RunCompleted, RunFailed)):
            self._ended = False
            emit(self, event)

    patch.setattr(EventBuffer, "emit", twice)


def the_last_event_gets_lost(patch: pytest.MonkeyPatch) -> None:
    """1: a stream ends without telling so."""
    emitted(patch, lambda event: [] if isinstance(event, (RunCompleted, RunFailed)) else [event])


def events_are_numbered_with_gaps(patch: pytest.MonkeyPatch) -> None:
    """1: a number is left out."""
    read = EventBuffer._read

    def gappy(self: EventBuffer) -> Any:
        self._seq += self._seq == 5
        return read(self)

    patch.setattr(EventBuffer, "_read", gappy)


# --- calls -----------------------------------------------------------------------------------------


def one_retry_too_many(patch: pytest.MonkeyPatch) -> None:
    """3: a request has one attempt more than it may."""

    def stubborn(call: Any, policy: RetryPolicy, random: Any) -> Any:
        return with_retries(call, replace(policy, max_retries=policy.max_retries + 1), random)

    patch.setattr(call_module, "with_retries", stubborn)


def calls_are_not_limited(patch: pytest.MonkeyPatch) -> None:
    """3: a model is called as often at once as anybody likes."""
    patch.setattr(Limiter, "acquire_nowait", lambda self, tokens=0: self._admit(tokens))


def equal_requests_do_not_share(patch: pytest.MonkeyPatch) -> None:
    """3: each of two equal requests makes a call of its own."""
    init = ModelActor.__init__

    class Forgetful(dict[Any, Any]):
        def get(self, *_: object) -> None:
            return None

    def alone(self: ModelActor, *args: Any) -> None:
        init(self, *args)
        self._calls = Forgetful()

    patch.setattr(ModelActor, "__init__", alone)


def one_crash_is_too_many(patch: pytest.MonkeyPatch) -> None:
    """6: the first crash of the coordinator ends the orchestrator."""
    patch.setattr(RestartWindow, "admit", lambda *_: None)


def grace_has_no_end(patch: pytest.MonkeyPatch) -> None:
    """9: leaving waits for all calls, however long they take."""
    stop = Incarnation.stop

    def patient(self: Incarnation, grace: float, *, drain: bool = False) -> None:
        del grace
        stop(self, 1000.0, drain=drain)

    patch.setattr(Incarnation, "stop", patient)


def models_that_are_taken_out_stay(patch: pytest.MonkeyPatch) -> None:
    """9: an unregistered model's actor is not waited for."""

    async def hasty(self: ModelTree, *_: object, **__: object) -> None:
        pass

    patch.setattr(ModelTree, "remove", hasty)


def call_slots_leak(patch: pytest.MonkeyPatch) -> None:
    """10: a call that has ended keeps its place, until none is left."""
    patch.setattr(Permit, "release", lambda _: None)


def model_actors_have_a_bug(patch: pytest.MonkeyPatch) -> None:
    """11: the code of an actor raises what nobody expects."""
    respond, answers = ModelActor._response, iter(range(10**9))

    def buggy(self: ModelActor, *args: Any) -> ModelResponse:
        if not next(answers) % 50:
            raise KeyError("a bug")
        return respond(self, *args)

    patch.setattr(ModelActor, "_response", buggy)


BREAKS: list[Callable[[pytest.MonkeyPatch], None]] = [
    the_cache_mixes_up_questions,
    errors_become_answers,
    everything_is_a_success,
    the_synthesis_gets_lost,
    a_run_says_that_it_was_free,
    failed_calls_cost_nothing,
    an_answer_gets_lost,
    the_quorum_is_not_asked_for,
    deadlines_are_forgotten,
    runs_that_hang_are_never_given_up,
    calls_go_on_for_nobody,
    chunks_get_lost,
    restarts_are_not_told,
    the_last_event_comes_twice,
    the_last_event_gets_lost,
    events_are_numbered_with_gaps,
    one_retry_too_many,
    calls_are_not_limited,
    equal_requests_do_not_share,
    one_crash_is_too_many,
    grace_has_no_end,
    models_that_are_taken_out_stay,
    call_slots_leak,
    model_actors_have_a_bug,
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
def test_a_broken_orchestrator_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broken.__doc__ is not None
    guarantee = int(broken.__doc__.partition(":")[0])
    broken(monkeypatch)

    for seed in range(SEEDS):
        if any(violation.guarantee == guarantee for violation in orchestrator_run(seed).record.violations):
            return
    pytest.fail(f"{SEEDS} seeds saw nothing of it: {broken.__doc__}")


def test_retries_that_are_not_decided_by_the_seed_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """12: the time between two attempts is drawn from somewhere else."""
    wait = RetryPolicy.wait
    monkeypatch.setattr(
        RetryPolicy, "wait", lambda self, attempt, error, _: wait(self, attempt, error, Random())
    )

    assert any(
        orchestrator_run(seed).record.digest != orchestrator_run(seed).record.digest for seed in range(SEEDS)
    )
