"""What happened in a simulation, written down outside of the runtime that is being watched.

The record's entries come from actors, senders and watchers of the simulation's own, from the faults that
its plan injected, and from the lifecycle events that the runtime announces to everybody. The counters
and snapshots of the runtime are never read for a verdict.
"""

from __future__ import annotations

from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["GUARANTEES", "TIME_ERROR", "Event", "Record", "Violation"]

GUARANTEES: Final = range(1, 13)
"""The numbers of the guarantees in docs/semantics.md."""

TIME_ERROR: Final = 1e-6
"""Seconds by which two times that should be equal may differ: the virtual clock adds up floats."""

EVENTS_SHOWN: Final = 24
"""How many events a violation's shortened trace has at most."""

MOST_VIOLATIONS: Final = 20
"""How many violations of one guarantee are kept of one seed: what follows the first tells little more."""

Event = tuple[object, ...]
"""The time [s], what happened, to whom, and details; numbers and text only."""


class Violation(Struct, frozen=True):
    """A guarantee that did not hold, when (virtual seconds), and the events that led there."""

    seed: int
    guarantee: int
    message: str
    time: float
    trace: list[str]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: guarantee {self.guarantee} broken at {self.time:.3f} s: {self.message}"]
        return "\n".join([*lines, *(f"    {line}" for line in self.trace)])


class Record:
    """The events of one simulation, and the verdicts on them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.events: list[Event] = []
        self.checks: dict[int, int] = dict.fromkeys(GUARANTEES, 0)
        self.violations: list[Violation] = []
        self.now: Callable[[], float] = trio.current_time
        """The time [s]; in a run, the clock's own method takes a third of the time."""
        self._broken: dict[int, int] = dict.fromkeys(GUARANTEES, 0)

    def add(self, what: str, *details: object) -> None:
        """Write down an event, at this moment."""
        self.events.append((self.now(), what, *details))

    def check(self, guarantee: int, holds: object, message: str, *concerned: object) -> None:
        """Count one check of a guarantee; where it does not hold, keep a trace about those concerned."""
        self.checks[guarantee] += 1
        if not holds:
            self.violate(guarantee, message, *concerned)

    def violate(self, guarantee: int, message: str, *concerned: object) -> None:
        """A guarantee is broken."""
        self._broken[guarantee] += 1
        if self._broken[guarantee] > MOST_VIOLATIONS:
            return
        try:
            now = trio.current_time()
        except RuntimeError:  # after the run
            now = float(self.events[-1][0]) if self.events else 0.0  # type: ignore[arg-type] # its time
        trace = shortened(self.events, concerned)
        self.violations.append(Violation(self.seed, guarantee, message, now, trace))

    def absorb(self, other: Record) -> None:
        """Take in all of `other`, a record of the same run."""
        self.events += other.events
        self.violations += other.violations
        for guarantee, count in other.checks.items():
            self.checks[guarantee] += count

    @property
    def digest(self) -> str:
        """A short text that differs when anything in the trace does."""
        return blake2b(msgspec.msgpack.encode(self.events), digest_size=16).hexdigest()

    def trace(self) -> list[str]:
        """All events, as lines, in the order in which they happened."""
        return [shown(event) for event in sorted(self.events, key=itemgetter(0))]


def shortened(events: list[Event], concerned: Iterable[object]) -> list[str]:
    """The last events that name any of `concerned`, and the very last ones whatever they are about."""
    names = {thing: None for thing in concerned if thing is not None}
    chosen: dict[int, None] = dict.fromkeys(range(max(0, len(events) - EVENTS_SHOWN // 3), len(events)))
    for number in range(len(events) - 1, -1, -1):
        if len(chosen) >= EVENTS_SHOWN:
            break
        if any(detail in names for detail in events[number][2:] if isinstance(detail, (str, int))):
            chosen[number] = None
    return [shown(events[number]) for number in sorted(chosen)]


def shown(event: Event) -> str:
    """One event as a line."""
    time, what, *details = event
    return f"{time:10.3f} s  {what:<12} {' '.join(map(str, details))}"
