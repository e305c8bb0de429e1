"""Carrying batches out: so many runs at a time as each allows, within the limits of its key."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import anyio

from ultra._support.log import get_logger
from ultra._support.randomness import new_id
from ultra.errors import BadCall, JournalDamaged, JournalUnavailable, UnknownRun, text_of
from ultra.service.access import Caller
from ultra.service.batches.lines import lines_of, read_line, run_id_of
from ultra.service.kept_run import Keeping
from ultra.service.native.record import native_tags
from ultra.service.native.request import arguments_of
from ultra.service.problems import Problem, problem_of
from ultra.service.webhooks.asking import webhook_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskGroup

    from ultra.service.core import Service
    from ultra.stores.batch_contract import Batch, BatchStore
    from ultra.stores.journal_contract import RunRecord

__all__ = ["Batches", "batch_tag"]

_HOLD: Final = 10.0
"""Seconds after which the batch of a process that has died is taken over by another one."""

_LOOK: Final = 1.0
"""Seconds between two looks for batches that nobody carries out."""

_AGAIN: Final = 60.0
"""Seconds after which a run is tried again that a limit has not let begin, and that says no time itself."""

_LATER: Final = frozenset({429, 503})
"""Statuses of what may be otherwise later: limits and budgets, and stores that cannot be read."""

_TELL: Final = 0.25
"""Seconds between two times that the progress of a batch is written."""

_DELETED: Final = {"code": "deleted", "message": "the run was deleted"}
_DAMAGED: Final = {"code": "journal_damaged", "message": "what the journal has of the run cannot be read"}

_log = get_logger("ultra.service")


def batch_tag(batch: Batch, number: int) -> dict[str, object]:
    """Return what is kept with the run of a line."""
    return {"id": batch.id, "line": number}


class Batches:
    """Carries out the batches in the journal of a service that no other process carries out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._holder = new_id()
        self._running: dict[str, _Running] = {}
        self._wake = anyio.Event()

    def wake(self) -> None:
        """Look at once for what has changed."""
        self._wake.set()

    async def work(self) -> None:
        """Go on until this is cancelled; then another process can take the batches over."""
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    self._wake = anyio.Event()
                    if self._service.orchestrator.has_batches:
                        await self._look(tasks)
                    with anyio.move_on_after(_LOOK):
                        await self._wake.wait()
        finally:
            if self._running:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_LOOK):
                    await self._hold(0.0)

    async def _look(self, tasks: TaskGroup) -> None:
        held = {batch.id: batch for batch in await self._hold(_HOLD)}
        for name, running in list(self._running.items()):
            if running.has_ended:  # if it has not ended itself, it is started again
                del self._running[name]
            elif name in held:
                await running.renew(held[name])
            else:
                running.scope.cancel()  # another process has it
        for name, batch in held.items():
            if name not in self._running:
                running = self._running[name] = _Running(self._service, batch)
                tasks.start_soon(running.carry_out)

    async def _hold(self, seconds: float) -> list[Batch]:
        try:
            return list(
                await self._service.orchestrator.with_batches(lambda store: store.hold(self._holder, seconds))
            )
        except JournalUnavailable as error:
            _log.warning("journal unavailable", error=text_of(error))
            return [running.batch for running in self._running.values() if not running.has_ended]


class _Running:
    """One batch that is carried out here."""

    def __init__(self, service: Service, batch: Batch) -> None:
        self.batch = batch
        self.scope = anyio.CancelScope()
        self.has_ended = False
        self._service = service
        self._states: Counter[str] = Counter()
        self._errors = dict(batch.errors)
        self._open: set[str] = set()

    async def renew(self, batch: Batch) -> None:
        """Take note of what has changed: whether it is to end."""
        self.batch = batch
        if not batch.cancelling:
            return
        for run_id in tuple(self._open):
            try:
                await self._service.orchestrator.cancel_run(run_id)
            except (JournalUnavailable, UnknownRun) as error:
                _log.warning("run not cancelled", run_id=run_id, error=text_of(error))

    async def carry_out(self) -> None:
        """Carry out all lines, some at a time."""
        with self.scope:
            try:
                lines = lines_of(await self._service.orchestrator.with_batches(self._lines))
                numbers = iter(range(len(lines)))
                async with anyio.create_task_group() as telling:
                    telling.start_soon(self._tell_again_and_again)
                    async with anyio.create_task_group() as tasks:
                        for _ in range(self.batch.concurrency):
                            tasks.start_soon(self._carry_out_some, numbers, lines)
                    telling.cancel_scope.cancel()
                await self._end()
            except* JournalDamaged as errors:
                _log.warning("batch damaged", batch_id=self.batch.id, error=text_of(errors.exceptions[0]))
                await self._end_damaged()
            except* Exception as errors:  # noqa: BLE001 - it is started again; the service goes on
                _log.error("batch interrupted", batch_id=self.batch.id, exc_info=errors)
        self.has_ended = True

    async def _lines(self, store: BatchStore) -> bytes:
        return await store.lines(self.batch.id)

    async def _carry_out_some(self, numbers: Iterator[int], lines: list[bytes]) -> None:
        for number in numbers:
            try:
                await self._carry_out_one(number, lines[number])
            except JournalDamaged as error:  # of this run: the others go on
                _log.warning("run damaged", run_id=error.run_id, error=text_of(error))
                self._errors[f"{number}"] = _DAMAGED
                self._states["failed"] += 1

    async def _carry_out_one(self, number: int, line: bytes) -> None:
        run_id = run_id_of(self.batch.id, number)
        found = await self._found(run_id)
        while found is None and not self.batch.cancelling and f"{number}" not in self._errors:
            wait = await self._run(run_id, number, line)
            if wait:
                await anyio.sleep(wait)
            found = await self._found(run_id)
            if found is None and not wait:
                self._errors.setdefault(f"{number}", _DELETED)
        if found is not None:
            self._states[await self._ended_state(found)] += 1
        elif f"{number}" in self._errors:
            self._states["failed"] += 1

    async def _found(self, run_id: str) -> RunRecord | None:
        try:
            return await self._service.orchestrator.get_run(run_id)
        except UnknownRun:
            return None

    async def _run(self, run_id: str, number: int, line: bytes) -> float:
        """Run a line to its end; return after how many seconds to try again, 0: it was run, or cannot be."""
        service = self._service
        if service.is_draining:
            return _LOOK
        self._open.add(run_id)
        try:
            asked = read_line(line, service.settings.max_nesting)
            body, caller = asked.body, self._caller()
            arguments = arguments_of(body, service.targets_for(caller))
            tags = native_tags(body.model if body.ensemble is None else body.ensemble, body.metadata)
            keeping = Keeping(
                tags={**tags, "custom_id": asked.custom_id, "batch": batch_tag(self.batch, number)},
                must=True,
                goes_on=True,
                idempotency_key=f"{self.batch.id}:{number}",
                notify=webhook_of(service, body.webhook),
                run_id=run_id,
            )
            async with AsyncExitStack() as held:
                await service.quotas.admit(caller, held)
                stream = service.stream_of(body.prompt, arguments, caller, keeping)
                async with stream:
                    async for _ in stream:
                        pass
        except UnknownRun:  # it was deleted meanwhile
            self._errors[f"{number}"] = _DELETED
        except JournalDamaged:
            raise
        except JournalUnavailable as error:
            _log.warning("journal unavailable", error=text_of(error))
            return _LOOK
        except (Problem, BadCall) as error:
            problem = problem_of(error)
            if problem.status in _LATER:
                return max(problem.retry_after or _AGAIN, _LOOK / 10)
            self._errors[f"{number}"] = {"code": problem.code or problem.type, "message": problem.message}
        finally:
            self._open.discard(run_id)
        return 0.0

    def _caller(self) -> Caller:
        """Return for whom the batch is, with the limits that hold now."""
        owner, service = self.batch.owner, self._service
        if owner is None or service.given_access is not None:
            return Caller(owner or "")
        for key in service.settings.keys:
            if key.name == owner:
                return Caller(owner, key)
        raise Problem(403, "permission_error", "key_gone", "the key that this batch was for is not there now")

    async def _ended_state(self, run: RunRecord) -> str:
        """Wait until a run has ended that an earlier process has begun, and return how."""
        self._open.add(run.run_id)
        try:
            async with self._service.orchestrator.follow(run.run_id, run.events - 1) as events:
                async for _ in events:
                    pass
            return (await self._service.orchestrator.get_run(run.run_id)).state
        except UnknownRun:
            return "failed"
        finally:
            self._open.discard(run.run_id)

    async def _tell_again_and_again(self) -> None:
        """Write how far it is while it goes on: not with each run, or many errors would be written often."""
        told: Counter[str] | None = None
        while True:
            await anyio.sleep(_TELL)
            if told != self._states:
                told = Counter(self._states)
                await self._tell()

    async def _tell(self, **more: object) -> None:
        names = ("completed", "failed", "cancelled")
        changes = {name: self._states[name] for name in names} | {"errors": self._errors} | more
        await self._service.orchestrator.with_batches(lambda store: store.update(self.batch.id, changes))

    async def _end_damaged(self) -> None:
        """End a batch whose lines cannot be read; the runs that it has begun go on by themselves."""
        failed = self.batch.total - self.batch.completed - self.batch.cancelled
        changes = {"ended": time.time(), "failed": failed}
        try:
            await self._service.orchestrator.with_batches(lambda store: store.update(self.batch.id, changes))
        except JournalUnavailable as error:  # it is started again, or ended where batches are held
            _log.warning("journal unavailable", error=text_of(error))

    async def _end(self) -> None:
        ended = self._states["completed"] + self._states["failed"]
        self._states["cancelled"] = self.batch.total - ended
        await self._tell(ended=time.time())
        _log.info("batch ended", batch_id=self.batch.id, total=self.batch.total, **self._states)
