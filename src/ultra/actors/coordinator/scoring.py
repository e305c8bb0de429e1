"""Scoring the answers of a run: by the caller's scorer, then by the judge, whose grades stand before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio

from ultra.actors.coordinator.pipeline import labelled, prompt_budget_of
from ultra.actors.model.actor import Generate
from ultra.bridge.caller import call_in_context
from ultra.errors import DeadlineExceeded, StageFailed, UltraError
from ultra.prompts.composing import Composer
from ultra.scoring.judge import JUDGE, parse_grades

if TYPE_CHECKING:
    from ultra.actors.coordinator.plan import StagePlan, Target
    from ultra.actors.coordinator.run import Run
    from ultra.prompts.composing import Prompt
    from ultra.prompts.fencing import Seal
    from ultra.scoring.agreement import Scorer

__all__ = ["JUDGE_SHARE", "Scoring"]

JUDGE_SHARE: Final = 0.1
"""The part of a run's time that is kept for the judge."""


class Scoring:
    """Scores the answers of a stage; made for one run.

    `scorer` must not wait: it runs where the actors do. The judge is asked through its actor, for
    grades of candidates whose writers it does not know; whatever it does wrong is a notice of the run
    and never its failure.
    """

    def __init__(self, scorer: Scorer | None, judge: Target | None, seal: Seal) -> None:
        self._scorer = scorer
        self._judge = judge
        self._seal = seal

    async def __call__(self, run: Run, stage: StagePlan, deadline: float) -> dict[str, float]:
        """The scores (0..1) of the stage's answers, as far as there are any, by model name.

        Raises:
            StageFailed: the scorer raised, or gave something else than scores.
        """
        scores = {} if self._scorer is None else self._score(self._scorer, run, stage)
        if self._judge is not None:
            try:
                scores |= await self._ask(self._judge, run, stage, deadline)
            except UltraError as error:
                run.notices.append(f"the judge {self._judge.name!r} gave no scores: {error}")
        return scores

    def _score(self, scorer: Scorer, run: Run, stage: StagePlan) -> dict[str, float]:
        texts = {name: response.content for name, response in run.responses[stage.name].items()}
        try:
            return _checked(call_in_context(run.plan.caller, scorer, run.plan.question, texts))
        except Exception as error:
            raise StageFailed(stage.name, "the scorer", error) from error

    async def _ask(self, judge: Target, run: Run, stage: StagePlan, deadline: float) -> dict[str, float]:
        prompt = self._compose(judge, run, stage)
        request = Generate(
            prompt=prompt.user,
            stage="judge",
            system=prompt.system,
            options=run.plan.options,
            use_cache=run.plan.use_cache,
            deadline=deadline,
            caller=run.plan.caller,
        )
        with trio.CancelScope(deadline=deadline):
            reply = await judge.ref.ask(request)
            run.judge_cost = reply.cost
            grades = parse_grades(reply.content, prompt.labels)
            missing = [name for name in prompt.labels.values() if name not in grades]
            if missing:
                run.notices.append(f"the judge {judge.name!r} gave no clear grade to: {', '.join(missing)}")
            return grades
        raise DeadlineExceeded("it did not answer in time")

    def _compose(self, judge: Target, run: Run, stage: StagePlan) -> Prompt:
        composer = Composer(
            "judge",
            task=JUDGE,
            question=run.plan.question,
            candidates=labelled(run, stage.name, self._seal),
            seal=self._seal,
        )
        return composer.prompt_for(judge.name, prompt_budget_of(judge))


def _checked(scores: object) -> dict[str, float]:
    if not isinstance(scores, Mapping):
        raise TypeError(f"it gave {scores!r}; it must give a mapping from model names to scores")
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise ValueError(f"it gave {name!r} the score {score!r}; a score is a number from 0 to 1")
    return {name: float(score) for name, score in scores.items()}
