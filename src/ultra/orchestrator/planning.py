"""Planning a run: all arguments are checked, before any model is called."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from msgspec.structs import replace

from ultra._support.checks import check_flag
from ultra.actors.coordinator.messages import Execute, LocalRun, RunSpending
from ultra.bridge.caller import Caller
from ultra.errors import BadCall, ModelGone, StrategyGone
from ultra.messages.model_options import model_options_of
from ultra.messages.request import SamplingOptions
from ultra.orchestrator.arguments import (
    check_media,
    check_options,
    check_tools,
    checked_system,
    output_of,
    request_of,
)
from ultra.prompts.fencing import Fencing
from ultra.strategies.base import models_check
from ultra.strategies.catalog import make_strategy, spec_of
from ultra.strategies.stages import BUILT_IN, Stage
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.actors.coordinator.messages import AnswerMemo, EventSink
    from ultra.actors.model.registered import RegisteredModel
    from ultra.messages.conversation import Conversation
    from ultra.messages.options import RunArguments, RunOptions
    from ultra.messages.output_types import OutputType
    from ultra.messages.request import ModelRequest
    from ultra.messages.runs import RunSpec
    from ultra.orchestrator.registry import ModelRegistry
    from ultra.orchestrator.streams import RunMaker
    from ultra.orchestrator.tree import ModelTree
    from ultra.scoring.agreement import Scorer
    from ultra.strategies.base import Strategy, StrategySpec

__all__ = ["Planned", "Planner", "RunDefaults", "options_of", "stages_of", "strategy_of"]

_PROMPT_METHOD: Final = "_create_", "_prompt"


class RunDefaults(NamedTuple):
    """The defaults of an orchestrator's runs."""

    options: RunOptions
    strategy: object
    stages: Sequence[str | Stage] | None
    system: str | None
    scorer: Scorer | None
    judge: str | None


class Planned(NamedTuple):
    """A run whose arguments were checked. `names` are those of its models; None: all that there are then."""

    request: ModelRequest
    options: RunOptions
    output: OutputType | None
    strategy: Strategy
    spec: StrategySpec
    names: Sequence[str] | None


class Planner:
    """Plans the runs of one orchestrator. `stages` are those that callers can name.

    `secret` is the key of the nonces that fence candidates in prompts.

    Raises:
        BadCall: the strategy or the stages of `defaults` are not allowed, or the secret is too short.
    """

    def __init__(
        self, registry: ModelRegistry, stages: Mapping[str, Stage], defaults: RunDefaults, *, secret: bytes
    ) -> None:
        self._registry = registry
        self._stages = stages
        self.defaults = defaults
        self.secret = secret
        self._fencing = Fencing(secret)
        self._strategy = strategy_of(defaults.strategy, defaults.stages, stages)
        self._spec = spec_of(self._strategy)

    def check(
        self,
        prompt: Conversation,
        stages: Sequence[str | Stage] | None,
        models: Sequence[str] | None,
        strategy: object,
        given: RunArguments,
    ) -> RunMaker:
        """Check the arguments of a run, and return what makes its message once there are actors.

        The run asks the models that are registered at that later moment.

        Raises:
            BadCall: an argument is not allowed; the message says what is.
        """
        planned = self.planned(prompt, stages, models, strategy, given)
        return self.maker(planned, Caller.current())

    def planned(
        self,
        prompt: Conversation,
        stages: Sequence[str | Stage] | None,
        models: Sequence[str] | None,
        strategy: object,
        given: RunArguments,
        *,
        is_whole: bool = True,
    ) -> Planned:
        """Check the arguments of a run, and return what it is to do; `is_whole`: no more are given later.

        Raises:
            BadCall: an argument is not allowed, or is missing.
        """
        defaults, registry = self.defaults, self._registry
        system, options = options_of(given, defaults.system, defaults.options)
        output = output_of(given.get("output"))
        request = request_of(prompt, system, options.sampling, given, output)
        chosen_strategy = self._chosen(strategy, stages)
        if is_whole and output is None and getattr(chosen_strategy, "needs_output", False) is True:
            raise BadCall(
                f"strategy {spec_of(chosen_strategy).name!r} merges structured answers; give their form with "
                "output=, a type or a JSON schema"
            )
        spec = self._spec if chosen_strategy is self._strategy else spec_of(chosen_strategy)
        # Copied, since an iterator can be read only once, and `make_run` reads it again.
        names = tuple(models) if isinstance(models, Iterable) and not isinstance(models, str) else models
        asked = registry.chosen(names)
        options.needed(len(asked))
        self._check_models(chosen_strategy, asked)
        check_options(options.sampling, asked)
        self._check_own_options(options, asked)
        check_media(request, asked)
        check_tools(request, options, asked)
        self._judge()
        return Planned(request, options, output, chosen_strategy, spec, names)

    def maker(
        self,
        planned: Planned,
        caller: Caller,
        *,
        fencing: Fencing | None = None,
        memo: AnswerMemo | None = None,
        elapsed: float = 0.0,
    ) -> RunMaker:
        """Return what makes the message of a run; `elapsed` seconds of its time are over already."""
        fencing = self._fencing if fencing is None else fencing
        return partial(self._make_run, planned, caller, self._judge(), fencing, memo, elapsed)

    def _make_run(  # noqa: PLR0917 - the first six are known before there are actors
        self,
        planned: Planned,
        caller: Caller,
        judge: RegisteredModel | None,
        fencing: Fencing,
        memo: AnswerMemo | None,
        elapsed: float,
        tree: ModelTree,
        run_id: str,
        sink: EventSink,
    ) -> tuple[Execute, LocalRun]:
        options = planned.options
        chosen = self._registry.chosen(planned.names)
        options.needed(len(chosen))
        self._check_models(planned.strategy, chosen)
        check_tools(planned.request, options, chosen)
        started = trio.current_time() - elapsed
        execute = Execute(
            run_id=run_id,
            request=planned.request,
            models=tuple([model.name for model in chosen]),
            strategy=planned.spec,
            options=options,
            time_left=None if options.timeout is None else max(0.0, options.timeout - elapsed),
        )
        local = LocalRun(
            strategy=planned.strategy,
            targets=tuple([tree.target(model) for model in chosen]),
            requests=tree.requests,
            reminders=tree.reminders,
            fencing=fencing,
            sink=sink,
            started=started,
            deadline=started + (inf if options.timeout is None else options.timeout),
            scorer=self.defaults.scorer,
            judge=None if judge is None else tree.target(judge),
            output=planned.output,
            spending=RunSpending(),
            caller=caller,
            memo=memo,
        )
        return execute, local

    def as_value(self, strategy: Strategy) -> StrategySpec | None:
        """Return a strategy of `planned` as a value from which `again` makes the same; None: it is none."""
        if isinstance(strategy, Synthesize):
            stages = [stage for stage in strategy.stages or () if isinstance(stage, Stage)]
            if any(self._stages.get(stage.name) != stage for stage in stages):
                return None
            strategy = replace(strategy, stages=tuple(stage.name for stage in stages))
        spec = spec_of(strategy)
        try:
            made = make_strategy(spec)
        except BadCall:
            return None
        return spec if made == strategy else None

    def again(self, run: RunSpec) -> Planned:
        """Check what a run is to do that was submitted earlier.

        Raises:
            ModelGone: one of its models is not registered.
            StrategyGone: its strategy does not exist, or is another one.
            BadCall: something else is not allowed any more.
        """
        if run.own_strategy and spec_of(self._strategy) != run.strategy:
            raise StrategyGone(f"the orchestrator's own strategy is no longer {run.strategy.name!r}")
        try:
            strategy = self._strategy if run.own_strategy else self._chosen(run.strategy, None)
        except BadCall as error:
            raise StrategyGone(str(error)) from error
        try:
            asked = self._registry.chosen(run.models)
        except BadCall as error:
            raise ModelGone(str(error)) from error
        check_media(run.request, asked)
        check_tools(run.request, run.options, asked)
        output = output_of(run.request.output)
        return Planned(run.request, run.options, output, strategy, spec_of(strategy), run.models)

    def models_of(self, planned: Planned) -> Sequence[RegisteredModel]:
        """Return the models that a run would ask now."""
        return self._registry.chosen(planned.names)

    def resolved(self, strategy: object) -> Strategy:
        """Return the strategy that a call names, ready to run. Raises `BadCall`."""
        return self._chosen(strategy, None)

    @property
    def strategy(self) -> Strategy:
        """The strategy of runs that name none."""
        return self._strategy

    def _chosen(self, given: object, stages: Sequence[str | Stage] | None) -> Strategy:
        if given is None and stages is None:
            return self._strategy
        strategy = self._strategy if given is None else make_strategy(given)
        if isinstance(strategy, Synthesize):
            # The stages of the call stand before those of its strategy, and these before the orchestrator's.
            choices = (stages, strategy.stages if given is not None else None, self.defaults.stages)
            return strategy.resolve(self._stages, next((each for each in choices if each is not None), None))
        if stages is not None:
            raise _no_stages(strategy)
        return strategy

    def _check_own_options(self, options: RunOptions, asked: Sequence[RegisteredModel]) -> None:
        """Raise `BadCall` if an option is of an unknown model, or one that its model does not take."""
        for name, own in options.per_model.items():
            try:
                model = self._registry.get(name)
            except BadCall as error:
                raise BadCall(f"per_model names an {error}") from None
            if model in asked:
                check_options(own.sampling, [model])

    def _check_models(self, strategy: Strategy, asked: Sequence[RegisteredModel]) -> None:
        check = models_check(strategy)
        if check is not None:
            registered = [model.name for model in self._registry.prioritized()]
            check([model.name for model in asked], registered)

    def _judge(self) -> RegisteredModel | None:
        # Not before a run: models are registered later than the orchestrator is made.
        name = self.defaults.judge
        if name is None:
            return None
        try:
            return self._registry.get(name)
        except BadCall as error:
            raise BadCall(f"the judge is not registered: {error}") from None


def strategy_of(
    strategy: object, stages: Sequence[str | Stage] | None, known: Mapping[str, Stage]
) -> Strategy:
    """Return the strategy of an orchestrator, with its `stages`; `known` are the stages that have a name.

    Raises:
        BadCall: there is no such strategy, or it cannot have these stages.
    """
    made = make_strategy(strategy or Synthesize())
    if isinstance(made, Synthesize):
        return made.resolve(known, stages)
    if stages is not None:
        raise _no_stages(made)
    return made


def _no_stages(strategy: Strategy) -> BadCall:
    return BadCall(
        f"strategy {spec_of(strategy).name!r} has no stages; leave stages out, or use strategy='synthesize'"
    )


def options_of(
    given: RunArguments, system: str | None, defaults: RunOptions
) -> tuple[str | None, RunOptions]:
    """Return the system prompt and the options of a call: those `given`, and the defaults for the rest.

    Raises:
        BadCall: a name is unknown, or a value is not allowed.
    """
    settings = dict(given)
    own_system = checked_system(settings.pop("system", None))
    sampling = settings.pop("options", None)
    for name in ("tools", "tool_choice", "output"):
        settings.pop(name, None)
    if "use_cache" in settings:
        check_flag("use_cache", settings["use_cache"])
        settings["use_cache"] = bool(settings["use_cache"]) and defaults.use_cache
    if settings.get("per_model") is not None:
        settings["per_model"] = model_options_of(settings["per_model"])
    options = defaults.override(settings)
    if sampling is not None:
        options = replace(options, sampling=SamplingOptions.of(sampling))
    return system if own_system is None else own_system, options


def stages_of(owner: object) -> dict[str, Stage]:
    """Return the built-in stages, and those that a method ``_create_<stage>_prompt`` of `owner` makes.

    `owner` is an orchestrator or its class; for a class, the names are right, but the methods are not bound.
    """
    stages = dict(BUILT_IN)
    before, after = _PROMPT_METHOD
    for attribute in dir(owner if isinstance(owner, type) else type(owner)):
        name = attribute.removeprefix(before).removesuffix(after)
        if name and attribute == f"{before}{name}{after}":
            maker = getattr(owner, attribute)
            known = stages.get(name)
            stages[name] = Stage(name=name, prompt=maker) if known is None else replace(known, prompt=maker)
    return stages
