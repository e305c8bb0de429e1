"""An evaluation: all arms over the same answers, from the panel to the findings.

Each arm is replayed over what is recorded. What is missing is asked of the models, and the arm is replayed
again, until nothing is missing; so all arms read the same bytes, and what is measured does not depend on how
the answers were gathered. Where no model can be asked, arms that lack answers are left out.
"""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ultra._support.checks import did_you_mean
from ultra.errors import BadCall
from ultra.evals.analysis import Measured, findings_of
from ultra.evals.arms import Arm, cheapest_first, default_arms, member_arm, needs_schema, what_is_read
from ultra.evals.baselines import BEST, ORACLE, RANDOM, Sampling, baselines
from ultra.evals.fitting import (
    Candidate,
    Fitted,
    agreement_fitter,
    cascade_candidates,
    cascade_fitter,
    cascade_orders,
    cheapest,
    log_odds_fitter,
)
from ultra.evals.graders import JudgeGrader, make_grader
from ultra.evals.halves import crossed
from ultra.evals.outcomes import CHUNK, MOST_FALLBACKS, Outcomes
from ultra.scoring.final_answers import equal_answers
from ultra.strategies.base import models_check
from ultra.strategies.catalog import load_strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.evals.arms import Outcome
    from ultra.evals.dataset import Dataset, Question
    from ultra.evals.findings import Findings
    from ultra.evals.fitting import Fitter
    from ultra.evals.graders import Grader
    from ultra.evals.panel import Panel
    from ultra.evals.recording import Recorder
    from ultra.evals.replay import Unrecorded

__all__ = ["BEST", "ORACLE", "RANDOM", "Evaluation", "check_gold"]

_MOST_SAMPLES: Final = 15
_TWO_HALVES: Final = 2


def check_gold(
    dataset: Dataset, grader: str, *, allow_code: bool = False, named: str | None = None
) -> dict[str, Grader]:
    """Return the graders of these questions by name, once all their golds are of the right kind.

    `grader` is that of questions without their own; `named` is the one that the user named, if any.

    Raises:
        BadCall: there is no such grader, or a gold is of the wrong kind; the message names the question.
    """
    graders: dict[str, Grader] = {}
    for question in dataset.questions:
        name = question.grader or grader
        if name not in graders:
            graders[name] = make_grader(name, allow_code=allow_code, is_named=name == named)
        wanted = graders[name].check(question)
        if wanted is not None:
            raise BadCall(
                f"question {question.id!r}: the gold is {question.gold!r}; the grader {name!r} needs {wanted}"
            )
    return graders


class Evaluation:
    """Measures arms on a panel. It runs trio by itself, so it must be used outside of trio and asyncio.

    Args:
        panel: the recorded answers, and the questions.
        arms: the strategies to measure; None: all of the catalog, as `default_arms` has them.
        more: arms that are measured beside them, such as named ensembles, as far as that can be.
        grader: the name of the grader of questions without their own; None: that of the panel.
        allow_code: whether the grader ``code`` may run what models wrote, and functions may grade that only
            the panel names.
        recorder: asks what is not recorded; None: nothing is asked.
        settings: arguments of the orchestrator that all runs have, such as `quorum` and `judge`.
        unrecorded: see `Unrecorded`; without a recorder.
        fit: whether weights of votes and the threshold of a cascade are learned, and measured, too.
        most_samples: how many samples of one model are asked for a baseline at most.
        interrupted: says after each arm and each round of requests whether to end with `KeyboardInterrupt`.

    Raises:
        BadCall: a grader or a gold is not allowed, or an arm or a grader names a model that is not there.
    """

    def __init__(
        self,
        panel: Panel,
        arms: Sequence[Arm] | None = None,
        *,
        more: Sequence[Arm] = (),
        grader: str | None = None,
        allow_code: bool = False,
        recorder: Recorder | None = None,
        settings: Mapping[str, Any] | None = None,
        unrecorded: Unrecorded = "stop",
        fit: bool = True,
        most_samples: int = _MOST_SAMPLES,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.panel = panel
        self._grader = grader or panel.header.grader
        self._graders = check_gold(panel.dataset, self._grader, allow_code=allow_code, named=grader)
        self._recorder = recorder
        self._settings = dict(settings or {})
        self._fits = fit
        self._most_samples = most_samples
        self._left_out: dict[str, str] = {}
        self._notices: list[str] = []
        if arms is None:
            arms, self._left_out = default_arms(panel.models, replayed=recorder is None)
        self._check_judges()
        self._arms = self._usable(arms, more)
        self._outcomes = Outcomes(
            panel,
            self._graders,
            self._grader,
            recorder=recorder,
            settings=self._settings,
            unrecorded=unrecorded,
            interrupted=interrupted,
        )
        self.fitted: list[Fitted] = []
        self.questions: tuple[Question, ...] = ()

    def run(self) -> Findings:
        """Gather what is missing, replay all arms, grade their answers, and return what was found.

        Raises:
            BadCall: not one question has an answer of every model.
            KeyboardInterrupt: all answers that have arrived are recorded.
        """
        arms = [member_arm(name) for name in self.panel.models]
        self._gather([*arms, *self._arms])
        members = [Measured(arm, self._scored(arm)) for arm in arms]
        strategies = [
            Measured(arm, self._scored(arm), self._note(arm)) for arm in self._arms if self._is_complete(arm)
        ]
        strategies += self._fitted()
        sampling = Sampling(self._outcomes, self.questions, self._most_samples, self._left_out)
        measured = [*members, *strategies, *baselines(members, strategies, self.judge, sampling)]
        if self._outcomes.ungraded:
            self._notices.append(
                f"the judge gave no score to {self._outcomes.ungraded} answers, which count as wrong"
            )
        return findings_of(
            panel=self.panel,
            questions=self.questions,
            grader=self._grader,
            measured=measured,
            left_out=self._left_out,
            notices=self._notices,
        )

    @property
    def judge(self) -> str | None:
        """The model that grades where a strategy asks a judge, if there is one."""
        return self._settings.get("judge")

    def member_scores(self) -> dict[str, list[float]]:
        """Return the scores of each model, in the order of `questions`; after `run`."""
        return {name: self._scores_of(name) for name in self.panel.models}

    # --- answers -------------------------------------------------------------------------------------

    def _check_judges(self) -> None:
        """Raise `BadCall` where a grader is a model that cannot be asked; a replay reads what it said."""
        if self._recorder is None:
            return
        for name, grader in self._graders.items():
            if isinstance(grader, JudgeGrader) and grader.model not in (known := self._recorder.models):
                raise BadCall(
                    f"the grader {name!r} asks {grader.model!r}, which is no model here; there are: "
                    f"{', '.join(known)}{did_you_mean(grader.model, known)}"
                )

    def _usable(self, arms: Sequence[Arm], more: Sequence[Arm]) -> list[Arm]:
        """Return the arms that these questions and models allow; of others is told why they are left out."""
        found = []
        names: set[str] = set(self.panel.models) | {RANDOM, BEST, ORACLE}
        structured = all(question.schema is not None for question in self.panel.dataset.questions)
        for number, arm in enumerate([*arms, *more]):
            if arm.name in names:
                raise BadCall(
                    f"two arms have the name {arm.name!r}; a report tells arms apart by their names"
                )
            names.add(arm.name)
            problem = self._problem(arm)
            if problem is not None and number < len(arms):
                raise BadCall(f"the arm {arm.name!r}: {problem}")
            if problem is not None:
                self._left_out[arm.name] = problem
            elif needs_schema(arm) and not structured:
                self._left_out[arm.name] = "it merges structured answers, and not all questions have a schema"
            else:
                found.append(arm)
        return found

    def _problem(self, arm: Arm) -> str | None:
        """Return which model an arm names that is not measured here; None: it names no such."""
        models = list(self.panel.models)
        absent = [name for name in arm.models or () if name not in models]
        if absent:
            return f"it asks {absent[0]!r}, which is none of the models here: {', '.join(models)}"
        asked = [name for name in models if arm.models is None or name in arm.models]
        strategy = load_strategy(arm.strategy, arm.options)
        try:
            if (check := models_check(strategy)) is not None:
                check(asked, models)
        except BadCall as error:
            return str(error)
        return None

    def _gather(self, arms: Sequence[Arm]) -> None:
        """Have the outcomes of these arms, on as many of the first questions as answers can be had for."""
        questions = self.panel.dataset.questions
        members = arms[: len(self.panel.models)]
        if self._recorder is None:
            self._outcomes.fill(members, questions)
            self.questions = tuple(
                each for each in questions if all(self._outcomes.have(arm, [each]) for arm in members)
            )
            self._outcomes.fill(arms, self.questions)
        else:
            done = 0
            for start in range(0, len(questions), CHUNK):
                chunk = questions[start : start + CHUNK]
                if not self._outcomes.fill(arms, chunk):
                    self._notices.append("the limit of cost was reached")
                    break
                done = start + len(chunk)
            self.questions = questions[:done]
        if not self.questions:
            raise BadCall(
                "not one question has the answers of all models, so nothing can be compared; record them: "
                "ultra eval DATA.jsonl, perhaps with a higher --max-cost"
            )
        if len(self.questions) < len(questions):
            self._notices.append(
                f"{len(self.questions)} of {len(questions)} questions are measured; the others lack answers"
            )

    def _is_complete(self, arm: Arm) -> bool:
        """Return whether the arm has an outcome for each question; tell why it has not."""
        lacking = sum(not self._outcomes.have(arm, [question]) for question in self.questions)
        failing = self._outcomes.unrecorded(arm, self.questions)
        if not lacking and failing <= len(self.questions) * MOST_FALLBACKS:
            return True
        if self._recorder is None:
            count, tried = self._outcomes.lacking.get(arm.name, (lacking or failing, len(self.questions)))
            self._left_out[arm.name] = (
                f"{what_is_read(arm)}; what they would write on {count} of {tried} questions is not "
                "recorded, and a replay asks no model"
            )
        else:
            self._left_out[arm.name] = f"{lacking} of {len(self.questions)} questions lack answers"
        return False

    def _note(self, arm: Arm) -> str:
        failing = self._outcomes.unrecorded(arm, self.questions)
        if not failing:
            return ""
        return (
            f"on {failing} of {len(self.questions)} questions its fallback answered, since what a model "
            "would have read and written is not recorded"
        )

    # --- what is learned -----------------------------------------------------------------------------

    def _fitted(self) -> list[Measured]:
        """Return the arms with options that were learned on the other half; keep what all questions teach."""
        found = []
        every = range(len(self.questions))
        for fitter in self._fitters():
            arms = [
                fitter.arm(every[1 - half :: 2], f"{fitter.name} (of half {2 - half})") for half in (0, 1)
            ]
            template = replace(fitter.plain, name=fitter.name)
            made = crossed(self._outcomes, (arms[0], arms[1]), self.questions, template)
            failing = 0 if made is None else sum(outcome.unrecorded > 0 for outcome in made.outcomes)
            if made is None or failing > len(self.questions) * MOST_FALLBACKS:
                self._left_out[fitter.name] = "it needs answers that are not recorded"
                continue
            note = "learned on the other half: " + "; ".join(_learned(arm, fitter.plain) for arm in arms)
            if failing:
                note += f"; on {failing} of {len(self.questions)} questions its fallback answered"
            found.append(Measured(made.arm, made.outcomes, note))
            self.fitted.append(Fitted(fitter.name, fitter.ensemble, fitter.arm(every, fitter.name)))
        return found

    def _fitters(self) -> list[Fitter]:
        """Return what can be learned: weights of the first vote that is measured, and when a cascade ends."""
        if not self._fits or len(self.questions) < _TWO_HALVES:
            return []
        measured = [arm for arm in self._arms if arm.name not in self._left_out and not arm.run]
        vote = next((arm for arm in measured if arm.strategy == "vote"), None)
        cascade = next((arm for arm in measured if arm.strategy == "cascade"), None)
        found = []
        if vote is not None:
            names = vote.models or tuple(self.panel.models)
            scores = {name: each for name, each in self.member_scores().items() if name in names}
            finals = self._finals(names)
            found += [log_odds_fitter(vote, scores, finals), agreement_fitter(vote, finals)]
        if cascade is not None:
            found.append(cascade_fitter(cascade, partial(self._candidates, cascade)))
        return found

    def _finals(self, names: Sequence[str]) -> list[dict[str, str | None]]:
        """Return the final answers of these models to each question."""
        rows = []
        for question in self.questions:
            texts = [self._outcomes.of(member_arm(name))[question.id].text or "" for name in names]
            rows.append(dict(zip(names, equal_answers(texts, question.text), strict=True)))
        return rows

    def _candidates(self, cascade: Arm, places: Sequence[int]) -> list[Candidate]:
        """Return what a cascade comes to with the options that are tried, on the questions at these places.

        Orders are tried with the threshold that is best without one.
        """
        names = cascade.models or tuple(self.panel.models)
        arms = cascade_candidates(cascade, len(names), graded=self.judge is not None)
        tried = self._tried(cascade, arms, places)
        chosen = cheapest(tried)
        if chosen is None:
            return []
        usual = cascade.options.get("order") or cheapest_first(
            {name: self.panel.models[name] for name in names}
        )
        scores = {name: fmean(self._scores_of(name)[at] for at in places) for name in names}
        return tried + self._tried(cascade, cascade_orders(cascade, chosen.options, usual, scores), places)

    def _tried(self, cascade: Arm, arms: Sequence[Arm], places: Sequence[int]) -> list[Candidate]:
        questions = [self.questions[at] for at in places]
        self._outcomes.fill(arms, questions)
        return [
            Candidate(
                {name: value for name, value in arm.options.items() if cascade.options.get(name) != value},
                self._outcomes.scored(arm, questions),
            )
            for arm in arms
            if self._outcomes.have(arm, questions)
        ]

    def _scored(self, arm: Arm) -> list[Outcome]:
        return self._outcomes.scored(arm, self.questions)

    def _scores_of(self, model: str) -> list[float]:
        return [each.score for each in self._scored(member_arm(model))]


def _learned(arm: Arm, plain: Arm) -> str:
    """Return the options of an arm that are not those of the plain one, in words."""
    given = {name: value for name, value in arm.options.items() if plain.options.get(name) != value}
    return ", ".join(f"{name} {_short(value)}" for name, value in given.items())


def _short(value: object) -> str:
    """Return an option in few words: of weights by name, the numbers in the order of the models; an order."""
    if isinstance(value, dict):
        return " / ".join(f"{each:.2g}" for each in value.values())
    return ", then ".join(value) if isinstance(value, tuple) else str(value)
