"""What actors send to each other, and the envelope that carries one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from msgspec import Struct, field
from msgspec.structs import force_setattr
from outcome import Error, Value
from trio.lowlevel import Abort, Task, reschedule

from ultra.errors.values import ErrorValue

__all__ = ["Cancellable", "Envelope", "Failure", "Message", "SystemMessage"]

R_co = TypeVar("R_co", covariant=True)


class Message(Struct, Generic[R_co], frozen=True):
    """Base class of messages; the parameter is the type of the reply.

        class Ping(Message[Pong], frozen=True):
            number: int

    Messages are frozen, since sender and receiver share them. Any other object can be sent as well;
    its reply is then typed as `object`.
    """


class SystemMessage(Message[R_co], frozen=True):
    """A message of the system lane: never bounded, never dropped, handled before all user messages."""


if TYPE_CHECKING:
    Given: TypeAlias = Exception | type[Exception] | ErrorValue
else:  # what it is once it was made, and what is read from bytes
    Given: TypeAlias = ErrorValue


class Failure(Struct, frozen=True, dict=True):
    """Return this from `Actor.receive` to raise an error in the asker without crashing the actor.

        return Failure(LookupError(f"there is no account {message.account!r}"))

    Give every asker an exception of its own: one that is raised again and again collects tracebacks. A class
    of exceptions stands for a new one without arguments, as it does in ``raise``. Like every reply, this is a
    value: `error_value` is what another process would be told of the error.
    """

    error_value: Given = field(name="error")

    def __post_init__(self) -> None:
        given: object = self.error_value
        if not isinstance(given, ErrorValue):
            if isinstance(given, type):
                vars(self)["_kind"] = given
            force_setattr(self, "error_value", ErrorValue.of(_raisable(given)))

    @property
    def error(self) -> Exception:
        """What the asker gets: the exception that was given, or a `TypeError` where that is none.

        Of a class, each time a new one: a `Failure` that an actor keeps has many askers.
        """
        if (kind := vars(self).get("_kind")) is not None:
            return _raisable(kind)
        value = self.error_value
        return _raisable(value.exception if isinstance(value, ErrorValue) else value)


def _raisable(error: object) -> Exception:
    try:
        made = error() if isinstance(error, type) and issubclass(error, Exception) else error
    except Exception as failure:  # noqa: BLE001 - the class may need arguments
        return failure
    if isinstance(made, Exception):
        return made
    return TypeError(
        f"the actor answered with a Failure of {type(made).__qualname__}; it must be an Exception"
    )


class Cancellable(Protocol):
    """What can be cancelled, such as a cancel scope."""

    def cancel(self) -> None:
        """Cancel it; returns at once."""


class Recipient(Protocol):
    """The cell of an actor, as far as its envelopes know it."""

    def abandoned(self, envelope: Envelope) -> None:
        """Take note that nobody waits for the reply any more, or for room in the inbox."""


class Envelope(Struct, eq=False):
    """Carry one message: who waits for the reply, and how often it was delivered.

    This is no value, and never leaves the process: the tasks that wait are in it.

    The waiting task is rescheduled at most once: `succeed` and `fail` do nothing after the first of
    them, or after the asker was cancelled, so that a late reply reaches nobody.

    Attributes:
        cell: that of the actor, told when the asker, or the sender, waits no longer; None: nobody waits.
        asker: the task that waits for the reply.
        sender: the task that waits for room in the inbox, and for no reply.
        system: whether the message is in the system lane; set when it is put into the inbox.
        deliveries: how often it was handed over.
        spared: how many of the deliveries do not count, since something else broke them off.
        abandoned: whether the asker, or the sender, waits no longer.
        handler: cancelled when the asker of a message in flight waits no longer, if
            `ActorOptions.cancel_abandoned` is set.
        origin: the task that sent the message, where an interceptor wants to know.
        error: the error of a `fail` that found no task waiting.
    """

    message: object
    cell: Recipient | None = None
    asker: Task | None = None
    sender: Task | None = None
    system: bool = False
    deliveries: int = 0
    spared: int = 0
    abandoned: bool = False
    handler: Cancellable | None = None
    origin: Task | None = None
    error: Exception | None = None

    def admitted(self) -> None:
        """Wake the sender that waited for room in the inbox."""
        sender = self.sender
        if sender is not None:
            self.sender = None
            reschedule(sender)

    def succeed(self, reply: object) -> None:
        """Give the asker its reply."""
        asker = self.asker
        if asker is not None:
            self.asker = None
            reschedule(asker, Value(reply))

    def fail(self, error: Exception) -> None:
        """Raise `error` in the task that waits: the asker, or a sender that still waits for room."""
        task = self.asker or self.sender
        if task is None:
            self.error = error
            return
        outcome = Error(error)
        self.asker = self.sender = None  # last: from here on nobody else could wake it
        reschedule(task, outcome)

    def abandon(self, _raise_cancel: object) -> Abort:
        """Take note that the asker, or the sender, was cancelled; trio calls this as their abort function."""
        self.asker = self.sender = None
        self.abandoned = True
        if self.cell is not None:
            self.cell.abandoned(self)
        return Abort.SUCCEEDED
