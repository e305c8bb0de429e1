"""Submitted runs of one seed: processes that crash, users who submit again, readers who come back."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final, Literal

import trio

from ultra._support.randomness import seeded
from ultra.actors.model.retry import RetryPolicy
from ultra.durable.execution import read_all
from ultra.errors import JournalUnavailable, ModelError, OrchestratorClosed, UnknownRun
from ultra.messages.events import RunCompleted, RunFailed
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.simulation.durable.faulty_journal import FaultyJournal
from ultra.simulation.record import Record
from ultra.stores.journal_memory import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ultra.messages.events import Event

__all__ = ["DurableRun"]

NAMES: Final = ("first", "second", "third")
PROCESSES: Final = 2
USERS: Final = 2
RUNS_OF_A_USER: Final = 2
LEASE: Final = 3.0
FAULTS_UNTIL: Final = 25.0
"""Virtual seconds; afterwards no process crashes, and the journal works."""

ALL_ENDED_BY: Final = 200.0
"""Virtual seconds by which each accepted run must have ended."""

STRATEGIES: Final = ("synthesize", "best_of", "vote")

End = Literal["crash", "leave", "close"]


class _Process:
    """One life of a process: its orchestrator, and the journal as it sees it."""

    def __init__(self, run: DurableRun, number: int, life: int) -> None:
        random = Random(f"{run.seed}/process/{number}/{life}")
        self.random = random
        failing = random.choice((0.0, 0.1, 0.3))
        self.journal = FaultyJournal(run.store, random, failing, FAULTS_UNTIL)
        self.orchestrator = MultiLLMOrchestrator(
            cache_enabled=run.cache_enabled,
            journal=self.journal,
            retry=RetryPolicy(max_retries=1, initial=0.25, maximum=1.0),
            random=random,
        )
        for weight, name in enumerate(NAMES):
            model = _PaidModel(run, self, name)
            self.orchestrator.register_model(name, model, weight=float(weight))

    @property
    def holder(self) -> str:
        """Who it is in its leases."""
        durable = self.orchestrator._submitted  # noqa: SLF001 - nothing else tells
        assert durable is not None
        return durable._holder  # noqa: SLF001 - as above


class _PaidModel:
    """A client whose every answer is another text, so that it is known which call was paid for what."""

    def __init__(self, run: DurableRun, process: _Process, name: str) -> None:
        self._run = run
        self._process = process
        self._name = name

    async def generate(self, prompt: str) -> str:
        """Answer after some time, or fail."""
        return "".join([piece async for piece in self.stream(prompt)])

    async def stream(self, prompt: str) -> AsyncGenerator[str]:
        """Answer in two pieces, or fail."""
        random = self._process.random
        text = self._run.called(self._name, prompt, self._process.holder)
        await trio.sleep(random.random() * 2)
        if random.random() < 0.1:
            raise ModelError("made up", provider=self._name)
        yield text[:4]
        await trio.sleep(random.random())
        yield text[4:]


class DurableRun:
    """The journal of one seed, with all who use it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.record = Record(seed)
        self.store = MemoryJournal(lease=LEASE, now=trio.current_time)
        self.cache_enabled = seed % 2 == 0
        self.accepted: dict[str, str] = {}  # run ids, by idempotency key
        self.read: dict[str, list[Event]] = {}
        self.faults: Counter[str] = Counter()
        self._alive: dict[int, _Process] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._over = False

    async def run(self) -> None:
        """Run to the end. What goes wrong is in the record."""
        with seeded(Random(f"{self.seed}/ids")):
            await self._run()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(PROCESSES):
                nursery.start_soon(self._live, number)
            async with trio.open_nursery() as users:
                for number in range(USERS):
                    users.start_soon(self._use, number, nursery)
            with trio.move_on_at(ALL_ENDED_BY):
                while not await self._all_have_ended():  # noqa: ASYNC110 - the journal is what is looked at
                    await trio.sleep(1)
            await trio.sleep(1)
            self._over = True
            nursery.cancel_scope.deadline = trio.current_time() + 20
        await self._check()

    async def _all_have_ended(self) -> bool:
        found = [await self.store.get(run_id) for run_id in self.accepted.values()]
        return all(record is not None and record.has_ended for record in found)

    # --- the processes -------------------------------------------------------------------------------

    async def _live(self, number: int) -> None:
        life = 0
        while not self._over:
            process = _Process(self, number, life)
            await self._live_once(number, process)
            self.faults["journal"] += process.journal.faults
            life += 1
            await trio.sleep(process.random.random() * 2)

    async def _live_once(self, number: int, process: _Process) -> None:
        end_at = trio.current_time() + process.random.uniform(1, 12)
        end: End = process.random.choice(("crash", "crash", "leave", "close"))
        with trio.CancelScope() as scope:
            async with process.orchestrator:
                self._alive[number] = process
                self.record.add("process", number, "starts")
                try:
                    while trio.current_time() < end_at or trio.current_time() > FAULTS_UNTIL:
                        await trio.sleep(0.5)
                        if self._over:
                            return
                    if end == "close":
                        await process.orchestrator.aclose(process.random.choice((0.0, 3.0)))
                finally:
                    del self._alive[number]
                    self.record.add("process", number, end)
                if end == "crash":
                    self.faults["process crash"] += 1
                    process.journal.kill()
                    scope.cancel()

    def called(self, name: str, prompt: str, holder: str) -> str:
        """Note a call of a model, check that its answer is not in the journal, and return the answer."""
        for kept in self.store._runs.values():  # noqa: SLF001 - what is in it is what counts
            if kept.holder != holder or kept.record.spec.request.prompt not in prompt:
                continue
            paid = [self._said.get(answer) for answer in self._texts(kept.record.run_id)]
            self.record.check(
                13,
                (name, prompt) not in paid,
                f"{name} was asked for a paid answer: {prompt!r}",
                name,
            )
        text = f"{name}: answer {len(self._said)}"
        self._said[text] = (name, prompt)
        self.record.add("paid call", name, len(self._said))
        return text

    def _texts(self, run_id: str) -> list[str]:
        from ultra.stores.journal_encoding import decode_answer  # noqa: PLC0415 - used here alone

        kept = self.store._runs[run_id]  # noqa: SLF001 - as above
        return [decode_answer(answer).content for answer in kept.answers.values()]

    # --- users and readers ---------------------------------------------------------------------------

    async def _use(self, number: int, nursery: trio.Nursery) -> None:
        random = Random(f"{self.seed}/user/{number}")
        for count in range(RUNS_OF_A_USER):
            key = f"{number}.{count}"
            strategy, run_id = random.choice(STRATEGIES), ""
            for again in range(1 + (random.random() < 0.3)):
                run_id = await self._submit(key, strategy, random)
                known = self.accepted.setdefault(key, run_id)
                self.record.check(13, known == run_id, f"key {key} has two runs, {known} and {run_id}", key)
                if not again:
                    nursery.start_soon(self._follow, run_id, Random(f"{self.seed}/reader/{key}"))
            if random.random() < 0.15:
                await trio.sleep(random.random() * 3)
                await self._cancel(key, run_id, random)
            await trio.sleep(random.random() * 4)

    async def _submit(self, key: str, strategy: str, random: Random) -> str:
        while True:
            await trio.sleep(random.random())
            process = self._alive.get(random.randrange(PROCESSES))
            if process is None:
                continue
            try:
                prompt = f"Question {key}?"
                return await process.orchestrator.submit(prompt, strategy=strategy, idempotency_key=key)
            except (JournalUnavailable, OrchestratorClosed):
                continue

    async def _cancel(self, key: str, run_id: str, random: Random) -> None:
        process = self._alive.get(random.randrange(PROCESSES))
        if process is None:
            return
        try:
            await process.orchestrator.cancel_run(run_id)
            self.record.add("cancelled", key)
        except (JournalUnavailable, OrchestratorClosed):
            return

    async def _follow(self, run_id: str, random: Random) -> None:
        """Read a run to its end, and come back wherever the connection breaks."""
        events = self.read[run_id] = []
        reader = MultiLLMOrchestrator(journal=FaultyJournal(self.store, random, 0.1, FAULTS_UNTIL))
        while not (events and isinstance(events[-1], (RunCompleted, RunFailed))):
            after = events[-1].seq if events else -1
            try:
                with trio.move_on_after(random.uniform(1, 10)):
                    async with reader.follow(run_id, after=after) as run:
                        async for event in run:
                            events.append(event)  # noqa: PERF401 - what has come stays when it breaks off
                    if not (events and isinstance(events[-1], (RunCompleted, RunFailed))):
                        self.record.violate(13, f"a reader of run {run_id} came to no last event", run_id)
                        return
            except JournalUnavailable:
                await trio.sleep(0.1)
            except UnknownRun:
                self.record.violate(
                    13, f"run {run_id} was accepted, and the journal does not know it", run_id
                )
                return

    # --- the end -------------------------------------------------------------------------------------

    async def _check(self) -> None:
        check = self.record.check
        for key, run_id in self.accepted.items():
            record = await self.store.get(run_id)
            events = await read_all(self.store, run_id)
            ends = [event for event in events if isinstance(event, (RunCompleted, RunFailed))]
            ended = record is not None and record.has_ended
            check(13, ended, f"run {key} was accepted and has not ended", key)
            if record is None or not ended:
                continue
            self.record.add("ended", key, record.state, record.executions)
            check(13, ends == events[-1:], f"run {key} has {len(ends)} last events", key)
            check(
                13,
                [event.seq for event in events] == list(range(len(events))) == list(range(record.events)),
                f"the events of run {key} have gaps",
                key,
            )
            check(13, self.read.get(run_id) == events, f"a reader of run {key} got something else", key)
