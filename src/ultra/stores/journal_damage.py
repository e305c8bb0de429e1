"""What a journal does with what is damaged in it: it is told, and left out or ended, and the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ultra._support.log import get_logger
from ultra.errors import JournalDamaged
from ultra.messages.events import RunFailed
from ultra.stores.journal_contract import Ending
from ultra.stores.journal_encoding import Damaged, decode_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey, RunRecord

__all__ = ["damaged_end", "sound_answers", "sound_record"]

T = TypeVar("T")

log = get_logger("ultra.durable")


def sound_record(run_id: str, read: Callable[[T], RunRecord], row: T) -> RunRecord | None:
    """Return one run of many; None if it is damaged: who asks for it alone is told."""
    try:
        return read(row)
    except Damaged as error:
        log.warning("run damaged", run_id=run_id, error=str(error))
        return None


def sound_answers(run_id: str, kept: Iterable[tuple[AnswerKey, bytes]]) -> dict[AnswerKey, ModelResponse]:
    """Return the answers that can be read; the others are asked for anew."""
    found = {}
    for key, answer in kept:
        try:
            found[key] = decode_answer(answer)
        except Damaged as error:
            log.warning("answer damaged", run_id=run_id, error=str(error))
    return found


def damaged_end(run_id: str, seq: int, damage: Damaged) -> tuple[RunFailed, Ending]:
    """Return how a run ends that nobody can take up, since it would be claimed for ever."""
    log.warning("run damaged", run_id=run_id, error=str(damage))
    error = JournalDamaged(run_id, damage)
    code, message = type(error).__name__, str(error)
    last = RunFailed(run_id=run_id, seq=seq, error=code, message=message)
    return last, Ending(state="failed", code=code, message=message)
