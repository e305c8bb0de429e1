"""One orchestrator under seeded use and faults: make it, let it be used, end it, check what is left."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Final, Literal

import trio

from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.pricing import Price
from ultra.errors import OrchestratorClosed, UltraError
from ultra.faults.rules import InjectedFault
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.simulation.orchestrator.answer_checks import MAX_RETRIES, AnswerChecks, UserRequest
from ultra.simulation.orchestrator.faults import COORDINATOR, FAULTS_UNTIL, OrchestratorFaults
from ultra.simulation.orchestrator.models import CALLS_AT_ONCE, NOT_CACHED, SimulatedModel, over_http
from ultra.simulation.orchestrator.workload import Operator, User
from ultra.simulation.record import TIME_TOLERANCE, Record, leaves_of
from ultra.supervisor.spec import RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ultra.supervisor.lifecycle import LifecycleEvent

__all__ = ["ENDINGS", "NAMES", "OrchestratorRun"]

Ending = Literal["rest", "leave", "close", "cancel", "raise"]
"""How an orchestrator ends: after a long quiet time ("rest"); in the middle of the work, by leaving its
block ("leave") or by `aclose`; by cancellation; by an exception in its block."""

ENDINGS: Final[dict[Ending, int]] = {"rest": 6, "leave": 2, "close": 2, "cancel": 1, "raise": 1}
"""The weight with which each ending is chosen."""

NAMES: Final = ("first", "second", "third")
USERS: Final = 2
PRICE: Final = Price(input=1.0, output=1.0)
INTENSITY: Final = RestartIntensity(2, within=2.0)

GRACE: Final = 5.0
"""Virtual seconds that each actor has to end: the default."""

QUIET_TIME: Final = 60.0
"""Virtual seconds from the end of the work to the moment when all must be well again."""

LONGEST_PAUSE: Final = 12.0
"""Virtual seconds after the end of the orchestrator in which users must end: they finish their pauses."""

PROBE_TIMEOUT: Final = 120.0
"""Virtual seconds within which a model that is well must answer."""


class Leaving(Exception):
    """The block of the orchestrator is left by this exception."""


class OrchestratorRun:
    """The orchestrator of one seed, with all who use it, under a fault plan of its own.

    Attributes:
        closing: whether the orchestrator was told to end.
        names: of all models that are ever registered.
        reading_until: when the slowest reader of a stream has read all of it, or has given up.
    """

    names = NAMES

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.record = Record(seed)
        self.faults = OrchestratorFaults(seed, self.record)
        self.closing = False
        self.reading_until = 0.0
        self._random = Random(f"{seed}/ensemble")
        (self.ending,) = self._random.choices(list(ENDINGS), list(ENDINGS.values()))
        self._end_at = FAULTS_UNTIL * self._random.uniform(0.2, 1.0)
        self._close_grace = self._random.choice((0.0, 2.0, 10.0))
        self._models: dict[str, list[SimulatedModel]] = {name: [] for name in NAMES}
        self._unregistered_until: dict[str, float] = dict.fromkeys(NAMES, -inf)
        self._users_left = 0
        self._users_gone = trio.Event()
        self._left_at = 0.0
        self.answer_checks = AnswerChecks(self.record, self.faults, self._models)
        self.orchestrator = MultiLLMOrchestrator(
            retry=RetryPolicy(max_retries=MAX_RETRIES, initial=0.25, maximum=1.0, retry_after_cap=30.0),
            timeouts=Timeouts(attempt=6.0, first_token=3.0, idle=2.0),
            limits=Limits(concurrency=CALLS_AT_ONCE),
            breaker=BreakerPolicy(consecutive_failures=4, cooldown=2.0),
            intensity=INTENSITY,
            random=Random(f"{seed}/ensemble/jitter"),
            faults=self.faults.plan,
        )

    async def run(self) -> None:
        """Run to the end. What goes wrong is in the record."""
        for name in NAMES:
            self.register(name)
        with self.faults.plan.observe(self.faults.note):
            async with trio.open_nursery() as nursery:
                await self._work_and_end(nursery)
                await self._check_all_tasks_end(nursery)

    # --- the models ----------------------------------------------------------------------------------

    def register(self, name: str) -> None:
        """Register a new model by this name."""
        registered = self._models[name]
        model = SimulatedModel(name, len(registered) + 1, self.seed, self.record)
        registered.append(model)
        behind_http = name == "third" and self.faults.over_http
        client = over_http(model, self.faults.plan) if behind_http else model
        weight = float(self._random.randint(0, 5))
        self.orchestrator.register_model(name, client, weight=weight, price=PRICE)
        if len(registered) > 1:
            self._unregistered_until[name] = trio.current_time()
        self.record.add("registered", name, len(registered))

    async def unregister(self, name: str, *, drain: bool, grace: float) -> None:
        """Unregister the model of this name, and check that it ends."""
        self._unregistered_until[name] = inf
        model = self._models[name][-1]
        self.record.add("unregister", name, drain)
        began = trio.current_time()
        await self.orchestrator.unregister_model(name, drain=drain, grace=grace)
        took = trio.current_time() - began
        self.record.check(9, took <= grace + TIME_TOLERANCE, f"unregistering {name} took {took:.3f} s", name)
        self.record.check(9, not model.open_calls, f"{name} has calls though it was unregistered", name)

    def was_unregistered(self, request: UserRequest) -> bool:
        """Return whether a model that the request names was not registered for some of the time."""
        return any(self._unregistered_until[name] >= request.asked_at for name in request.models)

    def has_crashed_often(self, path: str) -> bool:
        """Return whether there were so many crashes that the actor may be down."""
        intensity = RestartIntensity() if path == COORDINATOR else INTENSITY
        return len(self.faults.crashes.get(path, ())) > intensity.max_restarts

    def check_number_of_calls(self, name: str, request: UserRequest) -> None:
        """Check that a prompt of this request alone led to no more calls than retries and redeliveries do."""
        calls = sum(model.asked.get(request.prompt, 0) for model in self._models[name])
        most = 1 + MAX_RETRIES
        for kind in ("crash", "duplicate"):
            most *= 1 + self.faults.happened(None, (kind,), request.asked_at)
        self.record.check(
            3,
            calls <= most,
            f"{name} was called {calls} times for {request.prompt!r}; allowed are {most}",
            name,
        )

    def check_no_calls_left(self, request: UserRequest) -> None:
        """Check, a while after a request has ended, that the calls made for it alone have ended, too."""
        if NOT_CACHED not in request.prompt:
            return
        doubled = self.faults.happened(None, ("duplicate",), request.asked_at)
        for models in self._models.values():
            for model in models:
                going_on = any(request.prompt in prompt for prompt, _ in model.open_calls.values())
                self.record.check(
                    1,
                    doubled or not going_on,
                    f"{model.name} is still called for {request.prompt!r}, which nobody waits for",
                    model.name,
                )

    # --- the end -------------------------------------------------------------------------------------

    async def _work_and_end(self, nursery: trio.Nursery) -> None:
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
        tree = self.orchestrator._lifespan.tree  # noqa: SLF001 - nothing else tells of its crashes
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
            await trio.sleep_until(max(trio.current_time(), FAULTS_UNTIL) + QUIET_TIME)
            await self._probe_all()
            return
        await trio.sleep_until(self._end_at)
        match self.ending:
            case "close":
                self._leave()
                await self.orchestrator.aclose(self._close_grace)
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
        allowed = [Leaving.__name__] if self.ending == "raise" else []
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
        grace = {"cancel": 0.0, "raise": 0.0, "close": self._close_grace}.get(
            self.ending, GRACE * (1 + len(NAMES))
        )
        self.record.check(9, took <= grace + TIME_TOLERANCE, f"leaving the orchestrator took {took:.3f} s")
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

    async def _check_all_tasks_end(self, nursery: trio.Nursery) -> None:
        until = max(trio.current_time() + LONGEST_PAUSE, self.reading_until)
        while nursery.child_tasks and trio.current_time() < until:  # noqa: ASYNC110 - they tell nobody
            await trio.sleep(0.5)
        left = ", ".join(sorted(task.name for task in nursery.child_tasks))
        self.record.check(9, not left, f"these wait for something that ended long ago: {left}")
        nursery.cancel_scope.cancel()

    # --- at rest -------------------------------------------------------------------------------------

    async def _probe_all(self) -> None:
        """Check, after a long quiet time, that all models and the coordinator answer, or say why not."""
        for name in NAMES:
            self.orchestrator.revive_model(name)
            await self._probe(
                name,
                self.orchestrator.get_model_response(name, f"{NOT_CACHED} probe", timeout=PROBE_TIMEOUT),
            )
        await self._probe(
            COORDINATOR,
            self.orchestrator.process_responses(f"{NOT_CACHED} probe", timeout=PROBE_TIMEOUT),
        )

    async def _probe(self, whom: str, call: Awaitable[object]) -> None:
        how = ""
        try:
            with trio.fail_after(2 * PROBE_TIMEOUT):
                await call
        except UltraError as error:
            how = type(error).__name__
        except trio.TooSlowError:
            how = "silence"
        answered = how in {"", "AllAttemptsFailed", "QuorumNotReached"}
        self.record.check(10, answered, f"after a long quiet time {whom} ended by {how}", whom)

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
