"""The arms of an evaluation: what is asked of each question, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from ultra.errors import BadCall
from ultra.strategies.catalog import load_strategy, strategy_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.evals.panel import PanelModel

__all__ = [
    "Arm",
    "ArmKind",
    "Outcome",
    "cheapest_first",
    "default_arms",
    "member_arm",
    "needs_schema",
    "samples_arm",
    "strategy_arm",
    "what_is_read",
]

ArmKind = Literal["member", "random", "best", "samples", "strategy", "judge", "oracle"]

_FEWEST_ROUTED: Final = 3
"""A model that chooses does not answer itself, so it needs two others to choose from."""

_READ: Final = {
    "synthesize": "models analyse the answers, and one merges them",
    "vote": "where there is no majority, a model reads the answers and decides",
    "best_of": "a judge grades the answers",
    "rank": "models rank the answers of the others",
    "cascade": "where nothing is agreed on, a model reads the answers and decides",
    "layers": "models answer again, having read the others",
    "debate": "models revise their answers, having read the others",
    "route": "a model chooses who is asked",
    "fields": "where fields are disputed, a model decides",
}
"""What models write in a strategy beside their first answers."""

_WITHOUT_READER: Final = (("vote", {"rule": "plurality"}), ("cascade", {"end": "last"}))
"""Strategies with the options by which first answers are all that they need."""


class Arm(Struct, frozen=True, kw_only=True):
    """One way to answer that is measured.

    Attributes:
        name: what reports call it.
        kind: what it is: a model, a baseline, or a strategy.
        strategy: the name of the strategy that it runs.
        options: the options of the strategy.
        models: the models that it asks; None: all of the panel.
        run: settings of its runs, such as samples.
    """

    name: str
    kind: ArmKind = "strategy"
    strategy: str = "best_of"
    options: dict[str, Any] = {}
    models: tuple[str, ...] | None = None
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
        strategy="self_consistency",
        options={"samples": samples},
        models=(model,),
    )


def strategy_arm(name: str, options: dict[str, Any] | None = None) -> Arm:
    """Return the arm of a strategy by its name, or as ``package.module:Class``.

    Raises:
        BadCall: there is no such strategy or option; the message names the choices.
    """
    load_strategy(name, options)
    shown = ", ".join(f"{option}={value}" for option, value in (options or {}).items())
    return Arm(name=f"{name} ({shown})" if shown else name, strategy=name, options=dict(options or {}))


def default_arms(
    models: Mapping[str, PanelModel] | None = None, *, replayed: bool = False
) -> tuple[list[Arm], dict[str, str]]:
    """Return an arm for each strategy of the catalog, and why others have none.

    `models` are those of the panel; the cheapest of them chooses for `route`. `replayed`: no model can be
    asked, so `vote` and `cascade` are measured in a form that needs no reader, too.
    """
    arms, left_out = [], {}
    for name in strategy_names():
        if name == "self_consistency":
            continue  # it is a baseline, with as many samples as the others make calls
        options: dict[str, Any] = {}
        if name == "route":
            if len(models or ()) < _FEWEST_ROUTED:
                left_out[name] = "a model that chooses among others needs two of them: three models"
                continue
            options = {"chooser": cheapest_first(models or {})[0]}
        try:
            arms.append(strategy_arm(name, options))
        except BadCall as error:
            left_out[name] = str(error)
    if replayed:
        arms += [strategy_arm(name, options) for name, options in _WITHOUT_READER]
    return arms, left_out


def what_is_read(arm: Arm) -> str:
    """Return what models write in the strategy of this arm beside their first answers."""
    return _READ.get(arm.strategy, "models write more than their first answers")


def cheapest_first(models: Mapping[str, PanelModel]) -> list[str]:
    """Return the models by price, or, where not all have one, the lightest first: as a cascade asks them."""
    prices = {name: model.price.input + model.price.output for name, model in models.items() if model.price}
    if len(prices) == len(models):
        return sorted(prices, key=prices.__getitem__)
    return sorted(models, key=lambda name: models[name].weight)


def needs_schema(arm: Arm) -> bool:
    """Return whether the strategy of this arm merges structured answers alone."""
    return getattr(load_strategy(arm.strategy, arm.options), "needs_output", False) is True
