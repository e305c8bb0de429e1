"""Panels of simulated models, whose accuracies, error correlation and common failures are set by hand.

What a strategy must come to on them is known from theory, so they show whether an evaluation measures what
it says. They also cost nothing: `ultra eval --simulated NAME` shows a whole report.

The model of errors has three parts. On a share of questions all models fail together. On others all share
one difficulty: a model is right where it is below the model's accuracy. On the rest they err independently.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from itertools import combinations, product
from math import prod, sqrt
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.checks import check_count, check_number
from ultra.clients.pricing import Price
from ultra.errors import BadCall
from ultra.evals.dataset import Dataset, Question
from ultra.evals.panel import Panel, PanelHeader, PanelModel, Recorded, request_key
from ultra.messages.chat import ChatMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.evals.replay import Missing
    from ultra.messages.request import ModelRequest

__all__ = ["SCENARIOS", "SimulatedModels", "SimulatedRecorder", "scenario"]

_STEPS: Final = 60
_KEPT: Final = 0.7
"""How much of the chance to misread goes away where all candidates say the same."""
_QUESTION_TOKENS: Final = 100
_ANSWER_TOKENS: Final = 200
_PRICE: Final = Price(input=1.0, output=4.0)
_CANDIDATE: Final = re.compile(r"Candidate ([A-Z]{1,2})\b.{0,40}?<(\w+)>(.*?)</\2>", re.DOTALL)
_NUMBER: Final = re.compile(r"The answer is (\d+)\.")
_ALL_WRONG_HINT: Final = "give another all_wrong, correlation, or accuracies"


class SimulatedModels(Struct, frozen=True, kw_only=True):
    """Models with errors as they are set here.

    Attributes:
        accuracies: the share of questions on which each is right.
        correlation: the mean correlation of the errors of two of them.
        all_wrong: the share of questions on which all are wrong; None: what the correlation alone gives.
        alike: the chance that a wrong answer is the wrong answer of the question; others differ.
        again: the chance that a further sample of a model is right or wrong as its first one was; otherwise
            it is drawn again.
        reading: the chance that a model that reads the others' answers picks a right one among them.
        choosing: the chance that a model that chooses who is asked names one that is right, if one is;
            otherwise it names one at random.
        prices: dollars for a million tokens of each model, as a multiple of 1 for input and 4 for output.
        questions: how many questions there are.
        seed: draws all of it.

    Raises:
        BadCall: a number is out of its range, or no such errors are possible.
    """

    accuracies: tuple[float, ...]
    correlation: float = 0.0
    all_wrong: float | None = None
    alike: float = 1.0
    again: float = 0.75
    reading: float = 0.8
    choosing: float = 0.0
    prices: tuple[float, ...] = ()
    questions: int = 400
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.accuracies:
            raise BadCall("accuracies is empty; give one for each model, such as (0.7, 0.7, 0.7)")
        for accuracy in self.accuracies:
            check_number("an accuracy", accuracy, most=1)
        for name in ("correlation", "alike", "again", "reading", "choosing"):
            check_number(name, getattr(self, name), most=1)
        check_number("all_wrong", self.all_wrong, most=1, optional=True)
        check_count("questions", self.questions)
        if self.prices and len(self.prices) != len(self.accuracies):
            raise BadCall(f"prices has {len(self.prices)} numbers; give one for each accuracy, or none")
        self._errors()

    # --- theory ----------------------------------------------------------------------------------------

    def expected_all_wrong(self) -> float:
        """Return the share of questions on which all models are wrong, as theory has it."""
        return _all_wrong(self.accuracies, *self._errors())

    def expected_majority(self) -> float:
        """Return the accuracy of a majority vote of an odd number of models whose wrong answers are alike.

        For independent models that is Condorcet's (1785).
        """
        needed = len(self.accuracies) // 2 + 1
        return sum(chance for right, chance in self.patterns() if sum(right) >= needed)

    def expected_vote_calls(self) -> float:
        """Return the calls of a vote of equal weights that stops once the rest cannot change its outcome.

        The models are asked in their order; there is an odd number of them, and wrong answers are alike.
        """
        needed = len(self.accuracies) // 2 + 1
        return sum(chance * _until_decided(right, needed) for right, chance in self.patterns())

    def expected_disagreement(self, one: int, other: int) -> float:
        """Return the share of questions on which one of two models is right and the other wrong."""
        return sum(chance for right, chance in self.patterns() if right[one] != right[other])

    def expected_cascade_calls(self) -> float:
        """Return the calls of a cascade whose first two models are the first of these, wrong answers alike.

        A third is asked where these differ, and then a majority stands: 2 + P(disagreement).
        """
        return 2 + self.expected_disagreement(0, 1)

    def expected_choice(self, chooser: int) -> float:
        """Return the accuracy where one of the models chooses which of the others is asked."""
        found = 0.0
        for right, chance in self.patterns():
            others = [each for index, each in enumerate(right) if index != chooser]
            found += chance * (self.choosing * any(others) + (1 - self.choosing) * fmean(others))
        return found

    def patterns(self) -> list[tuple[tuple[bool, ...], float]]:
        """Return which of the models may be right together, and the chance of each of these cases."""
        common, shared = self._errors()
        rates = [accuracy / (1 - common) if common < 1 else 0.0 for accuracy in self.accuracies]
        found = dict.fromkeys(product((False, True), repeat=len(rates)), 0.0)
        for right in found:
            alone = prod(rate if each else 1 - rate for each, rate in zip(right, rates, strict=True))
            found[right] = (1 - common) * ((1 - shared) * alone + shared * _below(right, rates))
        found[(False,) * len(rates)] += common
        return list(found.items())

    def _errors(self) -> tuple[float, float]:
        """Return the share of common failures, and of the rest the share with a common difficulty."""
        return _solved(self.accuracies, self.correlation, self.all_wrong)

    # --- answers ---------------------------------------------------------------------------------------

    def panel(self, name: str = "simulated") -> Panel:
        """Return a panel of these models without any answer yet; `SimulatedRecorder` adds them."""
        questions = tuple(
            Question(
                id=f"q{number}",
                messages=(ChatMessage("user", f"Question {number}: which number is meant?"),),
                gold=str(_right(number)),
            )
            for number in range(self.questions)
        )
        dataset = Dataset(name, questions)
        prices = self.prices or (1.0,) * len(self.accuracies)
        models = tuple(
            PanelModel(
                name=f"model-{chr(ord('a') + index)}",
                identity=f"simulated, right {accuracy:.0%}",
                price=Price(input=_PRICE.input * times, output=_PRICE.output * times),
            )
            for index, (accuracy, times) in enumerate(zip(self.accuracies, prices, strict=True))
        )
        header = PanelHeader(source=name, digest=dataset.digest, models=models, grader="number")
        return Panel(header, dataset)

    def right(self, number: int) -> list[bool]:
        """Return which of the models are right on question `number`, in their first sample."""
        common, shared = self._errors()
        draw = Random(f"{self.seed}/{number}")
        if draw.random() < common:
            return [False] * len(self.accuracies)
        one = draw.random() if draw.random() < shared else None
        return [(draw.random() if one is None else one) < rate / (1 - common) for rate in self.accuracies]


class SimulatedRecorder:
    """Answers for simulated models, in the place of a `Recorder`."""

    def __init__(self, models: SimulatedModels, panel: Panel) -> None:
        self._models = models
        self._panel = panel
        self._indices = {name: index for index, name in enumerate(sorted(panel.models))}
        self._first: dict[int, list[bool]] = {}

    @property
    def models(self) -> Sequence[str]:
        """The names of all models that can be asked."""
        return tuple(self._indices)

    async def record(self, missing: Sequence[Missing]) -> bool:
        """Answer all that is missing, and return True."""
        for question, model, request in missing:
            key = request_key(request)
            if self._panel.find(question, model, key) is None:
                self._panel.add(question, self._answer(question, model, request, key))
        return True

    def _answer(self, question: str, model: str, request: ModelRequest, key: str) -> Recorded:
        number, index = int(question[1:]), self._indices[model]
        draw = Random(f"{self._models.seed}/{question}/{model}/{key}")
        said = request.system or ""
        candidates = _CANDIDATE.findall("\n".join(message.text for message in request.messages))
        if candidates:
            text = self._read(number, request, [(label, text) for label, _, text in candidates], draw)
        elif "choose which models" in said:
            text = self._choice(number, model, draw)
        else:
            text = self._said(number, self._is_right(number, index, request.sample), draw)
        tokens_in = _QUESTION_TOKENS + _ANSWER_TOKENS * len(candidates)
        price = self._panel.models[model].price or _PRICE
        return Recorded(
            model=model,
            key=key,
            sample=request.sample,
            text=text,
            input_tokens=tokens_in,
            output_tokens=_ANSWER_TOKENS,
            cost=(tokens_in * price.input + _ANSWER_TOKENS * price.output) / 1_000_000,
            seconds=round(draw.uniform(1.0, 3.0), 3),
            finish="stop",
        )

    def _is_right(self, number: int, index: int, sample: int) -> bool:
        if number not in self._first:
            self._first[number] = self._models.right(number)
        first = self._first[number][index]
        if not sample:
            return first
        draw = Random(f"{self._models.seed}/{number}/{index}/{sample}")
        return first if draw.random() < self._models.again else draw.random() < self._models.accuracies[index]

    def _choice(self, number: int, chooser: str, draw: Random) -> str:
        """Return the name of the model that is to be asked."""
        others = {name: index for name, index in self._indices.items() if name != chooser}
        right = [name for name, index in others.items() if self._is_right(number, index, 0)]
        return draw.choice(right if right and draw.random() < self._models.choosing else list(others))

    def _said(self, number: int, is_right: bool, draw: Random) -> str:  # noqa: FBT001 - one of two answers
        right = _right(number)
        if is_right:
            return f"I have thought about it. The answer is {right}."
        wrong = 1 if draw.random() < self._models.alike else draw.randint(2, 9)
        return f"I have thought about it. The answer is {right + wrong}."

    def _read(
        self, number: int, request: ModelRequest, candidates: Sequence[tuple[str, str]], draw: Random
    ) -> str:
        """Return what a model writes that reads answers of others: its own, or grades of theirs."""
        said = {label: found[1] for label, text in candidates if (found := _NUMBER.search(text)) is not None}
        right = str(_right(number))
        reading = self._models.reading
        if len(set(said.values())) == 1:
            reading += (1 - reading) * _KEPT
        picked = right if right in said.values() and draw.random() < reading else None
        if picked is None:
            wrong = sorted({value for value in said.values() if value != right}) or [str(_right(number) + 1)]
            picked = draw.choice(wrong)
        if "grade" in (request.system or "").lower():
            return "\n".join(f"{label}: {9 if value == picked else 3}" for label, value in said.items())
        if "rank" in (request.system or "").lower():
            return " > ".join(sorted(said, key=lambda label: (said[label] != picked, label)))
        return f"I have read them all. The answer is {picked}."


def _right(number: int) -> int:
    return 1_000 + 10 * number


def _below(right: Sequence[bool], rates: Sequence[float]) -> float:
    """Return the chance that one common difficulty lets just these be right: those with higher rates."""
    most = min((rate for each, rate in zip(right, rates, strict=True) if each), default=1.0)
    least = max((rate for each, rate in zip(right, rates, strict=True) if not each), default=0.0)
    return max(0.0, most - least)


def _until_decided(right: Sequence[bool], needed: int) -> int:
    """Return how many votes are counted, in their order, until one side has `needed` of them."""
    votes = {True: 0, False: 0}
    for number, each in enumerate(right, start=1):
        votes[each] += 1
        if votes[each] == needed:
            return number
    return len(right)


def _all_wrong(accuracies: Sequence[float], common: float, shared: float) -> float:
    rates = [accuracy / (1 - common) for accuracy in accuracies] if common < 1 else [0.0]
    rest = shared * (1 - max(rates)) + (1 - shared) * prod(1 - rate for rate in rates)
    return common + (1 - common) * rest


def _both_wrong(one: float, other: float, common: float, shared: float) -> float:
    return _all_wrong((one, other), common, shared)


def _mean_correlation(accuracies: Sequence[float], common: float, shared: float) -> float:
    found = []
    for one, other in combinations(accuracies, 2):
        spread = sqrt(one * (1 - one) * other * (1 - other))
        if spread:
            found.append((_both_wrong(one, other, common, shared) - (1 - one) * (1 - other)) / spread)
    return fmean(found) if found else 0.0


def _shared(accuracies: Sequence[float], common: float, correlation: float) -> float:
    """Return the share of questions with a common difficulty that gives this mean correlation of errors."""
    correlate = partial(_mean_correlation, accuracies, common)
    least, most = correlate(0.0), correlate(1.0)
    if not least - 1e-9 <= correlation <= most + 1e-9:
        raise BadCall(
            f"correlation is {correlation:g}; with these accuracies and common failures it lies between "
            f"{least:.3f} and {most:.3f}"
        )
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if correlate(middle) < correlation else (low, middle)
    return (low + high) / 2 if correlation > least else 0.0


@lru_cache(maxsize=64)
def _solved(
    accuracies: tuple[float, ...], correlation: float, all_wrong: float | None
) -> tuple[float, float]:
    """Return the share of common failures, and of the rest the share with a common difficulty."""
    if all_wrong is None:
        return 0.0, _shared(accuracies, 0.0, correlation)
    low, high = 0.0, 1 - max(accuracies)
    least, most = (_all_wrong_with(accuracies, common, correlation) for common in (low, high))
    if least is None:
        raise BadCall(f"a correlation of {correlation:g} is too high for these accuracies")
    if most is None:  # so many common failures alone make the errors more correlated
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (
                (middle, high)
                if _all_wrong_with(accuracies, middle, correlation) is not None
                else (low, middle)
            )
        high, low = low, 0.0
        most = _all_wrong_with(accuracies, high, correlation)
    if most is None or not least - 1e-9 <= all_wrong <= most + 1e-9:
        raise BadCall(
            f"all_wrong is {all_wrong:g}; with these accuracies and this correlation it is from "
            f"{least:.3f} to {most or least:.3f}: {_ALL_WRONG_HINT}"
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = _all_wrong_with(accuracies, middle, correlation)
        low, high = (middle, high) if found is not None and found < all_wrong else (low, middle)
    return low, _shared(accuracies, low, correlation)


def _all_wrong_with(accuracies: Sequence[float], common: float, correlation: float) -> float | None:
    try:
        shared = _shared(accuracies, common, correlation)
    except BadCall:
        return None
    return _all_wrong(accuracies, common, shared)


SCENARIOS: Final[dict[str, SimulatedModels]] = {
    "independent": SimulatedModels(accuracies=(0.7, 0.7, 0.7)),
    "correlated": SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=0.45),
    "common-failures": SimulatedModels(accuracies=(0.7,) * 5, correlation=0.2, all_wrong=0.079),
    "different-errors": SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=0.2, alike=0.3),
    "one-strong": SimulatedModels(accuracies=(0.85, 0.6, 0.6), correlation=0.2, alike=0.5),
    "weak-reader": SimulatedModels(accuracies=(0.8, 0.8, 0.8), correlation=0.2, alike=0.5, reading=0.4),
    "strong-reader": SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=0.45, reading=0.95),
}
"""Simulated panels by name, of 400 questions each."""


def scenario(name: str) -> SimulatedModels:
    """Return the simulated models of this name; raise `BadCall` if there are none."""
    found = SCENARIOS.get(name)
    if found is None:
        raise BadCall(f"unknown simulated panel {name!r}; there are: {', '.join(SCENARIOS)}")
    return found
