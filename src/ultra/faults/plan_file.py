"""Fault plans in files, for programs that are not tests.

seed = 7

[[rules]]
fault = "http_status"
url = "*/v1/messages"
status = 529
times = 2
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from ultra.errors import BadCall, ConfigError
from ultra.faults.plan import FaultPlan

__all__ = ["read_plan"]


def read_plan(path: str | Path) -> FaultPlan:
    """Read the plan in the TOML file at `path`.

    Each ``[[rules]]`` names its ``fault``, a method of `FaultPlan`, and has the arguments of that method
    under their names. A range of seconds is an array of two.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an entry that no plan has. The message
            names the file and the rule.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: the fault plan cannot be read: {error}") from error
    unknown = [name for name in found if name not in {"seed", "rules"}]
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; a fault plan has: seed, rules")
    rules = found.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"{path}: rules are tables; write each as [[rules]]")
    try:
        plan = FaultPlan(seed=found.get("seed"))
    except BadCall as error:
        raise ConfigError(f"{path}: {error}") from error
    for number, rule in enumerate(rules, start=1):
        _add(plan, dict(rule), f"{path}: rule {number}")
    return plan


def _add(plan: FaultPlan, rule: dict[str, object], where: str) -> None:
    fault = rule.pop("fault", None)
    if not isinstance(fault, str):
        raise ConfigError(f"{where} does not name its fault, as in: fault = 'http_status'")
    try:
        plan.add(fault, **{name: _argument(name, value) for name, value in rule.items()})
    except BadCall as error:
        raise ConfigError(f"{where}: {error}") from error


def _argument(name: str, value: object) -> object:
    """Return `value` as the methods of a plan take it: TOML has neither tuples nor bytes."""
    if name == "body" and isinstance(value, str):
        return value.encode()
    return tuple(value) if isinstance(value, list) else value
