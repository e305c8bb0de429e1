"""What all kinds of faults share: the rules of a plan, its clock, its injections and observers."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger
from ultra._support.randomness import new_random
from ultra.errors import BadCall
from ultra.faults.rules import Fault, Hook, Injection, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["RuleSet"]

log = get_logger("ultra.faults")

INJECTIONS_KEPT = 1000


class RuleSet:
    """The rules of one plan in the order in which they were written, and the injections so far.

    Base of the classes whose methods add rules.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (type(seed) is not int or seed < 0):
            raise BadCall(f"seed={seed!r} is not allowed; give a whole number, 0 or more, or None for any")
        self.seed = new_random().randrange(2**32) if seed is None else seed
        self.rules: list[Rule] = []
        self.injections: deque[Injection] = deque(maxlen=INJECTIONS_KEPT)
        self._observers: list[Callable[[Injection], None]] = []
        self._clock = ContinuousClock()
        self._origin: float | None = None

    def begin(self) -> None:
        """Begin to use the plan: its time starts, and a warning is logged. Later calls do nothing."""
        if self._origin is None:
            self._origin = self._now()
            if log.enabled("warning"):
                log.warning(
                    "fault injection is on: errors, delays and losses are made on purpose",
                    seed=self.seed,
                    rules="; ".join(map(str, self.rules)),
                )

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind of fault was injected so far."""
        counts: dict[str, int] = {}
        for rule in self.rules:
            counts[rule.fault.name] = counts.get(rule.fault.name, 0) + rule.injected
        return counts

    @contextmanager
    def observe(self, observer: Callable[[Injection], None]) -> Iterator[None]:
        """Call `observer` with each injection, at the moment when it is made, while the block runs."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def __str__(self) -> str:
        injected = sum(rule.injected for rule in self.rules)
        lines = [f"{type(self).__name__}(seed={self.seed}): {_count(injected, 'fault')} injected"]
        for rule in self.rules:
            often = (
                f"{_count(rule.injected, 'time')}, of {rule.matched} match{'es' * (rule.matched != 1)}"
                if rule.matched
                else "never matched"
            )
            lines.append(f"  {rule.number}. {rule}: {often}")
        lines += [f"  {injection}" for injection in self.injections]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed}) <{_count(len(self.rules), 'rule')}>"

    # --- for the kinds of faults ---------------------------------------------------------------------

    def _add(self, fault: Fault, target: str, conditions: Mapping[str, object]) -> Self:
        rule = Rule(len(self.rules) + 1, self.seed, fault, target, conditions)
        for earlier in self.rules:
            if earlier.hides(rule):
                raise BadCall(
                    f"the rule {str(rule)!r} could never apply: {str(earlier)!r}, before it, takes all of it"
                )
        self.rules.append(rule)
        self._rules_changed()
        return self

    def _rules_changed(self) -> None:
        """Forget what was derived from the rules."""

    def _rules_for(self, hook: Hook, *targets: str) -> tuple[Rule, ...]:
        """Return the rules about any of `targets`, which are several names of one thing."""
        rules = (rule for rule in self.rules if rule.fault.hook == hook)
        return tuple(rule for rule in rules if any(map(rule.matches_target, targets)))

    def _fired(self, rules: Sequence[Rule], message: object = None) -> list[Rule]:
        """Return the rules whose faults are to be injected now, up to the first one that `ends`."""
        fired = []
        for rule in rules:
            if rule.matches_message is not None and not rule.matches_message(message):
                continue
            if rule.fires(self._elapsed):
                fired.append(rule)
                if rule.fault.ends:
                    break
        return fired

    def _record(self, rule: Rule, where: str, message: object = None) -> None:
        injection = Injection(rule.fault.name, rule.number, self._elapsed(), where, message)
        self.injections.append(injection)
        for observer in tuple(self._observers):
            observer(injection)

    def _elapsed(self) -> float:
        """Return the seconds since the plan was first used."""
        if self._origin is None:
            self.begin()
        return self._now() - (self._origin or 0.0)

    def _now(self) -> float:
        try:
            return self._clock()
        except RuntimeError:  # not in trio: a transport under asyncio
            return time.monotonic()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
