"""Check that results and streams tell users what the models really said, and nothing else."""

from __future__ import annotations

from math import fsum, isclose
from string import printable
from typing import TYPE_CHECKING, Final

import trio

from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelStarted,
    ReasoningChunk,
    RunCompleted,
    RunFailed,
    StageCompleted,
    StageStarted,
)
from ultra.simulation.orchestrator.models import MADE_UP

if TYPE_CHECKING:
    from ultra.messages.events import Event
    from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult
    from ultra.simulation.orchestrator.faults import OrchestratorFaults
    from ultra.simulation.orchestrator.models import SimulatedModel
    from ultra.simulation.record import Record

__all__ = ["MAX_RETRIES", "AnswerChecks", "StreamChecks", "UserRequest"]

MAX_RETRIES: Final = 1
"""How many retries the models are registered with."""

NOISE_CHARACTERS: Final = 200
"""The length of the noise that the fault plan makes up."""

EXPECTED_FAILURES: Final = frozenset(
    {
        "ActorCrashed",
        "ActorDown",
        "CircuitOpen",
        "DeadlineExceeded",
        "EmptyAnswer",
        "ModelError",
        "ModelUnregistered",
    }
)
"""Classes of the errors by which a model may fail a stage."""


class UserRequest:
    """What a user asks for, and when.

    `reading` is the time [s] that the user takes to read a stream.
    """

    __slots__ = ("asked_at", "models", "prompt", "quorum", "reading", "stages", "timeout")

    def __init__(
        self,
        prompt: str,
        timeout: float,
        *,
        stages: list[str] | None = None,
        quorum: int | str = 1,
        models: tuple[str, ...] = (),
    ) -> None:
        self.prompt = prompt
        self.timeout = timeout
        self.stages = stages or ["initial", "meta", "synthesis"]
        self.quorum = quorum
        self.models = models
        self.reading = 0.0
        self.asked_at = trio.current_time()


class AnswerChecks:
    """Checks of results and responses.

    `models` has every model that was ever registered, by name, the newest last.
    """

    def __init__(
        self, record: Record, faults: OrchestratorFaults, models: dict[str, list[SimulatedModel]]
    ) -> None:
        self._record = record
        self._faults = faults
        self._models = models

    def check_result(self, request: UserRequest, result: OrchestrationResult) -> None:
        """Check the result of a run."""
        check = self._record.check
        for stage, responses in result.stages.items():
            for name, response in responses.items():
                self.check_response(name, response, request.prompt, whole=stage == "initial")
        for failure in result.failures:
            self._check_failure(failure)
        asked = "synthesis" in request.stages
        check(
            1, not asked or result.final_synthesis is not None, "the synthesis that was asked for is missing"
        )
        clean = not result.failures and result.synthesis_source in {None, "primary"}
        check(
            1,
            result.status == ("success" if clean else "degraded"),
            f"the status is {result.status!r} with {len(result.failures)} failures "
            f"and a {result.synthesis_source} synthesis",
        )
        self._check_cost(result)
        answered = result.stages["initial"]
        strict = request.quorum == "all"
        needed = len(answered) if strict else int(request.quorum)
        missing = strict and any(failure.stage != "synthesis" for failure in result.failures)
        check(
            1,
            len(answered) >= needed and not missing,
            f"{len(answered)} models answered, the quorum is {request.quorum}, and the run went on",
        )
        told = {*answered, *(failure.model_name for failure in result.failures)}
        check(1, len(told) >= 2, f"of all models, the run tells of {sorted(told)} alone")

    def _check_cost(self, result: OrchestrationResult) -> None:
        """Check that the cost of a run is the sum of what its result shows: all its models have a price."""
        check = self._record.check
        costs = [response.cost for step in result.steps for response in step.responses]
        costs += [*(failure.cost for failure in result.failures), result.other_cost]
        shown = fsum(cost for cost in costs if cost is not None)
        check(
            1,
            result.cost is not None and isclose(result.cost, shown, abs_tol=1e-9),
            f"the run has cost {result.cost} dollars, and its result shows {shown}",
        )
        for step in result.steps:
            for response in step.responses:
                paid = response.cached or bool(response.cost)
                check(1, paid, f"an answer has cost {response.cost} dollars", response.model_name)
        for failure in result.failures:
            paid = bool(failure.cost) or MADE_UP not in failure.message
            check(1, paid, f"failing has cost {failure.cost} dollars", failure.model_name)

    def check_response(self, name: str, response: ModelResponse, prompt: str, *, whole: bool = True) -> None:
        """Check what the model `name` is said to have answered.

        `whole`: `prompt` is all that it was asked. Otherwise `prompt` is a part of that.
        """
        content = response.content
        asked = next((said for model in self._models[name] if (said := model.said.get(content))), None)
        true = prompt == asked if whole else asked is not None and prompt in asked
        noise = self._faults.garbled.get(name, 0) > 0 and is_noise(content)
        self._record.check(
            1, true or noise, f"{name} did not answer {prompt!r} with {content!r}, as was told", name
        )
        self._record.check(
            3,
            response.attempts <= 1 + MAX_RETRIES and (response.attempts > 0 or response.cached),
            f"{name} was tried {response.attempts} times; allowed is 1 to {1 + MAX_RETRIES}",
            name,
        )

    def _check_failure(self, failure: ModelFailure) -> None:
        name = failure.model_name
        expected = failure.error in EXPECTED_FAILURES
        self._record.check(1, expected, f"{name} failed by {failure.error}: {failure.message}", name)
        self._record.check(
            3, failure.attempts <= 1 + MAX_RETRIES, f"{name} was tried {failure.attempts} times", name
        )


def is_noise(content: str) -> bool:
    """Return whether the fault plan may have made this up."""
    return len(content) == NOISE_CHARACTERS and set(content) <= set(printable)


class StreamChecks:
    """Checks of the events of one run, one after the other."""

    def __init__(
        self, answers: AnswerChecks, record: Record, faults: OrchestratorFaults, request: UserRequest
    ) -> None:
        self._answer_checks = answers
        self._record = record
        self._faults = faults
        self._request = request
        self._texts: dict[tuple[str, str], str] = {}
        self._open: dict[tuple[str, str], None] = {}
        self._answers: dict[tuple[str, str], str] = {}
        self._stage: str | None = None
        self._count = 0
        self.last: Event | None = None

    def check_event(self, event: Event) -> None:
        """Check the next event."""
        check = self._record.check
        check(1, event.seq == self._count, f"event {self._count} has the number {event.seq}")
        check(1, self.last is None, f"after the last event came {type(event).__name__}")
        self._count += 1
        match event:
            case StageStarted(stage=stage):
                # After a crash of the coordinator, a stage may start a second time.
                self._stage = stage
                self._open.clear()
                self._answers = {key: answer for key, answer in self._answers.items() if key[0] != stage}
            case ModelStarted(stage=stage, model_name=name):
                self._open[stage, name] = None
            case Chunk(stage=stage, model_name=name, text=text, restart=restart):
                key = stage, name
                self._texts[key] = text if restart else self._texts.get(key, "") + text
                self._expect_open(key, "text")
            case ReasoningChunk(stage=stage, model_name=name):
                self._expect_open((stage, name), "reasoning")
            case ModelResponded(stage=stage, model_name=name, response=response):
                self._check_answer((stage, name), response.content)
            case ModelFailed(stage=stage, model_name=name):
                self._expect_open((stage, name), "a failure")
                self._open.pop((stage, name), None)
            case StageCompleted(stage=stage):
                self._expect(
                    stage == self._stage and not self._open, f"{stage} ended with {[*self._open]} open"
                )
            case RunCompleted(result=result):
                self.last = event
                self._answer_checks.check_result(self._request, result)
                self._compare(result)
            case RunFailed():
                self.last = event
            case _:
                pass

    def _check_answer(self, key: tuple[str, str], content: str) -> None:
        self._expect_open(key, "an answer")
        self._open.pop(key, None)
        self._answers[key] = content
        text = self._texts.get(key, "")
        self._expect(text == content, f"of {key} was streamed {text!r}, and answered {content!r}")

    def _compare(self, result: OrchestrationResult) -> None:
        """Check that the result has the answers that the events told of."""
        for (stage, name), content in self._answers.items():
            response = result.stages[stage].get(name)
            self._expect(
                response is not None and response.content == content,
                f"the answer of {name} in {stage} is another one in the result",
            )

    def _expect_open(self, key: tuple[str, str], what: str) -> None:
        self._expect(key in self._open, f"{what} of {key} came, which was not asked then")

    def _expect(self, holds: bool, message: str) -> None:  # noqa: FBT001 - what a check found
        # A message that a fault doubled is handled twice at once, and both handlers emit events.
        excused = not holds and self._faults.happened(None, ("duplicate",), self._request.asked_at)
        self._record.check(1, holds or excused, message)
