"""How a supervisor treats its children: restart types, strategies, intensity, backoff.

The terms and their meaning are those of Erlang/OTP's `supervisor`; backoff is Akka's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from msgspec import Struct

from ultra.actors.runtime.actor import Actor, ActorOptions
from ultra.errors import BadCall

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "Backoff",
    "ChildSpec",
    "OnExcess",
    "Restart",
    "RestartIntensity",
    "Strategy",
]

Restart = Literal["permanent", "transient", "temporary"]
"""Which ends of a child lead to a restart: all; crashes only; none."""

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which children are restarted with one that crashed: no other; all; those that start after it."""

OnExcess = Literal["escalate", "isolate"]
"""What follows a crash that the restart intensity does not allow.

escalate: the supervisor stops its children and fails itself. isolate: the child that crashed is down
until it is revived, and the others go on.
"""

T = TypeVar("T")


def check_choice(what: str, value: T, choices: object) -> T:
    """Return `value` if it is one of the literals; raises a `BadCall` that names them otherwise."""
    if value not in get_args(choices):
        raise BadCall(f"{what} is {value!r}; it must be one of {', '.join(get_args(choices))}")
    return value


class RestartIntensity(Struct, frozen=True):
    """At most `max_restarts` restarts in any period of `within` seconds, counted per supervisor."""

    max_restarts: int = 3
    within: float = 5.0

    def __post_init__(self) -> None:
        if type(self.max_restarts) is not int or self.max_restarts < 0:
            raise BadCall(f"max_restarts is {self.max_restarts!r}; it must be a whole number, 0 or more")
        if not 0 < self.within < float("inf"):
            raise BadCall(f"within is {self.within!r}; it must be a number of seconds above 0")


class Backoff(Struct, frozen=True, kw_only=True):
    """How long to wait before a restart [s]: `initial`, times `factor` for each crash in a row.

    The wait is never longer than `maximum`, and varied by up to `jitter` times itself, so that children
    that crash together do not restart together. After `reset_after` seconds without a crash, a child's
    next wait is `initial` again.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.2
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("initial", 0.0, float("inf")),
            ("factor", 1.0, 10.0),
            ("maximum", 0.0, float("inf")),
            ("jitter", 0.0, 1.0),
            ("reset_after", 0.0, float("inf")),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise BadCall(f"backoff {name} is {value!r}; it must be between {least:g} and {most:g}")

    def delay(self, crashes: int, random: Random) -> float:
        """Return the seconds to wait after the `crashes`-th crash in a row (counted from 1)."""
        wait = min(self.maximum, self.initial * self.factor ** min(crashes - 1, 100))
        return wait * (1 + self.jitter * random.uniform(-1, 1)) if wait else 0.0


class ChildSpec(Struct, frozen=True, kw_only=True):
    """All that a supervisor needs to start a child, as often as it has to."""

    name: str
    factory: Callable[[], Actor]
    options: ActorOptions
    restart: Restart = "permanent"
    backoff: Backoff = Backoff()

    def __post_init__(self) -> None:
        check_choice("restart", self.restart, Restart)
