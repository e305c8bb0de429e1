"""What the answers of one run are worth: their scores, the best of them, and how sure the run is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.actors.coordinator.grading import agree, ask_judge, call_scorer
from ultra.actors.coordinator.reading import candidate_name
from ultra.errors import UltraError
from ultra.messages.canonical_json import canonical_json
from ultra.messages.results import first_answers
from ultra.scoring.agreement import agreed_at_once, agreement
from ultra.scoring.final_answers import FinalAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.actors.coordinator.messages import Execute, LocalRun, Target
    from ultra.actors.coordinator.reading import Reader
    from ultra.actors.coordinator.run import Run
    from ultra.actors.coordinator.steps import OpenStep
    from ultra.messages.results import ConfidenceBasis, ModelResponse, QualityBasis, Step
    from ultra.scoring.agreement import Agreed
    from ultra.strategies.base import Answer, Model

__all__ = ["Assessment"]


class Assessment:
    """Scores and compares the answers of one run. `quality_basis` is by what; None: nothing was scored.

    It does not keep the run, which keeps it: two that refer to each other would keep the question in memory.
    """

    def __init__(
        self, message: Execute, local: LocalRun, reader: Reader, weights: Mapping[str, float]
    ) -> None:
        self.quality_basis: QualityBasis | None = None
        self._message = message
        self._question = message.request.prompt
        self._local = local
        self._reader = reader
        self._weights = weights
        self._targets = {target.name: target for target in local.targets}
        self._agreed: tuple[dict[str, str], Agreed] | None = None  # the latest answers that were compared
        self._read: dict[str, FinalAnswer | None] = {}  # the final answers of the texts that were compared
        self._graded: dict[str, None] = {}  # answers whose quality is the word of a judge or of the caller

    def take_output(self, response: ModelResponse) -> None:
        """Let the answer count as its structured output: equal are those with equal JSON."""
        self._read[response.content] = FinalAnswer(canonical_json(response.output))

    async def score(
        self, run: Run, step: OpenStep, responses: Sequence[ModelResponse], deadline: float
    ) -> list[ModelResponse]:
        """Score answers by the scorer, then by the judge, until `deadline`; see `RunContext.score`."""
        local = self._local
        scores: dict[str, float] = {}
        if local.scorer is agreement:
            agreed = await self.agree(responses)
            scores = agreed.scores
            if scores:
                self.quality_basis = "votes" if agreed.counted else "similarity"
        elif local.scorer is not None:
            scores = call_scorer(run, local.scorer, step.name, responses, self._weights_of(responses))
            self._graded |= dict.fromkeys(scores)
        if local.judge is not None and run.judge is not None:
            grades = await self._grades(run, local.judge, run.judge, responses, step=step, deadline=deadline)
            self._graded |= dict.fromkeys(grades)
            scores |= grades
        if self._graded:
            self.quality_basis = "grade"
        return [step.scored(response, scores, self._targets) for response in responses]

    async def agree(self, responses: Sequence[ModelResponse]) -> Agreed:
        """Count how answers agree; see `RunContext.agree`."""
        texts = {candidate_name(response): response.content for response in responses}
        return await self._compared(texts, self._weights_of(responses))

    async def _compared(self, texts: dict[str, str], weights: Mapping[str, float]) -> Agreed:
        """Count how texts agree; those that were compared last are not compared again."""
        if self._agreed is None or self._agreed[0] != texts:
            self._agreed = texts, await agree(self._question, texts, weights, self._read)
        return self._agreed[1]

    def best(self, responses: Sequence[ModelResponse]) -> ModelResponse:
        """Return the best of several answers, which come by weight; see `RunContext.best`."""
        texts = {candidate_name(response): response.content for response in responses}
        if self._agreed is None or self._agreed[0] != texts:  # few answers, or `agree` was awaited before
            weights = self._weights_of(responses)
            self._agreed = texts, agreed_at_once(self._question, texts, weights, self._read)
        votes = self._agreed[1].votes

        def rank(response: ModelResponse) -> tuple[bool, float, float]:
            name = candidate_name(response)
            told = response.quality if name in self._graded else None
            return response.is_whole, told or 0.0, votes[name]

        # Those of higher weight come first, and `max` takes the first of equals.
        return max(responses, key=rank)

    async def confidence(
        self, answer: Answer, steps: Sequence[Step]
    ) -> tuple[float | None, ConfidenceBasis | None]:
        """Return how sure the run is of its answer, and by what: else by the share of votes for it.

        Those that vote are the first answers, whether or not they were asked at once.
        """
        if answer.confidence is not None or answer.response is None or answer.source == "tool_calls":
            return answer.confidence, answer.basis
        chosen = answer.source == "selected" and candidate_name(answer.response) in self._graded
        if chosen and answer.response.quality is not None:
            return answer.response.quality, "quality"
        voters = first_answers(steps)
        texts = {candidate_name(response): response.content for response in voters}
        weights = self._weights_of(voters)
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1.0)
        name = candidate_name(answer.response)
        if texts.get(name) != answer.response.content:
            name = ""  # it is none of them, and has no vote
            texts, weights = {**texts, name: answer.response.content}, {**weights, name: 0.0}
        if len(texts) == 1:
            return 1.0, "votes"  # its own is the only one: nothing has to be read for that
        agreed = await self._compared(texts, weights)
        if agreed.counted and agreed.finals[name] is None:
            agreed = await agree(self._question, texts, weights, self._read, by_text=True)
        return min(1.0, agreed.votes[name]), "votes" if agreed.counted else "similarity"

    async def _grades(
        self,
        run: Run,
        target: Target,
        judge: Model,
        responses: Sequence[ModelResponse],
        *,
        step: OpenStep,
        deadline: float,
    ) -> dict[str, float]:
        """Return the judge's grades; what it does wrong is a notice, and never the run's failure."""
        try:
            written = self._reader.composer("judge", responses, self._weights, (), None)(judge)
            run.fitted.tell_unseen(judge)
            if written.cuts:
                run.fitted.tell_cuts(step, judge, written)
            labels = self._reader.labels(responses, self._weights)
            grades = await ask_judge(
                self._message,
                self._local,
                target,
                request=written.request,
                labels=labels,
                candidates=[response.content for response in responses],
                deadline=deadline,
                pay=run.accounts.pay,
            )
        except UltraError as error:
            run.note(f"the judge {judge.name!r} gave no scores: {error}")
            return {}
        missing = [name for name in labels.values() if name not in grades]
        if missing:
            run.note(f"the judge {judge.name!r} gave no clear grade to: {', '.join(missing)}")
        return grades

    def _weights_of(self, responses: Sequence[ModelResponse]) -> dict[str, float]:
        return {candidate_name(response): self._weights[response.model_name] for response in responses}
