"""Pick one of the answers, by a verifier, a judge or agreement, and change not a word of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, StageFailed
from ultra.messages.results import sample_name
from ultra.scoring.judge import parse_grades
from ultra.strategies.base import Answer
from ultra.strategies.panel import check_answered, check_model_name, check_named, only_answer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import RunContext

__all__ = ["BestOf", "Verify", "verified"]

Verify = Callable[[str], bool | float]
"""Says of the text of an answer whether it is right, or how good it is (0..1)."""

_KEPT_FOR_GRADES = 0.2


class BestOf(Struct, frozen=True, kw_only=True):
    """Ask all models and return the best answer as it is.

    With `verify`, the best is what that says, such as the result of running tests; of equals, and where
    nothing passes, the answer that is graded or scored best. `judge` is a model of the run that grades the
    answers, behind neutral labels; without it, the orchestrator's scorer or judge decides, by default the
    agreement of the answers. `verify` runs where the actors do and must not block.

    Raises:
        BadCall: `verify` cannot be called, or `judge` is no name.
    """

    verify: Verify | None = None
    judge: str | None = None

    def __post_init__(self) -> None:
        if self.verify is not None and not callable(self.verify):
            raise BadCall(f"verify is {self.verify!r}; it must be a function of an answer's text, or None")
        check_model_name("judge", self.judge)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("judge", [self.judge], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask all, score, and pick; see `Strategy.run`."""
        keep = 0.0 if self.judge is None else _KEPT_FOR_GRADES
        with context.step("initial"):
            responses = await context.ask_all(context.request, within=context.time_left(keep))
            if len(responses) > 1 and self.judge is None:
                responses = await context.score(responses)
        check_answered(context, responses)
        passed: Sequence[ModelResponse] = responses
        highest = 0.0
        if self.verify is not None:
            verdicts = [verified(context, self.verify, response) for response in responses]
            highest = max(verdicts)
            passed = [answer for answer, grade in zip(responses, verdicts, strict=True) if grade == highest]
            if not highest:
                context.degrade("no answer passed the verifier; the one that scores best stands in its place")
        elif (answer := only_answer(context, responses, "a comparison")) is not None:
            return answer
        grade = None
        if self.judge is not None and len(passed) > 1:
            chosen, grade = await self._judged(context, self.judge, passed)
        else:
            chosen = context.best(passed)
        if highest:
            return Answer(chosen, "selected", highest, "verifier")
        return Answer(chosen, "selected", grade, None if grade is None else "quality")

    async def _judged(
        self, context: RunContext, judge: str, responses: Sequence[ModelResponse]
    ) -> tuple[ModelResponse, float | None]:
        """Return the answer that the judge grades best, and its grade; else the best by agreement."""
        models = [model for model in context.models if model.name == judge]
        with context.step("judge"):
            said = await context.ask_first(context.compose("judge", responses), models=models)
        names = {label: sample_name(r.model_name, r.sample) for label, r in context.labels(responses).items()}
        texts = [response.content for response in responses]
        grades = {} if said is None else parse_grades(said.content, names, texts)
        missing = [name for name in names.values() if name not in grades]
        if not grades:
            context.degrade(f"the judge {judge!r} gave no grades; the answers were compared without it")
            return context.best(responses), None
        if missing:
            context.note(f"the judge {judge!r} gave no clear grade to: {', '.join(missing)}")
        grade_of = [grades.get(sample_name(r.model_name, r.sample), -1.0) for r in responses]
        highest = max(grade_of)
        best = [answer for answer, grade in zip(responses, grade_of, strict=True) if grade == highest]
        return context.best(best), highest


def verified(context: RunContext, verify: Verify, response: ModelResponse) -> float:
    """Return what the caller's function says of an answer (0..1). Raises `StageFailed` where it fails."""
    try:
        grade: object = context.call_user(verify, response.content)
        if not (isinstance(grade, (bool, int, float)) and 0 <= grade <= 1):
            raise TypeError(f"it gave {grade!r}; it must give a bool, or a number from 0 to 1")  # noqa: TRY301
    except BaseException as error:
        if is_interruption(error):
            raise
        raise StageFailed("initial", "the verifier", error) from error
    return float(grade)
