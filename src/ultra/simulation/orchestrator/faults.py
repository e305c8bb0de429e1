"""The faults of a simulated orchestrator: the rules that the seed decides on, and what they excuse."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from ultra.faults.plan import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from ultra.faults.rules import Injection
    from ultra.simulation.record import Record

    T = TypeVar("T")

__all__ = ["COORDINATOR", "FAULTS_UNTIL", "OrchestratorFaults"]

FAULTS_UNTIL: Final = 12.0
"""Virtual seconds after which no fault is injected."""

COORDINATOR: Final = "/coordinator"
NAMES: Final = ("*", "*", "first", "second", "third")
ACTORS: Final = ("/models/*/actor", "/models/first/actor", "/models/third*/actor")
STATUSES: Final = (400, 401, 408, 429, 500, 503, 529)


class ForeignError(Exception):
    """What a client raises that knows nothing of Ultra's errors."""


class OrchestratorFaults:
    """The fault plan of one orchestrator, and the faults that it has injected so far.

    Attributes:
        plan: the fault plan.
        over_http: whether one model is called over HTTP, where exchanges go wrong, too.
        garbled: how often each model, by name, was made to answer with noise.
        crashes: when each actor, by path, was made to crash.
    """

    def __init__(self, seed: int, record: Record) -> None:
        self.plan = FaultPlan(seed)
        self._record = record
        self._random = Random(f"{seed}/troubles")
        self._injected: list[tuple[float, str, str]] = []
        self.garbled: dict[str, int] = {}
        self.crashes: dict[str, list[float]] = {}
        self._add_rules()
        self.over_http: Final = self._random.random() < 0.4
        if self.over_http:
            self._add_rules_for_http()

    # --- what has happened ---------------------------------------------------------------------------

    def happened(self, where: str | None, kinds: Sequence[str], since: float) -> bool:
        """Return whether a fault of one of these kinds was injected at `where` since that time.

        `where` is an actor's path or a model's name; None stands for any place.
        """
        return any(
            kind in kinds and time >= since and where in {None, place} for time, kind, place in self._injected
        )

    def note(self, injection: Injection) -> None:
        """Note a fault, at the moment when the plan injects it."""
        now = trio.current_time()
        self._record.add("fault", injection.where, injection.fault)
        self._injected.append((now, injection.fault, injection.where))
        if injection.fault.startswith("crash"):
            self.crashes.setdefault(injection.where, []).append(now)
        elif injection.fault == "garble_call":
            self.garbled[injection.where] = self.garbled.get(injection.where, 0) + 1

    # --- the rules -----------------------------------------------------------------------------------

    def _add_rules(self) -> None:
        plan, some, chance = self.plan, self._some, self._random.random
        for _ in range(2):
            plan.add("fail_call", some(NAMES), status=some(STATUSES), **self._when(4))
        plan.add(
            "fail_call", some(NAMES), status=some((429, 503)), retry_after=some((1, 90)), **self._when(2)
        )
        plan.add("fail_call", some(NAMES), error=ForeignError, **self._when(3))
        plan.add("delay_call", some(NAMES), seconds=(0.25, 1.5), **self._when(4))
        plan.add("slow_stream", some(NAMES), seconds=(0.1, 0.5), **self._when(4))
        plan.add("cut_stream", some(NAMES), pieces=some((0, 1, 3)), **self._when(4))
        plan.add("garble_call", some(NAMES), garbage=some(("noise", "empty", "type")), **self._when(3))
        if chance() < 0.5:
            plan.add("hang_call", some(NAMES), **self._when(2))
        plan.add("delay", some(ACTORS), seconds=(0.25, 1.0), **self._when(3))
        plan.add("crash", some(ACTORS), **self._when(3))
        plan.add("crash", some(ACTORS), before=False, **self._when(3))
        plan.add("crash_on_start", some(ACTORS), **self._when(2))
        plan.add("drop", some(ACTORS), **self._when(2))
        plan.add("duplicate", some(ACTORS), **self._when(2))
        plan.add("reorder", some(ACTORS), **self._when(4))
        if chance() < 0.3:
            plan.add("hang", some(ACTORS), **self._when(1))
        if chance() < 0.3:
            plan.add("fill", some(ACTORS), messages=16, seconds=some((0.0, 0.25)), **self._when(1))
        self._add_rules_for_the_coordinator()

    def _add_rules_for_the_coordinator(self) -> None:
        plan, chance = self.plan, self._random.random
        plan.add("crash", COORDINATOR, **self._when(2 if chance() < 0.9 else 6))
        plan.add("crash", COORDINATOR, before=False, **self._when(1))
        plan.add("delay", COORDINATOR, seconds=(0.25, 1.0), **self._when(2))
        plan.add("duplicate", COORDINATOR, **self._when(1))
        if chance() < 0.3:
            plan.add("drop", COORDINATOR, **self._when(1))
        if chance() < 0.3:
            plan.add("hang", COORDINATOR, **self._when(1))

    def _add_rules_for_http(self) -> None:
        plan, some, when = self.plan, self._some, self._when
        plan.add("http_slow_body", seconds=(0.0, 0.1), piece=some((16, 64, 256)), **when(2))
        for _ in range(2):  # not every answer is a stream
            plan.add("http_malformed_events", after_events=some((0, 2)), **when(2))
            plan.add("http_stream_error", after_events=some((0, 1, 4)), **when(2))
        plan.add("http_truncate", after_bytes=some((0, 100, 400)), **when(2))
        plan.add("http_disconnect", after_bytes=some((0, 100, 400)), **when(2))
        plan.add("http_content_type", value=some(("text/html", "application/json", "")), **when(2))
        plan.add("http_status", status=some(STATUSES), retry_after=some((None, 1)), **when(2))
        plan.add("http_connect_error", **when(2))
        plan.add("http_read_timeout", **when(2))
        plan.add("http_huge_body", size=some((10_000, 100_000)), **when(2))

    def _when(self, most: int) -> dict[str, object]:
        return {
            "times": 1 + int(self._random.random() * most),
            "probability": self._some((0.1, 0.3, 1.0)),
            "after": self._random.random() * FAULTS_UNTIL * 0.5,
            "until": FAULTS_UNTIL,
        }

    def _some(self, items: Sequence[T]) -> T:
        return items[int(self._random.random() * len(items))]
