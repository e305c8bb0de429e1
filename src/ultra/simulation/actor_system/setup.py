"""What one seed decides about an actor system: the tree, the options of its actors, the faults, the end."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec import Struct

from ultra.actors.runtime.actor import ActorOptions
from ultra.faults.plan import FaultPlan
from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, RestartStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["FAULTS_UNTIL", "WORK_UNTIL", "ActorSpec", "ActorSystemSetup", "Ending", "SupervisorSpec"]

Ending = Literal["rest", "leave", "stop", "cancel", "raise", "interrupt"]
"""How a run ends: after a long quiet time ("rest"); in the middle of the work, by leaving the system's
block ("leave") or by stopping the system ("stop"); by cancellation; by an exception in the block; by
KeyboardInterrupt in a handler."""

ENDINGS: Final[dict[Ending, int]] = {
    "rest": 10,
    "leave": 4,
    "stop": 3,
    "cancel": 2,
    "raise": 2,
    "interrupt": 2,
}
"""The weight with which each ending is chosen."""

FAULTS_UNTIL: Final = 9.0
"""Virtual seconds after which no fault is injected."""

WORK_UNTIL: Final = 10.0
"""Virtual seconds after which no message is sent."""


class ActorSpec(Struct):
    """One actor. With `slow`, it takes `start` and `stop` seconds, and fails with probability `failing`."""

    name: str
    options: ActorOptions
    restart: Restart
    backoff: Backoff
    slow: bool
    start: float
    stop: float
    failing: float


class SupervisorSpec(Struct):
    """One supervisor, and all below it."""

    name: str
    strategy: RestartStrategy
    intensity: RestartIntensity
    on_excess: OnExcess
    restart: Restart
    backoff: Backoff
    children: list[ActorSpec | SupervisorSpec]


class ActorSystemSetup:
    """All that is decided before a simulation begins. Equal seeds give equal setups."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.jitter = Random(f"{seed}/jitter")
        self._durations = Random(f"{seed}/moods")
        self._tree = Random(f"{seed}/tree")
        (self.ending,) = self._tree.choices(list(ENDINGS), list(ENDINGS.values()))
        self.end_at = WORK_UNTIL * self._tree.uniform(0.2, 1.0)
        self.root = self._root()
        self.senders = self._tree.randint(4, 6)
        self.plan = self._plan()

    def durations(self, seconds: float, failing: float) -> Callable[[], float]:
        """Return a function that draws times to start or stop [s]; below 0 for a failure at the end."""

        def draw() -> float:
            fails = trio.current_time() < FAULTS_UNTIL and self._durations.random() < failing
            return -seconds - 0.001 if fails else seconds

        return draw

    # --- the tree ------------------------------------------------------------------------------------

    def _root(self) -> SupervisorSpec:
        escalates = self._tree.random() < 0.1
        root = SupervisorSpec(
            name="",
            strategy="one_for_one",
            intensity=RestartIntensity(3 if escalates else 20, within=10.0),
            on_excess="escalate" if escalates else "isolate",
            restart="permanent",
            backoff=Backoff(),
            children=[],
        )
        root.children = [
            self._supervisor(f"group-{number}", depth=1) for number in range(self._tree.randint(2, 3))
        ]
        root.children.append(self._actor("single"))
        return root

    def _supervisor(self, name: str, depth: int) -> SupervisorSpec:
        tree = self._tree
        children: list[ActorSpec | SupervisorSpec] = [
            self._actor(f"actor-{number}") for number in range(tree.randint(1, 3))
        ]
        if depth < 3 and tree.random() < 0.35:
            children.insert(tree.randint(0, len(children)), self._supervisor("nested", depth + 1))
        return SupervisorSpec(
            name=name,
            strategy=tree.choice(("one_for_one", "one_for_all", "rest_for_one")),
            intensity=RestartIntensity(tree.choice((0, 1, 2, 3, 5)), within=tree.choice((0.5, 2.0, 5.0))),
            on_excess=tree.choice(("escalate", "isolate")),
            restart=self._restart(),
            backoff=self._backoff(),
            children=children,
        )

    def _actor(self, name: str) -> ActorSpec:
        tree = self._tree
        concurrency = tree.choice((1, 1, 1, 2, 4))
        options = ActorOptions(
            concurrency=concurrency,
            capacity=concurrency + tree.choice((1, 5, 30, 300, 300, 300)),
            overflow=tree.choice(("wait", "wait", "reject", "drop_oldest")),
            max_deliveries=tree.choice((1, 2, 2, 3)),
            cancel_abandoned=tree.random() < 0.3,
            start_timeout=1.5,
            stop_timeout=1.0,
            grace=tree.choice((0.0, 0.5, 2.0)),
        )
        return ActorSpec(
            name=name,
            options=options,
            restart=self._restart(),
            backoff=self._backoff(),
            slow=tree.random() < 0.35,
            start=tree.choice((0.0, 0.25, 1.0)),
            stop=tree.choice((0.0, 0.25, 0.75)),
            failing=tree.choice((0.0, 0.0, 0.2)),
        )

    def _restart(self) -> Restart:
        return self._tree.choice(("permanent", "permanent", "permanent", "transient", "temporary"))

    def _backoff(self) -> Backoff:
        return Backoff(initial=self._tree.choice((0.0, 0.25, 1.0)), maximum=4.0, jitter=0.2, reset_after=8.0)

    # --- the faults ----------------------------------------------------------------------------------

    def _plan(self) -> FaultPlan:
        draw = Random(f"{self.seed}/faults")
        plan = FaultPlan(seed=self.seed)

        def some(items: Sequence[T]) -> T:
            return items[int(draw.random() * len(items))]

        def when(most: int) -> dict[str, object]:
            start = draw.random() * FAULTS_UNTIL * 0.7
            return {
                "times": 1 + int(draw.random() * most),
                "probability": some((0.05, 0.2, 1.0)),
                "after": start,
                "until": FAULTS_UNTIL,
            }

        paths = ("/single", "/group-0/**", "/group-1/**", "/*/actor-0", "/**")
        plan.add("crash", some(paths), **when(4))
        plan.add("crash", some(paths), before=False, **when(4))
        plan.add("crash_on_start", some(paths), **when(2))
        plan.add("delay", some(paths), seconds=(0.25, 1.0), **when(6))
        plan.add("drop", some(paths), **when(6))
        plan.add("duplicate", some(paths), **when(6))
        plan.add("reorder", some(paths), **when(8))
        if draw.random() < 0.4:
            plan.add("hang", some(paths), **when(1))
        if draw.random() < 0.5:
            plan.add("fill", some(paths), messages=64, seconds=some((0.0, 0.0, 0.25)), **when(2))
        return plan
