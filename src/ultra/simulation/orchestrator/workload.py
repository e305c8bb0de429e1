"""The workload of an orchestrator: users who run, stream, ask single models and give up; an operator."""

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
from ultra.simulation.orchestrator.answer_checks import MAX_RETRIES, StreamChecks, UserRequest
from ultra.simulation.orchestrator.faults import COORDINATOR
from ultra.simulation.orchestrator.models import NOT_CACHED
from ultra.simulation.record import TIME_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ultra.simulation.orchestrator.run import OrchestratorRun

__all__ = ["Operator", "User"]

CALLS: Final = 2
"""How many calls each user makes."""

TIMEOUTS: Final = (4.0, 8.0, 16.0)
STAGES: Final = (None, ["initial"], ["initial", "synthesis"])

SLOW_READING: Final = 30.0
"""Virtual seconds that a slow reader may take for the events of one run."""

GIVE_UP_AFTER: Final = 6.0
"""Virtual seconds after the timeout of a call when its user waits no longer."""

OPERATOR_UNTIL: Final = 30.0
"""Virtual seconds after which the operator changes nothing."""


class User:
    """Makes some calls, one after the other."""

    def __init__(self, run: OrchestratorRun, number: int) -> None:
        self._simulated = run
        self._number = number
        self._orchestrator = run.orchestrator
        self._record = run.record
        self._faults = run.faults
        self._random = Random(f"{run.seed}/user/{number}")
        self._asked = 0

    async def live(self) -> None:
        """Make all calls, or fewer if the orchestrator ends before."""
        random = self._random
        request: UserRequest | None = None
        for _ in range(CALLS):
            pause = 0.25 * random.randint(0, 8)
            await trio.sleep(pause)
            if pause and request is not None:
                self._simulated.check_no_calls_left(request)
            if self._simulated.closing:
                return
            request = self._new_request()
            chance = random.random()
            call = self._run if chance < 0.4 else self._stream if chance < 0.7 else self._ask
            self._record.add("ask", f"user {self._number}", call.__name__, request.prompt, request.timeout)
            await self._call(request, call(request))

    def _new_request(self) -> UserRequest:
        random = self._random
        self._asked += 1
        alone = random.random() < 0.3
        prompt = f"{NOT_CACHED} {self._number}.{self._asked}" if alone else f"question {random.randint(1, 4)}"
        stages = random.choice(STAGES)
        request = UserRequest(
            prompt, random.choice(TIMEOUTS), stages=stages, quorum=random.choice((1, 1, 2, "all"))
        )
        request.reading = SLOW_READING if random.random() < 0.1 else 0.0
        return request

    # --- one call ------------------------------------------------------------------------------------

    async def _call(self, request: UserRequest, call: Awaitable[None]) -> None:
        """Await a call. Check that it ends once, in time, and if by an error, by one that has a reason."""
        ended = ""
        simulated = self._simulated
        with trio.move_on_after(request.timeout + GIVE_UP_AFTER + request.reading) as scope:
            if request.reading:
                simulated.reading_until = max(simulated.reading_until, scope.deadline)
            try:
                await call
                ended = "answer"
            except UltraError as error:
                ended = type(error).__name__
                self._check_error(request, error)
        took = trio.current_time() - request.asked_at
        self._record.add("answered", f"user {self._number}", ended or "never")
        self._record.check(
            1,
            not scope.cancelled_caught,
            f"a call with a timeout of {request.timeout:g} s had not ended after {took:.3f} s",
        )
        # A coordinator with faults may not end a run in time: then the run is given up a little later.
        kinds = ("crash", "delay", "crash_on_start", "drop", "hang")
        late = self._faults.happened(COORDINATOR, kinds, 0.0)
        self._record.check(
            1,
            took <= request.timeout + request.reading + GIVEN_UP_AFTER * late + TIME_TOLERANCE,
            f"a call with a timeout of {request.timeout:g} s took {took:.3f} s",
        )

    def _check_error(self, request: UserRequest, error: UltraError) -> None:
        """Check that a call may fail like this, by all that is known."""
        simulated = self._simulated
        match error:
            case AllAttemptsFailed():
                holds = error.attempts <= 1 + MAX_RETRIES
            case DeadlineExceeded():
                holds = trio.current_time() >= request.asked_at + request.timeout - TIME_TOLERANCE
            case QuorumNotReached():
                holds = error.answered < error.needed
            case OrchestratorClosed():
                holds = simulated.closing
            case ActorDown():
                holds = simulated.has_crashed_often(error.path)
            case ActorStopped():
                holds = simulated.closing or simulated.has_crashed_often(COORDINATOR)
            case ActorCrashed():
                holds = error.path in self._faults.crashes
            case BadCall() | ModelUnregistered():
                holds = simulated.was_unregistered(request)
            case _:
                holds = False
        self._record.check(1, holds, f"a call failed by {type(error).__name__}: {error}")

    async def _run(self, request: UserRequest) -> None:
        result = await self._orchestrator.process_responses(
            request.prompt,
            request.stages,
            timeout=request.timeout,
            quorum=request.quorum,  # type: ignore[arg-type] # so it was drawn
            use_cache=NOT_CACHED not in request.prompt,
        )
        self._simulated.answer_checks.check_result(request, result)

    async def _stream(self, request: UserRequest) -> None:
        random, simulated = self._random, self._simulated
        events_left = random.choice((4, 1000, 1000, 1000))
        checks = StreamChecks(simulated.answer_checks, self._record, self._faults, request)
        async with self._orchestrator.stream_responses(
            request.prompt,
            request.stages,
            timeout=request.timeout,
            quorum=request.quorum,  # type: ignore[arg-type] # so it was drawn
            use_cache=NOT_CACHED not in request.prompt,
        ) as run:
            async for event in run:
                checks.check_event(event)
                events_left -= 1
                if not events_left:
                    return
                if request.reading and checks.last is None:
                    await trio.sleep(0.25)
            self._record.check(1, checks.last is not None, "a stream ended without a last event")
            await run.result()

    async def _ask(self, request: UserRequest) -> None:
        simulated, random = self._simulated, self._random
        name = random.choice(simulated.names)
        request.models = (name,)
        with trio.move_on_after(random.choice((1.0, 100.0, 100.0))):
            response = await self._orchestrator.get_model_response(
                name,
                request.prompt,
                timeout=request.timeout,
                use_cache=NOT_CACHED not in request.prompt,
            )
            simulated.answer_checks.check_response(name, response, request.prompt)
            if NOT_CACHED in request.prompt:
                simulated.check_number_of_calls(name, request)


class Operator:
    """Changes weights, revives models, takes one out and puts it back, until the orchestrator ends."""

    def __init__(self, run: OrchestratorRun) -> None:
        self._simulated = run
        self._random = Random(f"{run.seed}/ensemble/operator")

    async def live(self) -> None:
        """Do something now and then, until `OPERATOR_UNTIL`."""
        simulated, random = self._simulated, self._random
        while trio.current_time() < OPERATOR_UNTIL:
            await trio.sleep(0.5 * random.randint(2, 8))
            if simulated.closing:
                return
            chance = random.random()
            if chance < 0.4:
                simulated.orchestrator.set_model_weight(
                    random.choice(simulated.names), float(random.randint(0, 5))
                )
            elif chance < 0.8:
                self._revive_what_is_not_up()
            else:
                await self._replace("third")

    def _revive_what_is_not_up(self) -> None:
        orchestrator = self._simulated.orchestrator
        health = orchestrator.health()
        for name, found in health.items():
            if found.status != "up":
                orchestrator.revive_model(name)

    async def _replace(self, name: str) -> None:
        """Unregister a model, and register another one by its name."""
        simulated, random = self._simulated, self._random
        await simulated.unregister(name, drain=random.random() < 0.5, grace=random.choice((0.0, 1.0, 5.0)))
        await trio.sleep(0.5 * random.randint(0, 2))
        if not simulated.closing:
            simulated.register(name)
