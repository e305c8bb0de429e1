"""From what a caller asks for to the plan of a run: everything is checked before any model is called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from msgspec.structs import replace

from ultra.actors.coordinator.pipeline import BUILT_IN, Stage, order_stages, plan_stages
from ultra.actors.coordinator.plan import EventSink, RunPlan
from ultra.actors.coordinator.scoring import JUDGE_SHARE, Scoring
from ultra.bridge.caller import Caller
from ultra.errors import BadCall
from ultra.orchestrator.arguments import (
    Quorum,
    RunSettings,
    checked_flag,
    checked_options,
    checked_prompt,
    checked_quorum,
    checked_system,
    checked_timeout,
)
from ultra.prompts.fencing import Seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.actors.coordinator.plan import StagePlan
    from ultra.actors.model.actor import RegisteredModel
    from ultra.orchestrator.registry import ModelRegistry
    from ultra.orchestrator.streams import PlanMaker
    from ultra.orchestrator.tree import ModelTree
    from ultra.scoring.agreement import Scorer

__all__ = ["Planner", "RunDefaults", "check_stages", "stages_of"]

_PROMPT_METHOD: Final = re.compile(r"_create_(\w+)_prompt")


class RunDefaults(NamedTuple):
    """What holds for every run that says nothing else."""

    stages: Sequence[str | Stage] | None
    quorum: Quorum
    timeout: float
    system: str | None
    use_cache: bool
    scorer: Scorer | None
    judge: str | None
    max_cost: float


class Planner:
    """Plans the runs of one orchestrator. `stages` are those that can be asked for by name.

    Raises:
        BadCall: the stages of `defaults` are not allowed, or the secret is too short.
    """

    def __init__(
        self, registry: ModelRegistry, stages: Mapping[str, Stage], defaults: RunDefaults, *, secret: bytes
    ) -> None:
        self._registry = registry
        self._stages = stages
        self._defaults = defaults
        self._seal = Seal(secret)
        self._default_plans = self._plans(defaults.stages, defaults.system)

    def check(
        self,
        prompt: str,
        stages: Sequence[str | Stage] | None,
        models: Sequence[str] | None,
        settings: RunSettings,
    ) -> PlanMaker:
        """Check everything that a run is given; what this returns makes its plan once there are actors.

        Models that come and go in between are taken into account: the plan is of the moment in which it
        is made.

        Raises:
            BadCall: an argument is not allowed; the message names what is.
        """
        defaults, registry = self._defaults, self._registry
        question = checked_prompt(prompt)
        use_cache = checked_flag("use_cache", settings.use_cache) and defaults.use_cache
        options = checked_options(settings.options, cached=use_cache)
        timeout = defaults.timeout if settings.timeout is None else checked_timeout(settings.timeout)
        system = defaults.system if settings.system is None else checked_system(settings.system)
        quorum = defaults.quorum if settings.quorum is None else settings.quorum
        judge = self._judge()
        caller = Caller.current()
        if stages is None and system == defaults.system:
            planned = self._default_plans
        else:
            planned = self._plans(defaults.stages if stages is None else stages, system)
        # An iterator can be read only once, and the plan is made later.
        names = tuple(models) if isinstance(models, Iterable) and not isinstance(models, str) else models
        checked_quorum(quorum, len(registry.chosen(names)))

        def make_plan(tree: ModelTree, run_id: str, sink: EventSink | None) -> RunPlan:
            chosen = registry.chosen(names)
            return RunPlan(
                run_id=run_id,
                question=question,
                stages=planned,
                targets=tuple(tree.target(model) for model in chosen),
                started=trio.current_time(),
                quorum=checked_quorum(quorum, len(chosen)),
                timeout=timeout,
                max_cost=defaults.max_cost,
                use_cache=use_cache,
                options=options,
                score=Scoring(defaults.scorer, tree.target(judge) if judge is not None else None, self._seal),
                sink=sink,
                caller=caller,
            )

        return make_plan

    def _plans(self, stages: Sequence[str | Stage] | None, system: str | None) -> tuple[StagePlan, ...]:
        return plan_stages(
            stages,
            self._stages,
            system=system,
            seal=self._seal,
            scoring_share=0.0 if self._defaults.judge is None else JUDGE_SHARE,
        )

    def _judge(self) -> RegisteredModel | None:
        # Only now: models are registered after the orchestrator was made, and after it was entered, too.
        name = self._defaults.judge
        if name is None:
            return None
        try:
            return self._registry.get(name)
        except BadCall as error:
            raise BadCall(f"the judge is not registered: {error}") from None


def check_stages(requested: Sequence[str | Stage] | None, known: Mapping[str, Stage]) -> None:
    """Raise `BadCall` unless a run can have the stages `requested`, of which some are `known` by name."""
    order_stages(requested, known)


def stages_of(owner: object) -> dict[str, Stage]:
    """The built-in stages, and those that a method ``_create_<stage>_prompt`` of `owner` makes or changes.

    `owner` may be a class, too: then the names are right, but the methods are not bound.
    """
    stages = dict(BUILT_IN)
    for attribute in dir(owner if isinstance(owner, type) else type(owner)):
        match = _PROMPT_METHOD.fullmatch(attribute)
        if match is not None:
            name, maker = match[1], getattr(owner, attribute)
            known = stages.get(name)
            stages[name] = Stage(name=name, prompt=maker) if known is None else replace(known, prompt=maker)
    return stages
