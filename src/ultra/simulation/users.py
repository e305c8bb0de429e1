"""Users of the orchestrator of a simulation: they run, stream, ask single models, and give up."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from ultra.actors.coordinator.messages import GIVEN_UP_AFTER
from ultra.errors import (
    ActorCrashed,
    ActorDown,
    ActorStopped,
    AllAttemptsFailed,
    BadCall,
    DeadlineExceeded,
    ModelUnregistered,
    OrchestratorClosed,
    QuorumNotReached,
    UltraError,
)
from ultra.simulation.models import FRESH
from ultra.simulation.record import TIME_ERROR
from ultra.simulation.troubles import COORDINATOR
from ultra.simulation.verdicts import MAX_RETRIES, Question, StreamVerdict

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ultra.simulation.ensemble import Ensemble

__all__ = ["User"]

CALLS: Final = 2
TIMEOUTS: Final = (4.0, 8.0, 16.0)
STAGES: Final = (None, ["initial"], ["initial", "synthesis"])

SLOW_READING: Final = 30.0
"""Virtual seconds that a slow reader may take for the events of one run."""

PATIENCE: Final = 6.0
"""Virtual seconds after its timeout when a user stops waiting for a call."""


class User:
    """Somebody who makes some calls, one after the other."""

    def __init__(self, ensemble: Ensemble, number: int) -> None:
        self._ensemble = ensemble
        self._number = number
        self._orchestrator = ensemble.orchestrator
        self._record = ensemble.record
        self._troubles = ensemble.troubles
        self._random = Random(f"{ensemble.seed}/user/{number}")
        self._asked = 0

    async def live(self) -> None:
        """Make all calls, until there is nobody to call any more."""
        random = self._random
        question: Question | None = None
        for _ in range(CALLS):
            pause = 0.25 * random.randint(0, 8)
            await trio.sleep(pause)
            if pause and question is not None:
                self._ensemble.check_left(question)
            if self._ensemble.closing:
                return
            question = self._question()
            chance = random.random()
            call = self._run if chance < 0.4 else self._stream if chance < 0.7 else self._ask
            self._record.add("ask", f"user {self._number}", call.__name__, question.prompt, question.timeout)
            await self._call(question, call(question))

    def _question(self) -> Question:
        random = self._random
        self._asked += 1
        fresh = random.random() < 0.3
        prompt = f"{FRESH} {self._number}.{self._asked}" if fresh else f"question {random.randint(1, 4)}"
        stages = random.choice(STAGES)
        question = Question(
            prompt, random.choice(TIMEOUTS), stages=stages, quorum=random.choice((1, 1, 2, "all"))
        )
        question.reading = SLOW_READING if random.random() < 0.1 else 0.0
        return question

    # --- one call ------------------------------------------------------------------------------------

    async def _call(self, question: Question, call: Awaitable[None]) -> None:
        """Await a call: it ends once, in time, and by an error that can be explained if by any."""
        ended = ""
        with trio.move_on_after(question.timeout + PATIENCE + question.reading) as scope:
            try:
                await call
                ended = "answer"
            except UltraError as error:
                ended = type(error).__name__
                self._judge(question, error)
        took = trio.current_time() - question.asked_at
        self._record.add("answered", f"user {self._number}", ended or "never")
        self._record.check(
            1,
            not scope.cancelled_caught,
            f"a call with a timeout of {question.timeout:g} s had not ended after {took:.3f} s",
        )
        # A coordinator in trouble may not end a run in time: then it is given up, a little later.
        kinds = ("crash", "delay", "crash_on_start", "drop", "hang")
        troubled = self._troubles.happened(COORDINATOR, kinds, 0.0)
        self._record.check(
            1,
            took <= question.timeout + question.reading + GIVEN_UP_AFTER * troubled + TIME_ERROR,
            f"a call with a timeout of {question.timeout:g} s took {took:.3f} s",
        )

    def _judge(self, question: Question, error: UltraError) -> None:
        """Whether a call may fail like this, by all that is known."""
        ensemble = self._ensemble
        match error:
            case AllAttemptsFailed():
                holds = error.attempts <= 1 + MAX_RETRIES
            case DeadlineExceeded():
                holds = trio.current_time() >= question.asked_at + question.timeout - TIME_ERROR
            case QuorumNotReached():
                holds = error.answered < error.needed
            case OrchestratorClosed():
                holds = ensemble.closing
            case ActorDown():
                holds = ensemble.has_crashed_often(error.path)
            case ActorStopped():
                holds = ensemble.closing or ensemble.has_crashed_often(COORDINATOR)
            case ActorCrashed():
                holds = error.path in self._troubles.crashes
            case BadCall() | ModelUnregistered():
                holds = ensemble.was_absent(question)
            case _:
                holds = False
        self._record.check(1, holds, f"a call failed by {type(error).__name__}: {error}")

    async def _run(self, question: Question) -> None:
        result = await self._orchestrator.process_responses(
            question.prompt,
            question.stages,
            timeout=question.timeout,
            quorum=question.quorum,  # type: ignore[arg-type] # so it was drawn
            use_cache=FRESH not in question.prompt,
        )
        self._ensemble.verdicts.result(question, result)

    async def _stream(self, question: Question) -> None:
        random, ensemble = self._random, self._ensemble
        patience = random.choice((4, 1000, 1000, 1000))
        verdict = StreamVerdict(ensemble.verdicts, self._record, self._troubles, question)
        async with self._orchestrator.stream_responses(
            question.prompt,
            question.stages,
            timeout=question.timeout,
            quorum=question.quorum,  # type: ignore[arg-type] # so it was drawn
            use_cache=FRESH not in question.prompt,
        ) as run:
            async for event in run:
                verdict.hear(event)
                patience -= 1
                if not patience:
                    return
                if question.reading and verdict.last is None:
                    await trio.sleep(0.25)
            self._record.check(1, verdict.last is not None, "a stream ended without a last event")
            await run.result()

    async def _ask(self, question: Question) -> None:
        ensemble, random = self._ensemble, self._random
        name = random.choice(ensemble.names)
        question.models = (name,)
        with trio.move_on_after(random.choice((1.0, 100.0, 100.0))):
            response = await self._orchestrator.get_model_response(
                name,
                question.prompt,
                timeout=question.timeout,
                use_cache=FRESH not in question.prompt,
            )
            ensemble.verdicts.response(name, response, question.prompt)
            if FRESH in question.prompt:
                ensemble.check_calls(name, question)
