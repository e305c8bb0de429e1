"""The arms of an evaluation: what is asked of each question, and what became of it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ultra.strategies.catalog import load_strategy

__all__ = ["Arm", "ArmKind", "Outcome", "member_arm", "needs_schema", "samples_arm", "strategy_arm"]

ArmKind = Literal["member", "random", "best", "samples", "strategy", "judge", "oracle"]


class Arm(Struct, frozen=True, kw_only=True):
    """One way to answer that is measured.

    Attributes:
        name: what reports call it.
        kind: what it is: a model, a baseline, or a strategy.
        strategy: the name of the strategy that it runs.
        options: the options of the strategy.
        models: the models that it asks; None: all of the panel.
        weights: their weights, where these are not those of the panel.
        run: settings of its runs, such as samples.
    """

    name: str
    kind: ArmKind = "strategy"
    strategy: str = "best_of"
    options: dict[str, Any] = {}
    models: tuple[str, ...] | None = None
    weights: dict[str, float] | None = None
    run: dict[str, Any] = {}


class Outcome(Struct, frozen=True, kw_only=True):
    """What one arm came to on one question.

    Attributes:
        text: the answer; None: the arm failed.
        score: 0 to 1; an arm that failed has 0.
        calls: how many requests it made, of the judge too.
        input_tokens, output_tokens: of all these calls.
        cost: dollars of all these calls, retries and hedges included; None: a price is not known.
        seconds: from the question to the answer.
        confidence: how sure it was, 0 to 1; None: it did not say.
        votes: how many of its first answers had the same final answer as this.
        voters: how many first answers there were.
        degraded: whether a model failed in it, or a fallback was needed.
        error: how it failed; None: it did not.
        unrecorded: how many calls failed only because their answer was not recorded.
    """

    text: str | None
    score: float = 0.0
    calls: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    cost: float | None = None
    seconds: float = 0.0
    confidence: float | None = None
    votes: int | None = None
    voters: int | None = None
    degraded: bool = False
    error: str | None = None
    unrecorded: int = 0

    def scored(self, score: float) -> Outcome:
        """Return this with its score."""
        return replace(self, score=score)


def member_arm(model: str) -> Arm:
    """Return the arm that asks one model once."""
    return Arm(name=model, kind="member", models=(model,))


def samples_arm(model: str, samples: int) -> Arm:
    """Return the arm that asks one model `samples` times and takes the answer that most of them have."""
    if samples == 1:
        return member_arm(model)
    return Arm(
        name=f"{model} x{samples}",
        kind="samples",
        strategy="vote",
        models=(model,),
        run={"samples": samples},
    )


def strategy_arm(name: str, options: dict[str, Any] | None = None) -> Arm:
    """Return the arm of a strategy by its name, or as ``package.module:Class``.

    Raises:
        BadCall: there is no such strategy or option; the message names the choices.
    """
    load_strategy(name, options)
    return Arm(name=name, strategy=name, options=dict(options or {}))


def needs_schema(arm: Arm) -> bool:
    """Return whether the strategy of this arm merges structured answers alone."""
    return getattr(load_strategy(arm.strategy, arm.options), "needs_output", False) is True
