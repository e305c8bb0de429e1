"""Agreement on recorded answers of real models: how well it tells right from wrong, and what it selects."""

from __future__ import annotations

import gzip
import json
from itertools import combinations
from math import log
from typing import TYPE_CHECKING, Any

import pytest

from helpers.paths import SHARED
from ultra.scoring.agreement import agreed_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PANELS = SHARED / "panels"
TEXTS = ("gsm", "math-l5")


def lines(name: str) -> list[Any]:
    path = PANELS / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recorded panels are not beside the project: {path} is missing")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def log_odds(accuracy: Mapping[str, float]) -> dict[str, float]:
    return {model: max(0.0, log(share / (1 - share))) for model, share in accuracy.items()}


def auroc(scored: Iterable[tuple[float, bool]]) -> float:
    """How often a right answer scores higher than a wrong one; equal scores count half."""
    ranked = sorted(scored)
    right = sum(each for _, each in ranked)
    ranks, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        ranks += sum(each for _, each in ranked[start:end]) * (start + 1 + end) / 2
        start = end
    return (ranks - right * (right + 1) / 2) / (right * (len(ranked) - right))


@pytest.mark.parametrize("name", TEXTS)
def test_the_score_tells_right_from_wrong(name: str) -> None:
    _, *questions = lines(f"{name}.text")
    scored = []
    for question in questions:
        answers = question["answers"]
        texts = {model: answer["text"] for model, answer in answers.items()}
        scores = agreed_at_once(question["question"], texts).scores
        scored += [(scores[model], answers[model]["right"]) for model in answers]
    assert auroc(scored) >= 0.9


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size", [2, 3, 6])
def test_selecting_by_votes_is_never_worse_than_the_best_member(name: str, size: int) -> None:
    header, *questions = lines(f"{name}.text")
    weights = log_odds(header["accuracy"])
    for panel in combinations(header["models"], size):
        right = _selected_right(
            panel,
            weights,
            [(q["question"], {m: a["text"] for m, a in q["answers"].items()}) for q in questions],
            lambda number, model: questions[number]["answers"][model]["right"],
        )
        members = [sum(q["answers"][model]["right"] for q in questions) for model in panel]
        assert right >= max(members) - 0.01 * len(questions), panel


def test_one_strong_model_beside_weak_ones_is_not_outvoted_when_weights_are_told() -> None:
    header, *rows = lines("math-l5.labels")
    models = header["models"]
    accuracy = {model: sum(row[4][i] == "1" for row in rows) / len(rows) for i, model in enumerate(models)}
    by_skill = sorted(models, key=accuracy.__getitem__)
    for strong, weak in ((by_skill[-1], by_skill[:2]), (by_skill[-4], by_skill[5:7])):
        panel = [strong, *weak]
        index = {model: models.index(model) for model in panel}
        texts = [
            (
                "?",
                {
                    m: f"The answer is {row[3][row[2][i]] if row[2][i] >= 0 else None}"
                    for m, i in index.items()
                },
            )
            for row in rows
        ]
        right = _selected_right(
            panel,
            log_odds(accuracy),
            texts,
            lambda number, model: rows[number][4][index[model]] == "1",  # noqa: B023
        )
        assert right >= accuracy[strong] * len(rows) - 0.01 * len(rows)


def _told(row: Any, index: int) -> str:
    _, _, answers, values, *_ = row
    if answers[index] < 0:
        return "I do not know, and there is nothing to be said of it here at all"
    return f"The answer is {values[answers[index]]}"


def _selected_right(
    panel: Sequence[str],
    weights: Mapping[str, float],
    questions: Sequence[tuple[str, Mapping[str, str]]],
    is_right: Callable[[int, str], bool],
) -> int:
    found = 0
    for number, (question, texts) in enumerate(questions):
        agreed = agreed_at_once(question, {model: texts[model] for model in panel}, weights)
        chosen = max(panel, key=lambda model: (agreed.votes[model], weights[model]))
        found += is_right(number, chosen)
    return found
