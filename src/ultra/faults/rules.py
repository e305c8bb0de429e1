"""One rule of a fault plan: what it does, to whom, and when."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, TypedDict, TypeGuard

from msgspec import Struct
from msgspec.structs import fields

from ultra.errors import BadCall, UltraError
from ultra.faults.patterns import (
    MessagePattern,
    covers_message,
    message_matcher,
    model_matcher,
    path_matcher,
    stage_matcher,
    url_matcher,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "CallConditions",
    "Conditions",
    "Fault",
    "Hook",
    "InjectedFault",
    "Injection",
    "MessageConditions",
    "Rule",
    "Seconds",
    "check_retry_after",
    "check_seconds",
]


class InjectedFault(UltraError, RuntimeError):
    """An error that a fault plan raised on purpose."""


Hook = Literal["start", "send", "handle", "call", "http"]
"""Where a fault is injected: at the start of an actor, when a message is sent or handled, around a call to a
model, or in an HTTP request and its response."""

Seconds: TypeAlias = float | tuple[float, float]
"""A time in seconds, or the two ends of a range that each injection draws from."""


class Conditions(TypedDict, total=False):
    """When a rule applies.

    Attributes:
        times: how often in all; None sets no limit.
        skip: how many matches are left alone before that.
        probability: with which a match counts, above 0 and up to 1.
        after: from which time on, in seconds of trio's clock since the plan's first use.
        until: up to which time.
    """

    times: int | None
    skip: int
    probability: float
    after: float
    until: float


class CallConditions(Conditions, total=False):
    """`Conditions`, and `stage`: a pattern for the name of the stage."""

    stage: str | None


class MessageConditions(CallConditions, total=False):
    """`CallConditions`, and `message`: a class of messages, a pattern for its name, or a tuple of these."""

    message: MessagePattern | None


_CONDITIONS: Final[Mapping[Hook, type]] = {
    "start": Conditions,
    "send": MessageConditions,
    "handle": MessageConditions,
    "call": CallConditions,
    "http": Conditions,
}
"""The conditions that a rule may have: a start has no message, and HTTP knows no stage."""


class Fault(Struct, frozen=True):
    """Base of what a rule does.

    `name` is the method of `FaultPlan` that adds it, and `hook` is where it is injected. If `ends`, later
    rules are not asked once it was injected.
    """

    name: ClassVar[str]
    hook: ClassVar[Hook]

    @property
    def ends(self) -> bool:
        """Whether it leaves nothing to later rules."""
        return False

    def settings(self) -> dict[str, object]:
        """Return the settings that differ from their defaults, for people to read."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


class Injection(Struct, frozen=True):
    """One fault that was injected.

    Attributes:
        fault: its kind.
        rule: the number of the rule in its plan, counted from 1.
        time: seconds since the plan's first use.
        where: the path of the actor, the name of the model, or the URL.
        message: the message that it was done to, None if there was none.
    """

    fault: str
    rule: int
    time: float
    where: str
    message: object = None

    def __str__(self) -> str:
        what = f"  {type(self.message).__name__}" if self.message is not None else ""
        return f"{self.time:10.3f} s  {self.fault}  {self.where}{what}"


class _When(Struct, frozen=True, kw_only=True):
    times: int | None = None
    skip: int = 0
    probability: float = 1.0
    after: float = 0.0
    until: float = inf
    stage: str | None = None
    message: MessagePattern | None = None

    def __post_init__(self) -> None:
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise BadCall(
                f"times={self.times!r}: the rule could never apply; give 1 or more, or None for always"
            )
        if type(self.skip) is not int or self.skip < 0:
            raise BadCall(f"skip={self.skip!r} is not allowed; give a whole number, 0 or more")
        if not _is_number(self.probability) or not 0 < self.probability <= 1:
            raise BadCall(
                f"probability={self.probability!r} is not allowed; give a number above 0 and up to 1"
            )
        if not _is_number(self.after) or not 0 <= self.after < inf:
            raise BadCall(
                f"after={self.after!r} is not allowed; give seconds since the plan's first use, 0 or more"
            )
        if not _is_number(self.until) or not self.until > self.after:
            raise BadCall(
                f"until={self.until!r}: the rule could never apply; it must be more than after={self.after:g}"
            )

    @property
    def always(self) -> bool:
        """Whether every match counts, in the time window."""
        return self.times is None and self.skip == 0 and self.probability == 1


class Rule:
    """A fault with its target and conditions, and how often it matched and was injected so far."""

    def __init__(
        self, number: int, seed: object, fault: Fault, target: str, conditions: Mapping[str, object]
    ) -> None:
        allowed = _CONDITIONS[fault.hook].__annotations__
        unknown = [name for name in conditions if name not in allowed]
        if unknown:
            raise BadCall(f"{fault.name} has no setting {unknown[0]!r}; conditions are: {', '.join(allowed)}")
        self.number = number
        self.fault = fault
        self.target = target
        self.when = _When(**conditions)  # type: ignore[arg-type] # checked by name above, by value inside
        self.matches_target = _target_matcher(fault.hook)(target)
        # A call has no message: its stage is asked for by `matches_stage`.
        about_messages = fault.hook in {"send", "handle"}
        self.matches_message = message_matcher(self.when.message, self.when.stage) if about_messages else None
        self._matches_stage = stage_matcher(self.when.stage) if self.when.stage is not None else None
        # A stream of its own: what one rule draws does not depend on the rules around it.
        self.random = Random(f"{seed}/{number}")
        self.matched = 0
        self.injected = 0

    def matches_stage(self, stage: str | None) -> bool:
        """Return whether the rule applies to a call made in `stage`."""
        return self._matches_stage is None or (stage is not None and self._matches_stage(stage))

    def fires(self, clock: Callable[[], float]) -> bool:
        """Count one match; True when the fault is to be injected. `clock` gives the plan's time."""
        when = self.when
        if self.injected == when.times:
            return False
        if (when.after or when.until != inf) and not when.after <= clock() < when.until:
            return False
        self.matched += 1
        if self.matched <= when.skip or (when.probability < 1 and self.random.random() >= when.probability):
            return False
        self.injected += 1
        return True

    def hides(self, later: Rule) -> bool:
        """Return whether `later` could never apply, because this rule comes first and takes all of it."""
        mine, others = self.when, later.when
        return (
            self.fault.hook == later.fault.hook
            and self.fault.ends
            and mine.always
            and self._covers_target(later.target)
            and mine.after <= others.after
            and mine.until >= others.until
            and mine.stage in {None, others.stage}
            and covers_message(mine.message, others.message)
        )

    def _covers_target(self, target: str) -> bool:
        is_name = not any(letter in target for letter in "*?[")
        return (
            target == self.target or self.target in {"/**", "*"} or (is_name and self.matches_target(target))
        )

    def __str__(self) -> str:
        settings = self.fault.settings() | {
            field.name: value
            for field in fields(_When)
            if (value := getattr(self.when, field.name)) != field.default
        }
        shown = (f"{name}={_shown(value)}" for name, value in settings.items())
        return " ".join((self.fault.name, self.target, *shown))


def check_seconds(what: str, value: object, *, least: float = 0.0) -> Seconds:
    """Return `value` if it is a time or a range of times. Raises `BadCall` otherwise."""
    least_of, most = value if isinstance(value, tuple) and len(value) == 2 else (value, value)  # noqa: PLR2004
    if _is_number(least_of) and _is_number(most) and least <= least_of <= most < inf:
        return value  # type: ignore[return-value] # narrowed above
    raise BadCall(f"{what} is {value!r}; give seconds, {least:g} or more, or a pair (least, most)")


def check_retry_after(value: object) -> None:
    """Raise `BadCall` unless `value` is None or a time."""
    if value is not None and not (_is_number(value) and 0 <= value < inf):
        raise BadCall(f"retry_after={value!r} is not allowed; give seconds, 0 or more, or None")


def draw_seconds(seconds: Seconds, random: Random) -> float:
    """Return one time out of the range."""
    return random.uniform(*seconds) if isinstance(seconds, tuple) else seconds


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_shown, value)) + ")"
    return getattr(value, "__name__", None) or (value if isinstance(value, str) else repr(value))


def _target_matcher(hook: Hook) -> Callable[[object], Callable[[str], bool]]:
    if hook == "http":
        return url_matcher
    return model_matcher if hook == "call" else path_matcher
