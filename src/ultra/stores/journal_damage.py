"""What a journal does with what is damaged in it: it is told, and left out or ended, and the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from ultra._support.log import get_logger
from ultra.errors import JournalDamaged
from ultra.messages.events import RunFailed
from ultra.messages.request import ModelRequest
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.checksums import is_intact
from ultra.stores.delivery_contract import Delivery
from ultra.stores.journal_contract import STATES, Ending, RunRecord
from ultra.stores.journal_encoding import Damaged, decode_answer, decode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey, RunState

__all__ = [
    "NOBODY",
    "check_sum",
    "damaged_end",
    "intact_delivery",
    "intact_event",
    "listed",
    "log_damage",
    "rest_of",
    "sound_answer",
]

T = TypeVar("T")

log = get_logger("ultra.durable")

NOBODY: Final = "\0"
"""The owner of a run whose owner cannot be read: the name of no key."""

_NO_SPEC: Final = RunSpec(request=ModelRequest(messages=()), models=(), strategy=StrategySpec(""))


def check_sum(what: str, known: object, *parts: bytes) -> None:
    """Raise `Damaged` if these bytes have another checksum than this one."""
    if not is_intact(known, *parts):
        raise Damaged(f"{what} is not what was written: its checksum is another one")


def log_damage(what: str, name: str, damage: object) -> None:
    """Tell of something that is damaged, and left out or ended."""
    event = f"{what} damaged"
    log.warning(event, **{f"{what}_id": name}, error=str(damage))


def intact_event(event: bytes, known: object) -> Event:
    """Return an event with this checksum. Raises `Damaged`."""
    decoded = decode_event(event)  # first, since it may not even be bytes
    check_sum("an event", known, event)
    return decoded


def sound_answer(run_id: str, key: AnswerKey, answer: bytes, known: object) -> ModelResponse | None:
    """Return an answer with this checksum; None: it cannot be read, so it is asked for again."""
    try:
        decoded = decode_answer(answer)
        check_sum("an answer", known, key, answer)
    except Damaged as error:
        log.warning("answer damaged", run_id=run_id, error=str(error))
        return None
    return decoded


def intact_delivery(name: object, run_id: object, url: object, attempts: object, known: object) -> Delivery:
    """Return a notice. Raises `Damaged`."""
    if not (
        isinstance(name, str) and isinstance(run_id, str) and isinstance(url, str) and type(attempts) is int
    ):
        raise Damaged("a field of the notice is of another type")
    check_sum("the notice", known, name.encode(), run_id.encode(), url.encode())
    return Delivery(id=name, run_id=run_id, url=url, attempts=attempts)


def listed(read: Callable[[T], RunRecord], row: T) -> RunRecord:
    """Return one run of many; of one that is damaged, what can be read of it."""
    try:
        return read(row)
    except Damaged as error:
        if error.run is None:
            raise
        log_damage("run", error.run.run_id, error)
        return error.run


def rest_of(damage: Damaged, run_id: object, fields: Mapping[str, Any]) -> RunRecord:
    """Return what can be read of a damaged record, which is said to have these fields."""
    owner, state = fields.get("owner", NOBODY), fields.get("state")
    created, ended = (_of(float, fields.get(name)) for name in ("created", "ended"))
    events, size = (_of(int, fields.get(name)) for name in ("events", "bytes"))
    known: list[RunState] = [each for each in STATES if each == state]
    return RunRecord(
        run_id=run_id if isinstance(run_id, str) else repr(run_id),
        spec=_NO_SPEC,
        owner=owner if owner is None or isinstance(owner, str) else NOBODY,
        state=known[0] if known else "failed",
        created=created or 0.0,
        ended=ended,
        code=JournalDamaged.__name__,
        message=str(damage),
        events=events or 0,
        bytes=size or 0,
        damage=str(damage),
    )


def _of(kind: type[T], value: object) -> T | None:
    return value if isinstance(value, kind) else None


def damaged_end(run_id: str, seq: int, damage: Damaged) -> tuple[RunFailed, Ending]:
    """Return how a run ends that nobody can take up, since it would be claimed for ever."""
    log_damage("run", run_id, damage)
    error = JournalDamaged(run_id, damage)
    code, message = type(error).__name__, str(error)
    last = RunFailed(run_id=run_id, seq=seq, error=code, message=message)
    return last, Ending(state="failed", code=code, message=message)
