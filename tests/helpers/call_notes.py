"""What a provider, and a journal, would note of each call of processes that are killed.

A call that was in flight when its process was killed has begun, its answer is not in the journal, and nobody
has broken it off. So the calls of a run can be counted exactly: those needed, and those that were lost.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ultra.stores.journal_contract import LeaseLost

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CallCounts", "Notes", "counted", "noting", "question_of"]

_QUESTION = re.compile(r"Question \d+\?")


def question_of(prompt: str) -> str:
    """The question that a prompt is about, by which the calls of a run are known."""
    found = _QUESTION.search(prompt)
    assert found is not None, prompt
    return found[0]


class Notes:
    """Appends lines to the file ``calls``, each by one write, so that a kill leaves whole lines."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _note(self, kind: str, what: str) -> None:
        os.write(self._file, f"{kind} {os.getpid()} {what}\n".encode())

    def begun(self, prompt: str) -> None:
        """A provider was asked."""
        self._note("begun", question_of(prompt))

    def broken_off(self, prompt: str) -> None:
        """The process did not want the answer any more."""
        self._note("broken-off", question_of(prompt))

    def kept(self, run_id: str) -> None:
        """An answer is in the journal."""
        self._note("kept", run_id)

    def refused(self, run_id: str) -> None:
        """An answer came when another execution had the run."""
        self._note("refused", run_id)

    def lost(self, run_id: str) -> None:
        """An execution has lost its lease, since its process was too slow."""
        self._note("lost", run_id)

    def close(self) -> None:
        os.close(self._file)


def noting(kind: type[Any], folder: Path) -> type[Any]:
    """Return this class of journals, which notes what becomes of answers."""

    class Noting(kind):  # type: ignore[misc] # of any
        async def append(self, lease: Any, events: Any, ending: Any = None) -> None:
            try:
                await super().append(lease, events, ending)
            except LeaseLost:
                self._note(Notes.lost, lease.run_id)
                raise

        async def renew(self, leases: Any) -> Any:
            renewal = await super().renew(leases)
            for lease in leases:
                if lease.run_id not in renewal.held:  # or it has ended meanwhile
                    self._note(Notes.lost, lease.run_id)
            return renewal

        def _note(self, kind: Any, run_id: str) -> None:
            notes = Notes(folder)
            kind(notes, run_id)
            notes.close()

        async def keep_answer(self, lease: Any, key: bytes, answer: Any) -> None:
            try:
                await super().keep_answer(lease, key, answer)
            except LeaseLost:
                self._note(Notes.refused, lease.run_id)
                raise
            self._note(Notes.kept, lease.run_id)

    return Noting


@dataclass
class CallCounts:
    """The calls of each question: those that were begun, kept, broken off, refused.

    `in_flight`: those of processes that were killed which were nothing else. `lost`: leases that were lost.
    """

    begun: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    broken_off: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def most(self, question: str, needed: int) -> int:
        """How many calls a question may have cost at most that needs so many."""
        return needed + self.in_flight[question] + self.broken_off[question] + self.refused[question]


def counted(folder: Path, questions: dict[str, str], killed: set[int]) -> CallCounts:
    """Count the notes; `questions` by run, and the processes that were killed."""
    counts = CallCounts()
    for line in (folder / "calls").read_text().splitlines():
        kind, process, what = line.split(" ", 2)
        question = questions.get(what, what)
        getattr(counts, kind.replace("-", "_"))[question] += 1
        if int(process) in killed and kind != "lost":
            counts.in_flight[question] += 1 if kind == "begun" else -1
    assert all(count >= 0 for count in counts.in_flight.values()), counts
    return counts
