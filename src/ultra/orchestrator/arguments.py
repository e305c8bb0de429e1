"""What a caller gives to a run, checked before any model is called."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ultra.errors import BadCall
from ultra.messages.request import SamplingOptions
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from ultra.scoring.agreement import Scorer

__all__ = [
    "Quorum",
    "RunSettings",
    "checked_cost",
    "checked_flag",
    "checked_grace",
    "checked_object",
    "checked_options",
    "checked_prompt",
    "checked_quorum",
    "checked_scorer",
    "checked_stage_label",
    "checked_system",
    "checked_timeout",
]

T = TypeVar("T")

Quorum = int | Literal["all"]
"""How many models must answer a stage that asks all."""


class RunSettings(NamedTuple):
    """What a caller sets for one run in place of the orchestrator's own settings."""

    system: str | None
    timeout: float | None
    quorum: Quorum | None
    use_cache: bool
    options: Mapping[str, object] | None


def checked_prompt(prompt: object) -> str:
    """Return `prompt` if it is text that is not empty; raises `BadCall` otherwise."""
    if not isinstance(prompt, str):
        raise BadCall(f"the prompt is of type {type(prompt).__name__}; it must be text (str)")
    if not prompt.strip():
        raise BadCall("the prompt is empty; it must have at least one character that is not white space")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadCall(
            f"the prompt cannot be sent as UTF-8: it has a lone surrogate at {error.start}"
        ) from None
    return prompt


def checked_stage_label(stage: object) -> str:
    """Return `stage` if it is text that is not empty; raises `BadCall` otherwise."""
    if not isinstance(stage, str) or not stage.strip():
        raise BadCall(f"the stage is {stage!r}; it must be the name of a stage, such as 'initial'")
    return stage


def checked_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False; raises `BadCall` otherwise, since "no" would count as True."""
    if not isinstance(value, bool):
        raise BadCall(f"{name} is {value!r}; it must be True or False")
    return value


def checked_object(name: str, value: T | None, kind: type[T]) -> T | None:
    """Return `value` if it is None or of the type `kind`; raises `BadCall` otherwise."""
    if value is not None and not isinstance(value, kind):
        raise BadCall(f"{name} is {value!r}; it must be a {kind.__name__} object, or None")
    return value


def checked_timeout(timeout: object) -> float:
    """Return `timeout` [s] as a number, None as infinity; raises `BadCall` when it is neither."""
    if timeout is None:
        return inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise BadCall(f"the timeout is {timeout!r}; it must be a number of seconds above 0, or None")
    return float(timeout)


def checked_cost(cost: object) -> float:
    """Return `cost` [dollars] as a number, None as infinity; raises `BadCall` when it is neither."""
    if cost is None:
        return inf
    if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not cost > 0:
        raise BadCall(f"max_cost is {cost!r}; it must be a number of dollars above 0, or None")
    return float(cost)


def checked_scorer(scorer: Scorer | None) -> Scorer | None:
    """Return `scorer` if it can be called, or None; raises `BadCall` otherwise."""
    if scorer is not None and not callable(scorer):
        raise BadCall(f"the scorer is {scorer!r}; it must be a function of question and answers, or None")
    return scorer


def checked_grace(grace: object) -> float:
    """Return `grace` [s] as a number, which may be infinite; raises `BadCall` when it is none."""
    if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not grace >= 0:
        raise BadCall(f"grace is {grace!r}; it must be a number of seconds, 0 or more")
    return float(grace)


def checked_system(system: object) -> str | None:
    """Return `system` if it is text or None; raises `BadCall` otherwise."""
    if system is not None and not isinstance(system, str):
        raise BadCall(f"the system prompt is of type {type(system).__name__}; it must be text (str), or None")
    return system


def checked_options(options: object, *, cached: bool) -> dict[str, Any]:
    """A copy of `options`, the options for clients; raises `BadCall` for anything but plain values."""
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        # Without the values: there may be a key among them.
        given = list(options) if isinstance(options, Mapping) else type(options).__name__
        raise BadCall(f"options is {given}; it must be a mapping from the names of options to their values")
    if cached and options:
        cache_key("", None, options)
    SamplingOptions.of(options)
    return dict(options)


def checked_quorum(quorum: object, models: int | None = None) -> Quorum:
    """Return `quorum` if this many models can reach it (None: if any number can); else raises `BadCall`."""
    if quorum == "all":
        return "all"
    if not isinstance(quorum, bool) and isinstance(quorum, int) and 1 <= quorum <= (models or quorum):
        return quorum
    most = "" if models is None else f" and at most the number of models that are asked ({models})"
    raise BadCall(f"the quorum is {quorum!r}; it must be 'all', or a whole number of at least 1{most}")
