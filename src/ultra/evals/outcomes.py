"""What arms come to: replayed over what is recorded, asked of the models where it is not, and graded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from ultra.errors import BadCall
from ultra.evals.graders import JudgeGrader
from ultra.evals.panel import request_key
from ultra.evals.replay import Missing, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultra.evals.arms import Arm, Outcome
    from ultra.evals.dataset import Question
    from ultra.evals.graders import Grader
    from ultra.evals.panel import Panel, Recorded
    from ultra.evals.recording import Recorder
    from ultra.evals.replay import Unrecorded

__all__ = ["CHUNK", "MOST_FALLBACKS", "Outcomes"]

CHUNK: Final = 50
"""Questions whose answers are gathered together, so that a limit of cost leaves whole ones."""
MOST_FALLBACKS: Final = 0.1
"""An arm whose fallback answers more of the questions than this share is not measured."""


class Outcomes:
    """The outcomes of all arms that were tried, by the names of the arms and the ids of the questions.

    Its arguments are those of `Evaluation`; `graders` are by name, `grader` is that of questions without one.
    """

    def __init__(
        self,
        panel: Panel,
        graders: Mapping[str, Grader],
        grader: str,
        *,
        recorder: Recorder | None,
        settings: Mapping[str, Any],
        unrecorded: Unrecorded,
        interrupted: Callable[[], bool],
    ) -> None:
        self._panel = panel
        self._graders = graders
        self._grader = grader
        self._recorder = recorder
        self._settings = settings
        self._unrecorded: Unrecorded = "stop" if recorder is not None else unrecorded
        self._interrupted = interrupted
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._scores: dict[tuple[str, str], float] = {}
        self.lacking: dict[str, tuple[int, int]] = {}
        """Of arms that lack too much: the answers that they lack, of so many questions."""
        self.ungraded = 0
        """How many answers a judge gave no score; they count as wrong."""

    def of(self, arm: Arm) -> dict[str, Outcome]:
        """Return what is known of an arm, without scores."""
        return self._outcomes.setdefault(arm.name, {})

    def have(self, arm: Arm, questions: Iterable[Question]) -> bool:
        """Return whether the arm has an outcome for each of these questions."""
        known = self.of(arm)
        return all(question.id in known for question in questions)

    def unrecorded(self, arm: Arm, questions: Iterable[Question]) -> int:
        """Return on how many of these questions, as far as they are known, a fallback answered."""
        known = self.of(arm)
        return sum(known[each.id].unrecorded > 0 for each in questions if each.id in known)

    def fill(self, arms: Sequence[Arm], questions: Sequence[Question]) -> bool:
        """Replay the arms until no answer is missing; return False where the limit of cost was first."""
        while True:
            missing: list[Missing] = []
            for arm in arms:
                known = self.of(arm)
                pending = [question for question in questions if question.id not in known]
                if not pending:
                    continue
                missing += self._replayed(arm, pending, known)
            if not missing or self._recorder is None:
                return True
            if not self._recorded(missing):
                return False

    def _replayed(self, arm: Arm, questions: Sequence[Question], known: dict[str, Outcome]) -> list[Missing]:
        """Replay an arm, and return what is missing.

        Where nothing can be asked, that ends with the part in which so much is missing that it is left out.
        """
        asks = self._recorder is not None
        missing: list[Missing] = []
        for start in range(0, len(questions), len(questions) if asks else CHUNK):
            part = questions[start:] if asks else questions[start : start + CHUNK]
            found = replay(self._panel, arm, part, settings=self._settings, unrecorded=self._for(arm))
            known.update(found.outcomes)
            missing += found.missing
            self._check_interrupted()
            lacking = sum(each.unrecorded > 0 for each in known.values())
            lacking += sum(question.id not in known for question in questions[: start + len(part)])
            if not asks and arm.kind == "strategy" and lacking > len(questions) * self._bearable:
                self.lacking[arm.name] = lacking, start + len(part)
                break
        return missing

    @property
    def _bearable(self) -> float:
        """Which share of the questions an arm may lack answers to and still be measured."""
        return MOST_FALLBACKS if self._unrecorded == "fail" else 0.0

    def _recorded(self, missing: Sequence[Missing]) -> bool:
        """Ask what is missing; return whether all of it was asked."""
        done = self._recorder is not None and trio.run(self._recorder.record, missing)
        self._check_interrupted()
        return done

    def _check_interrupted(self) -> None:
        if self._interrupted():
            raise KeyboardInterrupt

    def _for(self, arm: Arm) -> Unrecorded:
        return "stop" if arm.kind in {"member", "samples"} else self._unrecorded

    def scored(self, arm: Arm, questions: Sequence[Question]) -> list[Outcome]:
        """Return the outcomes of an arm on these questions, all of which it has, with their scores."""
        known = self.of(arm)
        self._grade([(question, known[question.id].text) for question in questions])
        return [
            known[question.id].scored(self._scores.get((question.id, known[question.id].text or ""), 0.0))
            for question in questions
        ]

    def _grade(self, given: Iterable[tuple[Question, str | None]]) -> None:
        """Have the scores of these answers; no answer has 0."""
        asked: list[tuple[Question, str, JudgeGrader]] = []
        for question, text in given:
            if not text or (question.id, text) in self._scores:
                continue
            grader = self._graders[question.grader or self._grader]
            if isinstance(grader, JudgeGrader):
                asked.append((question, text, grader))
            else:
                self._scores[question.id, text] = grader.grade(question, text)
                self._check_interrupted()
        missing = [
            Missing(question.id, grader.model, grader.request(question, text))
            for question, text, grader in asked
            if self._verdict(question, text, grader) is None
        ]
        if missing and self._recorder is not None:
            self._recorded(missing)
        for question, text, grader in asked:
            verdict = self._verdict(question, text, grader)
            if verdict is None:
                raise BadCall(
                    f"the judge {grader.model!r} has not graded all answers, and cannot be asked; give the "
                    "questions and the models, or a higher --max-cost"
                )
            score = grader.read(verdict.text)
            self.ungraded += score is None
            self._scores[question.id, text] = score or 0.0

    def _verdict(self, question: Question, text: str, grader: JudgeGrader) -> Recorded | None:
        """Return what the judge wrote of an answer, if it was asked."""
        return self._panel.find(question.id, grader.model, request_key(grader.request(question, text)))
