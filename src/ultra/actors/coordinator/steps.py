"""The steps of a run: the one that goes on, and the requests that are made in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.actors.coordinator.reading import candidate_name
from ultra.actors.model.spending import Spent
from ultra.clients.checked_answers import refusal_of
from ultra.clients.plain_values import plain_usage
from ultra.errors import AllAttemptsFailed, DeadlineExceeded, ModelError, UsageError, text_of
from ultra.messages.events import Chunk, ModelRetrying, ReasoningChunk, StageCompleted
from ultra.messages.results import ModelFailure, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from ultra.actors.coordinator.messages import EventSink, Target
    from ultra.actors.coordinator.output_check import OutputCheck
    from ultra.actors.coordinator.run import Run
    from ultra.actors.model.messages import Generate, LocalRequest
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model

__all__ = ["Call", "OpenStep", "StepBlock", "Steps"]


class OpenStep:
    """A step while it goes on."""

    def __init__(self, name: str, number: int, *, left_out: bool) -> None:
        self.name = name
        self.round = number
        self.left_out = left_out
        self.has_started = False
        self.responses: list[ModelResponse] = []
        self.failures: list[ModelFailure] = []

    def scored(
        self, response: ModelResponse, scores: Mapping[str, float], targets: Mapping[str, Target]
    ) -> ModelResponse:
        """Write the score of an answer into it, into the step and into the metrics of its model."""
        score = scores.get(candidate_name(response))
        if score is None:
            return response
        graded = replace(response, quality=score)
        self.responses = [graded if known is response else known for known in self.responses]
        targets[response.model_name].model.metrics.scored(score)
        return graded

    def failed(
        self,
        model_name: str,
        sample: int,
        error: Exception,
        spent: Spent,
        response_time: float,
        *,
        attempts: int,
    ) -> ModelFailure:
        """Keep the failure of one request, and return it.

        `spent` and `attempts` are what is known where the error does not say it.
        """
        cause = error
        if isinstance(error, AllAttemptsFailed):
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            told = plain_usage(error.usage)
            spent = spent if told is None else Spent(told, error.cost)
        failure = ModelFailure(
            model_name=model_name,
            stage=self.name,
            message=text_of(error),
            error=type(cause).__name__,
            sample=sample,
            kind=cause.kind if isinstance(cause, ModelError) else None,
            attempts=error.attempts if isinstance(error, AllAttemptsFailed) else attempts,
            response_time=response_time,
            usage=spent.usage,
            cost=spent.cost,
            refusal=refusal_of(cause),
        )
        self.failures.append(failure)
        return failure

    def closed(self) -> Step:
        """Return the step as the result has it."""
        return Step(name=self.name, round=self.round, responses=tuple(self.responses))

    def completed(self) -> StageCompleted:
        """Return the event of its end."""
        return StageCompleted(
            stage=self.name,
            round=self.round,
            answered=tuple(dict.fromkeys(response.model_name for response in self.responses)),
            failed=tuple(dict.fromkeys(failure.model_name for failure in self.failures)),
            quality={r.model_name: r.quality for r in self.responses if r.quality is not None},
        )


class Steps:
    """The steps of a run, one after the other; `done` are those that have ended."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.done: list[Step] = []
        self._emit = emit
        self._open: OpenStep | None = None
        self._ended: OpenStep | None = None  # and not told yet

    def open(self, step: OpenStep) -> None:
        """Begin a step; raise `UsageError` within another one."""
        if self._open is not None:
            raise UsageError(
                f"step {step.name!r} opens inside step {self._open.name!r}; steps follow one another"
            )
        self.tell_end()
        self._open = step

    def close(self, step: OpenStep) -> None:
        """End the open step."""
        self._open = None
        self.done.append(step.closed())
        self._ended = step

    def tell_end(self) -> None:
        """Tell that the latest step is over; one that an error ended, only if the strategy goes on."""
        step, self._ended = self._ended, None
        if step is not None and step.has_started:
            self._emit(step.completed())

    def current(self) -> OpenStep:
        """Return the open step; raise `UsageError` if there is none."""
        if self._open is None:
            raise UsageError("models are asked within a step: use 'with context.step(name):' around it")
        return self._open

    def responses(self) -> Iterator[ModelResponse]:
        """Yield the answers of all steps so far, the open one included."""
        for step in self.done:
            yield from step.responses
        if self._open is not None:
            yield from self._open.responses


class StepBlock:
    """The block of one step of a run. A class, since it takes less time than a generator."""

    __slots__ = ("_name", "_number", "_run", "_step", "_steps")

    def __init__(self, run: Run, steps: Steps, name: str, number: int) -> None:
        self._run = run
        self._steps = steps
        self._name = name
        self._number = number

    def __enter__(self) -> OpenStep:
        run = self._run
        spend_left = run.spend_left
        left_out = spend_left is not None and spend_left <= 0
        step = self._step = OpenStep(self._name, self._number, left_out=left_out)
        self._steps.open(step)
        if left_out:
            run.degrade(
                f"stage {step.name!r} was left out: the run has cost {run.accounts.cost():.4g} dollars, "
                f"and may cost {run.options.max_cost:g}"
            )
        return step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step.responses = self._run.by_weight(self._step.responses)
        self._steps.close(self._step)
        if error is None:
            self._steps.tell_end()


class Call:
    """One request to one model, and who hears how its answer comes about."""

    __slots__ = ("_earlier", "_sink", "check", "local", "message", "model", "step", "target")

    local: LocalRequest
    """What is kept beside the message; set before it is sent."""

    def __init__(
        self,
        message: Generate,
        model: Model,
        target: Target,
        *,
        step: OpenStep,
        sink: EventSink,
        check: OutputCheck,
    ) -> None:
        self.message = message
        self.check = check
        self.model = model
        self.target = target
        self.step = step
        self._sink = sink
        self._earlier = check.spent  # for answers that were wrong

    @property
    def spent(self) -> Spent:
        """What its attempts have used so far, and those before it for answers that were wrong."""
        return self._earlier.plus(self.local.spent)

    def chunk(self, text: str, *, begins: bool) -> None:
        """Tell of a piece of text."""
        self._sink.emit(
            Chunk(
                stage=self.step.name,
                round=self.step.round,
                model_name=self.target.name,
                sample=self.message.request.sample,
                text=text,
                restart=begins,
            )
        )

    def reasoning(self, part: ReasoningPart, *, begins: bool) -> None:
        """Tell of a piece of reasoning."""
        self._sink.emit(
            ReasoningChunk(
                stage=self.step.name,
                round=self.step.round,
                model_name=self.target.name,
                sample=self.message.request.sample,
                part=part,
                restart=begins,
            )
        )

    def too_late(self, seconds: float, grace: float | None = None) -> DeadlineExceeded:
        """Make the error of a call for which its run of so many seconds, or its `grace`, is over."""
        late = f"Model {self.target.name!r} did not answer"
        if grace is not None:
            return DeadlineExceeded(f"{late} within the {grace:g} s of grace after the quorum")
        return DeadlineExceeded(f"{late} in time; the run has {seconds:g} s in all")

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Tell that an attempt failed and another follows."""
        self._sink.emit(
            ModelRetrying(
                stage=self.step.name,
                round=self.step.round,
                model_name=self.target.name,
                sample=self.message.request.sample,
                attempt=attempt,
                wait=wait,
                kind=error.kind,
                message=text_of(error),
                usage=self.spent.usage,
                cost=self.spent.cost,
            )
        )
