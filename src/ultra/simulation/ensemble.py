"""The orchestrator of a simulation: its models, its users, its operator, and its end."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Final, Literal

import trio

from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.errors import OrchestratorClosed, UltraError
from ultra.faults.rules import InjectedFault
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.simulation.lives import leaves_of
from ultra.simulation.models import CALLS_AT_ONCE, FRESH, VirtualModel
from ultra.simulation.operations import Operator
from ultra.simulation.record import TIME_ERROR, Record
from ultra.simulation.troubles import COORDINATOR, TROUBLE_UNTIL, Troubles
from ultra.simulation.users import User
from ultra.simulation.verdicts import MAX_RETRIES, Question, Verdicts
from ultra.simulation.wire import over_http
from ultra.supervisor.spec import RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ultra.supervisor.lifecycle import LifecycleEvent

__all__ = ["Ensemble"]

Ending = Literal["rest", "leave", "close", "cancel", "raise"]
"""How an orchestrator ends: after a time of rest; by leaving its block, or by `aclose`, in the middle of
the work; by cancellation, or by an exception in its block."""

ENDINGS: Final[dict[Ending, int]] = {"rest": 6, "leave": 2, "close": 2, "cancel": 1, "raise": 1}
"""How often each of them is chosen."""

NAMES: Final = ("first", "second", "third")
USERS: Final = 2
INTENSITY: Final = RestartIntensity(2, within=2.0)

GRACE: Final = 5.0
"""Virtual seconds that each actor has to end: the default."""

REST: Final = 60.0
"""Virtual seconds between the end of the work and the moment when all must be well again."""

PATIENCE: Final = 12.0
"""Virtual seconds for which users may go on after the orchestrator has ended: their pauses, no more."""

PROBE: Final = 120.0
"""Virtual seconds within which whoever is well must answer."""


class Leaving(Exception):
    """The block of the orchestrator is left by an exception."""


class Ensemble:
    """An orchestrator with all who use it, under a fault plan of its own.

    Attributes:
        closing: whether the orchestrator was told to end.
        names: of all models that are ever registered.
    """

    names = NAMES

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.record = Record(seed)
        self.troubles = Troubles(seed, self.record)
        self.closing = False
        self._random = Random(f"{seed}/ensemble")
        (self.ending,) = self._random.choices(list(ENDINGS), list(ENDINGS.values()))
        self._end_at = TROUBLE_UNTIL * self._random.uniform(0.2, 1.0)
        self.close_grace = self._random.choice((0.0, 2.0, 10.0))
        self._models: dict[str, list[VirtualModel]] = {name: [] for name in NAMES}
        self._absent_until: dict[str, float] = dict.fromkeys(NAMES, -inf)
        self._users_left = 0
        self._users_gone = trio.Event()
        self._left_at = 0.0
        self.verdicts = Verdicts(self.record, self.troubles, self._models)
        self.orchestrator = MultiLLMOrchestrator(
            retry=RetryPolicy(max_retries=MAX_RETRIES, initial=0.25, maximum=1.0, retry_after_cap=30.0),
            timeouts=Timeouts(attempt=6.0, first_token=3.0, idle=2.0),
            limits=Limits(concurrency=CALLS_AT_ONCE),
            breaker=BreakerPolicy(consecutive_failures=4, cooldown=2.0),
            intensity=INTENSITY,
            random=Random(f"{seed}/ensemble/jitter"),
            faults=self.troubles.plan,
        )

    async def live(self) -> None:
        """Be used for a while, in trouble, and end; what goes wrong is in the record."""
        for name in NAMES:
            self.register(name)
        with self.troubles.plan.observe(self.troubles.note):
            async with trio.open_nursery() as nursery:
                await self._live_and_end(nursery)
                await self._see_all_end(nursery)

    # --- the models ----------------------------------------------------------------------------------

    def register(self, name: str) -> None:
        """Register a model by this name, a new one each time."""
        lives = self._models[name]
        model = VirtualModel(name, len(lives) + 1, self.seed, self.record)
        lives.append(model)
        behind_http = name == "third" and self.troubles.over_http
        client = over_http(model, self.troubles.plan) if behind_http else model
        self.orchestrator.register_model(name, client, weight=float(self._random.randint(0, 5)))
        if len(lives) > 1:
            self._absent_until[name] = trio.current_time()
        self.record.add("registered", name, len(lives))

    async def unregister(self, name: str, *, drain: bool, grace: float) -> None:
        """Take the model of this name out, and see it end."""
        self._absent_until[name] = inf
        model = self._models[name][-1]
        self.record.add("unregister", name, drain)
        began = trio.current_time()
        await self.orchestrator.unregister_model(name, drain=drain, grace=grace)
        took = trio.current_time() - began
        self.record.check(9, took <= grace + TIME_ERROR, f"unregistering {name} took {took:.3f} s", name)
        self.record.check(9, not model.open_calls, f"{name} has calls though it was unregistered", name)

    def was_absent(self, question: Question) -> bool:
        """Whether a model that was asked for by its name was not registered for some of the time."""
        return any(self._absent_until[name] >= question.asked_at for name in question.models)

    def has_crashed_often(self, path: str) -> bool:
        """Whether there were so many crashes that the actor may be down."""
        intensity = RestartIntensity() if path == COORDINATOR else INTENSITY
        return len(self.troubles.crashes.get(path, ())) > intensity.max_restarts

    def check_calls(self, name: str, question: Question) -> None:
        """What nobody else has asked has led to so many calls as retries and redeliveries explain."""
        calls = sum(model.asked.get(question.prompt, 0) for model in self._models[name])
        most = 1 + MAX_RETRIES
        for kinds in (("crash",), ("duplicate",)):
            most *= 1 + self.troubles.happened(None, kinds, question.asked_at)
        self.record.check(
            3,
            calls <= most,
            f"{name} was called {calls} times for {question.prompt!r}; allowed are {most}",
            name,
        )

    def check_left(self, question: Question) -> None:
        """A call has ended a while ago, in whatever way: what was done for it alone has ended, too."""
        if FRESH not in question.prompt:
            return
        doubled = self.troubles.happened(None, ("duplicate",), question.asked_at)
        for models in self._models.values():
            for model in models:
                going_on = any(question.prompt in prompt for prompt, _ in model.open_calls.values())
                self.record.check(
                    1,
                    doubled or not going_on,
                    f"{model.name} is still called for {question.prompt!r}, which nobody waits for",
                    model.name,
                )

    # --- the end -------------------------------------------------------------------------------------

    async def _live_and_end(self, nursery: trio.Nursery) -> None:
        scope = trio.CancelScope()
        error: BaseException | None = None
        try:
            with scope:
                async with self.orchestrator:
                    try:
                        await self._be_used(nursery, scope)
                    finally:
                        self._leave()
        except (Exception, BaseExceptionGroup) as raised:  # noqa: BLE001 - judged below
            error = raised
        self._check_error(error)
        self._check_end()

    async def _be_used(self, nursery: trio.Nursery, scope: trio.CancelScope) -> None:
        tree = self.orchestrator._lifespan.tree  # noqa: SLF001 - nobody else tells of its crashes
        assert tree is not None
        with tree.system.observe(self._observe):
            self._users_left = USERS
            for number in range(USERS):
                nursery.start_soon(self._use, number, name=f"user {number}")
            nursery.start_soon(Operator(self).live, name="operator")
            await self._wait_for_the_end(scope)

    async def _use(self, number: int) -> None:
        await User(self, number).live()
        self._users_left -= 1
        if not self._users_left:
            self._users_gone.set()

    async def _wait_for_the_end(self, scope: trio.CancelScope) -> None:
        if self.ending == "rest":
            await self._users_gone.wait()
            await trio.sleep_until(max(trio.current_time(), TROUBLE_UNTIL) + REST)
            await self._probe_all()
            return
        await trio.sleep_until(self._end_at)
        match self.ending:
            case "close":
                self._leave()
                await self.orchestrator.aclose(self.close_grace)
            case "cancel":
                scope.cancel()
                await trio.sleep_forever()
            case "raise":
                raise Leaving
            case _:
                pass

    def _leave(self) -> None:
        if not self.closing:
            self._left_at = trio.current_time()
            self.closing = True
            self.record.add("end", self.ending)

    def _check_error(self, error: BaseException | None) -> None:
        leaves = [type(leaf).__name__ for leaf in leaves_of(error)]
        allowed = ["Leaving"] if self.ending == "raise" else []
        if self.has_crashed_often(COORDINATOR):
            allowed.append("RestartLimitExceeded")
        self.record.check(
            6,
            all(leaf in allowed for leaf in leaves) and bool(leaves) >= (self.ending == "raise"),
            f"the block ended with {leaves}, expected was {allowed}",
        )

    def _check_end(self) -> None:
        took = trio.current_time() - self._left_at
        self.record.add("left", self.ending)
        grace = {"cancel": 0.0, "raise": 0.0, "close": self.close_grace}.get(
            self.ending, GRACE * (1 + len(NAMES))
        )
        self.record.check(9, took <= grace + TIME_ERROR, f"leaving the orchestrator took {took:.3f} s")
        for models in self._models.values():
            for model in models:
                self.record.check(
                    9, not model.open_calls, f"{model.name} has calls after the end", model.name
                )
        try:
            self.orchestrator.tree()
            closed = False
        except OrchestratorClosed:
            closed = True
        self.record.check(9, closed, "the orchestrator has actors after its end")

    async def _see_all_end(self, nursery: trio.Nursery) -> None:
        until = trio.current_time() + PATIENCE
        while nursery.child_tasks and trio.current_time() < until:  # noqa: ASYNC110 - they tell nobody
            await trio.sleep(0.5)
        left = ", ".join(sorted(task.name for task in nursery.child_tasks))
        self.record.check(9, not left, f"these wait for something that ended long ago: {left}")
        nursery.cancel_scope.cancel()

    # --- at rest -------------------------------------------------------------------------------------

    async def _probe_all(self) -> None:
        """After all the trouble, whoever is asked must answer, or say what is wrong."""
        for name in NAMES:
            self.orchestrator.revive_model(name)
            await self._probe(
                name, self.orchestrator.get_model_response(name, f"{FRESH} probe", timeout=PROBE)
            )
        await self._probe(COORDINATOR, self.orchestrator.process_responses(f"{FRESH} probe", timeout=PROBE))

    async def _probe(self, whom: str, call: Awaitable[object]) -> None:
        how = ""
        try:
            with trio.fail_after(2 * PROBE):
                await call
        except UltraError as error:
            how = type(error).__name__
        except trio.TooSlowError:
            how = "silence"
        answered = how in {"", "AllAttemptsFailed", "QuorumNotReached"}
        self.record.check(10, answered, f"after all the trouble {whom} ended by {how}", whom)

    def _observe(self, event: LifecycleEvent) -> None:
        errors = leaves_of(event.error)
        self.record.add(event.kind, event.path, *(type(error).__name__ for error in errors))
        if event.kind == "crashed":
            self.record.check(
                11,
                all(isinstance(error, InjectedFault) for error in errors),
                f"{event.path} crashed by {errors!r}",
                event.path,
            )
