"""What users of the orchestrator must be able to rely on, held against what the models really said."""

from __future__ import annotations

from string import printable
from typing import TYPE_CHECKING, Final

import trio

from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelStarted,
    RunCompleted,
    RunFailed,
    StageCompleted,
    StageStarted,
)

if TYPE_CHECKING:
    from ultra.messages.events import Event
    from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult
    from ultra.simulation.models import VirtualModel
    from ultra.simulation.record import Record
    from ultra.simulation.troubles import Troubles

__all__ = ["MAX_RETRIES", "Question", "StreamVerdict", "Verdicts"]

MAX_RETRIES: Final = 1
"""With how many retries the models are registered."""

NOISE: Final = 200
"""How many characters the plan's noise has."""

NO_ANSWERS: Final = frozenset(
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


class Question:
    """What a user asked for, and when."""

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
        self.reading = 0.0  # the time that whoever asked takes for it [s]
        self.asked_at = trio.current_time()


class Verdicts:
    """Judges answers. `models` has every model that was ever registered, by name, newest last."""

    def __init__(self, record: Record, troubles: Troubles, models: dict[str, list[VirtualModel]]) -> None:
        self._record = record
        self._troubles = troubles
        self._models = models

    def result(self, question: Question, result: OrchestrationResult) -> None:
        """A run has come to `result`."""
        check = self._record.check
        for stage, responses in result.stages.items():
            for name, response in responses.items():
                self.response(name, response, question.prompt, whole=stage == "initial")
        for failure in result.failures:
            self._failure(failure)
        asked = "synthesis" in question.stages
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
        answered = result.stages["initial"]
        strict = question.quorum == "all"
        needed = len(answered) if strict else int(question.quorum)
        missing = strict and any(failure.stage != "synthesis" for failure in result.failures)
        check(
            1,
            len(answered) >= needed and not missing,
            f"{len(answered)} models answered, the quorum is {question.quorum}, and the run went on",
        )
        heard_of = {*answered, *(failure.model_name for failure in result.failures)}
        check(1, len(heard_of) >= 2, f"of all models, the run tells of {sorted(heard_of)} alone")

    def response(self, name: str, response: ModelResponse, prompt: str, *, whole: bool = True) -> None:
        """A model is said to have answered; `whole`: `prompt` is all that it was asked, else a part."""
        content = response.content
        asked = next((said for model in self._models[name] if (said := model.said.get(content))), None)
        told = prompt == asked if whole else asked is not None and prompt in asked
        noise = self._troubles.garbled.get(name, 0) > 0 and is_noise(content)
        self._record.check(
            1, told or noise, f"{name} did not answer {prompt!r} with {content!r}, as was told", name
        )
        self._record.check(
            3,
            response.attempts <= 1 + MAX_RETRIES and (response.attempts > 0 or response.cached),
            f"{name} was tried {response.attempts} times; allowed is 1 to {1 + MAX_RETRIES}",
            name,
        )

    def _failure(self, failure: ModelFailure) -> None:
        name = failure.model_name
        expected = failure.error in NO_ANSWERS
        self._record.check(1, expected, f"{name} failed by {failure.error}: {failure.message}", name)
        self._record.check(
            3, failure.attempts <= 1 + MAX_RETRIES, f"{name} was tried {failure.attempts} times", name
        )


def is_noise(content: str) -> bool:
    """Whether a plan may have made this up."""
    return len(content) == NOISE and set(content) <= set(printable)


class StreamVerdict:
    """Judges the events of one run, one after the other."""

    def __init__(self, verdicts: Verdicts, record: Record, troubles: Troubles, question: Question) -> None:
        self._verdicts = verdicts
        self._record = record
        self._troubles = troubles
        self._question = question
        self._texts: dict[tuple[str, str], str] = {}
        self._open: dict[tuple[str, str], None] = {}
        self._answers: dict[tuple[str, str], str] = {}
        self._stage: str | None = None
        self._count = 0
        self.last: Event | None = None

    def hear(self, event: Event) -> None:
        """The next event has come."""
        check = self._record.check
        check(1, event.seq == self._count, f"event {self._count} has the number {event.seq}")
        check(1, self.last is None, f"after the last event came {type(event).__name__}")
        self._count += 1
        match event:
            case StageStarted(stage=stage):
                # A coordinator that crashed begins anew.
                self._stage = stage
                self._open.clear()
                self._answers = {key: answer for key, answer in self._answers.items() if key[0] != stage}
            case ModelStarted(stage=stage, model_name=name):
                self._open[stage, name] = None
            case Chunk(stage=stage, model_name=name, text=text, restart=restart):
                key = stage, name
                self._texts[key] = text if restart else self._texts.get(key, "") + text
                self._expect_open(key, "text")
            case ModelResponded(stage=stage, model_name=name, response=response):
                self._answered((stage, name), response.content)
            case ModelFailed(stage=stage, model_name=name):
                self._expect_open((stage, name), "a failure")
                self._open.pop((stage, name), None)
            case StageCompleted(stage=stage):
                self._expect(
                    stage == self._stage and not self._open, f"{stage} ended with {[*self._open]} open"
                )
            case RunCompleted(result=result):
                self.last = event
                self._verdicts.result(self._question, result)
                self._compare(result)
            case RunFailed():
                self.last = event
            case _:
                pass

    def _answered(self, key: tuple[str, str], content: str) -> None:
        self._expect_open(key, "an answer")
        self._open.pop(key, None)
        self._answers[key] = content
        text = self._texts.get(key, "")
        self._expect(text == content, f"of {key} was streamed {text!r}, and answered {content!r}")

    def _compare(self, result: OrchestrationResult) -> None:
        """The result has the answers that were told of."""
        for (stage, name), content in self._answers.items():
            response = result.stages[stage].get(name)
            self._expect(
                response is not None and response.content == content,
                f"the answer of {name} in {stage} is another one in the result",
            )

    def _expect_open(self, key: tuple[str, str], what: str) -> None:
        self._expect(key in self._open, f"{what} of {key} came, which was not asked then")

    def _expect(self, holds: bool, message: str) -> None:  # noqa: FBT001 - a verdict
        # A message that comes twice is handled twice at once, and both tell: that is the fault's own doing.
        excused = not holds and self._is_doubled()
        self._record.check(1, holds or excused, message)

    def _is_doubled(self) -> bool:
        since = self._question.asked_at
        return self._troubles.happened(None, ("duplicate",), since)
