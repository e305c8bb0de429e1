"""An evaluation: all arms over the same answers, from the panel to the findings.

Each arm is replayed over what is recorded. What is missing is asked of the models, and the arm is replayed
again, until nothing is missing; so all arms read the same bytes, and what is measured does not depend on how
the answers were gathered. Where no model can be asked, arms that lack answers are left out.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import trio
from msgspec.structs import replace

from ultra.errors import BadCall
from ultra.evals.analysis import Measured, findings_of
from ultra.evals.arms import (
    Arm,
    Outcome,
    default_arms,
    member_arm,
    needs_schema,
    samples_arm,
    what_is_read,
)
from ultra.evals.fitting import (
    Candidate,
    Fitted,
    agreement_fitter,
    cascade_candidates,
    cascade_fitter,
    log_odds_fitter,
)
from ultra.evals.graders import JudgeGrader, make_grader
from ultra.evals.panel import request_key
from ultra.evals.replay import Missing, replay
from ultra.scoring.final_answers import equal_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultra.evals.dataset import Dataset, Question
    from ultra.evals.findings import Findings
    from ultra.evals.fitting import Fitter
    from ultra.evals.graders import Grader
    from ultra.evals.panel import Panel
    from ultra.evals.recording import Recorder
    from ultra.evals.replay import Unrecorded

__all__ = ["BEST", "ORACLE", "RANDOM", "Evaluation", "check_gold"]

RANDOM: Final = "random member"
BEST: Final = "best member"
ORACLE: Final = "oracle"
_CHUNK: Final = 50
"""Questions whose answers are gathered together, so that a limit of cost leaves whole ones."""
_MOST_SAMPLES: Final = 15
_MOST_FALLBACKS: Final = 0.1
"""An arm whose fallback answers more of the questions than this share is not measured."""
_TWO_HALVES: Final = 2


def check_gold(dataset: Dataset, grader: str, *, allow_code: bool = False) -> dict[str, Grader]:
    """Return the graders of these questions by name, once all their golds are of the right kind.

    Raises:
        BadCall: there is no such grader, or a gold is of the wrong kind; the message names the question.
    """
    graders: dict[str, Grader] = {}
    for question in dataset.questions:
        name = question.grader or grader
        if name not in graders:
            graders[name] = make_grader(name, allow_code=allow_code)
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
        more: arms that are measured beside them, such as named ensembles.
        grader: the name of the grader of questions without their own.
        allow_code: whether the grader ``code`` may run what models wrote.
        recorder: asks what is not recorded; None: nothing is asked.
        settings: arguments of the orchestrator that all runs have, such as `quorum` and `judge`.
        unrecorded: see `Unrecorded`; without a recorder.
        fit: whether weights of votes and the threshold of a cascade are learned, and measured, too.
        most_samples: how many samples of one model are asked for a baseline at most.
        interrupted: says after each arm and each round of requests whether to end with `KeyboardInterrupt`.

    Raises:
        BadCall: a grader or a gold is not allowed.
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
        self._graders = check_gold(panel.dataset, self._grader, allow_code=allow_code)
        self._recorder = recorder
        self._settings = dict(settings or {})
        self._unrecorded: Unrecorded = "stop" if recorder is not None else unrecorded
        self._fits = fit
        self._most_samples = most_samples
        self._interrupted = interrupted
        self._left_out: dict[str, str] = {}
        self._notices: list[str] = []
        if arms is None:
            arms, self._left_out = default_arms(panel.models, replayed=recorder is None)
        self._arms = self._usable([*arms, *more])
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._scores: dict[tuple[str, str], float] = {}
        self._lacking: dict[str, tuple[int, int]] = {}
        self.fitted: list[Fitted] = []
        self.questions: tuple[Question, ...] = ()

    def run(self) -> Findings:
        """Gather what is missing, replay all arms, grade their answers, and return what was found.

        Raises:
            BadCall: not one question has an answer of every model.
            KeyboardInterrupt: all answers that have arrived are recorded.
        """
        members = [member_arm(name) for name in self.panel.models]
        self._gather([*members, *self._arms])
        measured = [Measured(arm, self._scored(arm)) for arm in members]
        strategies = [
            Measured(arm, self._scored(arm), self._note(arm)) for arm in self._arms if self._is_complete(arm)
        ]
        halves = self._halves(measured)
        measured += strategies
        measured += self._fitted()
        measured += self._baselines(halves, measured)
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
        return {name: [each.score for each in self._scored(member_arm(name))] for name in self.panel.models}

    # --- answers -------------------------------------------------------------------------------------

    def _usable(self, arms: Iterable[Arm]) -> list[Arm]:
        """Return the arms that these questions allow; of the others is told why they are left out."""
        found = []
        names: set[str] = set(self.panel.models) | {RANDOM, BEST, ORACLE}
        structured = all(question.schema is not None for question in self.panel.dataset.questions)
        for arm in arms:
            if arm.name in names:
                raise BadCall(
                    f"two arms have the name {arm.name!r}; a report tells arms apart by their names"
                )
            names.add(arm.name)
            if needs_schema(arm) and not structured:
                self._left_out[arm.name] = "it merges structured answers, and not all questions have a schema"
            else:
                found.append(arm)
        return found

    def _gather(self, arms: Sequence[Arm]) -> None:
        """Have the outcomes of these arms, on as many of the first questions as answers can be had for."""
        questions = self.panel.dataset.questions
        members = arms[: len(self.panel.models)]
        if self._recorder is None:
            self._fill(members, questions)
            whole = [
                each for each in questions if all(each.id in self._outcomes[arm.name] for arm in members)
            ]
            self.questions = tuple(whole)
            self._fill(arms, whole)
        else:
            done = 0
            for start in range(0, len(questions), _CHUNK):
                chunk = questions[start : start + _CHUNK]
                if not self._fill(arms, chunk):
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

    def _fill(self, arms: Sequence[Arm], questions: Sequence[Question]) -> bool:
        """Replay the arms until no answer is missing; return False where the limit of cost was first."""
        while True:
            missing: list[Missing] = []
            for arm in arms:
                known = self._outcomes.setdefault(arm.name, {})
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
        for start in range(0, len(questions), len(questions) if asks else _CHUNK):
            part = questions[start:] if asks else questions[start : start + _CHUNK]
            found = replay(self.panel, arm, part, settings=self._settings, unrecorded=self._for(arm))
            known.update(found.outcomes)
            missing += found.missing
            self._check_interrupted()
            lacking = sum(each.unrecorded > 0 for each in known.values())
            lacking += sum(question.id not in known for question in questions[: start + len(part)])
            if not asks and arm.kind == "strategy" and lacking > len(questions) * self._bearable:
                self._lacking[arm.name] = lacking, start + len(part)
                break
        return missing

    @property
    def _bearable(self) -> float:
        """Which share of the questions an arm may lack answers to and still be measured."""
        return _MOST_FALLBACKS if self._unrecorded == "fail" else 0.0

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

    def _is_complete(self, arm: Arm) -> bool:
        """Return whether the arm has an outcome for each question; tell why it has not."""
        known = self._outcomes.get(arm.name, {})
        lacking = sum(question.id not in known for question in self.questions)
        failing = sum(known[each.id].unrecorded > 0 for each in self.questions if each.id in known)
        if not lacking and failing <= len(self.questions) * _MOST_FALLBACKS:
            return True
        if self._recorder is None:
            count, tried = self._lacking.get(arm.name, (lacking or failing, len(self.questions)))
            self._left_out[arm.name] = (
                f"{what_is_read(arm)}; what they would write on {count} of {tried} questions is not "
                "recorded, and a replay asks no model"
            )
        else:
            self._left_out[arm.name] = f"{lacking} of {len(self.questions)} questions lack answers"
        return False

    def _note(self, arm: Arm) -> str:
        failing = sum(self._outcomes[arm.name][each.id].unrecorded > 0 for each in self.questions)
        if not failing:
            return ""
        return (
            f"on {failing} of {len(self.questions)} questions its fallback answered, since what a model "
            "would have read and written is not recorded"
        )

    # --- grading -------------------------------------------------------------------------------------

    def _scored(self, arm: Arm) -> list[Outcome]:
        known = self._outcomes[arm.name]
        self._grade([(question, known[question.id].text) for question in self.questions])
        return [
            known[question.id].scored(self._scores.get((question.id, known[question.id].text or ""), 0.0))
            for question in self.questions
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
        missing = [
            Missing(question.id, grader.model, grader.request(question, text))
            for question, text, grader in asked
            if self._verdict(question, text, grader) is None
        ]
        if missing and self._recorder is not None:
            self._recorded(missing)
        for question, text, grader in asked:
            score = self._verdict(question, text, grader)
            if score is None:
                raise BadCall(
                    f"the judge {grader.model!r} has not graded all answers, and cannot be asked; give the "
                    "questions and the models, or a higher --max-cost"
                )
            self._scores[question.id, text] = score

    def _verdict(self, question: Question, text: str, grader: JudgeGrader) -> float | None:
        found = self.panel.find(question.id, grader.model, request_key(grader.request(question, text)))
        return None if found is None else grader.read(found.text or "")

    # --- baselines -----------------------------------------------------------------------------------

    def _halves(self, members: Sequence[Measured]) -> tuple[str, str]:
        """Return the best member for the even questions, chosen on the odd ones, and the other way round."""
        if len(self.questions) == 1:
            return members[0].arm.name, members[0].arm.name
        chosen = []
        for half in (0, 1):
            scores = {each.arm.name: fmean(o.score for o in each.outcomes[1 - half :: 2]) for each in members}
            chosen.append(max(scores, key=scores.__getitem__))
        return chosen[0], chosen[1]

    def _crossed(self, arms: tuple[Arm, Arm], name: str, template: Arm) -> Measured | None:
        """Return the outcomes of one arm on the even questions and of the other on the odd ones.

        None: not all can be had.
        """
        for half, arm in enumerate(arms):
            if not self._fill([arm], self.questions[half::2]):
                return None
        outcomes = []
        for index, question in enumerate(self.questions):
            found = self._outcomes[arms[index % 2].name].get(question.id)
            if found is None:
                return None
            self._grade([(question, found.text)])
            outcomes.append(found.scored(self._scores.get((question.id, found.text or ""), 0.0)))
        return Measured(replace(template, name=name), outcomes)

    def _fitted(self) -> list[Measured]:
        """Return the arms with options that were learned on the other half; keep what all questions teach."""
        found = []
        every = range(len(self.questions))
        for fitter in self._fitters():
            arms = [
                fitter.arm(every[1 - half :: 2], f"{fitter.name} (of half {2 - half})") for half in (0, 1)
            ]
            made = self._crossed((arms[0], arms[1]), fitter.name, fitter.plain)
            failing = 0 if made is None else sum(outcome.unrecorded > 0 for outcome in made.outcomes)
            if made is None or failing > len(self.questions) * _MOST_FALLBACKS:
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
            candidates = self._candidates(cascade)
            if candidates:
                found.append(cascade_fitter(cascade, candidates))
        return found

    def _finals(self, names: Sequence[str]) -> list[dict[str, str | None]]:
        """Return the final answers of these models to each question."""
        rows = []
        for question in self.questions:
            texts = [self._outcomes[name][question.id].text or "" for name in names]
            rows.append(dict(zip(names, equal_answers(texts, question.text), strict=True)))
        return rows

    def _candidates(self, cascade: Arm) -> list[Candidate]:
        """Return what a cascade comes to with each of its options that are tried."""
        models = len(cascade.models or self.panel.models)
        arms = cascade_candidates(cascade, models, graded=self.judge is not None)
        if not self._fill(arms, self.questions):
            return []
        return [
            Candidate(
                {name: value for name, value in arm.options.items() if cascade.options.get(name) != value},
                self._scored(arm),
            )
            for arm in arms
            if all(question.id in self._outcomes[arm.name] for question in self.questions)
        ]

    def _baselines(self, halves: tuple[str, str], measured: Sequence[Measured]) -> list[Measured]:
        by_name = {each.arm.name: each for each in measured}
        members = [by_name[name] for name in self.panel.models]
        best = [by_name[halves[index % 2]].outcomes[index] for index in range(len(self.questions))]
        chosen = " and ".join(dict.fromkeys(halves))
        found = [
            Measured(Arm(name=RANDOM, kind="random"), [_mean(row) for row in _rows(members)]),
            Measured(Arm(name=BEST, kind="best"), best, f"chosen on the other half: {chosen}"),
            Measured(Arm(name=ORACLE, kind="oracle"), [_best(row) for row in _rows(members)]),
        ]
        strategies = [each for each in measured if each.arm.kind == "strategy"]
        return found + self._samples(halves, strategies, found[1]) + self._judge(strategies, by_name)

    def _samples(
        self, halves: tuple[str, str], strategies: Sequence[Measured], best: Measured
    ) -> list[Measured]:
        """Return more and more samples of the best member, up to the cost of the dearest strategy."""
        found: list[Measured] = []
        dearest = _dearest(strategies, best)
        for count in range(3, self._most_samples + 1, 2):
            if (found[-1].calls if found else 1.0) >= dearest:
                break
            arms = samples_arm(halves[0], count), samples_arm(halves[1], count)
            name = f"{BEST} x{count}"
            made = self._crossed(arms, name, Arm(name=name, kind="samples", options={"samples": count}))
            if made is None:
                self._left_out[f"{name} and more"] = "further samples of it are not recorded"
                break
            found.append(made)
        return found

    def _judge(self, strategies: Sequence[Measured], by_name: Mapping[str, Measured]) -> list[Measured]:
        """Return the model that reads the others' answers, alone, and with the dearest strategy's budget."""
        judge = self.judge or next(iter(self.panel.models))
        if judge not in by_name:
            return []
        alone = by_name[judge]
        found = [Measured(Arm(name=f"judge alone ({judge})", kind="judge"), alone.outcomes)]
        dearest = _dearest(strategies, alone)
        last: Measured | None = None
        for count in range(3, self._most_samples + 1, 2):
            if (1.0 if last is None else last.calls) >= dearest:
                break
            arm = samples_arm(judge, count)
            name = f"judge x{count} (the dearest strategy's budget)"
            last = self._crossed((arm, arm), name, Arm(name=name, kind="judge", options={"samples": count}))
            if last is None:
                self._left_out[name] = "further samples of it are not recorded"
                break
        return found if last is None else [*found, last]


def _dearest(strategies: Sequence[Measured], single: Measured) -> float:
    """Return how many calls of `single` cost as much as the dearest strategy, in calls and in dollars."""
    calls = [each.calls for each in strategies]
    calls += [each.cost / single.cost for each in strategies if each.cost is not None and single.cost]
    return max(calls, default=1.0)


def _learned(arm: Arm, plain: Arm) -> str:
    """Return the options of an arm that are not those of the plain one, in words."""
    given = {name: value for name, value in arm.options.items() if plain.options.get(name) != value}
    return ", ".join(f"{name} {_short(value)}" for name, value in given.items())


def _short(value: object) -> str:
    """Return an option in few words: of weights by name, the numbers in the order of the models."""
    return " / ".join(f"{each:.2g}" for each in value.values()) if isinstance(value, dict) else str(value)


def _rows(members: Sequence[Measured]) -> list[tuple[Outcome, ...]]:
    return list(zip(*(each.outcomes for each in members), strict=True))


def _mean(row: Sequence[Outcome]) -> Outcome:
    """Return what a member that is drawn at random comes to on average."""
    costs = [each.cost for each in row if each.cost is not None]
    return Outcome(
        text="",
        score=fmean(each.score for each in row),
        calls=fmean(each.calls for each in row),
        input_tokens=fmean(each.input_tokens for each in row),
        output_tokens=fmean(each.output_tokens for each in row),
        cost=fmean(costs) if len(costs) == len(row) else None,
        seconds=fmean(each.seconds for each in row),
    )


def _best(row: Sequence[Outcome]) -> Outcome:
    """Return the best of these answers, at the cost of them all."""
    costs = [each.cost for each in row if each.cost is not None]
    return Outcome(
        text="",
        score=max(each.score for each in row),
        calls=sum(each.calls for each in row),
        input_tokens=sum(each.input_tokens for each in row),
        output_tokens=sum(each.output_tokens for each in row),
        cost=sum(costs) if len(costs) == len(row) else None,
        seconds=max(each.seconds for each in row),
    )
