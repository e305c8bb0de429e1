"""A journal of runs in Redis, which the processes of many machines may share."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from msgspec.structs import replace

from ultra._support.checks import check_seconds
from ultra._support.log import get_logger
from ultra.errors import JournalUnavailable
from ultra.stores import journal_redis_scripts as scripts
from ultra.stores.batches_redis import RedisBatches
from ultra.stores.checksums import checksum
from ultra.stores.delivery_contract import DELIVERY_ORPHANED, Delivery
from ultra.stores.journal_changes import Changes
from ultra.stores.journal_contract import (
    LIST_BYTES,
    PAGE_BYTES,
    STATES,
    Claim,
    Ending,
    Lease,
    LeaseLost,
    Renewal,
    Retention,
    RunRecord,
    RunState,
    latest_end,
)
from ultra.stores.journal_damage import (
    check_sum,
    damaged_end,
    intact_delivery,
    intact_event,
    listed,
    log_damage,
    rest_of,
    sound_answer,
)
from ultra.stores.journal_encoding import (
    Damaged,
    decode_spec,
    decode_tags,
    encode_answer,
    encode_event,
    encode_spec,
    encode_tags,
)
from ultra.stores.redis_connection import RedisServer, first_error
from ultra.stores.redis_delivery_scripts import ADD_DELIVERY, SETTLE_DELIVERY, TAKE_DELIVERIES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    import coredis

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.contracts import TaskStatus
    from ultra.stores.journal_contract import AnswerKey
    from ultra.stores.redis_connection import Script

    T = TypeVar("T")

__all__ = ["RedisJournal"]

log = get_logger("ultra.durable")

FORMAT: Final = 1
"""A part of each key in the database."""

_BLOCK: Final = 5.0
"""Seconds for which one reading of what has changed waits on the server."""

_POLL: Final = 0.5
"""Seconds between two looks for events, if none is told."""

_MOST_PRUNED: Final = 100
_FIELDS: Final = tuple(scripts.FIELDS)


class RedisJournal:
    """Keeps runs in the Redis server at `url`, see `RunJournal`; all times are those of its clock.

    The server should keep what it is told (``appendonly yes``) and evict nothing (``maxmemory-policy
    noeviction``), or runs are lost. It is one server, or the primary of a group: not a Redis Cluster.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, or ``rediss://`` for TLS. No log, error or
            repr shows a password in it.
        lease: seconds after which a run whose process has died is taken up by another one.
        retention: how long ended runs are kept.
        timeout: seconds for one use of the server.
        prefix: how the keys in the database begin.
        ahead: seconds that are added to the server's clock, for tests.

    Raises:
        BadCall: an argument is not allowed.
        MissingExtra: coredis is not installed; raised by importing this module.
    """

    def __init__(
        self,
        url: str,
        *,
        lease: float = 10.0,
        retention: Retention | None = None,
        timeout: float = 2.0,
        prefix: str = "ultra-runs",
        ahead: float = 0.0,
    ) -> None:
        check_seconds("lease", lease, positive=True)
        check_seconds("timeout", timeout, positive=True)
        self._server = RedisServer(url, timeout)
        self._lease_seconds = lease
        self._retention = Retention() if retention is None else retention
        self._prefix = f"{prefix}:{FORMAT}:"
        self.ahead = ahead
        self._changes = Changes()
        self._watchers = 0

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds."""
        return self._lease_seconds

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Accept a run; see `RunJournal.add`."""
        digest = b"" if run.idempotency_key is None else _digest(run.owner, run.idempotency_key)
        spec, tags = encode_spec(run.spec), encode_tags(run.tags)
        accepted, found = await self._run(
            scripts.ADD,
            run.run_id,
            self._lease_seconds,
            _optional(holder),
            _optional(run.owner),
            spec,
            tags,
            digest,
            run.idempotency_key or "",
            checksum(spec, tags),
        )
        record = _record(found)
        return record if holder is None or not accepted else _claim(record, holder)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run; None: there is none."""
        found = await self._use(lambda client: client.hmget(self._key("run", run_id), _FIELDS))
        return None if found[0] is None else _record([run_id, *found])

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs, the last accepted first; see `RunJournal.list_runs`."""
        records: list[RunRecord] = []
        start, top = _optional(before), "+inf"
        while len(records) < limit:
            found, after = await self._run(
                scripts.LIST, _optional(owner), start, top, limit - len(records), LIST_BYTES, *states
            )
            records += [listed(_record, each) for each in found]
            if not after:
                break
            start, top = _optional(None), after
        return records

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """Give `holder` the leases of runs that nobody holds; see `RunJournal.claim`."""
        claims = []
        for found in await self._run(
            scripts.CLAIM, holder, limit, self._lease_seconds, latest_end(0.0, self._lease_seconds)
        ):
            try:
                claims.append(_claim(_record(found), holder))
            except Damaged as error:
                await self._end_damaged(_text(found[0]), error)
        return claims

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Let leases hold for another while; see `RunJournal.renew`."""
        held, cancelling = await self._run(scripts.RENEW, self._lease_seconds, *_parts(leases))
        return Renewal(held=frozenset(map(_text, held)), cancelling=frozenset(map(_text, cancelling)))

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up; see `RunJournal.release`."""
        await self._run(scripts.RELEASE, *_parts(leases))

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """Write the next events of a run; see `RunJournal.append`."""
        encoded = _encoded(events)
        if not await self._run(scripts.APPEND, *_parts([lease]), *_end(ending), *encoded):
            raise LeaseLost
        if events:
            self._changes.written(lease.run_id, events[-1].seq)

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """Keep a paid answer; see `RunJournal.keep_answer`."""
        encoded = encode_answer(answer)
        if not await self._run(scripts.ANSWER, *_parts([lease]), key, encoded, checksum(key, encoded)):
            raise LeaseLost

    async def record(
        self,
        run: RunRecord,
        events: Sequence[Event],
        ending: Ending,
        answers: Mapping[AnswerKey, ModelResponse],
    ) -> None:
        """Write a run that has ended, whole or not at all; see `EndedRuns.record`."""
        digest = b"" if run.idempotency_key is None else _digest(run.owner, run.idempotency_key)
        spec, tags = encode_spec(run.spec), encode_tags(run.tags)
        encoded = [(key, encode_answer(answer)) for key, answer in answers.items()]
        paid = [part for key, answer in encoded for part in (key, answer, checksum(key, answer))]
        await self._run(
            scripts.RECORD,
            run.run_id,
            repr(run.created),
            _optional(run.owner),
            spec,
            tags,
            digest,
            run.idempotency_key or "",
            checksum(spec, tags),
            *_end(ending),
            len(answers),
            *paid,
            *_encoded(events),
        )

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """Return the keys of the answers that were kept for the run."""
        return frozenset(await self._run(scripts.ANSWER_KEYS, run_id))

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """Return the answer that was kept under `key`; None: there is none that can be read."""
        found = await self._run(scripts.GET_ANSWER, run_id, key)
        return sound_answer(run_id, key, found[0], _sum(found[1])) if found else None

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """Return the events behind `after`; see `RunJournal.read`."""
        found = await self._run(scripts.READ, run_id, f"{max(-1, after) + 2}-0", limit, PAGE_BYTES)
        return [intact_event(event, _sum(known)) for event, known in found]

    async def changed(self, run_id: str, after: int) -> None:
        """Wait until there may be more to read; see `RunJournal.changed`."""
        if self._watchers:
            await self._changes.wait(run_id, after, _POLL)
        else:
            await self._wait_for_event(run_id, after)

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """Ask for the end of a run; see `RunJournal.cancel`."""
        found: Any = 0
        while found == 0:  # else another event was written meanwhile
            try:
                record = await self.get(run_id)
            except Damaged as error:
                await self._end_damaged(run_id, error)
                raise
            if record is None or record.has_ended:
                return record
            time = await self._time_of(run_id, record.events - 1)
            last = replace(event, run_id=run_id, seq=record.events, time=time)
            found = await self._run(scripts.CANCEL, run_id, *_end(ending), *_encoded([last]))
        self._changes.wake(run_id)
        return None if found is None else _record(found)

    async def delete(self, run_id: str) -> bool:
        """Remove a run that has ended; see `RunJournal.delete`."""
        try:
            await self.get(run_id)
            is_damaged = 0
        except Damaged:
            is_damaged = 1
        deleted = bool(await self._run(scripts.DELETE, run_id, is_damaged))
        self._changes.wake(run_id)
        return deleted

    async def prune(self) -> int:
        """Remove what the retention does not keep; return how many runs that were."""
        count, limits = 0, (_optional(self._retention.seconds), _optional(self._retention.bytes))
        while removed := await self._run(scripts.PRUNE, *limits, _MOST_PRUNED):
            count += removed
        return count

    async def add_delivery(self, delivery: Delivery) -> None:
        """Keep a notice; see `DeliveryJournal`."""
        parts = (delivery.id, delivery.run_id, delivery.url)
        known = checksum(*(part.encode() for part in parts))
        await self._run(ADD_DELIVERY, *parts, delivery.attempts, known)

    async def take_deliveries(self, limit: int, hold: float) -> list[Delivery]:
        """Return notices that are due; see `DeliveryJournal`."""
        found = await self._run(TAKE_DELIVERIES, limit, hold, DELIVERY_ORPHANED)
        taken = []
        for name, run_id, url, attempts, known in found:
            try:
                taken.append(_delivery(name, run_id, url, attempts, known))
            except Damaged as error:
                log_damage("webhook", name.decode(errors="replace"), error)
                await self._run(SETTLE_DELIVERY, name, "0")
        return taken

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        """Drop a notice, or let it be due again; see `DeliveryJournal`."""
        await self._run(SETTLE_DELIVERY, delivery_id, _optional(again_in))

    @property
    def batches(self) -> RedisBatches:
        """The batches, beside the runs."""
        return RedisBatches(self._run)

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep connections open until cancelled, and wake who waits for what other processes write."""
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            await nursery.start(lambda task_status: self._server.keep_connected(task_status=task_status))
            if task_status is not None:
                task_status.started()
            self._watchers += 1
            try:
                await self._watch()
            finally:
                self._watchers -= 1

    async def aclose(self) -> None:
        """Do nothing: what is held open belongs to `keep_connected`. A checkpoint."""
        await trio.lowlevel.checkpoint()

    async def _end_damaged(self, run_id: str, damage: Damaged) -> None:
        """End a run that nobody can take up. Who executes it goes on no further: its lease is lost."""
        key = self._key("events", run_id)
        try:
            newest = await self._use(lambda client: client.xrevrange(key, count=1))
            seq = int(_text(newest[0].identifier).partition("-")[0]) if newest else 0
        except Damaged:
            seq = 0
        last, ending = damaged_end(run_id, seq, damage)
        await self._run(scripts.END_DAMAGED, run_id, *_end(ending), *_encoded([last]))
        self._changes.written(run_id, seq)

    async def _time_of(self, run_id: str, seq: int) -> float:
        try:
            found = await self.read(run_id, seq - 1, 1)
        except Damaged:
            return 0.0
        return found[-1].time if found else 0.0

    # --- waiting -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Wake the tasks that wait, for whatever any process writes. One reading waits, for all of them."""
        key, last = f"{self._prefix}changes", ""
        while True:
            try:
                if not last:
                    newest = await self._server.use(lambda client: client.xrevrange(key, count=1))
                    last = _text(newest[0].identifier) if newest else "0-0"
                found = await self._server.use(
                    lambda client, last=last: client.xread(  # type: ignore[misc] # a lambda's default has no type
                        {key: last}, count=1000, block=round(_BLOCK * 1000)
                    ),
                    longer=_BLOCK,
                )
            except Exception:  # noqa: BLE001 - whatever it is, who waits looks by itself meanwhile
                last = ""
                await trio.sleep(_POLL)
                continue
            for entries in (found or {}).values():
                for entry in entries:
                    last = _text(entry.identifier)
                    self._take_change(entry.field_values.values())

    def _take_change(self, fields: Iterable[bytes | str]) -> None:
        try:
            run_id, seq = map(_text, fields)
            number = int(seq)
        except ValueError:  # it is damaged; who waits for it looks by itself after a while
            return
        if number >= 0:
            self._changes.written(run_id, number)
        else:
            self._changes.wake(run_id)

    async def _wait_for_event(self, run_id: str, after: int) -> None:
        """Wait at the events of the run themselves, on a connection of this one's own."""
        key, last = self._key("events", run_id), f"{max(-1, after) + 1}-0"
        with suppress(Exception):
            await self._server.use(
                lambda client: client.xread({key: last}, count=1, block=round(_POLL * 1000)), longer=_POLL
            )
            return
        await trio.sleep(_POLL)

    # --- the server ----------------------------------------------------------------------------------

    def _key(self, kind: str, run_id: str) -> str:
        return f"{self._prefix}{kind}:{run_id}"

    async def _run(self, script: Script, *args: str | bytes | float) -> Any:  # noqa: ANN401 - what it returns
        return await self._done(self._server.run(script, [self._prefix], [self.ahead, *args]))

    async def _use(self, work: Callable[[coredis.Redis[bytes]], Awaitable[T]]) -> T:
        return await self._done(self._server.use(work))

    async def _done(self, use: Awaitable[T]) -> T:
        try:
            return await use
        except Exception as error:
            # The network's errors in exception groups, coredis's, and those of bytes that are no reply.
            first = first_error(error)
            if "WRONGTYPE" in str(first):
                raise Damaged("another thing stands under one of its keys") from error
            raise JournalUnavailable(self._server.where, first) from error


def _digest(owner: str | None, key: str) -> bytes:
    return blake2b(msgspec.msgpack.encode([owner, key]), digest_size=16).hexdigest().encode()


def _optional(value: str | float | None) -> str:
    return "0" if value is None else f"1{value}"


def _end(ending: Ending | None) -> tuple[str, str, str]:
    if ending is None:
        return "0", "0", "0"
    return _optional(ending.state), _optional(ending.code), _optional(ending.message)


def _parts(leases: Sequence[Lease]) -> list[str | int]:
    return [part for lease in leases for part in (lease.run_id, lease.holder, lease.number)]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _encoded(events: Sequence[Event]) -> list[int | bytes]:
    encoded = [(event.seq, encode_event(event)) for event in events]
    return [part for seq, event in encoded for part in (seq, event, checksum(event))]


def _sum(known: bytes) -> object:
    """Return a checksum as it was written; None: there is none, since an earlier version has written this."""
    if not known:
        return None
    return int(known) if known.isdigit() else known


def _delivery(name: bytes, run_id: bytes, url: bytes, attempts: bytes, known: bytes) -> Delivery:
    """Return a notice. Raises `Damaged`."""
    try:
        return intact_delivery(name.decode(), run_id.decode(), url.decode(), int(attempts), _sum(known))
    except ValueError as error:
        raise Damaged(f"a field of the notice is not what it was: {error}") from error


def _claim(record: RunRecord, holder: str) -> Claim:
    return Claim(run=record, lease=Lease(run_id=record.run_id, holder=holder, number=record.executions))


def _record(found: Sequence[Any]) -> RunRecord:
    """Return what the fields of a run say. Raises `Damaged`, with the rest of it."""
    try:
        return _decoded(found)
    except (AttributeError, TypeError, ValueError) as error:
        damage = Damaged(f"a field of the run is not what it was: {error}")
        run_id = _text(found[0])
        raise Damaged(str(damage), rest_of(damage, run_id, _readable(found))) from error


def _readable(found: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a run that can be read by themselves."""
    _, _, owner, _, _, state, created, ended, _, _, events, size, *_ = found
    kinds: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "owner": (_text, owner),
        "state": (_text, state),
        "created": (float, created),
        "ended": (float, ended),
        "events": (int, events),
        "bytes": (int, size),
    }
    readable = {"owner": None} if owner is None else {}
    for name, (read, value) in kinds.items():
        with suppress(TypeError, ValueError):
            readable[name] = readable.get(name) if value is None else read(value)
    return readable


def _decoded(found: Sequence[Any]) -> RunRecord:
    run_id, spec, owner, key, tags, state, created, *rest = found
    ended, code, message, events, size, leases, cancelling, known = rest
    words = [None if each is None else _text(each) for each in (owner, key, code, message)]
    if _text(state) not in STATES:
        raise Damaged("the state of the run is none")
    check_sum("the request of the run", None if known is None else _sum(known), spec, tags)
    return RunRecord(
        run_id=_text(run_id),
        spec=decode_spec(spec),
        owner=words[0],
        idempotency_key=words[1],
        tags=decode_tags(tags),
        state=_text(state),  # type: ignore[arg-type] # it is one of them
        created=float(created),
        ended=None if ended is None else float(ended),
        code=words[2],
        message=words[3],
        events=int(events),
        bytes=int(size),
        executions=int(leases),
        cancelling=cancelling is not None,
    )
