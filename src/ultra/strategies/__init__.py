"""Strategies: ways to ask models and to merge what they say. `ultra.strategies.base` says what one is."""

from typing import TYPE_CHECKING

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.strategies.base import Answer, Model, OpenStep, RunContext, Strategy, StrategySpec, Write
    from ultra.strategies.best_of import BestOf
    from ultra.strategies.cascade import Cascade
    from ultra.strategies.catalog import make_strategy, strategy_names
    from ultra.strategies.debate import Debate
    from ultra.strategies.fields import Fields
    from ultra.strategies.layers import Layers
    from ultra.strategies.rank import Rank
    from ultra.strategies.route import Route
    from ultra.strategies.self_consistency import SelfConsistency
    from ultra.strategies.stages import Stage, StageResponses
    from ultra.strategies.synthesize import Synthesize
    from ultra.strategies.vote import Vote

__all__ = [
    "Answer",
    "BestOf",
    "Cascade",
    "Debate",
    "Fields",
    "Layers",
    "Model",
    "OpenStep",
    "Rank",
    "Route",
    "RunContext",
    "SelfConsistency",
    "Stage",
    "StageResponses",
    "Strategy",
    "StrategySpec",
    "Synthesize",
    "Vote",
    "Write",
    "make_strategy",
    "strategy_names",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Answer": "ultra.strategies.base",
        "BestOf": "ultra.strategies.best_of",
        "Fields": "ultra.strategies.fields",
        "Model": "ultra.strategies.base",
        "OpenStep": "ultra.strategies.base",
        "RunContext": "ultra.strategies.base",
        "SelfConsistency": "ultra.strategies.self_consistency",
        "Cascade": "ultra.strategies.cascade",
        "Debate": "ultra.strategies.debate",
        "Layers": "ultra.strategies.layers",
        "Rank": "ultra.strategies.rank",
        "Route": "ultra.strategies.route",
        "Stage": "ultra.strategies.stages",
        "StageResponses": "ultra.strategies.stages",
        "Strategy": "ultra.strategies.base",
        "StrategySpec": "ultra.strategies.base",
        "Synthesize": "ultra.strategies.synthesize",
        "Vote": "ultra.strategies.vote",
        "Write": "ultra.strategies.base",
        "make_strategy": "ultra.strategies.catalog",
        "strategy_names": "ultra.strategies.catalog",
    },
)
