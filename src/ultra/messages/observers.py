"""What an observer of an orchestrator is told: when runs and calls begin, and how they end.

An observer is an object with the two methods of `Observer`. Traces and metrics are made of it:
`ultra.telemetry.OpenTelemetry` is one. ::

    class Slow:
        def run_started(self, run, context):
            return lambda end: print(run.run_id, end.status, end.seconds)

        def call_started(self, call, context):
            return None  # its end is of no interest

    MultiLLMOrchestrator(telemetry=Slow())

Its methods are called where the actors run, so they must return at once. What they raise is logged and goes
no further.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, cast

from msgspec import Struct

from ultra._support.log import get_logger
from ultra.errors import BadCall, MissingExtra
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion, OrchestrationResult, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from contextvars import Context

__all__ = [
    "CallEnded",
    "CallOutcome",
    "CallStart",
    "Observer",
    "ObserverGroup",
    "RunEnded",
    "RunOutcome",
    "RunStart",
    "named_observer",
    "observers_of",
]

_NAMED: Final = {"otel": "ultra.telemetry.otel:OpenTelemetry"}
"""Observers that have a short name, and where they are: above this module, so they are loaded late."""

log = get_logger("ultra.telemetry", ownerless=True)


class RunStart(Struct, frozen=True, kw_only=True):
    """A run that begins. `name` is that of its ensemble, if it has one; `request` is what the caller asks."""

    run_id: str
    name: str | None
    strategy: str
    models: tuple[str, ...]
    request: ModelRequest


class RunOutcome(Struct, frozen=True, kw_only=True):
    """How a run ended, after so many `seconds`.

    `result` is there for ``success`` and ``degraded``. `error` is the class of the exception of a failed run.
    """

    status: Literal["success", "degraded", "failed", "cancelled"]
    seconds: float
    result: OrchestrationResult | None = None
    error: str | None = None


class CallStart(Struct, frozen=True, kw_only=True):
    """A call of a model that begins: one request with all of its attempts.

    An answer from the cache is no call, and neither is a request that joins one under way. `run_id` is None
    outside of a run. `provider` and `model` are what the client of the model says of itself; None: nothing.
    """

    id: str
    run_id: str | None
    stage: str
    model_name: str
    provider: str | None
    model: str | None
    request: ModelRequest


class CallOutcome(Struct, frozen=True, kw_only=True):
    """How a call ended, after so many `seconds`.

    `completion` is the answer of a call that succeeded. `error` is the kind of the failure. `usage` and
    `cost` (dollars) are those of all attempts, as far as they are known. `first_text` is in seconds from the
    beginning of the call; None: the answer was not streamed.
    """

    status: Literal["success", "failed", "cancelled"]
    seconds: float
    attempts: int
    completion: Completion | None = None
    error: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    first_text: float | None = None


RunEnded: TypeAlias = Callable[[RunOutcome], object]
CallEnded: TypeAlias = Callable[[CallOutcome], object]


class Observer(Protocol):
    """Is told of runs and calls. Both methods return what is called at the end, or None.

    `context` has the context variables of the caller, in a copy of its own for each run and each call. What
    the observer sets in it (``context.run(variable.set, value)``) is seen by all that happens for the run, or
    by the client that is called.
    """

    def run_started(self, run: RunStart, context: Context) -> RunEnded | None:
        """Take note that a run begins."""
        ...

    def call_started(self, call: CallStart, context: Context) -> CallEnded | None:
        """Take note that a model is called; for a call of a run, `context` is a copy of that of the run."""
        ...


class ObserverGroup:
    """Several observers, fenced: nothing that they raise reaches a run."""

    __slots__ = ("_observers",)

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def __bool__(self) -> bool:
        return bool(self._observers)

    def run_started(self, run: RunStart, context: Context) -> RunEnded:
        """Tell all of a run; return what tells them of its end."""
        ends = []
        for observer in self._observers:
            with _fenced(observer):
                ends.append((observer, observer.run_started(run, context)))

        def ended(outcome: RunOutcome) -> None:
            for observer, end in ends:
                with _fenced(observer):
                    if end is not None:
                        end(outcome)

        return ended

    def call_started(self, call: CallStart, context: Context) -> CallEnded:
        """Tell all of a call; return what tells them of its end."""
        ends = []
        for observer in self._observers:
            with _fenced(observer):
                ends.append((observer, observer.call_started(call, context)))

        def ended(outcome: CallOutcome) -> None:
            for observer, end in ends:
                with _fenced(observer):
                    if end is not None:
                        end(outcome)

        return ended

    @contextmanager
    def received(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Let what is asked inside the block belong to the trace that the headers of a request name.

        For observers that have a method of this name, a context manager, and in this task.
        """
        entered = []
        for observer in self._observers:
            with _fenced(observer):
                enter = getattr(observer, "received", None)
                if enter is not None:
                    manager: AbstractContextManager[object] = enter(headers)
                    manager.__enter__()
                    entered.append((observer, manager))
        try:
            yield
        finally:
            for observer, manager in reversed(entered):
                with _fenced(observer):
                    manager.__exit__(None, None, None)


@contextmanager
def _fenced(observer: Observer) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        log.error("observer failed", observer=type(observer).__qualname__, exc_info=error)  # noqa: TRY400 - of this logger, both are the same


def observers_of(given: object) -> ObserverGroup:
    """Return the observers that `telemetry=` means: None, a name, an observer, or a sequence of these.

    Raises:
        BadCall: it is none of these.
        MissingExtra: what the observer needs is not installed.
    """
    if given is None:
        return ObserverGroup(())
    each = given if isinstance(given, (list, tuple)) else (given,)
    return ObserverGroup(tuple(_observer(one) for one in each))


def _observer(given: object) -> Observer:
    found = given
    if isinstance(given, str) and given in _NAMED:
        found = named_observer(given)
    methods = (getattr(found, "run_started", None), getattr(found, "call_started", None))
    if isinstance(found, type) or not all(map(callable, methods)):
        names = ", ".join(map(repr, _NAMED))
        raise BadCall(
            f"telemetry is {given!r}; give {names}, or an object with run_started(run, context) and "
            "call_started(call, context), or a list of these"
        )
    return cast("Observer", found)


def named_observer(name: str, **options: object) -> object:
    """Return the observer of this name, made with these options.

    Raises:
        MissingExtra: what it needs is not installed.
    """
    module, _, attribute = _NAMED[name].partition(":")
    try:
        return attrgetter(attribute)(import_module(module))(**options)
    except ImportError:
        raise MissingExtra(f"telemetry={name!r}", name) from None
