"""The record of a simulation: events, counts of checks, and violations.

The record is kept outside of the runtime that is checked. Its events come from the simulation's own actors,
senders and watchers, from the faults that its plan injected, and from the lifecycle events that the runtime
announces. What the runtime shows of itself (counters, states) is compared with the record, and never
taken for the truth.
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

__all__ = ["GUARANTEES", "TIME_TOLERANCE", "Event", "Record", "Violation", "leaves_of"]

GUARANTEES: Final = range(1, 14)
"""The numbers of the guarantees in docs/semantics.md."""

TIME_TOLERANCE: Final = 1e-6
"""Seconds by which two times that should be equal may differ: the virtual clock adds up floats."""

EVENTS_SHOWN: Final = 24
"""How many events a violation shows at most."""

VIOLATIONS_KEPT: Final = 20
"""How many violations of one guarantee are kept per seed: those after the first ones tell little more."""

Event = tuple[object, ...]
"""The time [s], what happened, to whom, and details: numbers and text only."""


class Violation(Struct, frozen=True):
    """A guarantee that did not hold, the virtual time [s], and the events that led to it."""

    seed: int
    guarantee: int
    message: str
    time: float
    trace: list[str]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: guarantee {self.guarantee} broken at {self.time:.3f} s: {self.message}"]
        return "\n".join([*lines, *(f"    {line}" for line in self.trace)])


class Record:
    """The events of one simulation, how often each guarantee was checked, and what was broken."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.events: list[Event] = []
        self.checks: dict[int, int] = dict.fromkeys(GUARANTEES, 0)
        self.violations: list[Violation] = []
        self.now: Callable[[], float] = trio.current_time
        """Return the time [s]. In a run this is the clock's own method, which takes a third of the time."""
        self._broken: dict[int, int] = dict.fromkeys(GUARANTEES, 0)

    def add(self, what: str, *details: object) -> None:
        """Add an event that happens now."""
        self.events.append((self.now(), what, *details))

    def check(self, guarantee: int, holds: object, message: str, *concerned: object) -> None:
        """Count one check of a guarantee. If it does not hold, keep a violation.

        `concerned` are the paths and numbers whose events the violation shows.
        """
        self.checks[guarantee] += 1
        if not holds:
            self.violate(guarantee, message, *concerned)

    def violate(self, guarantee: int, message: str, *concerned: object) -> None:
        """Keep a violation of a guarantee."""
        self._broken[guarantee] += 1
        if self._broken[guarantee] > VIOLATIONS_KEPT:
            return
        try:
            now = trio.current_time()
        except RuntimeError:  # after the run
            now = float(self.events[-1][0]) if self.events else 0.0  # type: ignore[arg-type] # its time
        trace = shortened(self.events, concerned)
        self.violations.append(Violation(self.seed, guarantee, message, now, trace))

    def absorb(self, other: Record) -> None:
        """Add all of `other`, another record of the same run."""
        self.events += other.events
        self.violations += other.violations
        for guarantee, count in other.checks.items():
            self.checks[guarantee] += count

    @property
    def digest(self) -> str:
        """A short text that differs when the events do."""
        return blake2b(msgspec.msgpack.encode(self.events), digest_size=16).hexdigest()

    def trace(self) -> list[str]:
        """Return all events as lines, in the order in which they happened."""
        return [shown(event) for event in sorted(self.events, key=itemgetter(0))]


def shortened(events: list[Event], concerned: Iterable[object]) -> list[str]:
    """Return the last events that name any of `concerned`, and the very last ones of all, as lines."""
    names = {thing: None for thing in concerned if thing is not None}
    chosen: dict[int, None] = dict.fromkeys(range(max(0, len(events) - EVENTS_SHOWN // 3), len(events)))
    for number in range(len(events) - 1, -1, -1):
        if len(chosen) >= EVENTS_SHOWN:
            break
        if any(detail in names for detail in events[number][2:] if isinstance(detail, (str, int))):
            chosen[number] = None
    return [shown(events[number]) for number in sorted(chosen)]


def shown(event: Event) -> str:
    """Return one event as a line."""
    time, what, *details = event
    return f"{time:10.3f} s  {what:<12} {' '.join(map(str, details))}"


def leaves_of(error: BaseException | None) -> list[BaseException]:
    """Return the exceptions inside, without the groups around them."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error] if error is not None else []
