"""Scripted members of a panel, who answer, rank, grade, merge, revise and choose, each as the test says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ultra import ModelRequest

TASKS = {
    "rank": "You rank candidate",
    "judge": "You grade candidate",
    "merge": "You merge candidate",
    "improve": "You write an answer",
    "revise": "You take part in a debate",
    "choose": "You choose which models",
}


def task_of(request: ModelRequest) -> str:
    """What a request asks for: one of `TASKS`, or an answer."""
    system = request.system or ""
    return next((task for task, words in TASKS.items() if words in system), "answer")


def member(name: str, answer: Any, **tasks: Any) -> FakeModel:
    """A model that answers so; `tasks` are what it says to each task: a reply, an error, or a function.

    Where nothing is said, it improves and revises by the same answer, ranks in the order of the labels, and
    merges to ``merged by NAME``.
    """
    usual: dict[str, Any] = {
        "answer": answer,
        "improve": answer,
        "revise": answer,
        "rank": preferring(),
        "judge": "I do not grade.",
        "merge": f"merged by {name}",
        "choose": "nobody",
    }
    said = usual | tasks

    def reply(request: ModelRequest) -> Any:
        found = said[task_of(request)]
        return found(request) if callable(found) and not isinstance(found, type) else found

    return FakeModel(reply, name=name)


def candidates_in(request: ModelRequest) -> dict[str, str]:
    """The text behind each label of a prompt."""
    found = re.findall(r"Candidate ([A-Z]+): <(\w+)>(.*?)</\2>", request.prompt, re.DOTALL)
    return {label: text for label, _, text in found}


def preferring(*texts: str) -> Callable[[ModelRequest], str]:
    """Rank first the candidates that have these texts, in this order, then the rest."""

    def rank(request: ModelRequest) -> str:
        found = candidates_in(request)
        order = sorted(found, key=lambda label: (_place(found[label], texts), label))
        return f"Ranking: {' > '.join(order)}"

    return rank


def grading(**grades: float) -> Callable[[ModelRequest], str]:
    """Grade the candidates by the texts that they contain."""

    def grade(request: ModelRequest) -> str:
        lines = [
            f"{label}: {next((grade for part, grade in grades.items() if part in text), 5)}"
            for label, text in candidates_in(request).items()
        ]
        return "\n".join(lines)

    return grade


def _place(text: str, texts: Sequence[str]) -> int:
    return next((place for place, part in enumerate(texts) if part in text), len(texts))
