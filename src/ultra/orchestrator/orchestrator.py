"""`MultiLLMOrchestrator`, the API of docs/guide.md.

It only connects the parts: registry, planner, lifespan of the actors, streams.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Self

import trio
from msgspec.structs import replace

from ultra._support.checks import check_flag, check_seconds
from ultra._support.randomness import new_id, new_random
from ultra.actors.model.messages import Generate
from ultra.actors.model.replicas import Replicas
from ultra.actors.model.retry import RetryPolicy
from ultra.bridge.caller import Caller
from ultra.errors import BadCall
from ultra.messages.observers import observers_of
from ultra.messages.options import RunArguments, RunOptions
from ultra.orchestrator.arguments import (
    checked_object,
    checked_scorer,
    checked_stage_label,
    checked_system,
    output_of,
    request_of,
)
from ultra.orchestrator.ensembles import Ensembles
from ultra.orchestrator.event_buffer import EventBuffer, NoReader
from ultra.orchestrator.lifespan import Lifespan
from ultra.orchestrator.overridden import (
    CopyingBuffer,
    NestedRunSink,
    OverriddenRun,
    is_overriding,
    marked,
    outer_run,
)
from ultra.orchestrator.planning import Planner, RunDefaults, options_of, stages_of
from ultra.orchestrator.registration import Registration
from ultra.orchestrator.registry import ModelRegistry, Policies
from ultra.orchestrator.run_end import RunWatch
from ultra.orchestrator.run_metrics import RunMetrics
from ultra.orchestrator.single_request import ask, ask_unregistered
from ultra.orchestrator.streams import LiveRun, RunStream
from ultra.orchestrator.submitted_runs import SubmittedRuns, submitted_runs
from ultra.orchestrator.tree import ModelTree
from ultra.scoring.agreement import agreement
from ultra.stores import open_cache
from ultra.stores.memory import MemoryCache
from ultra.stores.opening import open_shared
from ultra.supervisor.spec import RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Unpack

    from ultra.actors.model.breaker import BreakerPolicy
    from ultra.actors.model.limits import Limits
    from ultra.actors.model.timeouts import Timeouts
    from ultra.config.loading import Configuration
    from ultra.messages.conversation import Conversation
    from ultra.messages.functions import FunctionTool
    from ultra.messages.observers import Observer
    from ultra.messages.options import Quorum
    from ultra.messages.request import SamplingOptions
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.messages.tool_run import ToolRun
    from ultra.orchestrator.registry import Faults
    from ultra.orchestrator.streams import RunSink
    from ultra.orchestrator.tool_loop import ToolArguments, ToolLoop, ToolStream
    from ultra.scoring.agreement import Scorer
    from ultra.stores.contracts import CacheStore
    from ultra.stores.journal_contract import RunJournal
    from ultra.stores.shared_contract import SharedModels
    from ultra.strategies.base import Strategy, StrategySpec
    from ultra.strategies.stages import Stage

__all__ = ["MultiLLMOrchestrator"]


class MultiLLMOrchestrator(Registration, SubmittedRuns):
    """Asks several language models, and merges their answers into one.

    There are three ways to use it. ``async with MultiLLMOrchestrator() as o:`` starts the actors and keeps
    them, as a service needs. ``await nursery.start(o.run)`` does the same in a nursery of yours. Without
    either, each call starts the actors and stops them at its end. Models, weights, caches and metrics
    belong to the orchestrator and stay from call to call. All of it works on trio and on asyncio;
    docs/asyncio.md says which thread runs what. ::

        orchestrator = MultiLLMOrchestrator()
        orchestrator.register_model("llama", llama_client)
        results = await orchestrator.process_responses("Your prompt")
        print(results["final_synthesis"])

    Args:
        max_retries: retries after a failed attempt, so at most ``1 + max_retries`` attempts.
        cache_enabled: whether answers are cached, and equal requests share one call.
        cache: where answers are cached: ``"memory"``, ``"sqlite:///path"``, ``"redis://host"``, or a
            `CacheStore`.
        journal: where submitted runs are kept, so that they outlive the process: ``"sqlite:///runs.db"``,
            ``"redis://host"``, or a `RunJournal`; None: no run can be submitted. See `submit`.
        shared: what several processes share of their models (rates, pauses, circuits, equal calls):
            ``"redis://host"``, or a `SharedModels`; None: each process keeps to its own. See docs/scaling.md.
        single_flight: whether an equal call of another of these processes is waited for, and not made again.
        stages: the stages of runs that name none; None: initial, meta and synthesis.
        strategy: how models are asked and answers merged: a name, such as ``"vote"``, or an object; None:
            ``"synthesize"``, which carries out the stages.
        quorum, grace, timeout, samples, max_cost: the settings of runs that give none; see `RunOptions`.
        system: the system prompt of the initial stage, and of custom stages that have none of their own.
        retry, timeouts, limits, breaker: the policies of models that are registered without their own.
        scorer: a function that scores the initial answers, by default `agreement`; None: no scores.
        judge: the name of a model that grades the initial answers; a grade replaces the score. It must be
            registered before the first run.
        intensity: how often the actor of a model may crash before it stays down.
        random: draws the jitter of waits; give ``random.Random(seed)`` to repeat a run.
        faults: an `ultra.faults.FaultPlan`, which injects faults for tests.
        telemetry: who is told of runs and calls: ``"otel"``, an observer, or a list of these; see
            `ultra.messages.observers.Observer`, and `ultra.telemetry.OpenTelemetry`.

    Raises:
        BadCall: an argument is not allowed; the message says what is.

    Subclasses may override `process_responses`, and define ``_create_<stage>_prompt(self, responses)``
    to add a stage of that name, or to change the prompt of a built-in one.
    """

    def __init__(
        self,
        max_retries: int | None = None,
        cache_enabled: bool = True,  # noqa: FBT001, FBT002 - the guide's signature
        *,
        cache: CacheStore | str | None = None,
        journal: RunJournal | str | None = None,
        shared: SharedModels | str | None = None,
        single_flight: bool = True,
        stages: Sequence[str | Stage] | None = None,
        strategy: str | StrategySpec | Strategy | None = None,
        quorum: Quorum = 1,
        grace: float | None = None,
        timeout: float | None = None,
        samples: int = 1,
        system: str | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        breaker: BreakerPolicy | None = None,
        judge: str | None = None,
        max_cost: float | None = None,
        scorer: Scorer | None = agreement,
        intensity: RestartIntensity | None = None,
        random: Random | None = None,
        faults: Faults | None = None,
        telemetry: str | Observer | Sequence[str | Observer] | None = None,
    ) -> None:
        if cache is not None and not cache_enabled:
            raise BadCall("cache_enabled is False and a cache is given; leave one of them out")
        if max_retries is not None:
            retry = replace(retry or RetryPolicy(), max_retries=max_retries)
        check_flag("cache_enabled", cache_enabled)
        self._cache = open_cache(cache) if cache_enabled else None
        self._system = checked_system(system)
        self._random = checked_object("random", random, Random) or new_random()
        self._intensity = checked_object("intensity", intensity, RestartIntensity) or RestartIntensity()
        self._watch = RunWatch(RunMetrics(), observers_of(telemetry))
        policies = Policies(retry, timeouts, limits, breaker)
        self._shared = open_shared(shared)
        check_flag("single_flight", single_flight)
        replicas = None if self._shared is None else Replicas(self._shared, single_flight=single_flight)
        self._registry = ModelRegistry(self._cache, policies, faults, self._watch.observers, replicas)
        self._faults = faults
        self._ensembles = Ensembles()
        self._planner = Planner(
            self._registry,
            stages_of(self),
            RunDefaults(
                RunOptions(
                    quorum=quorum,
                    grace=grace,
                    timeout=timeout,
                    max_cost=max_cost,
                    samples=samples,
                    use_cache=cache_enabled,
                ),
                strategy=strategy,
                stages=tuple(stages) if isinstance(stages, list) else stages,
                system=self._system,
                scorer=checked_scorer(scorer),
                judge=checked_object("judge", judge, str),
            ),
            secret=(self._cache or MemoryCache()).secret,
        )
        self._submitted = submitted_runs(self, journal)
        own_cache = self._cache if self._cache is not cache else None
        self._lifespan = Lifespan(self._make_tree, own_cache, self._submitted, (self._cache, self._shared))

    @classmethod
    def from_config(cls, source: str | Path | Configuration) -> Self:
        """Return an orchestrator with the models and settings of a configuration file, ``ultra.toml``.

        `source` is its path, or what `ultra.config.load_configuration` has made of it.

        Raises:
            ConfigError: something in the file is not allowed, or a model cannot be connected to, such as for
                lack of a key. The message has file, line and key, and says what is allowed.
            MissingExtra: a model or the cache needs packages that are not installed.
        """
        from ultra.orchestrator.configured import configured  # noqa: PLC0415 - most programs have no file

        return configured(cls, source)

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "process_responses" in cls.__dict__:
            cls.process_responses = marked(cls.process_responses)  # type: ignore[method-assign] # the same method, marked

    # --- start and end -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        before, self._caller = self._caller, None if self._submitted is None else Caller.current()
        try:
            await self._lifespan.enter()
        except BaseException:
            self._caller = before  # another one may have entered it, whose runs go on
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._lifespan.leave(kind, error, trace)

    async def run(
        self, *, task_status: trio.TaskStatus[MultiLLMOrchestrator] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the actors and keep them until cancelled or closed: ``await nursery.start(o.run)``."""
        async with self:
            task_status.started(self)
            await self._lifespan.stopped()

    async def aclose(self, grace: float = 10.0) -> None:
        """Close the orchestrator: refuse new calls, wait until those under way have ended, stop the actors.

        After `grace` seconds, calls that have not ended are cancelled, and raise `OrchestratorClosed`.
        Cancelling this cancels them at once. It may be called again, and by any task. The block of the
        orchestrator, if it was entered, is left as usual.

        Raises:
            BadCall: `grace` is no number of seconds, 0 or more.
        """
        check_seconds("grace", grace, endless=True)
        await self._lifespan.stop(grace)

    # --- asking --------------------------------------------------------------------------------------

    async def process_responses(
        self,
        prompt: Conversation,
        stages: Sequence[str | Stage] | None = None,
        models: Sequence[str] | None = None,
        *,
        strategy: str | StrategySpec | Strategy | None = None,
        **run: Unpack[RunArguments],
    ) -> OrchestrationResult:
        """Ask the models by a strategy, and return the result of the run.

        Cancelling this cancels the calls of the run.

        Args:
            prompt: the question, or a conversation: a list of messages; see `Conversation`.
            stages: names or `Stage` objects, for the strategy ``synthesize``; None: those of the
                orchestrator.
            models: the names of the models that may be asked; None: all.
            strategy: a name or an object; None: that of the orchestrator.
            run: the settings of this run in place of the orchestrator's, see `RunArguments`.

        Raises:
            BadCall: an argument is not allowed; no model was called.
            QuorumNotReached: too few models answered in a step that the run needs.
            StageFailed: your own prompt method, scorer or verifier raised.
            StrategyFailed: your own strategy raised.
            DeadlineExceeded: the run had not ended a second after its `timeout`, so its coordinator hangs.
            OrchestratorClosed: the orchestrator was closed.
        """
        outer = outer_run.get()
        make_sink = NoReader if outer is None else partial(NestedRunSink, outer)
        live = self._live_run(make_sink, prompt, stages=stages, models=models, strategy=strategy, run=run)
        try:
            return await live.outcome()
        finally:
            del live  # it knows the error, whose traceback refers to this frame

    def stream_responses(
        self,
        prompt: Conversation,
        stages: Sequence[str | Stage] | None = None,
        models: Sequence[str] | None = None,
        *,
        strategy: str | StrategySpec | Strategy | None = None,
        chunks: bool = True,
        **run: Unpack[RunArguments],
    ) -> RunStream:
        """Return a stream of the events of a run; arguments are those of `process_responses`.

        Without `chunks`, no `Chunk` or `ReasoningChunk` comes: for a reader who wants to know how far the run
        is, and no text before it is whole. Models are then asked for whole answers, as `process_responses`
        does, which takes less of the machine, and with the timeouts of such.

        Leaving its block cancels the run. If a subclass overrides `process_responses`, that method is what
        runs: the events are those of the runs that it makes, and what it returns is the result. Called by
        that method itself, this streams a run of its own. Later errors are an event, and
        `RunStream.result` raises them. ::

            async with orchestrator.stream_responses("Your prompt") as run:
                async for event in run:
                    print(event)
                result = await run.result()

        Raises:
            BadCall: an argument is not allowed; no model was called.
            OrchestratorClosed: the orchestrator was closed.
        """
        check_flag("chunks", chunks)
        overridden = type(self).process_responses is not MultiLLMOrchestrator.process_responses
        if overridden and not is_overriding(self):
            self._lifespan.check_open()
            run_id = new_id()
            arguments = {"stages": stages, "models": models, "strategy": strategy, **run}
            return RunStream(
                run_id, OverriddenRun(run_id, self.process_responses, prompt, arguments, chunks=chunks)
            )
        outer = outer_run.get()
        make_sink = (
            partial(EventBuffer, listens=chunks)
            if outer is None
            else partial(CopyingBuffer, outer, chunks=chunks)
        )
        live = self._live_run(make_sink, prompt, stages=stages, models=models, strategy=strategy, run=run)
        return RunStream(live.run_id, live)

    async def run_tools(
        self,
        prompt: Conversation,
        functions: Sequence[FunctionTool | Callable[..., object]],
        **run: Unpack[ToolArguments],
    ) -> ToolRun:
        """Ask, call the functions that the models ask for, and go on so until an answer comes.

        Each turn is a run with the typed `functions` as its tools. Those that its calls name are called side
        by side: an async function on the loop of the caller, others in worker threads, all with the caller's
        context variables. Arguments are decoded by the types of the function. A wrong call, and an exception
        of a function with its text, are results that the model reads and can mend. Text is a result as it is,
        an `ImagePart` is an image, all else is JSON. Cancelling this cancels what runs; a function in a
        thread cannot be interrupted: it is given up.

        Raises:
            BadCall: an argument is not allowed, or no model can take tools; no model was called.
            DeadlineExceeded: `timeout` was over before an answer came.
            Exception: what `process_responses` raises, too. `tool_run` of an `UltraError` has the turns that
                were taken before it.
        """
        return await self._tool_loop(prompt, functions, run).run(prompt)

    def stream_tools(
        self,
        prompt: Conversation,
        functions: Sequence[FunctionTool | Callable[..., object]],
        **run: Unpack[ToolArguments],
    ) -> ToolStream:
        """Return a stream of the events of `run_tools`, as `stream_responses` does; see `ToolStream`.

        Raises:
            BadCall: an argument is not allowed; no model was called.
            OrchestratorClosed: the orchestrator was closed.
        """
        from ultra.orchestrator.tool_loop import ToolStream  # noqa: PLC0415 - most programs call no tools

        return ToolStream(self._tool_loop(prompt, functions, run), prompt)

    def _tool_loop(self, prompt: Conversation, functions: object, run: ToolArguments) -> ToolLoop:
        from ultra.orchestrator.tool_loop import ToolLoop  # noqa: PLC0415 - most programs call no tools

        self._lifespan.check_open()
        loop = ToolLoop(self.process_responses, self._lifespan.trio_run, functions, run)
        first: Any = loop.first_run
        stages, models, strategy = (first.pop(name, None) for name in ("stages", "models", "strategy"))
        self._planner.check(prompt, stages, models, strategy, first)
        return loop

    async def get_model_response(
        self,
        model: object,
        prompt: Conversation,
        stage: str = "initial",
        use_cache: bool = True,  # noqa: FBT001, FBT002 - the guide's signature
        *,
        system: str | None = None,
        timeout: float | None = None,
        options: Mapping[str, object] | SamplingOptions | None = None,
        scope: str | None = None,
        output: object = None,
    ) -> ModelResponse:
        """Ask one model, with retries and cache, and return its response.

        Args:
            model: the name of a model, or its client, which need not be registered.
            prompt: the question, or a conversation: a list of messages; see `Conversation`.
            stage: the label of the response, and nothing more.
            use_cache: whether the answer of an equal request may be used, and this one cached.
            system: the system prompt, in place of that of the orchestrator; it stands ahead of the system
                messages of the conversation.
            timeout: seconds for all attempts together; None: no limit.
            options: how the model writes, such as ``{"temperature": 0.2}``.
            scope: for whom the answer is: it is shared only with calls and runs of the same scope.
            output: a type or a JSON schema that the answer must satisfy; see `RunArguments`. The response
                then has its value in `ModelResponse.output`.

        Raises:
            BadCall: an argument is not allowed, or the client cannot be used; no model was called.
            AllAttemptsFailed: all attempts failed, or the answer did not satisfy `output` twice.
            DeadlineExceeded: `timeout` was over first.
            ModelUnregistered: the model was unregistered meanwhile, without `drain`.
            OrchestratorClosed: the orchestrator was closed.
        """
        self._lifespan.check_open()
        given = RunArguments(
            system=system, timeout=timeout, use_cache=use_cache, options=options, scope=scope
        )
        form = output_of(output)
        own_system, run = options_of(given, self._system, RunOptions(use_cache=self._cache is not None))
        message = Generate(
            id=new_id(),
            stage=checked_stage_label(stage),
            request=request_of(prompt, own_system, run.sampling, given, form),
            use_cache=run.use_cache,
            scope=run.scope,
            time_left=run.timeout,
        )
        caller = Caller.current()
        found = self._registry.get(model) if isinstance(model, str) else self._registry.of_client(model)
        if found is not None:
            return await ask(self._lifespan, found, message, caller, form)
        clients = self._registry.unregistered
        return await ask_unregistered(self._lifespan, clients, model, message, caller, form)

    # --- inside --------------------------------------------------------------------------------------

    def _live_run(
        self,
        make_sink: Callable[[str], RunSink],
        prompt: Conversation,
        *,
        stages: Sequence[str | Stage] | None,
        models: Sequence[str] | None,
        strategy: object,
        run: RunArguments,
    ) -> LiveRun:
        self._lifespan.check_open()
        planned = self._planner.planned(prompt, stages, models, strategy, run)
        run_id = new_id()
        make_run = self._planner.maker(planned, Caller.current(), memo=self._recorded(run_id, planned))
        return LiveRun(run_id, self._lifespan, make_run, make_sink, self._watch)

    @property
    def run_defaults(self) -> RunDefaults:
        """The settings of runs that give none of their own."""
        return self._planner.defaults

    @property
    def _plain_process(self) -> object:
        return MultiLLMOrchestrator.process_responses

    def _make_tree(self) -> ModelTree:
        return ModelTree(
            self._registry.prioritized(),
            random=self._random,
            intensity=self._intensity,
            faults=self._faults,
        )
