"""What a caller gives to a run, checked before any model is called."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Quorum", "RunSettings", "checked_prompt", "checked_quorum", "checked_timeout"]

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
    return prompt


def checked_timeout(timeout: object) -> float:
    """Return `timeout` [s] as a number, None as infinity; raises `BadCall` when it is neither."""
    if timeout is None:
        return inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise BadCall(f"the timeout is {timeout!r}; it must be a number of seconds above 0, or None")
    return float(timeout)


def checked_quorum(quorum: object, models: int) -> Quorum:
    """Return `quorum` if this many models can reach it; raises `BadCall` otherwise."""
    if quorum == "all":
        return "all"
    if isinstance(quorum, bool) or not isinstance(quorum, int) or not 1 <= quorum <= models:
        raise BadCall(
            f"the quorum is {quorum!r}; it must be 'all', or a whole number between 1 and the number of "
            f"models that are asked ({models})"
        )
    return quorum
